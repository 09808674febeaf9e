/** Shrinking keeps what broke and leaves out the rest. The break is made here, as a correct product has none. */
import { expect, test } from "bun:test";
import { join } from "node:path";

test("a failing run becomes smaller and still fails in the same way", async () => {
  const run = async (command: readonly string[]): Promise<string> => {
    const child = Bun.spawn([process.execPath, ...command], { stdout: "ignore", stderr: "pipe" });
    return new Response(child.stderr).text();
  };
  const script = join(import.meta.dir, "run.ts");
  const text = await run([script, "--seeds", "200", "--bug", "readBeforeOwnCommit"]);
  const [, large] = /^seed \d+ fails after (\d+) events/m.exec(text) ?? [];
  const [, small, broke] = /^smallest of \d+ runs, (\d+) events: (\w+ of \w)/m.exec(text) ?? [];
  expect(text).toContain(broke ?? "no smallest run");
  expect(Number(small)).toBeLessThan(Number(large));
  const commands = [...text.matchAll(/^repeat: bun (.*)$/gm)].map(([, command]) => command!);
  expect(commands).toHaveLength(2);
  const [path, ...flags] = commands[1]!.split(" ");
  expect(path).toBe("test/sim/run.ts");
  expect(flags).toContain("--without");
  const again = await run([script, ...flags, "--no-shrink"]);
  expect(again).toMatch(new RegExp(`^seed \\d+ fails after ${small} events: Violation: ${broke}`));
});
