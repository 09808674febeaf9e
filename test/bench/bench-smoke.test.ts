/**
 * Runs every suite of bench/ with its small sizes and each of its cases a few times, so that none can rot. Mitata itself, which takes
 * seconds to settle, is replaced by a loop.
 */
import { afterAll, expect, mock, test } from "bun:test";
import { Glob } from "bun";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const iterations = 3;
const folder = join(import.meta.dir, "..", "..", "bench");
const scratch = mkdtempSync(join(tmpdir(), "barge-bench-smoke-"));
const home = process.cwd();
process.chdir(scratch);
afterAll(() => {
  process.chdir(home);
  rmSync(scratch, { recursive: true, force: true });
});

type Body = (...args: unknown[]) => unknown;
type Case = Record<number, () => unknown> & { readonly bench: Body };

let cases: { readonly name: string; readonly body: Body }[] = [];
let ran: string[] = [];

mock.module("mitata", () => ({
  bench: (name: string, body: Body) => void cases.push({ name, body }),
  group: (_name: string, register: () => void) => register(),
  do_not_optimize: () => {},
  run: async () => {
    const registered = cases;
    cases = [];
    for (const { name, body } of registered) {
      await runCase(body);
      ran.push(name);
    }
  },
}));

/** A case is a function, or a generator that yields what prepares the arguments, and the function. */
async function runCase(body: Body): Promise<void> {
  if (body.constructor.name !== "GeneratorFunction") return repeat(body);
  for (const each of body({}) as Iterable<Body | Case>) {
    if (typeof each === "function") await repeat(each);
    else
      await repeat(() =>
        each.bench(
          ...Object.keys(each).flatMap((key) => (key === "bench" ? [] : [each[Number(key)]!()])),
        ),
      );
  }
}

async function repeat(body: Body): Promise<void> {
  for (let i = 0; i < iterations; i++) await body();
}

for (const file of [...new Glob("*.bench.ts").scanSync(folder)].toSorted()) {
  test(file, async () => {
    ran = [];
    const suite = (await import(join(folder, file))) as { run(small: boolean): Promise<void> };
    await suite.run(true);
    expect(ran.length).toBeGreaterThan(0);
  });
}
