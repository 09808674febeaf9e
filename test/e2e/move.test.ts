/** A member that comes back at another address, with its folder: the others are told where it is, and it is one of them again. On real processes. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import { barge } from "../cli/program.ts";
import { TestCluster, type TestNode, until, withCluster } from "./cluster.ts";

const testMsMax = 60_000;

/** As that machine would be reached after it got another name. */
const moved = (address: string): string => address.replace("127.0.0.1", "127.0.0.2");

async function matches(node: TestNode, id: number): Promise<boolean> {
  const { lastIndex, members } = await node.group();
  return members.some((member) => member.id === id && member.matchIndex === lastIndex);
}

for (const who of ["leader", "follower"] as const) {
  test(
    `a ${who} moves`,
    () =>
      withCluster({}, async (cluster) => {
        const leader = await cluster.leader();
        const node = who === "leader" ? leader : cluster.nodes.find((each) => each !== leader)!;
        const rest = cluster.nodes.filter((each) => each !== node);
        await node.terminate();
        const address = moved(node.binary);
        node.start([`--listen=${address}`, `--advertise=${address}`]);
        await using client = connect({ endpoints: rest[0]!.binary, timeoutMs: 10_000 });
        await client.put("while", "it was not heard of");
        // Until then it is reached over its own connections; the others say what to do.
        const hint = `barge member move ${node.id}=${address}`;
        const logs = rest.map(({ id }) => join(cluster.dir, `node${id}.log`));
        await until("the others say what to do", () =>
          Promise.resolve(logs.every((path) => readFileSync(path, "utf8").includes(hint))),
        );

        const before = await client.members();
        const arguments_ = ["member", "move", `${node.id}=${address}`, "--json"];
        for (const changed of [true, false]) {
          const { status, out } = await barge([...arguments_, "--endpoints", rest[0]!.binary]);
          expect(status).toBe(0);
          expect(JSON.parse(out)).toMatchObject({ changed, joint: false });
        }
        const now = await cluster.leader(rest);
        await until("it has all that the leader has", () => matches(now, node.id));
        await node.ready();
        const members = await client.members();
        expect(members.members.find(({ id }) => id === node.id)).toMatchObject({
          address,
          role: "voter",
          connected: true,
        });
        expect(members.configurationIndex).toBeGreaterThan(before.configurationIndex);

        // It counts: with one of the others gone, the two are a majority.
        await rest.find((each) => each !== now)!.kill();
        await client.put("after", "with it");
      }),
    testMsMax,
  );
}

test("at its first start a node is where the list of the first members has it", async () => {
  await using cluster = new TestCluster();
  const [node] = cluster.nodes;
  const address = moved(node!.binary);
  node!.start([`--listen=${address}`, `--advertise=${address}`]);
  const { status, stderr } = await node!.ended();
  expect(status).toBe(fatalTable.wrong_data_dir.status);
  expect(stderr).toContain(`--advertise ${address} differs from this node's address`);
});
