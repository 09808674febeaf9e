/**
 * Mixed load for a long time, nothing wrong, and what must not grow is watched: memory, open files, sessions, request ids, watches.
 *
 *     bun test/chaos/soak.ts --minutes 30
 *
 * (In a shorter run request ids are not judged: they are kept for ten minutes.)
 *
 * Clients that stay write, read, delete, compare, run transactions and ranges over a bounded set of keys; others come, open a session, watch
 * and leave, half of them without a word, so that their sessions have to expire; others still write over HTTP with request ids. Prints a line
 * per sample, and ends with 1 where something grew from the second third of the run to the last, or memory went over its ceiling at any time.
 *
 * Of the resident memory some 45 MB are the program's own, 60 to 75 MB lie in the heap of the main thread after a full collection (the tail cache
 * fills to its bound within half a minute; flat from then on), and what is between collections, with what the allocator keeps, makes up the rest: it comes and
 * goes by 80 MB, settles after two minutes, and is no leak.
 */
import { readdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { BargeError } from "../../src/errors.ts";
import { type Client, connect } from "../../src/client/index.ts";
import { defaultLimits } from "../../src/limits.ts";
import { type TestCluster, type TestNode, withCluster } from "../e2e/cluster.ts";
import { grown, type Sample, worst } from "../e2e/growth.ts";
import { recordEvidence } from "../evidence.ts";
import { Random } from "../sim/random.ts";
import { defaultGroup } from "../../src/wire/registry.ts";
import { HttpCalls } from "./http-calls.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    /** Append what this run showed to test/evidence.jsonl. */
    evidence: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed);

const keyCount = 20_000;
const valueBytes = 256;
const residents = 8;
const visitors = 4;
const pauseMsMax = 4;
/** A visitor's session ends so long after it left without a word. */
const visitorTtlMs = 20_000;
const visitorCalls = 40;
const samples = 60;
const slack: Readonly<Record<string, number>> = {
  rssMB: 40,
  files: 12,
  sessions: 8,
  watches: 4,
  // They are kept for so long, and only then as many go as come.
  ...(minutes * 60_000 < 3 * defaultLimits.requestIdTtlMs ? {} : { requestIds: 500 }),
};

/** Of one node, whatever it does: three nodes on two cores never had more than 370. */
const rssMBMax = 450;

let calls = 0;
let failures = 0;
let stopping = false;

process.stdout.write(`soak: ${minutes} minutes, seed ${seed}\n`);
const startMs = performance.now();
const findings: string[] = [];
await withCluster({ flags: ["--compact-entries=50000"] }, async (cluster) => {
  const all = [
    ...Array.from({ length: residents }, (_, at) => resident(cluster, new Random(seed, at))),
    ...Array.from({ length: visitors }, (_, at) => visit(cluster, new Random(seed, 100 + at))),
    overHttp(cluster, new Random(seed, 200)),
  ];
  // A load that ends before its time has failed.
  const ended = Promise.all(all);
  const taken: Sample[] = [];
  for (let at = 1; at <= samples; at++) {
    await Promise.race([Bun.sleep((minutes * 60_000) / samples), ended]);
    const sample = worst(await Promise.all(cluster.nodes.map(sampleOf)));
    taken.push(sample);
    const text = Object.entries(sample).map(([name, value]) => `${name} ${value}`);
    process.stdout.write(
      `${seconds()} s: ${calls} calls, ${failures} failed; ${text.join(", ")}\n`,
    );
  }
  stopping = true;
  await ended;
  await cluster.converged();
  const most = Math.max(...taken.map((sample) => sample["rssMB"]!));
  if (most > rssMBMax) findings.push(`rssMB: ${most}, and the ceiling is ${rssMBMax}`);
  findings.push(...grown(taken, slack));
});
process.stdout.write(
  `${JSON.stringify({ soak: "mixed", seed, seconds: seconds(), calls, failures, findings })}\n`,
);
if (values.evidence) {
  recordEvidence({ kind: "soak", seconds: seconds(), amounts: { calls }, findings });
}
if (findings.length > 0) process.exitCode = 1;

