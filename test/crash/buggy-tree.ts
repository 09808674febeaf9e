/** A copy of the code with a bug planted in it, and what finds it: crash images, or a test of the storage. */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crashImages, type Subject } from "./images.ts";
import { TraceCutError } from "./trace.ts";
import { type StorageBug, storageBugs, type StorageBugName } from "./storage-bugs.ts";

const root = join(import.meta.dir, "../..");
/** Of one seed, over all of its lives. */
const imagesMax = 300;

/** What was found with that seed; undefined where the bug survives. */
export async function findBug(name: StorageBugName, seed: number): Promise<string | undefined> {
  const bug: StorageBug = storageBugs[name];
  using tree = new BuggyTree(bug);
  const { foundBy, named } = bug;
  if (foundBy !== undefined) return await failingTest(tree.path, foundBy, named);
  try {
    const of: Subject = bug.of ?? "storage";
    const options = { of, seed, images: imagesMax, rotEach: 12, source: tree.path, first: true };
    const { findings } = await crashImages(options);
    return findings[0];
  } catch (error) {
    if (error instanceof TraceCutError) return undefined;
    // Some do not even live.
    return String(error);
  }
}

async function failingTest(
  tree: string,
  file: string,
  named: string | undefined,
): Promise<string | undefined> {
  const filter = named === undefined ? [] : ["-t", named];
  const child = Bun.spawn([process.execPath, "test", file, ...filter], {
    cwd: tree,
    stdout: "ignore",
    stderr: "pipe",
    env: { ...process.env, CI: "true" },
  });
  const said = await new Response(child.stderr).text();
  if ((await child.exited) === 0) return undefined;
  return /^\(fail\) .*$/m.exec(said)?.[0] ?? said.slice(-500);
}

/** Removed when disposed of. */
class BuggyTree implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "barge-bug-"));

  constructor({ changes }: StorageBug) {
    const tests = ["crash", "sim", "machine", "storage", "e2e", "cli"].map(
      (folder) => `test/${folder}`,
    );
    for (const name of ["src", ...tests, "package.json", "tsconfig.json"]) {
      cpSync(join(root, name), join(this.path, name), { recursive: true });
    }
    symlinkSync(join(root, "node_modules"), join(this.path, "node_modules"));
    for (const { file, from, to } of changes) {
      const path = join(this.path, "src", file);
      const text = readFileSync(path, "utf8");
      const times = text.split(from).length - 1;
      if (times !== 1) {
        throw new Error(`the text to change is ${times} times in src/${file}: ${from}`);
      }
      writeFileSync(
        path,
        text.replace(from, () => to),
      );
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
