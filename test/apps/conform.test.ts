/** `barge conform`: it finds nothing wrong with our applications, and finds each mistake that is planted in one of them. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { conform, type Finding } from "../../src/conform/conform.ts";
import { type Language, languages, prepared, TestApplication } from "./applications.ts";
import { plant, type PlantedMistake, plantedMistakes } from "./planted-mistakes.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(tmpdir(), "barge-conform-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const source = await Bun.file(join(import.meta.dir, "typescript", "app.ts")).text();
const seed = Math.floor(Math.random() * 2 ** 32);

function randomFrom(start: number): () => number {
  let state = start;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

let folders = 0;

async function findings(language: Language, kills: boolean): Promise<readonly Finding[]> {
  await using app = new TestApplication(language, join(folder, `data${folders++}`));
  const { PATH: path } = process.env;
  const words = language.command.map((word) => `'${word}'`).join(" ");
  const start = `cd / && PATH='${path}' PORT=${app.port} DATA_DIR='${app.dataDir}' exec ${words}`;
  if (!kills) await app.start();
  return await conform(
    {
      url: app.url,
      group: 0,
      timeoutMs: 20_000,
      startMs: 20_000,
      start: kills ? start : undefined,
      updates: ["append k {n}", "set k{n} {n}", "append k again{n}"],
      reads: ["get k", "get k{n}"],
      sync: false,
      random: randomFrom(seed),
    },
    () => {},
  );
}

const wrong = (found: readonly Finding[]): Finding[] =>
  found.filter(({ verdict }) => verdict === "fault");

for (const language of languages) {
  test.concurrent.skipIf(!prepared(language))(
    `nothing is wrong with the application in ${language.name}, whenever it is killed`,
    async () => {
      const found = await findings(language, true);
      expect({ seed, wrong: wrong(found) }).toEqual({ seed, wrong: [] });
      const skipped = found.filter(({ verdict }) => verdict === "skipped");
      expect([found.length, skipped.length]).toEqual([20, 2]);
    },
  );
}

// Most of it is waiting.
describe.concurrent("a mistake that is found", () => {
  test.each(plantedMistakes.map((mistake): [string, PlantedMistake] => [mistake.name, mistake]))(
    "%s",
    async (name, mistake) => {
      const path = join(folder, `${name.replaceAll(/[^a-z0-9]+/g, "-")}.ts`);
      writeFileSync(path, plant(source, mistake));
      const command = [process.execPath, path];
      const [first] = wrong(await findings({ name, command }, mistake.needsKill === true));
      expect({ seed, found: first !== undefined }).toEqual({ seed, found: true });
      expect(mistake.foundBy).toContain(first!.title);
      expect(first!.message).toMatch(mistake.says);
      expect(first!.todo).not.toBe("");
    },
  );
});
