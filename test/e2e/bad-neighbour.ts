/**
 * One group in trouble, and what another one of the same nodes feels of it:
 *
 *     bun test/e2e/bad-neighbour.ts [--rounds 3] [--seconds 4] [--in-flight 64]
 *
 * The trouble: an application that takes updates and never answers, with writers that go on; and one whose group has reached its quota of the log so, whose writers are
 * refused and come again. A group of keys is written to all along, first with nobody beside it. Prints its p99, and how many times the undisturbed one that is, taken
 * within a round, as machines drift; ends with 1 where the median of that is above 2.
 */
import { createHistogram } from "node:perf_hooks";
import { BargeError } from "../../src/errors.ts";
import { connect, type Machine, serveMachine } from "../../src/client/index.ts";
import { loopbackPlace, TestCluster, until } from "./cluster.ts";
import { createGroups } from "./groups.ts";
import { numberFlags } from "./script-flags.ts";

const flags = numberFlags({ rounds: 3, seconds: 4, "in-flight": 64 });
const writersBeside = 64;
/** Until a neighbour is in its trouble for good: its application has been given up, its quota is full. */
const settleMs = 3_000;
const factorMax = 2;
const quotaBytes = 1024 * 1024;
const refusedPauseMs = 5;

/** Counts what it is given, until it hangs. */
class Counter implements Machine {
  static hangs = false;
  #index = 0;
  lastIndex(): number {
    return this.#index;
  }
  async apply(_: unknown, lastIndex: number): Promise<void> {
    while (Counter.hangs) await Bun.sleep(100);
    this.#index = lastIndex;
  }
  read(): string {
    return String(this.#index);
  }
  snapshot() {
    const index = String(this.#index);
    return { save: () => [index] };
  }
  async recover(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    let text = "";
    for await (const chunk of chunks) text += new TextDecoder().decode(chunk);
    this.#index = Number(text);
  }
}

interface Measured {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly operationsPerSecond: number;
}

class Writers {
  readonly #counts = new Map<string, number>();
  readonly #loops: Promise<void>[];
  #runs = true;

  constructor(endpoints: string, group: number, valueBytes: number) {
    const client = connect({ endpoints, group, timeoutMs: 2_000 });
    const value = new Uint8Array(valueBytes);
    const write = async (): Promise<void> => {
      while (this.#runs) {
        const code = await client.write(value).then(
          () => "ok",
          (error: unknown) => (error as BargeError).code,
        );
        this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
        if (code !== "ok") await Bun.sleep(refusedPauseMs);
      }
    };
    this.#loops = Array.from({ length: writersBeside }, write);
    void Promise.all(this.#loops).then(() => client.close());
  }

  get counts(): object {
    return Object.fromEntries(this.#counts);
  }

  async stop(): Promise<void> {
    this.#runs = false;
    await Promise.all(this.#loops);
  }
}

async function measure(endpoints: string, group: number): Promise<Measured> {
  const histogram = createHistogram({ lowest: 1, highest: 60e9, figures: 3 });
  await using client = connect({ endpoints, group });
  const value = new Uint8Array(256);
  const fromMs = performance.now() + 1_000;
  const untilMs = fromMs + flags.seconds * 1_000;
  let operations = 0;
  const writer = async (_: unknown, at: number): Promise<void> => {
    for (let i = 0; ; i++) {
      const begunMs = performance.now();
      if (begunMs >= untilMs) return;
      await client.put(`key-${at}-${i % 1_000}`, value);
      if (begunMs < fromMs) continue;
      operations++;
      histogram.record(Math.max(1, Math.round((performance.now() - begunMs) * 1e6)));
    }
  };
  await Promise.all(Array.from({ length: flags["in-flight"] }, writer));
  const ms = (percentile: number): number =>
    Number((histogram.percentile(percentile) / 1e6).toFixed(2));
  return {
    p50Ms: ms(50),
    p99Ms: ms(99),
    operationsPerSecond: Math.round(operations / flags.seconds),
  };
}

const apps = await Promise.all(
  Array.from({ length: 3 }, () => {
    const machines = new Map<number, Counter>();
    const machine = (group: number): Machine => {
      const known = machines.get(group) ?? new Counter();
      machines.set(group, known);
      return known;
    };
    return serveMachine({ port: 0, machine });
  }),
);
let placed = 0;
const place = () => ({
  ...loopbackPlace(),
  environment: { BARGE_APP_URL: `http://127.0.0.1:${apps[placed++]!.port}` },
});
await using cluster = new TestCluster({ place, flags: ["--machine=kv"] });
const tell = (found: object): void => console.log(JSON.stringify(found));
try {
  await cluster.start();
  const [node] = cluster.nodes;
  const [keys] = await createGroups(node!);
  const [hanging] = await createGroups(node!, { machine: "http" });
  const [full] = await createGroups(node!, { machine: "http", logBytesMax: quotaBytes });
  await until("all groups are led", async () => {
    const { summary } = (await node!.status()) as { summary?: { leaderless: number } };
    return summary?.leaderless === 0;
  });
  const factors = { blocked: [] as number[], full: [] as number[] };
  // The first seconds of a process are slower than all that come.
  await measure(cluster.endpoints, keys!.id);
  for (let round = 0; round < flags.rounds; round++) {
    Counter.hangs = false;
    const alone = await measure(cluster.endpoints, keys!.id);
    tell({ round, beside: "nobody", ...alone });
    Counter.hangs = true;
    const troubles = [
      { name: "blocked", group: hanging!.id, valueBytes: 256 },
      { name: "full", group: full!.id, valueBytes: 2 * (quotaBytes / writersBeside) },
    ] as const;
    for (const { name, group, valueBytes } of troubles) {
      const writers = new Writers(cluster.endpoints, group, valueBytes);
      await Bun.sleep(settleMs);
      const measured = await measure(cluster.endpoints, keys!.id);
      const factor = Number((measured.p99Ms / alone.p99Ms).toFixed(2));
      factors[name].push(factor);
      tell({ round, beside: name, ...measured, factor, writers: writers.counts });
      await writers.stop();
    }
  }
  const median = (values: number[]): number =>
    values.toSorted((a, b) => a - b)[values.length >> 1]!;
  const summary = { blocked: median(factors.blocked), full: median(factors.full) };
  tell({ timesTheUndisturbedP99: summary });
  if (Math.max(summary.blocked, summary.full) > factorMax) process.exitCode = 1;
} catch (error) {
  process.stderr.write(cluster.logTails());
  throw error;
} finally {
  Counter.hangs = false;
  await Promise.all(apps.map((app) => app.close()));
}
