/** The load generator: its command line, its document, and honest counting. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { measureLoad } from "../../src/cli/bench.ts";
import { measureDisk } from "../../src/cli/bench/disk.ts";
import { type BenchFlags, loadPlan } from "../../src/cli/bench/plan.ts";
import { humanReport } from "../../src/cli/bench/report.ts";
import { BargeError } from "../../src/errors.ts";
import { entry, FakeNode, type Received } from "../client/fake-node.ts";

const scratch = mkdtempSync(join(tmpdir(), "barge-bench-test-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const flags: BenchFlags = {
  session: true,
  inFlight: 20,
  connections: 2,
  batch: 1,
  valueBytes: 64,
  keySpace: 1_000,
  reads: 50,
  seconds: 0.3,
  warmup: 0.05,
  groups: 1,
  machine: "kv",
};

let readings = 0;
function status(node: FakeNode): object {
  const members = [{ id: 1, address: node.endpoint, voter: true, connected: true }];
  return {
    nodeId: 1,
    clusterId: "fake",
    version: "0",
    uptimeSeconds: 1,
    diskBytes: 1,
    health: "ok",
    groups: [{ id: 0, role: "leader", leader: 1, term: 1, members }],
    syncs: { count: node.received.length, p50Ms: 0.25, p99Ms: 0.5 },
    cpuSeconds: node.received.length / 1_000,
    peakRssBytes: 50e6,
    // Each reading finds more than the one before.
    loopGaps: {
      boundsMs: [5, 20, 50, 100],
      counts: [90, 1, 2, 3, 4].map((n) => n * ++readings),
      sumMs: 0,
    },
  };
}

function answering(): FakeNode {
  const node = new FakeNode();
  node.answersControl = true;
  node.answer = (_, request: Received) => {
    if (request.type === "control" && request.operation !== "status") {
      node.refuse(request, new BargeError("bad_request", "no such operation"));
    } else if (request.type === "control") node.control(request, status(node));
    else if (request.type === "write") node.applied(request);
    else node.read(request, () => ({ code: 0, bytes: entry(1, "value") }));
  };
  return node;
}

test("the document has the agreed shape, in every mode", async () => {
  using node = answering();
  const modes = [
    loadPlan("put", flags),
    loadPlan("put", { ...flags, batch: 10 }),
    loadPlan("put", { ...flags, session: false }),
    loadPlan("get", flags),
    loadPlan("mixed", { ...flags, batch: 3 }),
    loadPlan("put", { ...flags, rate: 500 }),
  ];
  for (const plan of modes) {
    const report = await measureLoad(plan, { ...flags, endpoints: node.endpoint });
    const number = expect.any(Number);
    // Bun 1.4.5 puts the matchers into what it is given.
    expect(structuredClone(report)).toMatchObject({
      benchmark: plan.workload,
      nodes: 1,
      connections: 2,
      inFlight: 20,
      batch: plan.batch,
      valueBytes: 64,
      seconds: number,
      groups: 1,
      session: plan.session,
      latencyMs: { p50: number, p90: number, p99: number, p999: number, max: number },
      errors: 0,
      unknown: 0,
      syncs: { count: number, p50Ms: 0.25, p99Ms: 0.5, commandsPerSync: number },
      loopGaps: [{ over5Ms: number, over20Ms: number, over50Ms: number, over100Ms: number }],
      cpuSeconds: { client: number, nodes: [number] },
      peakRssMb: [50],
      environment: {
        bun: Bun.version,
        cores: number,
        filesystem: "remote",
        load: number,
        commit: expect.any(String),
      },
    });
    const { over5Ms, over20Ms, over50Ms, over100Ms } = report.loopGaps[0]!;
    expect(over100Ms).toBeGreaterThan(0);
    expect([over5Ms, over20Ms, over50Ms].every((over) => over >= over100Ms)).toBe(true);
    const { latencyMs, operations, operationsPerSecond, seconds } = report;
    expect(operations).toBeGreaterThan(50);
    expect(operations % plan.batch).toBe(0);
    expect(Math.abs(operationsPerSecond - operations / seconds) / operationsPerSecond).toBeLessThan(
      0.01,
    );
    expect(latencyMs.p50).toBeGreaterThan(0);
    expect(latencyMs.p50).toBeLessThanOrEqual(latencyMs.p99);
    expect(latencyMs.p999).toBeLessThanOrEqual(latencyMs.max);
    expect(report.doubts).toContain("a short run: at least 5 s is better");
    expect(humanReport(report).split("\n")[0]).toStartWith(`${plan.workload}: `);
  }
}, 20_000);

test("an open loop counts a stall for all that was due in it", async () => {
  using node = answering();
  const usual = node.answer!;
  const held: Received[] = [];
  let stalledMs = 0;
  node.answer = (_, request) => {
    // One stall of 100 ms, well within the measured time.
    if (request.type !== "write" || stalledMs < 0) return usual(node, request);
    held.push(request);
    if (stalledMs > 0 || node.writes.length < 100) {
      if (stalledMs === 0) for (const each of held.splice(0)) usual(node, each);
      return;
    }
    stalledMs = 100;
    setTimeout(() => {
      stalledMs = -1;
      for (const each of held.splice(0)) usual(node, each);
    }, stalledMs);
  };
  const plan = loadPlan("put", { ...flags, rate: 500, seconds: 0.5, warmup: 0.05, inFlight: 2 });
  const { latencyMs, doubts } = await measureLoad(plan, { ...flags, endpoints: node.endpoint });
  // Two slots: a generator that waits for them would have seen two slow operations of 250.
  expect(latencyMs.p90).toBeGreaterThan(30);
  expect(doubts.some((doubt) => doubt.includes("slots were busy"))).toBe(true);
});

test("failures are counted by what is known of them, and named", async () => {
  using node = answering();
  const usual = node.answer!;
  let count = 0;
  node.answer = (_, request) => {
    if (request.type !== "write") return usual(node, request);
    count++;
    if (count % 3 === 0) node.refuse(request, new BargeError("too_large", "no room"));
    else if (count % 3 === 1) node.refuse(request, new BargeError("outcome_unknown", "who knows"));
    else usual(node, request);
  };
  const report = await measureLoad(loadPlan("put", flags), { ...flags, endpoints: node.endpoint });
  expect(report.errors).toBeGreaterThan(0);
  expect(report.unknown).toBeGreaterThan(0);
  expect(report.operations).toBeGreaterThan(0);
  expect(report.doubts.join()).toContain("not all operations succeeded");
});

test("what cannot be measured is refused with words", () => {
  for (const [workload, wrong, words] of [
    ["put", { groups: 3, keySpace: 2 }, "--groups"],
    ["put", { rate: 10, batch: 2 }, "--rate"],
    ["put", { inFlight: 1 }, "--in-flight"],
    ["get", { machine: "null" }, "--machine"],
    ["put", { batch: 1_000, valueBytes: 1_024 }, "at most 249 commands"],
  ] as const) {
    expect(() => loadPlan(workload, { ...flags, ...wrong })).toThrow(words);
  }
});

test("the command line: wrong usage ends with 2, and an unreachable cluster with 3", async () => {
  const main = join(import.meta.dir, "..", "..", "src", "main.ts");
  const run = async (...words: string[]): Promise<number> => {
    const child = Bun.spawn([process.execPath, main, "bench", ...words], {
      stdout: "ignore",
      stderr: "ignore",
    });
    return child.exited;
  };
  const gone = new FakeNode();
  const { endpoint } = gone;
  gone[Symbol.dispose]();
  const statuses = await Promise.all([
    run("nonsense"),
    run("put", "--in-flight", "0"),
    run("put", "--rate", "5", "--batch", "2"),
    run("put", "--seconds", "x"),
    run("get", "--endpoints", endpoint, "--key-space", "1"),
  ]);
  expect(statuses).toEqual([2, 2, 2, 2, 3]);
}, 30_000);

test("bench disk measures each point and leaves nothing behind", async () => {
  const report = await measureDisk(scratch, 0.02, () => {}, [4_096]);
  expect(report.results.map(({ bytes, writers }) => [bytes, writers])).toEqual([
    [4_096, 1],
    [4_096, 3],
  ]);
  for (const point of report.results) {
    expect(point.megabytesPerSecond).toBeGreaterThan(0);
    expect(point.p50Ms).toBeLessThanOrEqual(point.p99Ms);
  }
  expect(readdirSync(scratch)).toEqual([]);
});
