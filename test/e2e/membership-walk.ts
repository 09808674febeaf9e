/**
 * A walk through the members of a cluster under load, 3 → 5 → 3: two nodes join, the first three are removed or replaced in an order by chance, the
 * leader among them first, until none of them is left. Meanwhile clients write, and the longest time without any success is taken.
 */
import { BargeError } from "../../src/errors.ts";
import { type Client, connect, type MembersAnswer } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import type { Random } from "../sim/random.ts";
import { type TestCluster, type TestNode, until } from "./cluster.ts";
import type { Workload } from "./workload.ts";

export interface Walk {
  /** Milliseconds between two successive acknowledgements, the most over the whole walk. */
  readonly longestGapMs: number;
  readonly seconds: number;
  readonly steps: readonly string[];
}

const pauseMsMax = 150;
const periodMs = 5;
const waitMsMax = 30_000;

export async function membershipWalk(
  cluster: TestCluster,
  workload: Workload,
  random: Random,
): Promise<Walk> {
  const startMs = performance.now();
  const originals = [...cluster.nodes];
  const steps: string[] = [];
  await using meter = new GapMeter(cluster.endpoints);
  const pause = (): Promise<void> => Bun.sleep(random.between(0, pauseMsMax));
  workload.start();
  await workload.acknowledges(50);

  const newcomers = [cluster.join(), cluster.join()];
  for (const node of newcomers) {
    node.start();
    await pause();
  }
  await votes(cluster, newcomers);
  steps.push(`joined ${newcomers.map(({ id }) => id).join(", ")}`);

  for (let left = originals.length; left > 0; left--) {
    await workload.acknowledges(50);
    await pause();
    // By turns whoever leads, and by chance.
    const leader = await leaderOf(cluster);
    const isFirst = left === originals.length;
    const leads = originals.find(({ id }) => id === leader);
    const gone = isFirst && leads !== undefined ? leads : random.pick(originals);
    originals.splice(originals.indexOf(gone), 1);
    const ended = gone.ended();
    const what = gone.id === leader ? `${gone.id}, which led` : String(gone.id);
    if (left > 1) {
      await change(cluster, [{ op: "remove", id: gone.id }]);
      steps.push(`removed ${what}`);
    } else {
      const by = cluster.join();
      await change(cluster, [{ op: "replace", id: gone.id, by: by.id, address: by.binary }]);
      by.start();
      await votes(cluster, [by]);
      steps.push(`replaced ${what}, by ${by.id}`);
    }
    cluster.leave(gone);
    const { status, stderr } = await ended;
    if (status !== fatalTable.member_removed.status) {
      throw new Error(
        `node ${gone.id} was removed and ended with ${status}: ${stderr.slice(-500)}`,
      );
    }
  }
  await workload.acknowledges(50);
  const longestGapMs = meter.longestGapMs();
  await workload.stop();
  await cluster.converged();
  await workload.verify("all");
  return { longestGapMs, seconds: (performance.now() - startMs) / 1_000, steps };
}

type Wish = Parameters<Client["changeMembers"]>[0][number];

async function change(cluster: TestCluster, changes: readonly Wish[]): Promise<void> {
  await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
  await client.changeMembers(changes);
}

export async function membersOf(cluster: TestCluster): Promise<MembersAnswer> {
  await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
  return await client.members();
}

async function leaderOf(cluster: TestCluster): Promise<number> {
  return (await membersOf(cluster)).leader;
}

/** Waits until these are voters. */
export async function votes(cluster: TestCluster, nodes: readonly TestNode[]): Promise<void> {
  await until(
    `${nodes.map(({ id }) => id).join(", ")} vote`,
    async () => {
      const { members, joint } = await membersOf(cluster);
      const voters = members.filter(({ role }) => role === "voter").map(({ id }) => id);
      return !joint && nodes.every(({ id }) => voters.includes(id));
    },
    waitMsMax,
  ).catch(async (error: Error) => {
    throw new Error(`${error.message}\n${JSON.stringify(await membersOf(cluster))}`);
  });
}

/** Writes all the time, whatever is in flight, and notes when each was acknowledged. */
class GapMeter implements AsyncDisposable {
  readonly #client: Client;
  readonly #endedMs: number[] = [performance.now()];
  readonly #loop: Promise<void>;
  #stopping = false;

  constructor(endpoints: string) {
    this.#client = connect({ endpoints, timeoutMs: 5_000 });
    this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    const inFlight = new Set<Promise<void>>();
    while (!this.#stopping) {
      const write = this.#write();
      inFlight.add(write);
      void write.then(() => inFlight.delete(write));
      await Bun.sleep(periodMs);
    }
    await Promise.all(inFlight);
  }

  async #write(): Promise<void> {
    try {
      await this.#client.put("gap", "");
      this.#endedMs.push(performance.now());
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
    }
  }

  longestGapMs(): number {
    let longest = 0;
    for (let at = 1; at < this.#endedMs.length; at++) {
      longest = Math.max(longest, this.#endedMs[at]! - this.#endedMs[at - 1]!);
    }
    return Math.max(longest, performance.now() - this.#endedMs.at(-1)!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#client.close();
    await this.#loop;
  }
}
