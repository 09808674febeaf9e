/**
 * Imports point one way: the arrows of the design between rooms, and nothing else [45]. Type imports count.
 */
import { expect, test } from "bun:test";
import { Glob } from "bun";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dir, "..", "..");

/** Leaves that every room may import. */
const leaves = ["errors.ts", "limits.ts", "version.ts", "wire/batch.ts"];

/** Room → what it may import besides the leaves and itself. An entry with `.ts` is one file; `types:` allows type imports only. */
const arrows: Record<string, readonly string[]> = {
  wire: [],
  net: ["wire", "telemetry"],
  raft: ["types:wire/messages.ts"],
  storage: ["wire", "fatal.ts", "telemetry"],
  machine: [
    "wire",
    "storage/disk.ts",
    "storage/file-syncer.ts",
    "storage/snapshot-files.ts",
    "storage/sqlite.ts",
    "storage/sqlite-image.ts",
    "storage/sync-latch.ts",
    "storage/syncer.ts",
    "telemetry",
  ],
  server: ["wire", "net", "telemetry"],
  client: ["wire", "net"],
  conform: [
    "machine/http/contract.ts",
    "machine/http/http-calls.ts",
    "machine/http/update-body.ts",
    "machine/http/update-results.ts",
  ],
  telemetry: [],
  node: [
    "server",
    "machine",
    "storage",
    "net",
    "raft",
    "wire",
    "telemetry",
    "fatal.ts",
    "version.ts",
  ],
  cli: ["node", "client", "conform", "config.ts", "fatal.ts", "telemetry", "version.ts"],
  "main.ts": ["cli", "config.ts"],
  "config.ts": [],
  "errors.ts": [],
  "limits.ts": [],
  "fatal.ts": [],
  "version.ts": [],
};

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typesOnly: boolean;
}

/** Every import of a source text: static, type-only, side-effect, dynamic, re-export, and Worker entry points by URL. */
function importsOf(source: string): { specifier: string; typesOnly: boolean }[] {
  const found: { specifier: string; typesOnly: boolean }[] = [];
  const statement = /(?:^|\n)\s*(?:import|export)\s+(type\s+)?([^"';]*?\s*from\s*)?"([^"]+)"/g;
  for (const match of source.matchAll(statement)) {
    found.push({ specifier: match[3]!, typesOnly: match[1] !== undefined });
  }
  for (const match of source.matchAll(/(?:import\(|new URL\()\s*"([^"]+)"/g)) {
    found.push({ specifier: match[1]!, typesOnly: false });
  }
  return found;
}

async function allImports(): Promise<Import[]> {
  const imports: Import[] = [];
  for await (const path of new Glob("src/**/*.ts").scan(root)) {
    const source = await Bun.file(join(root, path)).text();
    for (const { specifier, typesOnly } of importsOf(source)) {
      if (!specifier.startsWith(".")) continue;
      const to = relative(join(root, "src"), join(root, dirname(path), specifier));
      imports.push({ from: relative("src", path), to, typesOnly });
    }
  }
  return imports;
}

function room(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : path;
}

function allowed({ from, to, typesOnly }: Import): boolean {
  if (room(from) === room(to) || leaves.includes(to)) return true;
  return (arrows[room(from)] ?? []).some((arrow) => {
    if (arrow.startsWith("types:")) return typesOnly && arrow.slice("types:".length) === to;
    return arrow === to || arrow === room(to);
  });
}

test("every import follows an arrow of the design", async () => {
  const imports = await allImports();
  expect(imports.length).toBeGreaterThan(20);
  const wrong = imports.filter((i) => !allowed(i)).map((i) => `${i.from} → ${i.to}`);
  expect(wrong).toEqual([]);
});

test("the finder sees every kind of import", () => {
  const source = [
    'import type { A } from "./a.ts";',
    'import { b, type B } from "./b.ts";',
    'import {\n  c,\n} from "./c.ts";',
    'import "./d.ts";',
    'export { e } from "./e.ts";',
    'export type { F } from "./f.ts";',
    'const g = await import("./g.ts");',
    'new Worker(new URL("./h.ts", import.meta.url));',
  ].join("\n");
  const found = importsOf(source).map(({ specifier, typesOnly }) => [specifier, typesOnly]);
  expect(found).toEqual([
    ["./a.ts", true],
    ["./b.ts", false],
    ["./c.ts", false],
    ["./d.ts", false],
    ["./e.ts", false],
    ["./f.ts", true],
    ["./g.ts", false],
    ["./h.ts", false],
  ]);
});

test("an arrow that the design does not have is refused", () => {
  const refuse = (from: string, to: string, typesOnly = true): void =>
    expect(allowed({ from, to, typesOnly })).toBe(false);
  refuse("raft/raft.ts", "storage/log-store.ts");
  refuse("raft/raft.ts", "wire/messages.ts", false);
  refuse("wire/frame.ts", "raft/ready.ts");
  refuse("storage/log-store.ts", "raft/ready.ts");
  refuse("client/client.ts", "node/node.ts");
  refuse("net/connection.ts", "fatal.ts");
});

const nondeterminism = [
  /\bDate\b/,
  /\bperformance\b/,
  /Math\.random|\brandom(?:Bytes|Int|UUID)\b|\bcrypto\b/,
  /\bsetTimeout\b|\bsetInterval\b|\bsetImmediate\b|\bqueueMicrotask\b/,
  /\bPromise\b|\basync\b|\bawait\b/,
  /\bBun\./,
  /\bprocess\./,
  /\bIntl\b|toLocale/,
];

/** Files that match one of the patterns, and that pattern. */
async function matching(
  paths: AsyncIterable<string>,
  banned: readonly RegExp[],
): Promise<string[]> {
  const found: string[] = [];
  for await (const path of paths) {
    const source = await Bun.file(join(root, path)).text();
    const code = source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/.*$/gm, "");
    for (const pattern of banned) if (pattern.test(code)) found.push(`${path}: ${pattern.source}`);
  }
  return found;
}

/**
 * Whatever decides what a command does, and what it answers: what they import among themselves too. The rest of the room moves bytes to and from files,
 * and may look at a clock for that.
 */
const applying = [
  "sessions",
  "kv-apply",
  "kv-txn",
  "kv-layers",
  "kv-read",
  "state-hash",
  "outcomes",
];

test("what is applied depends on the log alone: no clock, chance, I/O or promise where commands take effect", async () => {
  const imports = await allImports();
  const reached = new Set(applying.map((name) => `machine/${name}.ts`));
  for (const path of reached) {
    for (const { from, to, typesOnly } of imports) {
      if (from === path && !typesOnly && to !== "limits.ts" && to !== "errors.ts") reached.add(to);
    }
  }
  expect([...reached]).toContain("machine/session-table.ts");
  expect([...reached]).toContain("machine/memtable.ts");
  const paths = (async function* () {
    for (const path of reached) yield `src/${path}`;
  })();
  expect(await matching(paths, nondeterminism)).toEqual([]);
});

test("the core and the wire touch no clock, chance, I/O or promise", async () => {
  const imported = /from "(?:bun|bun:[a-z]+|node:(?!zlib)[a-z/_]+)"/;
  const paths = new Glob("src/{raft,wire}/**/*.ts").scan(root);
  expect(await matching(paths, [...nondeterminism, imported])).toEqual([]);
});
