/**
 * The file of the state machine cannot be written, or read: the node stops before anything counts that is not there, says why as often as it is started,
 * and goes on where it was once the cause is gone [Z-17].
 */
import { expect, test } from "bun:test";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { fatalTable } from "../../src/fatal.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { HttpDoor } from "./doors.ts";

const testMsMax = 60_000;
const writes = 50;

const machineOf = (node: TestNode): string => join(node.dataDir, "machine", "0");

async function refusedStart(node: TestNode): Promise<string> {
  node.start();
  const { status, stderr } = await node.ended();
  expect(status).toBe(fatalTable.corrupt_data.status);
  return stderr;
}

test(
  "a flush that fails ends the node with its index where it was; it says so until it can go on, and then has everything",
  () =>
    withCluster({}, async (cluster) => {
      const [node, other] = cluster.nodes as [TestNode, TestNode];
      const door = new HttpDoor(other);
      for (let i = 0; i < writes; i++) await door.put(`key${i}`, "before", 5_000);
      await cluster.converged();
      expect((await node.group()).machineDurableIndex).toBe(0);
      // What is to become the file is none that SQLite would write to.
      const file = join(machineOf(node), "kv.db");
      mkdirSync(machineOf(node), { recursive: true });
      writeFileSync(file, Buffer.alloc(8_192, 7));
      const ended = node.ended();
      node.fetch("/v1/snapshot", { method: "POST" }).catch(() => {});
      const { status, stderr } = await ended;
      expect(status).toBe(fatalTable.sync_failed.status);
      expect(stderr).toContain(`${file}: SQLiteError: file is not a database`);

      // The others go on without it.
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      for (let i = 0; i < writes; i++) await client.put(`later${i}`, "after");
      await client.drain();
      const words = `The state of group 0 cannot be read: SQLiteError: file is not a database. Bring the files in ${machineOf(node)} back whole`;
      for (let start = 0; start < 2; start++) expect(await refusedStart(node)).toContain(words);

      rmSync(file);
      await cluster.start();
      await cluster.converged();
      const own = new HttpDoor(node);
      for (const key of ["key0", `later${writes - 1}`]) {
        expect(await own.get(key, 5_000, "local")).toEqual(await door.get(key, 5_000));
      }
    }),
  testMsMax,
);

test(
  "a state file that is damaged is told of, with what to do; done so, the state comes from the others",
  () =>
    withCluster({ flags: ["--compact-tail-bytes=1000"] }, async (cluster) => {
      const [node, other] = cluster.nodes as [TestNode, TestNode];
      const door = new HttpDoor(other);
      for (let i = 0; i < writes; i++) await door.put(`key${i}`, "value", 5_000);
      await cluster.converged();
      for (const each of cluster.nodes) {
        expect((await each.fetch("/v1/snapshot", { method: "POST" }, 20_000)).status).toBe(200);
      }
      await node.terminate();
      const folder = machineOf(node);
      for (const name of ["kv.db", "kv.db-wal"]) {
        writeFileSync(join(folder, name), Buffer.alloc(32_768, 7));
      }
      expect(await refusedStart(node)).toContain(`move that folder away`);
      renameSync(folder, join(cluster.dir, "away"));
      node.start();
      await until("its state is there again", async () => (await node.status()).health === "ok");
      await cluster.converged();
      expect((await new HttpDoor(node).get("key0", 5_000, "local"))?.value).toBe("value");
    }),
  testMsMax,
);
