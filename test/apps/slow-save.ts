/**
 * Updates beside a slow save: how long one takes while the application gives its state, at a bounded rate, to a node that lacks it, and how long before.
 *
 *     bun test/apps/slow-save.ts --megabytes 400 --rate 20 --updaters 8
 *
 * Ends with 1 where the 99th percentile beside the save is three times that of before, or more. Both are worth something on a quiet machine alone.
 */
import { loopbackPlace, TestCluster, type TestNode, until } from "../e2e/cluster.ts";
import { numberFlags } from "../e2e/script-flags.ts";
import { MadeUpState, serveMadeUp } from "./made-up-state.ts";
import { behind } from "./snapshot-breaks.ts";

interface Times {
  readonly updates: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface SlowSave {
  readonly megabytes: number;
  readonly seconds: number;
  readonly before: Times;
  readonly beside: Times;
}

export interface SlowSaveWanted {
  readonly megabytes: number;
  readonly megabytesPerSecond: number;
  readonly updaters: number;
}

export async function slowSave(wanted: SlowSaveWanted): Promise<SlowSave> {
  const { megabytes, updaters } = wanted;
  const states = [1, 2, 3].map(() => new MadeUpState(wanted));
  using server = serveMadeUp(states);
  const place = (id: number): ReturnType<typeof loopbackPlace> => ({
    ...loopbackPlace(),
    environment: { BARGE_APP_URL: `http://127.0.0.1:${server.port}/${id}` },
  });
  await using cluster = new TestCluster({ place });
  try {
    await cluster.start();
    const leader = await cluster.leader();
    const receiver = cluster.nodes.find((node) => node !== leader)!;
    const { recovered } = states[receiver.id - 1]!;
    const isThere = (): boolean => states[receiver.id - 1]!.recovered > recovered;
    const seconds = megabytes / wanted.megabytesPerSecond;
    await updates(leader, updaters, untilMs(2));
    await behind(cluster, leader, receiver, () => receiver.kill());
    const before = await updates(leader, updaters, untilMs(seconds));
    const beginMs = performance.now();
    receiver.start();
    await until("the save begins", () => states.some(({ saves }) => saves > 0), 60_000);
    const beside = await updates(leader, updaters, isThere);
    const took = Math.round((performance.now() - beginMs) / 1_000);
    return { megabytes, seconds: took, before, beside };
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  }
}

function untilMs(seconds: number): () => boolean {
  const endMs = performance.now() + seconds * 1_000;
  return () => performance.now() >= endMs;
}

/** One after the other, by so many at once. */
async function updates(node: TestNode, updaters: number, isOver: () => boolean): Promise<Times> {
  const times: number[] = [];
  const one = async (): Promise<void> => {
    while (!isOver()) {
      const startMs = performance.now();
      const init = { method: "POST", body: "x".repeat(256) };
      const { status } = await node.fetch("/raft/update", init, 60_000);
      if (status !== 200) throw new Error(`an update was answered ${status}`);
      times.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: updaters }, one));
  times.sort((a, b) => a - b);
  const at = (part: number): number =>
    Number((times[Math.floor(times.length * part)] ?? 0).toFixed(2));
  return {
    updates: times.length,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    maxMs: at(1 - 1 / times.length),
  };
}

if (import.meta.main) {
  const { megabytes, rate, updaters } = numberFlags({ megabytes: 400, rate: 20, updaters: 8 });
  const found = await slowSave({ megabytes, megabytesPerSecond: rate, updaters });
  process.stdout.write(`${JSON.stringify(found)}\n`);
  if (found.beside.p99Ms >= 3 * found.before.p99Ms) process.exitCode = 1;
}
