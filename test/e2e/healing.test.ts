/**
 * Damage to the folder of a node that others can make good, on real processes: the node starts, says that it is wounded, fetches what it lacks
 * from the leader, and is whole again, with the state that the others have.
 */
import { expect, test } from "bun:test";
import { cpSync, readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";
import { damageWal } from "./wal.ts";

const testMsMax = 60_000;
const value = "value".repeat(100);
const writes = 50;

const segmentsOf = (node: TestNode): string => join(node.dataDir, "segments");

/** Path of the newest file of log records that has any. */
function newestLog(node: TestNode): string {
  const folder = segmentsOf(node);
  const logs = readdirSync(folder).filter((name) => name.endsWith("-wal"));
  const longest = logs.sort().findLast((name) => statSync(join(folder, name)).size > 20_000);
  return join(folder, longest!);
}

function halve(node: TestNode): void {
  const wal = newestLog(node);
  truncateSync(wal, Math.floor(statSync(wal).size / 2));
}

const damages: Readonly<Record<string, (node: TestNode) => void>> = {
  "a log that lost its end": halve,
  // SQLite silently leaves it out, with all that follows.
  "a bit that SQLite sees": (node) => damageWal(newestLog(node), "key25", { reseal: false }),
  "a bit that SQLite does not see": (node) => damageWal(newestLog(node), "key25", { reseal: true }),
  "a log that is gone": (node) => rmSync(segmentsOf(node), { recursive: true }),
};

async function textOf(node: TestNode, path: string): Promise<string> {
  try {
    const response = await node.fetch(path);
    return await response.text();
  } catch {
    return "";
  }
}

/** Until the node says this there. */
async function says(node: TestNode, path: string, words: RegExp): Promise<void> {
  for (let text = ""; !words.test(text); text = await textOf(node, path)) await Bun.sleep(20);
}

async function damaged(cluster: TestCluster, damage: (node: TestNode) => void): Promise<TestNode> {
  const [node] = cluster.nodes;
  const door = new HttpDoor(node!);
  for (let i = 0; i < writes; i++) await door.put(`key${i}`, value, 5_000);
  await cluster.converged();
  await Promise.all(cluster.nodes.map((each) => each.terminate()));
  damage(node!);
  return node!;
}

for (const [what, damage] of Object.entries(damages)) {
  test(
    `${what} comes back from the leader`,
    () =>
      withCluster({}, async (cluster) => {
        const node = await damaged(cluster, damage);
        // Alone it tells what is the matter, and that nobody can help.
        node.start();
        await says(node, "/readyz", /wounded.*there is none/s);
        await says(node, "/metrics", /barge_group_wounded_to_index\{[^}]*\} [1-9]/);
        const [group] = (await node.status()).groups;
        expect((await node.status()).health).toBe("wounded");
        expect(group!.wounded!.index).toBeGreaterThanOrEqual(writes);
        // It remembers.
        await node.kill();
        node.start();
        await says(node, "/readyz", /wounded/);

        const rest = cluster.nodes.filter((each) => each !== node);
        await cluster.start(rest);
        await cluster.converged();
        await node.ready();
        const healed = await node.status();
        expect(healed.health).toBe("ok");
        expect(healed.groups[0]!.wounded).toBeUndefined();
        expect((await new HttpDoor(node).get("key25", 5_000))?.value).toBe(value);

        // It counts again: with one of the others gone, the two are a majority.
        await rest[0]!.kill();
        await cluster.leader([node, rest[1]!]);
        await says(node, "/readyz", /ready|ok/);
        await new HttpDoor(node).put("after", value, 10_000);
        rest[0]!.start();
        await cluster.converged();
      }),
    testMsMax,
  );
}

const machineOf = (node: TestNode): string => join(node.dataDir, "machine", "0");

const stateLosses: Readonly<Record<string, (node: TestNode, copy: string) => void>> = {
  "a state that is gone": (node) => rmSync(machineOf(node), { recursive: true }),
  "a state in whose place is an old copy": (node, copy) => {
    rmSync(machineOf(node), { recursive: true });
    cpSync(copy, machineOf(node), { recursive: true });
  },
};

