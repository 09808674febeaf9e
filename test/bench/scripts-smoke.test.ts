/** The scripts of bench/ that run whole clusters, for a moment each, so that they cannot rot. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const scratch = mkdtempSync(join(tmpdir(), "barge-bench-scripts-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function run(script: string, options: string): Promise<string> {
  const file = join(import.meta.dir, "../../bench", script);
  const child = Bun.spawn([process.execPath, file, ...options.split(" ")], {
    cwd: scratch,
    stderr: "pipe",
  });
  const [text, complaints] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  expect(await child.exited, complaints).toBe(0);
  return text;
}

test("the speed table has a row for each load, and the disk below", async () => {
  const text = await run("speed-table.ts", "--runs 1 --seconds 0.3 --warmup 0.1 --only put-64");
  expect(text).toMatch(/^\| put 256 B, 64 in flight \| `put --in-flight 64` \| [\d,]+ \(/m);
  expect(text).toMatch(/^The disk beside them .* 4 KiB, 1 writer: p50 [\d.]+ \(/m);
});

test("the profile tells what client, leader and follower did", async () => {
  const text = await run("profile.ts", "--value-bytes 16 --seconds 1 --warmup 0.5");
  expect(text).toMatch(/^\| part \| leader \| follower \| client \|$/m);
  const [, leader, follower, client] = /^\| all \| (\d+) \| (\d+) \| (\d+) \|$/m.exec(text) ?? [];
  for (const total of [leader, follower, client]) expect(Number(total)).toBeGreaterThan(0);
});

test("groups that have nothing to do: what they cost", async () => {
  const text = await run("idle-groups.ts", "--groups 5 --seconds 0.2");
  expect(text).toMatch(/^memory per group and node: heap [\d.]+ KiB, process -?[\d.]+ KiB$/m);
  expect(text).toMatch(/^each node: [\d.]+ % of a core; messages\/s: \d+, \d+, \d+$/m);
}, 20_000);

test("a load is spread over groups that are made for it", async () => {
  const main = join(import.meta.dir, "../../src/main.ts");
  const words = [
    "put",
    "--groups",
    "4",
    "--in-flight",
    "16",
    "--seconds",
    "0.3",
    "--warmup",
    "0.1",
  ];
  const child = Bun.spawn([process.execPath, main, "bench", ...words, "--json"], {
    cwd: scratch,
    stderr: "ignore",
  });
  const report = JSON.parse(await new Response(child.stdout).text()) as Record<string, number>;
  expect(await child.exited).toBe(0);
  expect(report).toMatchObject({ groups: 4, errors: 0 });
  expect(report["operations"]).toBeGreaterThan(0);
}, 60_000);
