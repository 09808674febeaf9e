/**
 * Members that come and go, on real processes: the walk under load, and what a node says that has no place in its cluster. walk.ts takes the walk
 * as often as one likes.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BargeError } from "../../src/errors.ts";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import { Random } from "../sim/random.ts";
import { type TestCluster, until, withCluster } from "./cluster.ts";
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
        const response = await follower!.fetch(`/v1/members${path}`, init, 5_000);
        return {
          status: response.status,
          body: (await response.json()) as Record<string, unknown>,
        };
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

describe.concurrent("a member that was away", () => {
  test("while all the others were replaced finds them, and they find it", async () => {
    await withCluster({}, async (cluster) => {
      const [away] = await cluster.followers();
      await away!.kill();
      const others = cluster.nodes.filter((node) => node !== away);
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 8_000 });
      const newcomers = [cluster.join(), cluster.join()];
      for (const node of newcomers) node.start();
      await votes(cluster, newcomers);
      for (const gone of others) {
        const ended = gone.ended();
        await client.changeMembers([{ op: "remove", id: gone.id }]);
        cluster.leave(gone);
        expect((await ended).status).toBe(fatalTable.member_removed.status);
      }
      await client.put("while it was away", "1");
      away!.start();
      await cluster.converged();
      const { members } = await client.members();
      expect(members.map(({ id, connected }) => [id, connected])).toEqual(
        cluster.nodes.map(({ id }) => [id, true]).toSorted(),
      );
    });
  }, 60_000);
});

describe.concurrent("nodes that have no place", () => {
  test("a node that was removed while it was down is told so when it comes back, and disturbs nobody", async () => {
    await withCluster({}, async (cluster) => {
      const [gone] = await cluster.followers();
      await gone!.kill();
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 8_000 });
      await client.changeMembers([{ op: "remove", id: gone!.id }]);
      const { term } = await client.members();
      gone!.start();
      expect(await gone!.ended()).toMatchObject({ status: fatalTable.member_removed.status });
      gone!.start();
      const { status, stderr } = await gone!.ended();
      expect(status).toBe(fatalTable.member_removed.status);
      expect(stderr).toContain(`Node ${gone!.id} was removed from this cluster`);
      expect((await client.members()).term).toBe(term);
    });
  }, 60_000);

  test("a wiped node is refused under its id, and replaced by the command that it prints", async () => {
    await withCluster({}, async (cluster) => {
      const [wiped] = await cluster.followers();
      await wiped!.kill();
      rmSync(wiped!.dataDir, { recursive: true });
      wiped!.start();
      const { status, stderr } = await wiped!.ended();
      expect(status).toBe(fatalTable.replaced_data_dir.status);
      expect(stderr).toContain(`barge member replace ${wiped!.id} --by 4=HOST:PORT`);

      const by = cluster.join();
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 8_000 });
      const wish = { op: "replace" as const, id: wiped!.id, by: by.id, address: by.binary };
      await client.changeMembers([wish]);
      by.start();
      await votes(cluster, [by]);
      expect((await client.members()).removed).toEqual([wiped!.id]);
      expect(await client.changeMembers([wish])).toMatchObject({ changed: false });
      cluster.leave(wiped!);
      await cluster.converged();
    });
  }, 60_000);

  test("a joiner may be killed at any moment and started again; with an empty folder it is somebody else", async () => {
    await withCluster({}, async (cluster) => {
      const random = new Random(5);
      const joiner = cluster.join();
      for (let kill = 0; kill < 6; kill++) {
        joiner.start();
        await Bun.sleep(random.between(20, 250));
        await joiner.kill();
      }
      joiner.start();
      await votes(cluster, [joiner]);
      expect(existsSync(join(joiner.dataDir, "joining.json"))).toBe(false);
      await joiner.kill();
      rmSync(joiner.dataDir, { recursive: true });
      joiner.start();
      const { status, stderr } = await joiner.ended();
      expect(status).toBe(fatalTable.join_refused.status);
      expect(stderr).toContain(`barge member replace ${joiner.id} --by 5=HOST:PORT`);
    });
  }, 60_000);

  test("another token does not join, and another cluster's folder does not serve", async () => {
    await withCluster({ flags: ["--cluster-token=ours"] }, async (cluster) => {
      const stranger = cluster.join();
      stranger.start(["--cluster-token=theirs"]);
      const refused = await stranger.ended();
      expect(refused.status).toBe(fatalTable.join_refused.status);
      expect(refused.stderr).toContain("another --cluster-token");
      stranger.start();
      await votes(cluster, [stranger]);
      await stranger.terminate();
      stranger.start(["--cluster-token=theirs"]);
      expect((await stranger.ended()).status).toBe(fatalTable.wrong_data_dir.status);
      await restarts(cluster, stranger.id);
    });
  }, 60_000);
});

/** A member that joined starts again without being told how. */
async function restarts(cluster: TestCluster, id: number): Promise<void> {
  const node = cluster.nodes.find((each) => each.id === id)!;
  node.start();
  await node.ready();
  expect((await node.group()).members.length).toBe(4);
}
