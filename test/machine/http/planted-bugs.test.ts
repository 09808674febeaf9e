/** Each planted bug is found by the tests of this folder. */
import { expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PlantedBug, plantedBugs } from "./planted-bugs.ts";

const root = join(import.meta.dir, "../../..");
const here = "test/machine/http";
/** Quick ones first. */
const finders = ["http-machine.test.ts", "random-faults.test.ts"];
const testMsMax = 60_000;

test(
  "without any of them nothing is found",
  async () => {
    expect(await findsIn(undefined)).toBe(false);
  },
  testMsMax,
);

for (const [name, bug] of Object.entries(plantedBugs)) {
  test(
    `${name}: ${bug.what}`,
    async () => expect(await findsIn(bug), `${name} survives`).toBe(true),
    testMsMax,
  );
}

async function findsIn(bug: PlantedBug | undefined): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), "barge-bug-"));
  try {
    copyTo(folder);
    if (bug !== undefined) plant(bug, folder);
    return await isFound(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function copyTo(folder: string): void {
  const needed = ["src", here, "test/machine/log.ts", "test/sim/random.ts", "package.json"];
  for (const name of [...needed, "tsconfig.json"]) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
}

function plant({ file, from, to }: PlantedBug, folder: string): void {
  const path = join(folder, "src/machine/http", file);
  const text = readFileSync(path, "utf8");
  const times = text.split(from).length - 1;
  if (times !== 1) throw new Error(`the text to change is ${times} times in ${file}: ${from}`);
  writeFileSync(
    path,
    text.replace(from, () => to),
  );
}

async function isFound(folder: string): Promise<boolean> {
  for (const finder of finders) {
    const child = Bun.spawn([process.execPath, "test", "--bail", join(here, finder)], {
      cwd: folder,
      stdout: "ignore",
      stderr: "ignore",
      env: { ...process.env, SEEDS: "20", CI: "true" },
    });
    if ((await child.exited) !== 0) return true;
  }
  return false;
}
