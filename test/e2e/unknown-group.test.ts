/** A group that is not there: each door and each command that takes a group says so, at once and in the same words, and nothing comes of it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { barge } from "../cli/program.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { createGroups, groupsOf, machineFolders, settled } from "./groups.ts";
import { raisedTo } from "./upgrade-round.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

setDefaultTimeout(90_000);

const id = 77;
const system = 0xffff_ffff;
/** Was there, and was removed. */
const gone = 1;

const doors: readonly (readonly [method: string, path: string, body?: object | string])[] = [
  ["GET", "/v1/kv/a?group=ID"],
  ["GET", "/v1/kv/a?consistency=local&group=ID"],
  ["PUT", "/v1/kv/a?group=ID", "v"],
  ["DELETE", "/v1/kv/a?group=ID"],
  ["GET", "/v1/kv?prefix=a&group=ID"],
  ["POST", "/v1/txn?group=ID", { success: [{ op: "put", key: "YQ==", value: "dg==" }] }],
  ["GET", "/v1/watch?prefix=a&group=ID"],
  ["GET", "/v1/backup?group=ID"],
  ["POST", "/v1/transfer-leader?group=ID", {}],
  ["POST", "/v1/snapshot?group=ID"],
  ["GET", "/v1/compaction?group=ID"],
  ["PATCH", "/v1/compaction?group=ID", { entries: 1_000 }],
  ["GET", "/v1/scrub?group=ID"],
  ["POST", "/v1/scrub?group=ID"],
  ["GET", "/v1/members?group=ID"],
  ["POST", "/v1/members?group=ID", { id: 1, address: "a:1" }],
  ["PATCH", "/v1/members?group=ID", { changes: [{ op: "remove", id: 1 }] }],
  ["DELETE", "/v1/members/1?group=ID"],
  ["POST", "/v1/members/1/replace?group=ID", { id: 2, address: "a:1" }],
  ["GET", "/v1/groups/ID"],
  ["PATCH", "/v1/groups/ID", { members: [1] }],
  ["GET", "/rc?group=ID"],
  ["POST", "/raft/update?group=ID", "v"],
  ["POST", "/raft/read?group=ID", "v"],
  ["GET", "/raft/membership_info?group=ID"],
  ["GET", "/raft/snapshot?group=ID"],
  ["POST", "/raft/snapshot?group=ID"],
  ["POST", "/raft/recruit_replica", { ReplicaID: 2, ReplicaAddr: "a:1", ShardID: "ID" }],
  ["POST", "/raft/remove_replica", { ReplicaID: 1, ShardID: "ID" }],
];

const commands: readonly string[] = [
  "put k v --group ID",
  "get k --group ID",
  "get k --consistency local --group ID",
  "del k --group ID",
  "range --group ID",
  "watch k --group ID",
  "txn FILE.json --group ID",
  "backup FILE --group ID",
  "snapshot --group ID",
  "snapshot --all --show --group ID",
  "scrub --group ID",
  "transfer-leader --group ID",
  "member list --group ID",
  "member remove 1 --group ID",
  "status --group ID",
  "group move ID --members 1",
  "group move nowhere --members 1",
  "group remove nowhere",
];

test("over HTTP and by every command", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const [node] = cluster.nodes as [TestNode];
    await raisedTo(cluster, applyVersionMax);
    await createGroups(node, { id: gone });
    const removed = await node.fetch(`/v1/groups/${gone}`, { method: "DELETE" });
    expect(removed.ok).toBe(true);
    await settled(cluster, gone, []);

    const said: string[] = [];
    for (const group of [id, gone]) {
      const fill = (text: string): string => text.replace("ID", String(group));
      for (const [method, path, body] of doors) {
        const text = typeof body === "object" ? JSON.stringify(body) : body;
        const init = text === undefined ? {} : { body: text.replace('"ID"', String(group)) };
        const response = await node.fetch(fill(path), { method, ...init });
        const answer = await response.text();
        const isRight = response.status === 404 && answer.includes('"unknown_group"');
        if (!isRight) said.push(`${method} ${fill(path)}: ${response.status} ${answer}`);
      }
    }
    const file = join(cluster.dir, "file");
    writeFileSync(`${file}.json`, '{ "success": [{ "op": "put", "key": "k", "value": "v" }] }');
    const runs = commands.map(async (line) => {
      const args = line.replace("ID", String(id)).replace("FILE", file).split(" ");
      const { status, out, err } = await barge([...args, "--endpoints", node.binary]);
      if (status !== 2 || !/no group/.test(out + err)) said.push(`${line}: ${status} ${out}${err}`);
    });
    await Promise.all(runs);
    expect(said).toEqual([]);

    const ids = (await groupsOf(node)).map((group) => group.id);
    expect(ids).toEqual([0, system]);
    await until("nothing is left", () => machineFolders(node).every((each) => ids.includes(each)));
  }));
