/** On real processes: what becomes of a node that was away, was removed, lost its folder, or was never meant. */
import { describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import { Random } from "../sim/random.ts";
import { loopbackPlace, type NodePlace, type TestCluster, until, withCluster } from "./cluster.ts";
import { votes } from "./membership-walk.ts";

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
      await until("the leader is connected to all of them", async () => {
        const { members } = await client.members();
        return members.length === 3 && members.every(({ connected }) => connected);
      });
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
      gone!.start();
      expect(await gone!.ended()).toMatchObject({ status: fatalTable.member_removed.status });
      gone!.start();
      const { status, stderr } = await gone!.ended();
      expect(status).toBe(fatalTable.member_removed.status);
      expect(stderr).toContain(`Node ${gone!.id} was removed from this cluster`);
      // It stood for no election.
      expect(gone!.log().split('"serving"').slice(2).join()).not.toContain('"role":"candidate"');
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
      expect(stderr).toContain(`barge member replace ${wiped!.id} --by 4=${wiped!.binary}`);

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

  test("a joiner that nobody can reach, nor it anybody, says so, and is reached once it is told right", async () => {
    const lost = (id: number): NodePlace => ({
      ...loopbackPlace(),
      ...(id === 1 ? { advertise: "elsewhere.invalid:9091" } : {}),
    });
    await withCluster({ nodes: 1, place: lost }, async (cluster) => {
      const [first] = cluster.nodes;
      const joiner = cluster.join();
      joiner.start([`--join=${first!.listen}`, "--advertise=nowhere.invalid:9091"]);
      await until("it says so", async () => {
        const response = await joiner.fetch("/readyz");
        return (await response.text()).includes("no member has reached it at nowhere.invalid:9091");
      });
      await until("its log says so", () =>
        Promise.resolve(
          joiner.log().includes("no member has reached it") &&
            joiner.log().includes("nor has it reached one of them (1=elsewhere.invalid:9091)"),
        ),
      );
      await using client = connect({ endpoints: first!.listen, timeoutMs: 10_000 });
      await client.changeMembers([{ op: "move", id: joiner.id, address: joiner.binary }]);
      await votes(cluster, [joiner]);
      await joiner.ready();
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
