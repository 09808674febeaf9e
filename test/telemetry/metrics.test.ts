import { expect, test } from "bun:test";
import type { GroupFigures } from "../../src/telemetry/group-metrics.ts";
import { Metrics, type NodeFigures } from "../../src/telemetry/metrics.ts";

const group: GroupFigures = {
  id: 0,
  role: "leader",
  leader: 7,
  term: 3,
  commitIndex: 12,
  appliedIndex: 11,
  durableIndex: 12,
  machineDurableIndex: 4,
  firstIndex: 2,
  lastIndex: 13,
  voters: 2,
  learners: 1,
  applyVersion: 2,
  woundedTo: 0,
  stateBytes: 77,
  configurationIndex: 5,
  joint: true,
  logBytes: 100,
  sessions: { open: 2, requestIds: 3, bytes: 4, repeated: 5, refused: 6 },
  snapshots: { sent: 1, installed: 2, givenUp: 3, bytesSent: 4, bytesReceived: 5 },
  application: {
    absent: 1,
    updates: 51,
    entries: 52,
    failures: 53,
    underWay: 53,
    reads: 54,
    readWaiters: 55,
    snapshots: 56,
    restores: 57,
  },
  watches: {
    watches: 41,
    behind: 42,
    waiting: 43,
    changes: 44,
    bytes: 45,
    compacted: 46,
    outcomeBytes: 47,
  },
  queues: {
    inboxBytes: 1,
    waiters: 2,
    readWaiters: 3,
    forwards: 4,
    unsyncedBytes: 5,
    unappliedBytes: 6,
    tailCacheBytes: 7,
    memtableBytes: 8,
    kvWalBytes: 9,
    backups: 10,
  },
};

const node: NodeFigures = {
  version: "0.0.0-test",
  uptimeSeconds: 1,
  diskBytes: 2,
  health: "ok",
  connections: 3,
  clientBytes: 4,
  kvOpenFiles: 5,
  shared: { activeGroups: 6, tailCacheBytes: 7, memtableBytes: 8, logBytes: 9, tombstones: 10 },
  loopGaps: { boundsMs: [5, 20], counts: [90, 8, 2], sumMs: 500 },
  scrub: { passes: 1, bytes: 2, damages: 3, passedSecondsAgo: 4 },
  groups: [{ name: "0", always: false, figures: () => group }],
  summary: { total: 1, leads: 1, leaderless: 0, stopped: 0, wounded: 0, large: 0 },
  peers: [
    {
      id: 2,
      connected: true,
      dialsIn: false,
      sendQueueBytes: 6,
      framesDropped: 7,
      framesSent: 8,
      framesReceived: 9,
      beatGroups: 10,
    },
  ],
};

const sample = (text: string, name: string): string[] =>
  text.split("\n").filter((line) => line.startsWith(name));

test("all names begin with barge_ and each has a help text", async () => {
  const text = await new Metrics().text();
  const named = [...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1]!);
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((name) => !name.startsWith("barge_"))).toEqual([]);
  expect([...text.matchAll(/^# HELP \S+ \S/gm)]).toHaveLength(named.length);
});

test("counters end in _total, and nothing else does", async () => {
  const text = await new Metrics().text();
  for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    expect([name, name!.endsWith("_total")]).toEqual([name, type === "counter"]);
  }
});

test("figures of the node are gathered at each scrape; a group that is gone leaves no line", async () => {
  const metrics = new Metrics();
  let figures: NodeFigures = node;
  metrics.observe(() => figures);
  expect(sample(await metrics.text(), "barge_group_term")).toEqual([
    'barge_group_term{group="0"} 3',
  ]);
  figures = { ...node, uptimeSeconds: 42, groups: [] };
  const text = await metrics.text();
  expect(sample(text, "barge_group_term")).toEqual([]);
  expect(sample(text, "barge_uptime_seconds")).toEqual(["barge_uptime_seconds 42"]);
});

test("a thousand groups: the first in detail, of the others a few figures each and sums, in a moment", async () => {
  const metrics = new Metrics(10);
  const groups = [0, ...Array.from({ length: 999 }, (_, i) => i + 1), 0xffff_ffff].map((id) => ({
    name: id === 0xffff_ffff ? "system" : String(id),
    always: id === 0xffff_ffff,
    figures: () => ({ ...group, id, role: id % 3 === 0 ? "leader" : "follower" }),
  }));
  metrics.observe(() => ({ ...node, groups }));
  const text = await metrics.text();
  expect(sample(text, "barge_group_term{").length).toBe(11);
  expect(sample(text, "barge_group_term{").at(-1)).toBe('barge_group_term{group="system"} 3');
  expect(sample(text, "barge_group_state_bytes{").length).toBe(1_001);
  expect(sample(text, "barge_group_is_leader{").filter((line) => line.endsWith(" 1")).length).toBe(
    335,
  );
  // What is added up is right in sums over all.
  const inboxes = sample(text, "barge_group_inbox_bytes{");
  expect(inboxes.length).toBe(12);
  expect(inboxes.at(-1)).toBe('barge_group_inbox_bytes{group="other"} 990');
  expect(text.split("\n").length).toBeLessThan(7_000);
  const beginMs = performance.now();
  await metrics.text();
  expect(performance.now() - beginMs).toBeLessThan(200);
});

test("tallies are told as they stand, however often somebody asks", async () => {
  const metrics = new Metrics();
  metrics.tallies.writeCommands = 1_000;
  metrics.tallies.refuse("timeout");
  metrics.tallies.refuse("timeout");
  for (let i = 0; i < 2; i++) {
    const text = await metrics.text();
    expect(sample(text, "barge_write_commands_total")).toEqual(["barge_write_commands_total 1000"]);
    expect(sample(text, "barge_requests_refused_total")).toEqual([
      'barge_requests_refused_total{code="timeout"} 2',
    ]);
  }
});

test("durations fall into buckets from a tenth of a millisecond on", async () => {
  const metrics = new Metrics();
  metrics.syncTook(0.000_15);
  metrics.syncTook(0.003);
  const text = await metrics.text();
  expect(sample(text, 'barge_log_sync_duration_seconds_bucket{le="0.0002"}')[0]).toEndWith(" 1");
  expect(sample(text, "barge_log_sync_duration_seconds_count")).toEqual([
    "barge_log_sync_duration_seconds_count 2",
  ]);
});

test("how long the loop was held is a histogram of what is counted elsewhere", async () => {
  const metrics = new Metrics();
  expect(sample(await metrics.text(), "barge_loop_gap_seconds")).toEqual([]);
  metrics.observe(() => node);
  expect(sample(await metrics.text(), "barge_loop_gap_seconds")).toEqual([
    'barge_loop_gap_seconds_bucket{le="0.005"} 90',
    'barge_loop_gap_seconds_bucket{le="0.02"} 98',
    'barge_loop_gap_seconds_bucket{le="+Inf"} 100',
    "barge_loop_gap_seconds_sum 0.5",
    "barge_loop_gap_seconds_count 100",
  ]);
});
