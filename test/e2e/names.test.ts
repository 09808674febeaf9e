/**
 * Members that are known by a name, which is given to another machine: with the disk of the old one it is the same member; with an empty disk it is
 * refused, and comes back as a new member under that name by the command that it is told. On real processes; skips where names cannot be had.
 */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Client, connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import { barge } from "../cli/program.ts";
import {
  loopbackPlace,
  type NodePlace,
  type TestCluster,
  type TestNode,
  until,
  withCluster,
} from "./cluster.ts";
import { votes } from "./membership-walk.ts";
import { Names, namesRefused } from "./names.ts";

const testMsMax = 60_000;
const name = "node3.example";
const [firstMachine, secondMachine] = ["127.0.0.1", "127.0.0.3"];
const refused = namesRefused();
if (refused !== undefined) process.stderr.write(`skip: no names of one's own here (${refused})\n`);

/** Cut as soon as possible, so that who has nothing needs a snapshot. */
const flags = [
  "--compact-entries",
  "0",
  "--compact-bytes",
  "30000",
  "--compact-tail-bytes",
  "5000",
];

interface World {
  readonly cluster: TestCluster;
  readonly names: Names;
  /** On the members that stay. */
  readonly client: Client;
  /** Where node 3 listens on the second machine. */
  readonly elsewhere: string;
}

