/** More groups than one on real processes: made, used, moved and removed, through restarts; none comes back that was removed. */
import { describe, expect, test } from "bun:test";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { barge } from "../cli/program.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import {
  ask,
  createGroups,
  type Entry,
  get,
  groupOf,
  groupsOf,
  listGroups,
  machineFolders,
  put,
  settled,
} from "./groups.ts";
import { votes } from "./membership-walk.ts";

const system = 0xffff_ffff;

describe.concurrent("groups", () => {
  test("are made and used on all members within a second, each with a log and keys of its own, and survive the restart of every node", async () => {
    await withCluster({}, async (cluster) => {
      const [one, two, three] = cluster.nodes as [TestNode, TestNode, TestNode];
      const [first] = await createGroups(one, { name: "orders" });
      expect(first).toMatchObject({ id: 1, name: "orders", members: [1, 2, 3], version: 1 });
      const [second] = await createGroups(two, { id: 77 });
      expect(second!.id).toBe(77);
      const atMs = performance.now();
      await put(one, 1, "k", "of the first");
      await put(two, 77, "k", "of the second");
      await put(three, 0, "k", "of group 0");
      // Generous: elections of two groups on a crowded machine.
      expect(performance.now() - atMs).toBeLessThan(5_000);
      for (const node of cluster.nodes) {
        expect(await get(node, 1, "k")).toBe("of the first");
        expect(await get(node, 77, "k")).toBe("of the second");
        expect(await get(node, 0, "k")).toBe("of group 0");
      }
      expect((await listGroups(three)).map(({ id }) => id)).toEqual([1, 77]);

      for (const node of cluster.nodes) await node.kill();
      await cluster.start();
      await settled(cluster, 1, [1, 2, 3]);
      await settled(cluster, 77, [1, 2, 3]);
      for (const node of cluster.nodes) {
        await until("it serves the groups", async () => {
          return (await get(node, 1, "k")) === "of the first";
        });
      }
      await put(two, 1, "after", "the restart");
      expect(await get(three, 1, "after")).toBe("the restart");
    });
  }, 60_000);

  test("that were removed never come back: not at a restart, nor by a node that was away; their ids are never used again", async () => {
    await withCluster({}, async (cluster) => {
      const [one, two, three] = cluster.nodes as [TestNode, TestNode, TestNode];
      await createGroups(one, { count: 3 });
      for (const id of [1, 2, 3]) {
        await settled(cluster, id, [1, 2, 3]);
        await put(one, id, "k", "v");
      }
      const [, , away] = cluster.nodes;
      await away!.kill();
      expect(await ask(two, "DELETE", "/v1/groups/2")).toEqual({ removed: [2] });
      expect(await ask(two, "DELETE", "/v1/groups/2")).toEqual({ removed: [] });
      await settled(cluster, 2, []);
      await until("its files are gone", () => !machineFolders(one).includes(2));
      for (const node of [one, two]) {
        await expect(get(node, 2, "k")).rejects.toThrow("unknown_group");
      }
      const again = ask<{ groups: Entry[] }>(one, "POST", "/v1/groups", { id: 2 });
      await expect(again).rejects.toThrow("never used again");
      const [next] = await createGroups(one);
      expect(next!.id).toBe(4);

      // As if it had been killed between what removes a replica from the log, and what deletes its files.
      cpSync(join(one.dataDir, "machine/0"), join(one.dataDir, "machine/9"), { recursive: true });

      // Whoever was away has it, and speaks to the others as long as it has not heard.
      away!.start();
      await away!.ready();
      await settled(cluster, 2, []);
      for (const node of cluster.nodes) await node.kill();
      // The registry is read anew from its first word on.
      rmSync(join(one.dataDir, `machine/${system}`), { recursive: true });
      await cluster.start();
      await settled(cluster, 1, [1, 2, 3]);
      for (const node of cluster.nodes) {
        expect((await groupsOf(node)).map(({ id }) => id).toSorted((a, b) => a - b)).toEqual([
          0,
          1,
          3,
          4,
          system,
        ]);
        await until("nothing is left of what there is no more", () => {
          return !machineFolders(node).some((id) => id === 2 || id === 9);
        });
      }
      expect(await get(three, 3, "k")).toBe("v");
    });
  }, 90_000);

  test("move between nodes, there and back, with what they hold", async () => {
    await withCluster({ nodes: 4 }, async (cluster) => {
      const [one] = cluster.nodes as [TestNode];
      const [group] = await createGroups(one, { members: [1, 2, 3] });
      const { id } = group!;
      await settled(cluster, id, [1, 2, 3]);
      await put(one, id, "k", "v1");
      const moved = await ask<Entry>(one, "PATCH", `/v1/groups/${id}`, { members: [1, 2, 4] });
      expect(moved).toMatchObject({ members: [1, 2, 4], leaving: [3], changed: true });
      await settled(cluster, id, [1, 2, 4]);
      const [, , three, four] = cluster.nodes;
      expect(await get(four!, id, "k")).toBe("v1");
      await until("node 3 keeps nothing of it", () => !machineFolders(three!).includes(id));
      expect(await groupOf(three!, id)).toBeUndefined();
      await put(four!, id, "k", "v2");
      // Back again: it begins with nothing, and gets all of it anew.
      await ask(four!, "PATCH", `/v1/groups/${id}`, { members: [2, 3, 4] });
      await settled(cluster, id, [2, 3, 4]);
      await until("node 3 has it", async () => (await get(three!, id, "k")) === "v2");
      const same = await ask(four!, "PATCH", `/v1/groups/${id}`, { members: [2, 3, 4] });
      expect(same).toMatchObject({ changed: false });
    });
  }, 90_000);

  test("do not come back to a node that has not heard yet that it had left", async () => {
    await withCluster({}, async (cluster) => {
      const [one, two, three] = cluster.nodes as [TestNode, TestNode, TestNode];
      await createGroups(one, { members: [1, 2, 3] });
      await settled(cluster, 1, [1, 2, 3]);
      await put(one, 1, "k", "v1");
      await three.kill();
      await ask(one, "PATCH", "/v1/groups/1", { members: [1, 2] });
      await settled(cluster, 1, [1, 2]);
      await until("the registry has it", async () => {
        return (await listGroups(one))[0]!.leaving.length === 0;
      });
      const { version } = (await listGroups(one))[0]!;
      for (const node of [one, two]) {
        const body = JSON.stringify({ members: [1, 2, 3] });
        const response = await node.fetch("/v1/groups/1", { method: "PATCH", body });
        const { error } = (await response.json()) as { error: Record<string, unknown> };
        expect({ status: response.status, ...error }).toMatchObject({
          status: 409,
          code: "change_in_progress",
          outcome: "not-applied",
          retryable: true,
        });
        expect(error["message"]).toContain("Node 3 was a member of group 1");
      }
      expect((await listGroups(one))[0]).toMatchObject({ members: [1, 2], version });
      await put(two, 1, "k", "v2");
      three.start();
      await three.ready();
      await ask(two, "PATCH", "/v1/groups/1", { members: [1, 2, 3] });
      await settled(cluster, 1, [1, 2, 3]);
      await until("node 3 has it", async () => (await get(three, 1, "k")) === "v2");
    });
  }, 90_000);

  test("get and lose members by the commands for members too; what makes no sense for a group is said", async () => {
    await withCluster({ nodes: 4 }, async (cluster) => {
      const [one, , , four] = cluster.nodes as [TestNode, TestNode, TestNode, TestNode];
      await createGroups(one, { members: [1, 2, 3] });
      await settled(cluster, 1, [1, 2, 3]);
      const wish = { id: 4, address: four.binary };
      await ask(one, "POST", "/v1/members/2/replace?group=1", wish);
      await settled(cluster, 1, [1, 3, 4]);
      await ask(four, "DELETE", "/v1/members/3?group=1");
      await settled(cluster, 1, [1, 4]);
      for (const [path, body] of [
        ["/v1/members/4?group=1", { role: "learner" }],
        ["/v1/members/4?group=1", { address: four.binary }],
        [`/v1/members/4?group=${system}`, { role: "learner" }],
      ] as const) {
        await expect(ask(one, "PATCH", path, body)).rejects.toThrow("without --group");
      }
      // The cluster's own members are as they were.
      expect((await one.status()).groups[0]!.members).toHaveLength(4);
    });
  }, 90_000);

  test("whose node has left the cluster are hosted by another", async () => {
    await withCluster({ nodes: 4 }, async (cluster) => {
      const [one] = cluster.nodes as [TestNode];
      await createGroups(one, { count: 4, members: [1, 2, 3] });
      for (const id of [1, 2, 3, 4]) await settled(cluster, id, [1, 2, 3]);
      await put(one, 2, "k", "v");
      const [, , three, four] = cluster.nodes;
      const both = [2, 3].map((id) => ({ op: "remove", id }));
      await expect(ask(one, "PATCH", "/v1/members", { changes: both })).rejects.toThrow(
        "the groups 1, 2, 3, 4 would have lost their majority",
      );
      await three!.kill();
      await ask(one, "DELETE", "/v1/members/3");
      cluster.leave(three!);
      for (const id of [1, 2, 3, 4]) await settled(cluster, id, [1, 2, 4]);
      expect(await get(four!, 2, "k")).toBe("v");
      await settled(cluster, system, [1, 2, 4]);
    });
  }, 90_000);

  test.each([
    ["the leader", true],
    ["the other one", false],
  ])(
    "can still be made once a cluster of two has let %s go",
    async (_, isLeader) => {
      await withCluster({ nodes: 2 }, async (cluster) => {
        const [node] = cluster.nodes as [TestNode];
        await createGroups(node, { members: [1, 2] });
        const leader = await cluster.leader();
        const gone = cluster.nodes.find((each) => (each === leader) === isLeader)!;
        const left = cluster.nodes.find((each) => each !== gone)!;
        await ask(left, "PATCH", "/v1/groups/1", { members: [left.id] });
        await settled(cluster, 1, [left.id]);
        const ended = gone.ended();
        await using client = connect({ endpoints: [left.binary], timeoutMs: 20_000 });
        await client.changeMembers([{ op: "remove", id: gone.id }]);
        cluster.leave(gone);
        await ended;
        const [after] = await createGroups(left, { name: "after" });
        expect(after).toMatchObject({ name: "after", members: [left.id] });
      });
    },
    60_000,
  );

  test.each([
    ["one node by another", 1],
    ["two nodes by two others", 2],
  ])(
    "can still be made once a cluster has replaced %s, by joins and removals",
    async (_, size) => {
      await withCluster({ nodes: size }, async (cluster) => {
        const first = [...cluster.nodes];
        const second = first.map(() => cluster.join());
        for (const node of second) {
          node.start();
          await votes(cluster, [node]);
        }
        for (const node of first) {
          const ended = node.ended();
          await ask(second[0]!, "DELETE", `/v1/members/${node.id}`);
          cluster.leave(node);
          await ended;
        }
        const [made] = await createGroups(second[0]!, { name: "after" });
        const ids = second.map(({ id }) => id);
        expect(made).toMatchObject({ name: "after", members: ids });
        await settled(cluster, made!.id, ids);
        await settled(cluster, system, ids);
        await put(second[0]!, made!.id, "k", "v");
      });
    },
    90_000,
  );

  test("can still be made once a cluster has replaced each of its nodes by another in one request", async () => {
    await withCluster({ nodes: 1 }, async (cluster) => {
      const [gone] = cluster.nodes as [TestNode];
      await createGroups(gone, { members: [gone.id] });
      const by = cluster.join();
      const ended = gone.ended();
      const wish = { op: "replace", id: gone.id, by: by.id, address: by.binary };
      await expect(ask(gone, "PATCH", "/v1/members", { changes: [wish] })).rejects.toThrow(
        "would have lost their majority",
      );
      await ask(gone, "DELETE", "/v1/groups/1");
      await ask(gone, "PATCH", "/v1/members", { changes: [wish] });
      by.start();
      await votes(cluster, [by]);
      cluster.leave(gone);
      await ended;
      const [made] = await createGroups(by, { name: "after" });
      expect(made).toMatchObject({ name: "after", members: [by.id] });
    });
  }, 60_000);

  test("can still be made once a voter was made a learner and replaced in one request, and so went at once", async () => {
    await withCluster({ nodes: 2 }, async (cluster) => {
      const leader = await cluster.leader();
      const gone = cluster.nodes.find((node) => node !== leader)!;
      await createGroups(leader, { members: [leader.id] });
      const by = cluster.join();
      const changes = [
        { op: "demote", id: gone.id },
        { op: "replace", id: gone.id, by: by.id, address: by.binary },
      ];
      const ended = gone.ended();
      await ask(leader, "PATCH", "/v1/members", { changes });
      cluster.leave(gone);
      await ended;
      await createGroups(leader, { name: "after", members: [leader.id] });
    });
  }, 60_000);

  test("go to another node while the only one that has them is being replaced, by force", async () => {
    await withCluster({}, async (cluster) => {
      const [gone, ...stay] = cluster.nodes as [TestNode, TestNode, TestNode];
      await createGroups(gone, { members: [gone.id] });
      await put(gone, 1, "k", "v");
      const by = cluster.join();
      const ended = gone.ended();
      const wish = { op: "replace", id: gone.id, by: by.id, address: by.binary };
      await ask(gone, "PATCH", "/v1/members", { changes: [wish], force: true });
      await until("it is elsewhere", async () => {
        const [group] = await listGroups(gone);
        return group!.members[0] !== gone.id && group!.leaving.length === 0;
      });
      by.start();
      await votes(cluster, [...stay, by]);
      cluster.leave(gone);
      await ended;
      const [{ members }] = (await listGroups(by)) as [Entry];
      expect(stay.map(({ id }) => id)).toContain(members[0]!);
      expect(
        await get(
          stay.find(({ id }) => id === members[0])!,
          1,
          "k",
        ),
      ).toBe("v");
    });
  }, 60_000);

  test("that a node has not heard of yet are not denied by it", async () => {
    await withCluster({}, async (cluster) => {
      const [one, two, three] = cluster.nodes as [TestNode, TestNode, TestNode];
      const codes = new Set<string>();
      const putOnce = async (node: TestNode, group: number): Promise<boolean> => {
        const init = { method: "PUT", body: "v" };
        const response = await node.fetch(`/v1/kv/k?group=${group}`, init).catch(() => undefined);
        if (response === undefined || response.ok) return response !== undefined;
        codes.add(((await response.json()) as { error: { code: string } }).error.code);
        return false;
      };
      // Just made.
      for (let round = 0; round < 10; round++) {
        const [group] = await createGroups(one);
        await Promise.all([two, three].map((node) => putOnce(node, group!.id)));
      }
      // Just joined: it knows nothing, and then where it is.
      const four = cluster.join();
      four.start();
      await until("the newcomer knows who has it", async () => {
        await putOnce(four, 1);
        return codes.has("group_elsewhere");
      });
      // Just started, and then alone: whether there is a group 77 it cannot say.
      for (const node of cluster.nodes) await node.kill();
      two.start();
      await until("it answers", async () => (await two.fetch("/livez")).ok);
      await putOnce(two, 77);
      expect(codes.has("registry_behind")).toBe(true);
      expect(codes.has("unknown_group")).toBe(false);
      await cluster.start();
      await putOnce(two, 77);
      expect(codes.has("unknown_group")).toBe(true);
    });
  }, 90_000);

  test("refusals say what is wrong", async () => {
    await withCluster({}, async (cluster) => {
      const [one] = cluster.nodes as [TestNode];
      await createGroups(one, { name: "a" });
      const refused = (body: object): Promise<unknown> => ask(one, "POST", "/v1/groups", body);
      await expect(refused({ name: "a" })).rejects.toThrow("group_exists");
      await expect(refused({ id: 1 })).rejects.toThrow("group_exists");
      // Nobody has an application beside it.
      const [without] = await createGroups(one, { machine: "http" });
      await until("a node says why it cannot open it", async () => {
        const { unopened } = await one.status();
        return unopened?.[0]?.group === without!.id && unopened[0].message.includes("--app-url");
      });
      await expect(get(one, without!.id, "k")).rejects.toThrow("--app-url");
      const shown = await barge(["status", "--endpoints", one.binary]);
      expect(shown.out).toContain(`node 1 cannot open group ${without!.id}`);
      await expect(refused({ id: 0 })).rejects.toThrow("bad_request");
      await expect(refused({ id: system })).rejects.toThrow("bad_request");
      await expect(refused({ members: [1, 9] })).rejects.toThrow("unknown_member");
      await expect(refused({ replicas: 5 })).rejects.toThrow("bad_request");
      await expect(ask(one, "DELETE", "/v1/groups/9")).rejects.toThrow("unknown_group");
      const response = await cluster.nodes[0]!.fetch(`/v1/kv/k?group=${system}`, {
        method: "PUT",
        body: "v",
      });
      expect(await response.text()).toContain("written by the cluster alone");
    });
  }, 60_000);
});