function seconds(): number {
  return Math.round((performance.now() - startMs) / 1_000);
}

/* ------------------------------------------------------------------ load */

async function resident(cluster: TestCluster, random: Random): Promise<void> {
  await using client = connect({ endpoints: cluster.endpoints });
  while (!stopping) {
    await call(() => anyCall(client, random));
    await Bun.sleep(random.between(0, pauseMsMax));
  }
}

async function anyCall(client: Client, random: Random): Promise<unknown> {
  const key = keyOf(random);
  switch (random.below(8)) {
    case 0:
      return client.delete(key);
    case 1:
      return client.compareAndSet(key, value(random), (await client.get(key))?.revision ?? 0);
    case 2:
      return client.range({ prefix: key.slice(0, -2) });
    case 3:
      return client
        .txn()
        .compare({ key, exists: true })
        .onSuccess({ op: "delete", key }, { op: "get", key: keyOf(random) })
        .onFailure({ op: "put", key, value: value(random) })
        .commit();
    case 4:
    case 5:
      return client.get(key);
    default:
      return client.put(key, value(random));
  }
}

/** Comes, watches a little, and leaves: in order, or without a word. */
async function visit(cluster: TestCluster, random: Random): Promise<void> {
  while (!stopping) {
    const client = connect({ endpoints: cluster.endpoints, sessionTtlMs: visitorTtlMs });
    const watch = client.watch({ prefix: keyOf(random).slice(0, -3) });
    const watching = (async () => {
      for await (const change of watch) if (change.revision < 0) throw new Error("no revision");
    })();
    for (let i = 0; i < visitorCalls && !stopping; i++) await call(() => anyCall(client, random));
    watch.close();
    await watching;
    if (random.chance(0.5)) await client.drain();
    else client.close();
  }
}

async function overHttp(cluster: TestCluster, random: Random): Promise<void> {
  const http = new HttpCalls(`soak${seed}`, defaultGroup, () => cluster.nodes, random);
  while (!stopping) {
    await call(() => http.put(keyOf(random), value(random)));
    await Bun.sleep(random.between(0, 10 * pauseMsMax));
  }
}

async function call(make: () => Promise<unknown>): Promise<void> {
  calls++;
  try {
    await make();
  } catch (error) {
    if (!(error instanceof BargeError)) throw error;
    failures++;
  }
}

function keyOf(random: Random): string {
  return `key/${String(random.below(keyCount)).padStart(6, "0")}`;
}

function value(random: Random): string {
  return String(random.u32()).padEnd(valueBytes, ".");
}

/* ------------------------------------------------------------------ what is watched */

async function sampleOf(node: TestNode): Promise<Sample> {
  const text = await (await node.fetch("/metrics")).text();
  const metric = (name: string): number => {
    const line = text.split("\n").find((each) => each.startsWith(name) && !each.startsWith("#"));
    if (line === undefined) throw new Error(`no metric ${name}`);
    return Number(line.slice(line.lastIndexOf(" ") + 1));
  };
  return {
    rssMB: Math.round(metric("barge_resident_memory_bytes") / 1e6),
    files: readdirSync(`/proc/${node.pid}/fd`).length,
    sessions: metric("barge_group_sessions{"),
    requestIds: metric("barge_group_request_ids"),
    watches: metric("barge_group_watches{"),
    // For whoever wants to know where memory goes.
    diskMB: Math.round(metric("barge_disk_bytes") / 1e6),
    memtableMB: Math.round(metric("barge_group_memtable_bytes") / 1e6),
    tailCacheMB: Math.round(metric("barge_group_tail_cache_bytes") / 1e6),
    outcomeMB: Math.round(metric("barge_group_outcome_bytes") / 1e6),
    sessionKB: Math.round(metric("barge_group_session_bytes") / 1e3),
  };
}