/** Three members, the third of which is known by a name; its place on the second machine is for whoever comes next. */
async function withName(body: (world: World) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "barge-names-"));
  try {
    const names = new Names(dir);
    names.point(name, firstMachine);
    const port = loopbackPlace().listen.split(":")[1]!;
    const advertise = `${name}:${port}`;
    const elsewhere = `${secondMachine}:${port}`;
    const place = (id: number): NodePlace => {
      const { command } = names;
      if (id < 3) return { ...loopbackPlace(), command };
      const listen = id === 3 ? `${firstMachine}:${port}` : elsewhere;
      return { ...loopbackPlace(), listen, advertise, command };
    };
    await withCluster({ place, flags }, async (cluster) => {
      const endpoints = cluster.nodes.slice(0, 2).map(({ listen }) => listen);
      await using client = connect({ endpoints, timeoutMs: 15_000 });
      await body({ cluster, names, client, elsewhere });
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Waits until the leader is connected to that member because it has dialled it. */
async function isDialled(client: Client, id: number, at: string): Promise<void> {
  await until(`node ${id} is dialled where the name leads`, async () => {
    const { members } = await client.members();
    const { address, connected, dialsIn } = members.find((member) => member.id === id)!;
    return address === at && connected && dialsIn !== true;
  });
}

describe.skipIf(refused !== undefined)("a name that is given to another machine", () => {
  test(
    "with the disk: it is the same member, and nobody has to be told",
    () =>
      withName(async ({ cluster, names, client, elsewhere }) => {
        const node = cluster.nodes[2]!;
        await client.put("before", "there");
        await node.kill();
        names.point(name, secondMachine);
        node.start([`--listen=${elsewhere}`]);
        await client.put("after", "here");
        await node.ready();
        await cluster.converged();
        await isDialled(client, 3, node.binary);
      }),
    testMsMax,
  );

  test(
    "with an empty disk: it is refused, replaced by the command that it prints, and recovers by snapshot under the same name",
    () =>
      withName(async ({ cluster, names, client, elsewhere }) => {
        const lost = cluster.nodes[2]!;
        await lost.kill();
        names.point(name, secondMachine);
        const value = "x".repeat(2_000);
        for (let i = 0; i < 60; i++) await client.put(`key ${i % 20}`, `${i} ${value}`);

        // Whoever starts the new machine as the old one was started learns what to do.
        const empty = join(cluster.dir, "empty");
        lost.start([`--listen=${elsewhere}`, `--data-dir=${empty}`]);
        const { status, stderr } = await lost.ended();
        expect(status).toBe(fatalTable.replaced_data_dir.status);
        const command = /`barge (member replace 3 --by 4=\S+)`/.exec(stderr)?.[1];
        expect(command).toBe(`member replace 3 --by 4=${lost.binary}`);
        expect(stderr).toContain("start the new node with --node-id 4 --join and an empty folder");

        const endpoints = ["--endpoints", cluster.nodes[0]!.listen];
        for (const changed of [true, false]) {
          const ran = await barge([...command!.split(" "), ...endpoints, "--json"]);
          expect(ran).toMatchObject({ status: 0 });
          expect(JSON.parse(ran.out)).toMatchObject({ changed });
        }
        const others = cluster.nodes.slice(0, 2);
        for (const node of others) {
          await until(`the log of node ${node.id} begins beyond what it would need`, async () => {
            await client.put("more", value);
            await node.fetch("/v1/snapshot", { method: "POST", body: "{}" }, 10_000);
            return (await node.group()).firstIndex > 60;
          });
        }
        const by = cluster.join();
        cluster.leave(lost);
        by.start();
        await votes(cluster, [by]);
        await by.ready();
        expect((await client.members()).removed).toEqual([3]);
        const group = await cluster.converged();
        expect((await by.group()).firstIndex).toBeGreaterThan(60);
        expect(group.members.map(({ id }) => id)).toEqual([1, 2, 4]);
        await isDialled(client, 4, by.binary);
        expect(by.log()).toContain("snapshot");

        // It counts.
        await others[0]!.kill();
        await using rest = connect({ endpoints: others[1]!.listen, timeoutMs: 15_000 });
        await rest.put("with", "it");
        expect((await rest.get("key 19"))?.value).toBeDefined();
      }),
    testMsMax,
  );
});

/** Connections that others dialled and that are not clients'. */
async function dialledByPeers(node: TestNode): Promise<number> {
  const text = await (await node.fetch("/metrics")).text();
  const value = (metric: string): number => {
    const line = text.split("\n").find((each) => each.startsWith(`${metric} `));
    return Number(line?.split(" ")[1]);
  };
  return value("barge_connections") - value("barge_client_connections");
}

test(
  "a member with two names is one member, to which there is one pair of connections each way",
  () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      const [first] = cluster.nodes;
      await using client = connect({ endpoints: first!.binary, timeoutMs: 10_000 });
      const second = cluster.join();
      const known = second.binary.replace("127.0.0.1", "localhost");
      await client.changeMembers([{ op: "add", id: 2, address: known }]);
      // It says that it is elsewhere, and so it does when it is started again.
      for (let start = 0; start < 2; start++) {
        second.start();
        await votes(cluster, [second]);
        await second.ready();
        await cluster.converged();
        const { members, removed } = await client.members();
        expect(members.map(({ id, address }) => [id, address])).toEqual([
          [1, first!.binary],
          [2, known],
        ]);
        expect(removed).toEqual([]);
        for (const node of [first!, second]) {
          await until(`node ${node.id} is dialled as often as it must be`, async () => {
            return (await dialledByPeers(node)) === 2;
          });
        }
        await client.put("both", String(start));
        expect(await Promise.all([first!, second].map(dialledByPeers))).toEqual([2, 2]);
        await second.kill();
      }
      expect(first!.log()).toContain(`node 2 says that it is at ${second.binary}`);
      second.start();
      await second.ready();
      // Asked under both names it is one row.
      const endpoints = `${first!.binary},${second.binary},${known}`;
      const { out } = await barge(["status", "--endpoints", endpoints, "--json"]);
      expect(JSON.parse(out).nodes.map(({ nodeId }: { nodeId: number }) => nodeId)).toEqual([1, 2]);
      // To say where it is changes that, and nothing else.
      await client.changeMembers([{ op: "move", id: 2, address: second.binary }]);
      await until("it is dialled there", async () => (await dialledByPeers(second)) === 2);
      expect((await client.members()).members.length).toBe(2);
    }),
  testMsMax,
);
