/**
 * What an operator changes while programs write: leadership and members. Who retries sees nothing of it; who does not, over HTTP and through each node,
 * sees errors that say so [R-59, Z-102].
 */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { errorTable } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import { until, withCluster } from "./cluster.ts";
import { failureOf, HttpDoor } from "./doors.ts";
import { Workload } from "./workload.ts";

const testMsMax = 60_000;
const transfers = 7;
const between = 30;
const electionMsMax = defaultLimits.electionTicksMax * defaultLimits.tickMs;

test(
  `leadership goes round ${transfers} times under load: within an election time-out, and no write fails`,
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      await using workload = new Workload(cluster, { httpWritersPerNode: 0, timeoutMs: 20_000 });
      workload.start();
      const tookMs: number[] = [];
      for (let count = 0; count < transfers; count++) {
        await workload.acknowledges(between);
        const [next] = await cluster.followers();
        const beganMs = performance.now();
        expect(await client.transferLeader(next!.id)).toMatchObject({ leader: next!.id });
        tookMs.push(performance.now() - beganMs);
      }
      await workload.acknowledges(between);
      await workload.stop();
      await cluster.converged();
      await workload.verify("all");
      const { notApplied, unknown } = workload.counts;
      expect({ notApplied, unknown }).toEqual({ notApplied: 0, unknown: 0 });
      // Others use this machine too: the usual one counts.
      expect(tookMs.toSorted((a, b) => a - b)[transfers >> 1]!).toBeLessThan(electionMsMax);
    }),
  testMsMax,
);

test(
  "members come and go under writes that nobody retries: all that fails says that a retry helps, and the rest is there",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      const leader = await cluster.leader();
      const stay = cluster.nodes.filter((node) => node !== leader);
      const written = new Map<string, number>();
      const failed: string[] = [];
      let ends = false;
      const writer = async (door: HttpDoor, name: string): Promise<void> => {
        for (let count = 0; !ends; count++) {
          const key = `${name}.${count}`;
          const put = door.put(key, "value", 5_000);
          const revision = await put.catch(() => 0);
          if (revision > 0) written.set(key, revision);
          else failed.push((await failureOf(put)).code);
        }
      };
      const doors = stay.map((node) => new HttpDoor(node));
      const writing = Promise.all(
        doors.flatMap((door, at) => [0, 1].map((lane) => writer(door, `${at}.${lane}`))),
      );
      const goOn = async (): Promise<void> => {
        const due = written.size + between;
        await until("writes go on", () => written.size >= due);
      };
      await goOn();
      const joining = cluster.join();
      joining.start();
      await joining.ready();
      await until("it votes", async () => {
        const { members } = await client.members();
        return members.some(({ id, role }) => id === joining.id && role === "voter");
      });
      await goOn();
      // The leader itself goes, and one that stays is a learner for a while.
      await client.changeMembers([{ op: "remove", id: leader.id }]);
      cluster.leave(leader);
      await goOn();
      await client.changeMembers([{ op: "demote", id: stay[0]!.id }]);
      await goOn();
      await client.changeMembers([{ op: "promote", id: stay[0]!.id }]);
      await goOn();
      ends = true;
      await writing;
      const codes = [...new Set(failed)] as (keyof typeof errorTable)[];
      expect(codes.filter((code) => !errorTable[code].retryable)).toEqual([]);
      await cluster.converged();
      for (const [key, revision] of written) {
        expect((await doors[0]!.get(key, 5_000, "local"))?.revision).toBe(revision);
      }
    }),
  testMsMax,
);
