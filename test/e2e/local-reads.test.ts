/** Local reads ask nobody: a node that is cut off from all others answers them, as fast as ever; with a bound on their age, until that is over. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { failureOf, HttpDoor } from "./doors.ts";
import { PeerNetwork } from "./peer-network.ts";

const testMsMax = 60_000;
const readsPerBlock = 200;
const blocks = 3;
/** Of medians over reads that took turns, so that a busy machine slows both. A read that asks a peer never ends while it is cut off. */
const ratioMax = 4;

test(
  "a node that is cut off from all others answers local reads, and no more slowly for it",
  async () => {
    await using network = new PeerNetwork();
    await withCluster({ network }, async (cluster) => {
      await using writer = connect({ endpoints: cluster.endpoints });
      await writer.put("k", "one");
      await cluster.converged();
      for (const away of [await cluster.leader(), (await cluster.followers())[0]!]) {
        const joined: number[] = [];
        const cut: number[] = [];
        for (let block = 0; block < blocks; block++) {
          await timedReads(away, joined);
          network.cut(away.id);
          await timedReads(away, cut);
          network.heal(away.id, { keep: block % 2 === 0 });
        }
        expect(median(cut) / median(joined)).toBeLessThan(ratioMax);
        expect(median(joined) / median(cut)).toBeLessThan(ratioMax);
        await until("it has a leader again", async () => (await away.group()).leader !== 0);
      }
    });
  },
  testMsMax,
);

test(
  "with a bound on their age it answers them without a word from the leader, and refuses once they may be older",
  async () => {
    await using network = new PeerNetwork();
    await withCluster({ network }, async (cluster) => {
      await using writer = connect({ endpoints: cluster.endpoints });
      await writer.put("k", "one");
      const [away] = await cluster.followers();
      const read = (maxStalenessMs: number): Promise<Response> =>
        away!.fetch(`/v1/kv/k?consistency=local&maxStalenessMs=${maxStalenessMs}`);
      const long = 60_000;
      const short = 500;
      await until("it is fresh", async () => (await read(short)).ok);
      network.cut(away!.id);
      expect(await (await read(long)).text()).toBe("one");
      await until("it refuses", async () => (await read(short)).status === 503);
      expect(await (await read(long)).text()).toBe("one");
      // A linearizable read needs the leader, and says so.
      const refused = await failureOf(new HttpDoor(away!).get("k", 1_000));
      expect(["no_leader", "timeout"]).toContain(refused.code);

      await writer.put("k", "two");
      expect(await (await read(long)).text()).toBe("one");
      network.heal(away!.id, { keep: false });
      await until("it is fresh again", async () => (await read(short)).ok);
      await until("it has the new value", async () => (await (await read(long)).text()) === "two");
    });
  },
  testMsMax,
);

/** Of that node alone: an SDK would know others to go to. */
async function timedReads(node: TestNode, tookMs: number[]): Promise<void> {
  for (let at = 0; at < readsPerBlock; at++) {
    const beganMs = performance.now();
    const response = await node.fetch("/v1/kv/k?consistency=local");
    expect(await response.text()).toBe("one");
    tookMs.push(performance.now() - beganMs);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}
