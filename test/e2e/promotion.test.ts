/** Votes that come and go where a node stands: nobody who writes notices. And what a learner is good for: reads, but no quorum. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { failureOf, HttpDoor } from "./doors.ts";
import { membersOf } from "./membership-walk.ts";
import { Workload } from "./workload.ts";

const testMsMax = 120_000;
const rounds = 2;

test(
  "promoted and demoted in place, the leader too, while clients write: no write fails",
  () =>
    withCluster({}, async (cluster) => {
      const learner = cluster.join(["--learner"]);
      await cluster.start();
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
      await using workload = new Workload(cluster, {
        writersPerClient: 4,
        httpWritersPerNode: 0,
        timeoutMs: 10_000,
      });
      workload.start();
      await workload.acknowledges(50);
      const become = async (op: "promote" | "demote", node: TestNode): Promise<void> => {
        await client.changeMembers([{ op, id: node.id }]);
        const role = op === "promote" ? "voter" : "learner";
        await until(`node ${node.id} is a ${role}`, async () => {
          const { joint, members } = await membersOf(cluster);
          return !joint && members.find(({ id }) => id === node.id)?.role === role;
        });
        await workload.acknowledges(50);
      };
      for (let round = 0; round < rounds; round++) {
        await become("promote", learner);
        const leader = await cluster.leader();
        const other = round % 2 === 0 ? leader : cluster.nodes.find((node) => node !== leader)!;
        await become("demote", other);
        await become("promote", other);
        await become("demote", learner);
      }
      await workload.stop();
      const { notApplied, unknown } = workload.counts;
      expect({ notApplied, unknown }).toEqual({ notApplied: 0, unknown: 0 });
      await cluster.converged();
      await workload.verify("all");
    }),
  testMsMax,
);

test(
  "a learner catches up and answers reads of each kind, and with it there is still no quorum",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 10_000 });
      await client.put("before", "it came");
      const voters = [...cluster.nodes];
      const learner = cluster.join(["--learner"]);
      await cluster.start();
      await client.put("after", "it came");
      const door = new HttpDoor(learner);
      for (const key of ["before", "after"]) {
        expect(await door.get(key, 10_000, "linearizable")).toMatchObject({ value: "it came" });
        expect(await door.get(key, 10_000, "local")).toMatchObject({ value: "it came" });
      }
      await until("it is fresh", async () => {
        return (await learner.fetch("/v1/kv/after?consistency=local&maxStalenessMs=1000")).ok;
      });
      // It takes writes too, and passes them on.
      await door.put("through", "the learner", 10_000);

      const leader = await cluster.leader();
      const others = voters.filter((node) => node !== leader);
      await Promise.all(others.map((node) => node.kill()));
      const write = await failureOf(door.put("denied", "", 1_500));
      expect(["no_leader", "timeout", "outcome_unknown"]).toContain(write.code);
      await until("nobody leads", async () => (await leader.group()).role !== "leader");
      expect((await learner.group()).role).toBe("follower");
      expect(await door.get("through", 5_000, "local")).toMatchObject({ value: "the learner" });
      await others[0]!.start();
      await until("writes go on", async () => {
        await door.put("again", "", 5_000);
        return true;
      });
    }),
  testMsMax,
);