for (const [what, lose] of Object.entries(stateLosses)) {
  test(
    `${what} comes back from the leader, though the logs are cut`,
    () =>
      withCluster({ flags: ["--compact-tail-bytes=1000"] }, async (cluster) => {
        const [node, ...rest] = cluster.nodes as [TestNode, TestNode, TestNode];
        const door = new HttpDoor(node);
        const cut = async (): Promise<void> => {
          for (const each of cluster.nodes) {
            expect((await each.fetch("/v1/snapshot", { method: "POST" }, 20_000)).status).toBe(200);
          }
        };
        await door.put("early", value, 5_000);
        await cluster.converged();
        await cut();
        await node.terminate();
        const copy = join(cluster.dir, "copy");
        cpSync(machineOf(node), copy, { recursive: true });
        await cluster.start();
        for (let i = 0; i < writes; i++) await door.put(`key${i}`, value, 5_000);
        await cluster.converged();
        await cut();

        await Promise.all(cluster.nodes.map((each) => each.terminate()));
        lose(node, copy);
        node.start();
        await says(node, "/readyz", /wounded.*the state below it.*there is none/s);
        expect(node.log()).toContain("the state that the log goes on from is lost");
        // It remembers.
        await node.kill();
        node.start();
        await says(node, "/readyz", /wounded/);

        await cluster.start(rest);
        await node.ready();
        await cluster.converged();
        expect((await node.status()).health).toBe("ok");
        for (const key of ["early", "key0", `key${writes - 1}`]) {
          expect((await door.get(key, 5_000, "local"))?.value).toBe(value);
        }
        // And it is whole: the next start finds it so.
        await node.kill();
        node.start();
        await node.ready();
        await cluster.converged();
      }),
    testMsMax,
  );
}

test(
  "a state that is gone is made anew from the log, while that has all of it",
  () =>
    withCluster({}, async (cluster) => {
      const node = await damaged(cluster, (each) => rmSync(machineOf(each), { recursive: true }));
      node.start();
      await until("it has replayed its log", async () => {
        const { lastIndex } = await node.group();
        return node.log().includes(`"commands":${lastIndex},"appliedIndex":0`);
      });
      expect((await node.group()).wounded).toBeUndefined();
      await cluster.start();
      await cluster.converged();
    }),
  testMsMax,
);

test(
  "two wounded nodes of three elect nobody, and are healed by nobody else than a leader",
  () =>
    withCluster({}, async (cluster) => {
      const node = await damaged(cluster, halve);
      const other = cluster.nodes[1]!;
      halve(other);
      for (const each of cluster.nodes) each.start();
      for (const each of [node, other]) await says(each, "/readyz", /wounded.*there is none/s);
      // The longest election time-out goes by several times.
      await Bun.sleep(3_000);
      for (const each of cluster.nodes) {
        const [group] = (await each.status()).groups;
        expect(group!.leader).toBe(0);
      }
      expect(await textOf(node, "/readyz")).toMatch(/majority be wounded/);
    }),
  testMsMax,
);

test(
  "a node whose cluster grew from it alone is healed too",
  () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      for (let added = 0; added < 2; added++) {
        const joining = cluster.join();
        joining.start();
        await joining.ready();
      }
      await until("all are voters", async () => {
        // In the registry's own group too: as long as one node alone votes there, no other can heal it.
        const { groups } = await cluster.nodes[0]!.status();
        const voters = groups.map(({ members }) => members.filter(({ voter }) => voter).length);
        return voters.join() === "3,3";
      });
      const node = await damaged(cluster, damages["a log that is gone"]!);
      for (const each of cluster.nodes) each.start();
      await cluster.converged();
      await node.ready();
      expect((await node.status()).health).toBe("ok");
      expect((await new HttpDoor(node).get("key25", 5_000))?.value).toBe(value);
    }),
  testMsMax,
);
