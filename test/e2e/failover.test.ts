/** The leader is killed, or stopped and woken up again: writes go on without it, and it never answers from a past that others have left. */
import { expect, test } from "bun:test";
import { type Client, connect } from "../../src/client/index.ts";
import { type TestNode, withCluster } from "./cluster.ts";
import { type Door, type Found, HttpDoor, SdkDoor } from "./doors.ts";
import { Workload } from "./workload.ts";

const rounds = 2;
const testMsMax = 60_000;

test(
  "writes go on without the leader, and lose nothing",
  () =>
    withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster);
      for (let round = 0; round < rounds; round++) {
        for (const fault of ["SIGKILL", "SIGSTOP"] as const) {
          workload.start();
          await workload.acknowledges(100);
          const leader = await cluster.leader();
          if (fault === "SIGKILL") await leader.kill();
          else leader.pause();
          // More than what was under way: these writes are of the next leader.
          await workload.acknowledges(200);
          const rest = cluster.nodes.filter((node) => node !== leader);
          expect(await cluster.leader(rest)).not.toBe(leader);
          if (fault === "SIGKILL") leader.start();
          else leader.resume();
          await workload.stop();
          await leader.ready();
          await cluster.converged();
          await workload.verify("recent");
        }
      }
      await workload.verify("all");
    }),
  testMsMax,
);

const readsBefore = 40;
const readsAfter = 100;
const readTimeoutMs = 20_000;

/** Reads that wait in its sockets while it is stopped, and more as it wakes up: no answer may be of the time before. */
async function readAsItWakes(leader: TestNode, doors: readonly Door[]): Promise<Found[]> {
  const reads: Promise<Found | undefined>[] = [];
  const ask = (count: number): void => {
    for (let i = 0; i < count; i++) {
      const read = doors[i % doors.length]!.get("key", readTimeoutMs);
      // It may refuse: the term is over.
      reads.push(read.catch(() => undefined));
    }
  };
  ask(readsBefore);
  // Lets the requests leave this process before the signal does.
  await Bun.sleep(20);
  leader.resume();
  ask(readsAfter);
  const found = await Promise.all(reads);
  return found.filter((each) => each !== undefined);
}

/** Stays with its one node: it gives up a silent one only after longer than the test takes. */
function clientOf(node: TestNode): Client {
  return connect({ endpoints: node.binary, attemptTimeoutMs: 60_000, timeoutMs: readTimeoutMs });
}

test(
  "a stopped leader that wakes up serves no stale linearizable read",
  () =>
    withCluster({}, async (cluster) => {
      let answers = 0;
      for (let round = 0; round < 3; round++) {
        const leader = await cluster.leader();
        await using pinned = clientOf(leader);
        const binary = new SdkDoor(pinned);
        await binary.put("key", `old ${round}`, readTimeoutMs);
        expect(pinned.leader()).toBe(leader.binary);

        leader.pause();
        const rest = cluster.nodes.filter((node) => node !== leader);
        const next = await cluster.leader(rest);
        await new HttpDoor(next).put("key", `new ${round}`, readTimeoutMs);
        const found = await readAsItWakes(leader, [binary, new HttpDoor(leader)]);

        expect(new Set(found.map(({ value }) => value))).toEqual(new Set([`new ${round}`]));
        answers += found.length;
        await cluster.converged();
      }
      expect(answers).toBeGreaterThan(0);
    }),
  testMsMax,
);
