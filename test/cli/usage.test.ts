/** Wrong usage of each command: status 2, words on standard error, nothing on standard output, nothing touched. And help with an example for each. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");
const folder = mkdtempSync(join(tmpdir(), "barge-usage-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const commands = ["serve", "demo", "put", "get", "del", "range", "txn", "status", "bench"];

/** Runs a command line in an empty folder, so that whatever it creates is seen. */
async function barge(
  ...argv: readonly string[]
): Promise<{ status: number; out: string; err: string }> {
  const child = Bun.spawn([process.execPath, main, ...argv], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"] },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [status, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { status, out, err };
}

test("help names every command", async () => {
  const { status, out } = await barge("--help");
  expect(status).toBe(0);
  for (const command of commands) expect(out).toMatch(new RegExp(`^  ${command}\\b`, "m"));
});

test.concurrent.each(commands)("%s --help has an example", async (command) => {
  const { status, out, err } = await barge(command, "--help");
  expect({ status, err }).toEqual({ status: 0, err: "" });
  expect(out).toStartWith(`Usage: barge ${command}`);
  expect(out).toMatch(new RegExp(`Examples?:\\n(.*\\n)*?.*barge ${command}`));
});

const wrong: readonly (readonly [argv: string, word: RegExp])[] = [
  ["", /Usage: barge/],
  ["launch", /launch/],
  ["serve --frobnicate", /--frobnicate/],
  ["serve --node-id 0", /--node-id/],
  ["serve --initial-members 1=a", /--initial-members/],
  ["serve --node-id 9 --initial-members 1=127.0.0.1:9091", /--node-id 9/],
  ["serve --listen 0.0.0.0:9091", /--insecure/],
  ["serve --config none.toml", /none\.toml/],
  ["demo --nodes 0", /--nodes/],
  ["demo --frobnicate", /--frobnicate/],
  ["put", /key/],
  ["put a b c", /argument/],
  ["put a b --prev-revision x", /--prev-revision/],
  ["get", /key/],
  ["get a --consistency eventual", /--consistency/],
  ["get a --timeout 0", /--timeout/],
  ["get a --timeout 2h", /--timeout/],
  ["get a --group x", /--group/],
  ["get a --endpoints nonsense", /nonsense/],
  ["del", /key/],
  ["range --limit 0", /--limit/],
  ["status --frobnicate", /--frobnicate/],
];

test.concurrent.each(wrong)("wrong: barge %s", async (line, word) => {
  const { status, out, err } = await barge(...line.split(" ").filter((part) => part !== ""));
  expect({ status, out }).toEqual({ status: 2, out: "" });
  expect(err).toMatch(word);
});

test("nobody at the endpoint: status 3, with --json one document", async () => {
  // Port 1 is nobody's.
  const common = ["--endpoints", "127.0.0.1:1", "--timeout", "300ms"];
  const { status, out, err } = await barge("get", "a", ...common, "--json");
  expect(status).toBe(3);
  expect(JSON.parse(out)).toMatchObject({ error: { code: "unreachable", retryable: true } });
  expect(err).toContain("127.0.0.1:1");
  expect((await barge("put", "a", "b", ...common)).status).toBe(3);
  expect((await barge("status", ...common)).status).toBe(3);
});

test("none of this has created anything", () => {
  expect(readdirSync(folder)).toEqual([]);
});
