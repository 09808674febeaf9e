/** Local reads with a bound on their age, on real processes that are paused: refused rather than older, and never answered from before a pause. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";

const testMsMax = 60_000;
const boundMs = 600;

function read(node: TestNode, maxStalenessMs: number): Promise<Response> {
  return node.fetch(`/v1/kv/k?consistency=local&maxStalenessMs=${maxStalenessMs}`, {
    keepalive: false,
  });
}

test(
  "a follower answers while it hears the others, and refuses once what it has may be too old",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints });
      await client.put("k", "one");
      const [follower] = await cluster.followers();
      await until("the follower has it", async () => (await read(follower!, 0)).ok);
      await until("the follower is fresh", async () => (await read(follower!, boundMs)).ok);

      const others = cluster.nodes.filter((node) => node !== follower);
      for (const node of others) node.pause();
      await until("the follower refuses", async () => !(await read(follower!, boundMs)).ok);
      const refused = await read(follower!, boundMs);
      expect(refused.status).toBe(503);
      expect(await refused.json()).toMatchObject({
        error: { code: "no_leader", outcome: "not-applied", retryable: true },
      });
      // Whoever asks for no bound gets what there is.
      expect(await (await read(follower!, 0)).text()).toBe("one");
      for (const node of others) node.resume();
      await until("the follower is fresh again", async () => (await read(follower!, boundMs)).ok);
    }),
  testMsMax,
);

test(
  "a read that waited in the socket of a paused node is not answered with what it had before",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints });
      for (let round = 1; round <= 4; round++) {
        const [follower] = await cluster.followers();
        await client.put("k", `before ${round}`);
        await until("the follower is fresh", async () => (await read(follower!, boundMs)).ok);
        follower!.pause();
        const pausedMs = performance.now();
        await client.put("k", `after ${round}`);
        const answer = read(follower!, boundMs);
        const wait = pausedMs + 2 * boundMs - performance.now();
        await Bun.sleep(wait);
        follower!.resume();
        const response = await answer;
        const text = await response.text();
        if (response.ok) expect(text).toBe(`after ${round}`);
        else expect(response.status).toBe(503);
      }
    }),
  testMsMax,
);
