/** Members that come and go, on real processes: the walk under load, which walk.ts takes as often as one likes, and single changes. */
import { describe, expect, test } from "bun:test";
import { BargeError } from "../../src/errors.ts";
import { connect } from "../../src/client/index.ts";
import { Random } from "../sim/random.ts";
import { until, withCluster } from "./cluster.ts";
import { membershipWalk, membersOf, votes } from "./membership-walk.ts";
import { Workload } from "./workload.ts";

/** Longer than any election, so that only an outage is over it. */
const gapMsMax = 3_000;

async function refusalOf(call: Promise<unknown>): Promise<BargeError> {
  return call.then(
    () => {
      throw new Error("it was not refused");
    },
    (error: BargeError) => error,
  );
}

describe.concurrent("members", () => {
  test("3 to 5 to 3 under load, with every first node replaced: no acknowledged write is lost", async () => {
    await withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster, { writersPerClient: 4, httpWritersPerNode: 0 });
      const { longestGapMs } = await membershipWalk(cluster, workload, new Random(11));
      expect(cluster.nodes.map(({ id }) => id)).toEqual([4, 5, 6]);
      expect(longestGapMs).toBeLessThan(gapMsMax);
    });
  }, 120_000);

  test("one node grows to three; a learner stays one until it is promoted; to ask twice changes nothing", async () => {
    await withCluster({ nodes: 1 }, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
      await client.put("before", "all of them");
      const second = cluster.join();
      const learner = cluster.join(["--learner"]);
      await cluster.start();
      await votes(cluster, [second]);

      const wish = { op: "add" as const, id: learner.id, address: learner.binary, learner: true };
      const once = await membersOf(cluster);
      const again = await client.changeMembers([wish]);
      expect(again).toMatchObject({ changed: false, configurationIndex: once.configurationIndex });
      expect(again.members.map(({ id, role, bound }) => [id, role, bound])).toEqual([
        [1, "voter", true],
        [2, "voter", true],
        [3, "learner", true],
      ]);
      // It has all the data, and no vote.
      await until("the learner has it", async () => {
        return (await learner.fetch("/v1/kv/before?consistency=local")).ok;
      });
      await client.changeMembers([{ op: "promote", id: learner.id }]);
      await votes(cluster, [learner]);
      const { changed } = await client.changeMembers([{ op: "promote", id: learner.id }]);
      expect(changed).toBe(false);
      await client.changeMembers([{ op: "demote", id: second.id }]);
      expect((await client.members()).members[1]).toMatchObject({ id: 2, role: "learner" });
      await cluster.converged();
    });
  }, 60_000);

  test("a change through any node, by HTTP; clear answers where it makes no sense", async () => {
    await withCluster({}, async (cluster) => {
      const [follower] = await cluster.followers();
      const ask = async (method: string, path: string, body?: object) => {
        const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
        for (;;) {
          const response = await follower!.fetch(`/v1/members${path}`, init, 5_000);
          const answer = (await response.json()) as Record<string, unknown>;
          // On a crowded machine a leader may be voted out.
          if (response.status !== 503) return { status: response.status, body: answer };
          await Bun.sleep(50);
        }
      };
      const added = await ask("POST", "", { id: 9, address: "127.0.0.1:1", learner: true });
      expect(added).toMatchObject({ status: 200, body: { changed: true } });
      const taken = await ask("POST", "", { id: 10, address: "127.0.0.1:1" });
      expect(taken).toMatchObject({ status: 409, body: { error: { code: "member_exists" } } });
      expect(await ask("DELETE", "/9")).toMatchObject({ status: 200, body: { changed: true } });
      expect(await ask("DELETE", "/9")).toMatchObject({ status: 200, body: { changed: false } });
      const former = await ask("POST", "", { id: 9, address: "127.0.0.1:1" });
      expect(former).toMatchObject({ status: 410, body: { error: { code: "member_removed" } } });
      expect(await ask("DELETE", "/77")).toMatchObject({ status: 404 });
      const { body } = await ask("GET", "");
      expect(body).toMatchObject({ joint: false, removed: [9] });
    });
  }, 60_000);

  test("what would leave no live majority is refused; who is dead may go", async () => {
    await withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const [gone, other] = cluster.nodes.filter((node) => node !== leader);
      await gone!.kill();
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 8_000 });
      await until("it is missed", async () => {
        const { members } = await client.members();
        return members.some(({ id, connected }) => id === gone!.id && !connected);
      });
      const wish = [{ op: "remove" as const, id: other!.id }];
      const refused = await refusalOf(client.changeMembers(wish));
      expect(refused).toMatchObject({ code: "no_live_majority", outcome: "not-applied" });
      // The dead one may go, and then the other one may not be missed.
      await client.changeMembers([{ op: "remove", id: gone!.id }]);
      expect((await client.members()).members.map(({ id }) => id)).toEqual(
        [leader.id, other!.id].toSorted((a, b) => a - b),
      );
    });
  }, 60_000);
});
