/** On real processes: a member that nobody can dial, as its port is closed to all. It dials the others, and what goes to it comes back on that way. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { barge } from "../cli/program.ts";
import { Random } from "../sim/random.ts";
import { BlackHole } from "./black-hole.ts";
import { loopbackPlace, type NodePlace, type TestNode, until, withCluster } from "./cluster.ts";
import { votes } from "./membership-walk.ts";

const testMsMax = 60_000;

/** It listens, yet where others look for it nobody does. */
function closedPlace(): NodePlace {
  return { ...loopbackPlace(), advertise: loopbackPlace().listen };
}

const closedIs =
  (closed: number) =>
  (id: number): NodePlace =>
    id === closed ? closedPlace() : loopbackPlace();

/** Waits until that node reaches the member so. */
async function reaches(from: TestNode, id: number, how: "dials in" | "is dialled"): Promise<void> {
  await until(`node ${from.id} has a connection to node ${id}, which ${how}`, async () => {
    const member = (await from.group()).members.find((each) => each.id === id);
    return member?.connected === true && (member.dialsIn === true) === (how === "dials in");
  });
}

describe.concurrent("a member that cannot be dialled", () => {
  test(
    "since what is sent to its address is swallowed: the same, a second later",
    async () => {
      using hole = BlackHole.open();
      if (hole === undefined) return;
      const place = (id: number): NodePlace => {
        const at = loopbackPlace();
        return id === 2 ? { ...at, advertise: `${hole.host}:9091` } : at;
      };
      await withCluster({ nodes: 1, place }, async (cluster) => {
        const [first] = cluster.nodes;
        const joiner = cluster.join();
        joiner.start();
        await votes(cluster, [joiner]);
        await joiner.ready();
        await reaches(first!, 2, "dials in");
        expect(first!.log()).toContain(`${hole.host}:9091: no answer within 1000 ms`);
        await cluster.converged();
      });
    },
    testMsMax,
  );

  test(
    "joins, votes, replicates, and stays through a change of leader and a restart",
    () =>
      withCluster({ place: closedIs(4) }, async (cluster) => {
        await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 15_000 });
        await client.put("before", "it came");
        const leader = await cluster.leader();
        const joiner = cluster.join();
        joiner.start();
        await votes(cluster, [joiner]);
        await joiner.ready();
        await reaches(leader, 4, "dials in");
        const { out } = await barge(["member", "list", "--endpoints", leader.binary]);
        expect(out.split("\n").find((line) => line.includes(joiner.binary))).toContain(
          "reached over its own connection",
        );
        await until("it has the data", async () => {
          return (await joiner.fetch("/v1/kv/before?consistency=local")).ok;
        });

        // Without it three of four would not be left.
        await leader.kill();
        await client.put("after", "the leader went");
        const others = cluster.nodes.filter((node) => node !== leader);
        for (const node of others) if (node !== joiner) await reaches(node, 4, "dials in");
        await joiner.kill();
        joiner.start();
        await client.put("after", "it was restarted");
        await joiner.ready();

        leader.start();
        await cluster.converged();
        await reaches(leader, 4, "dials in");
      }),
    testMsMax,
  );

  test(
    "since somebody else answers at its address: leads, too, and serves through the others",
    async () => {
      using stranger = Bun.serve({ port: 0, fetch: () => new Response("hello") });
      const place = (id: number): NodePlace => {
        const at = loopbackPlace();
        return id === 3 ? { ...at, advertise: `127.0.0.1:${stranger.port}` } : at;
      };
      await withCluster({ place }, async (cluster) => {
        await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 15_000 });
        await client.put("first", "1");
        await client.transferLeader(3);
        expect((await cluster.leader()).id).toBe(3);
        for (const node of cluster.nodes.slice(0, 2)) {
          await using through = connect({ endpoints: node.binary, timeoutMs: 15_000 });
          const { revision } = await through.put("through", String(node.id));
          const read = await through.get("through");
          expect(read?.revision).toBe(revision);
        }
        // Seen from there all others are dialled.
        for (const id of [1, 2]) await reaches(cluster.nodes[2]!, id, "is dialled");
        await cluster.converged();
      });
    },
    testMsMax,
  );

  test(
    "may be killed at any moment of its joining",
    () =>
      withCluster({ nodes: 1, place: closedIs(2) }, async (cluster) => {
        const random = new Random(7);
        const joiner = cluster.join();
        for (let kill = 0; kill < 5; kill++) {
          joiner.start();
          await Bun.sleep(random.between(20, 250));
          await joiner.kill();
        }
        // As soon as the folder is the cluster's: all that it has is where the members were.
        joiner.start();
        await until("it belongs to the cluster", () =>
          existsSync(join(joiner.dataDir, "identity.json")),
        );
        await joiner.kill();
        joiner.start();
        await votes(cluster, [joiner]);
        await joiner.ready();
        await cluster.converged();
      }),
    testMsMax,
  );
});
