/** src/storage/README.md names every message with which storage ends or refuses a node, in the very words, and every file of a data folder. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fatalTable } from "../../src/fatal.ts";

const src = join(import.meta.dir, "../../src");
const readme = readFileSync(join(src, "storage/README.md"), "utf8");

/** What the table of messages quotes, one or more a row. */
const quoted = readme
  .slice(readme.indexOf("## Messages"), readme.indexOf("## Code"))
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .flatMap((line) => [...line.split(" | ")[0]!.matchAll(/`([^`]+)`/g)].map((match) => match[1]!))
  .filter((text) => !text.startsWith("identity.json"));

const sources = ["storage", "machine", "node"].flatMap((room) =>
  readdirSync(join(src, room))
    .filter((name) => name.endsWith(".ts"))
    .map((name) => ({ room, name, text: readFileSync(join(src, room, name), "utf8") })),
);

const sqliteWords = "disk I/O error";

test("what it quotes is what is said", () => {
  const all = sources.map(({ text }) => text).join("\n");
  for (const words of quoted) if (words !== sqliteWords) expect(all).toContain(words);
});

test("each message that storage ends or refuses with is there", () => {
  const missing: string[] = [];
  for (const { room, name, text } of sources) {
    if (room !== "storage") continue;
    // Reason and words of each; what is made of variables alone says nothing of its own.
    const calls = text.matchAll(
      /(?:FatalError|SyncError|DiskFullError|fatal)\(\s*(?:[^"`()]*"[a-z_]+",\s*)?(?<words>["`][^"`]*["`])/g,
    );
    for (const call of calls) {
      const words = call.groups!["words"]!.slice(1, -1);
      if (words in fatalTable || words.replaceAll(/\$\{[^}]*\}|[^a-z]/g, "").length < 3) continue;
      if (!quoted.some((part) => words.includes(part))) missing.push(`${name}: ${words}`);
    }
  }
  expect(missing).toEqual([]);
});

test("each file of a data folder is there", () => {
  const layout = readFileSync(join(src, "storage/data-dir.ts"), "utf8");
  const names = / barge-data\/ (.*)\n/.exec(layout)![1]!.trim().split(/\s+/);
  expect(names.length).toBeGreaterThan(5);
  for (const name of names) expect(readme).toContain(`\`${name.replace("/", "")}`);
});
