/** Who sits at a member's address, and answers the others that they are no members, or not those that they were: nobody ends at its word. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { defaultLimits } from "../../src/limits.ts";
import { parseAddress } from "../../src/net/address.ts";
import { listen } from "../../src/net/listener.ts";
import type { HelloReply } from "../../src/wire/messages.ts";
import { TestCluster, type TestNode, until, withCluster } from "../e2e/cluster.ts";
import { clientHello, RawClient } from "./raw-client.ts";

const testMsMax = 60_000;
/** Each node dials twice, so these are several rounds of both. */
const liesPerNode = 6;

/** Answers each peer in that node's name; returns how often, by who asked. */
function lie(at: TestNode, code: string, like: Partial<HelloReply>) {
  const told = new Map<number, number>();
  const { host, port } = parseAddress(at.binary)!;
  const listener = listen({
    host,
    port,
    limits: defaultLimits,
    decideHello: ({ nodeId = 0, clusterId = "", versionMax }) => {
      told.set(nodeId, (told.get(nodeId) ?? 0) + 1);
      return {
        version: versionMax,
        features: 0,
        software: "liar",
        clusterId,
        nodeId: at.id,
        incarnation: "none",
        frameBytesMax: defaultLimits.frameBytesMax,
        sectionBytesMax: defaultLimits.sectionBytesMax,
        members: {},
        leader: 0,
        ...like,
        error: { code, message: `You are out, says ${at.id}.` },
      };
    },
    onConnection: () => {},
  });
  return { told, close: () => listener.close() };
}

async function hearLies(told: ReadonlyMap<number, number>, nodes: readonly TestNode[]) {
  await until("all of them have heard it often enough", () =>
    nodes.every(({ id }) => (told.get(id) ?? 0) >= liesPerNode),
  );
  for (const node of nodes) expect(node.unexpectedEnd).toBeUndefined();
}

test(
  "one member that says that all others were removed is not believed, and it is told",
  () =>
    withCluster({ nodes: 3 }, async (cluster) => {
      const [liar] = await cluster.followers();
      const others = cluster.nodes.filter((node) => node !== liar);
      const { incarnation } = await (async () => {
        using client = await RawClient.connect(liar!.binary, { hello: clientHello });
        return client.helloReply!;
      })();
      await liar!.kill();
      const { told, close } = lie(liar!, "member_removed", { incarnation });
      await hearLies(told, others);
      await using client = connect({ endpoints: others.map(({ binary }) => binary).join(",") });
      await client.put("still", "here");
      for (const node of others) {
        expect(node.log()).toContain(`node ${liar!.id} says that this node was removed`);
        // It serves: what one says does not take it out of a load balancer.
        expect((await node.fetch("/readyz")).status).toBe(200);
      }
      close();
      await cluster.start([liar!]);
      await cluster.converged();
    }),
  testMsMax,
);

test(
  "nor is one at the first start that knows the others with other folders; until it takes them, there is no cluster",
  async () => {
    await using cluster = new TestCluster({ nodes: 3 });
    const [first, second, third] = cluster.nodes;
    const { told, close } = lie(third!, "wrong_incarnation", {});
    const others = [first!, second!];
    for (const node of others) node.start();
    await hearLies(told, others);
    for (const node of others) {
      const answer = await node.fetch("/readyz");
      expect(answer.status).toBe(503);
      expect(await answer.text()).toContain("node 3 says that this node's data folder is not");
    }
    close();
    await cluster.start();
    await cluster.leader();
  },
  testMsMax,
);
