/**
 * The comparison with other systems, as far as seconds suffice: Barge's half of it for real, the table from recorded answers, and that
 * the versions of the Go harnesses are pinned. The harnesses themselves are not built here: that takes Go, its module proxy and minutes.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeLoad, type PeerLoad, peerLoads } from "../../bench/peers/loads.ts";
import { syncsByNode } from "../../bench/peers/syncs.ts";
import {
  barge,
  diskCommand,
  parseBarge,
  parseDisk,
  parsePeer,
  peers,
  peerSystem,
} from "../../bench/peers/systems.ts";
import { doubtsOf, markdownTable, rowsOf, type Run, spread } from "../../bench/peers/table.ts";

const folder = join(import.meta.dir, "..", "..", "bench", "peers");
const scratch = mkdtempSync(join(tmpdir(), "barge-peers-test-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const load: PeerLoad = peerLoads.find(({ name }) => name === "put-256-64")!;
const timing = { warmupSeconds: 0.1, seconds: 0.2 };

const recordedBarge = `{"benchmark":"put","nodes":3,"connections":1,"inFlight":64,"batch":1,"valueBytes":256,"keySpace":100000,"seconds":5.001,"groups":1,"operations":302540,"operationsPerSecond":60508,"megabytesPerSecond":15.49,"latencyMs":{"p50":0.911,"p90":1.522,"p99":4.35,"p999":9.8,"max":31.2},"errors":1,"unknown":2,"syncs":{"count":4344,"p50Ms":0.61,"p99Ms":2.2,"commandsPerSync":69.6},"cpuSeconds":{"client":1.9,"nodes":[2.6,1.7,1.7]},"peakRssMb":[122,122,129],"environment":{"bun":"1.4.5","cores":2,"filesystem":"ext4","load":0.2,"commit":"c513ef1"},"doubts":[]}`;
const recordedPeer = `{"operationsPerSecond":6876.5,"p50Ms":6.88128,"p99Ms":41.94304,"errors":0,"version":"3.6.16"}`;

test("recorded answers are read", () => {
  expect(parseBarge(recordedBarge)).toMatchObject({
    operationsPerSecond: 60_508,
    p50Ms: 0.911,
    p99Ms: 4.35,
    errors: 3,
  });
  expect(parseBarge(recordedBarge).version).toContain("commit c513ef1");
  expect(parsePeer(recordedPeer)).toEqual({
    operationsPerSecond: 6_876.5,
    p50Ms: 6.88128,
    p99Ms: 41.94304,
    errors: 0,
    version: "3.6.16",
  });
});

test("an answer that is no measurement is refused", () => {
  expect(() => parsePeer("")).toThrow();
  expect(() => parsePeer(`{"operationsPerSecond":1}`)).toThrow("not a measurement");
  const idle = recordedPeer.replace("6876.5", "0").replace("}", `,"firstError":"no leader"}`);
  expect(() => parsePeer(idle)).toThrow("nothing was answered: no leader");
});

test("Barge's half runs: its command is accepted, and its answer read", async () => {
  const run = Bun.spawn([...barge.command(load, timing, scratch)], { stderr: "ignore" });
  const text = await run.stdout.text();
  expect(await run.exited).toBe(0);
  const { operationsPerSecond, p50Ms } = barge.parse(text);
  expect(operationsPerSecond).toBeGreaterThan(0);
  expect(p50Ms).toBeGreaterThan(0);
});

test("the disk of the same sitting: its smallest append, for one writer and three", async () => {
  const run = Bun.spawn([...diskCommand(scratch, 0.02)], { stderr: "ignore" });
  const floors = parseDisk(await run.stdout.text());
  expect(floors.map(({ bytes, writers }) => [bytes, writers])).toEqual([
    [4_096, 1],
    [4_096, 3],
  ]);
});

test("without Go the comparison is skipped, with the reason", async () => {
  const run = Bun.spawn([process.execPath, join(folder, "run.ts"), "--small"], {
    env: { PATH: scratch },
    stderr: "pipe",
  });
  const [text, words] = await Promise.all([run.stdout.text(), run.stderr.text()]);
  expect(await run.exited).toBe(0);
  expect(text).toStartWith("Skipped");
  for (const { name } of peers) {
    expect(words).toContain(`skip ${name}: there is no \`go\` on the PATH`);
  }
});

function run(system: string, round: number, operationsPerSecond: number, more = {}): Run {
  const measured = { operationsPerSecond, p50Ms: 1, p99Ms: 2, errors: 0, version: "1" };
  return { ...measured, load: load.name, round, system, foreignCores: 0, ...more };
}

test("a ratio is taken within a round, and the median is of the ratios", () => {
  // The machine halves its speed from round to round; the third round of the peer failed.
  const runs = [
    run("Barge", 1, 80_000),
    run("etcd", 1, 10_000),
    run("etcd", 2, 10_000),
    run("Barge", 2, 40_000),
    run("Barge", 3, 20_000),
    run("Barge", 4, 10_000),
    run("etcd", 4, 5_000),
  ];
  const [ours, theirs, ...rest] = rowsOf([load], ["Barge", "etcd", "absent"], runs);
  expect(rest).toEqual([]);
  expect(ours).toMatchObject({ rounds: 4, operationsPerSecond: { median: 30_000 } });
  expect(ours!.ratio).toBeUndefined();
  // Of 8, 4 and 2. Medians of the rates would give 3.
  expect(theirs).toMatchObject({ rounds: 3, ratio: { median: 4, min: 2, max: 8 } });
});

test("spread: odd, even, single", () => {
  expect(spread([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
  expect(spread([4, 1, 2, 3])).toEqual({ median: 2.5, min: 1, max: 4 });
  expect(spread([10, 9])).toEqual({ median: 9.5, min: 9, max: 10 });
  expect(spread([7])).toEqual({ median: 7, min: 7, max: 7 });
});

test("the table shows every load and system once, aligned", () => {
  const rows = rowsOf(
    [load],
    ["Barge", "etcd"],
    [
      run("Barge", 1, 60_000.4),
      run("etcd", 1, 6_000),
      run("Barge", 2, 60_000.4),
      run("etcd", 2, 5_000),
    ],
  );
  expect(markdownTable([load], rows).split("\n")).toEqual([
    "| load                    | system |           operations/s | p50 ms |            Barge / system |",
    "| ----------------------- | ------ | ---------------------: | -----: | ------------------------: |",
    "| put 256 B, 64 in flight | Barge  |                 60,000 |   1.00 |                           |",
    "| put 256 B, 64 in flight | etcd   | 5,500 (5,000 to 6,000) |   1.00 | 11.00x (10.00x to 12.00x) |",
  ]);
});

test("doubts: other work, failed operations, failed runs, few rounds", () => {
  const runs = [
    run("Barge", 1, 10, { foreignCores: 0.3 }),
    run("Barge", 2, 10),
    run("etcd", 1, 10, { errors: 2, firstError: "too many requests" }),
  ];
  expect(doubtsOf([load], ["Barge", "etcd", "silent"], runs, 2)).toEqual([
    "other work took more than 0.25 cores during 1 of 3 runs (up to 0.30)",
    "etcd, put 256 B, 64 in flight: 1 of 2 rounds succeeded",
    "etcd, put 256 B, 64 in flight: 2 operations failed, first: too many requests",
    "silent, put 256 B, 64 in flight: 0 of 2 rounds succeeded",
    "fewer than 3 rounds: the spread says nothing",
  ]);
  const quiet = [1, 2, 3].map((round) => run("Barge", round, 10));
  expect(doubtsOf([load], ["Barge"], quiet, 3)).toEqual([]);
});

test("the loads are those that are promised", () => {
  expect(peerLoads.map(describeLoad)).toEqual([
    "put 256 B, 1 in flight",
    "put 256 B, 64 in flight",
    "put 256 B, 1,000 in flight",
    "put 16 B, 10,000 in flight",
    "put 1 KiB, 1,000 in flight",
    "linearizable get 256 B, 64 in flight",
    "linearizable get 256 B, 1,000 in flight",
    "put 256 B, 1,000 in flight, 16 groups",
    "put 256 B, 1,000 in flight, 48 groups",
    "put 256 B, 16,000 in flight",
    "put 256 B, 16,000 in flight, 16 groups",
    "put 256 B, 16,000 in flight, 48 groups",
  ]);
});

test("syncs are counted by the node whose file they are about", () => {
  const trace = [
    "101 fdatasync(7</data/run-x/node1/wal/0.wal>) = 0",
    "102 fdatasync(7</data/run-x/node1/wal/0.wal> <unfinished ...>",
    "103 fsync(9</data/run-x/node2>) = 0",
    "102 <... fdatasync resumed>) = 0",
    "104 fsync(3</elsewhere/file>) = 0",
  ].join("\n");
  const counts = [...syncsByNode(trace)].map(([node, calls]) => [node, Object.fromEntries(calls)]);
  expect(counts).toEqual([
    ["node1", { fdatasync: 2 }],
    ["node2", { fsync: 1 }],
  ]);
});

for (const peer of peers) {
  const at = (name: string): string => readFileSync(join(folder, peer.folder, name), "utf8");

  test(`${peer.name}: every module is pinned and has its checksums`, () => {
    const [required, replaced] = at("go.mod").split("\nreplace ");
    expect(replaced).toBe("barge/bench/peers/common => ../common\n");
    const modules = [...required!.matchAll(/^\t(\S+) (\S+)/gm)].map(([, path, version]) => ({
      path: path!,
      version: version!,
    }));
    const foreign = modules.filter(({ path }) => path !== "barge/bench/peers/common");
    expect(foreign.length).toBe(modules.length - 1);
    expect(foreign.length).toBeGreaterThan(5);
    const sums = at("go.sum");
    for (const { path, version } of foreign) {
      expect(version).toMatch(/^v\d+\.\d+\.\d+/);
      expect(sums).toContain(`${path} ${version} h1:`);
      expect(sums).toContain(`${path} ${version}/go.mod h1:`);
    }
    // What the program imports is required, not only dragged in by others.
    const direct = [...required!.matchAll(/^\t(\S+) \S+$/gm)].map(([, path]) => path!);
    for (const [, path] of at("main.go").matchAll(/^\t(?:\w+ )?"([\w-]+\.[^"]+|barge[^"]+)"$/gm)) {
      expect(direct.some((module) => path === module || path!.startsWith(`${module}/`))).toBe(true);
    }
  });

  test(`${peer.name}: the harness knows every flag that it is given`, () => {
    const harness = readFileSync(join(folder, "common", "harness.go"), "utf8");
    const words = peerSystem(peer, "binary").command(load, timing, scratch);
    expect(words.slice(0, 2)).toEqual(["binary", "bench"]);
    for (const word of words.slice(2)) {
      expect(harness).toContain(`"${/^-([\w-]+)=/.exec(word)![1]!}"`);
    }
  });
}
