/** Whole nodes over applications, in this process: writes and reads, an application that goes, forgets, falls behind, and what the cluster makes of it. */
import { expect, test } from "bun:test";
import { AppCluster } from "./app-cluster.ts";

test("a write to any node is applied by callback everywhere, and its result comes back", async () => {
  await using cluster = await AppCluster.of(3);
  for (let at = 0; at < 3; at++) {
    expect(await cluster.write(at, `write-${at}`)).toBe(`did write-${at}`);
    expect(cluster.apps[at]!.commands).toContain(`write-${at}`);
  }
  for (let at = 0; at < 3; at++) {
    const response = await fetch(`${cluster.url(at)}/raft/read`, { method: "POST", body: "how" });
    expect(await response.text()).toBe("3 how");
  }
});

test("an application that goes takes leadership from its node, which waits for it and goes on where it was", async () => {
  await using cluster = await AppCluster.of(3);
  await cluster.write(0, "first");
  const at = cluster.leader;
  const app = cluster.apps[at]!;
  app.stop();
  await cluster.until("another leads", () => cluster.leader >= 0 && cluster.leader !== at);
  expect(cluster.group(at).application!.waitsFor).toContain("nobody answers there");
  expect(await cluster.isReady(at)).toBe(false);
  const refused = await fetch(`${cluster.url(at)}/raft/update`, { method: "POST", body: "no" });
  expect(refused.status).toBe(503);
  expect(await refused.text()).toContain("application_unavailable");
  const other = (at + 1) % 3;
  for (let i = 0; i < 10; i++) await cluster.write(other, `meanwhile-${i}`);
  app.start();
  await cluster.until("it has everything", () => app.entries.length === 11);
  await cluster.until("it is ready", () => cluster.isReady(at));
  await cluster.agreed();
});

test("an application that hangs, though it says that it is ready, takes leadership from its node too", async () => {
  await using cluster = await AppCluster.of(3);
  await cluster.write(0, "first");
  const at = cluster.leader;
  const app = cluster.apps[at]!;
  const hung = Promise.withResolvers<void>();
  app.wait = (name) => (name === "UpdateEntries" ? hung.promise : Promise.resolve());
  const other = (at + 1) % 3;
  const writes = Promise.all(Array.from({ length: 5 }, (_, i) => cluster.write(other, `w${i}`)));
  await cluster.until("another leads", () => cluster.leader >= 0 && cluster.leader !== at);
  await writes;
  expect(cluster.group(at).application!.waitsFor).toContain("UpdateEntries: no answer within");
  app.wait = async () => {};
  hung.resolve();
  await cluster.until("it has everything", () => app.entries.length === 6);
  await cluster.until("it is ready", () => cluster.isReady(at));
  await cluster.agreed();
});

test("an application that has lost what the log has dropped gets another member's state, and its node keeps its vote", async () => {
  await using cluster = await AppCluster.of(3);
  for (let i = 0; i < 60; i++) await cluster.write(0, `write-${i}`);
  const at = (cluster.leader + 1) % 3;
  await cluster.until("its log is cut", () => cluster.group(at).firstIndex > 20);
  const app = cluster.apps[at]!;
  app.stop();
  app.entries = [];
  app.start();
  await cluster.until("it has everything", () => app.entries.length === 60);
  expect(app.count("RecoverFromSnapshot")).toBe(1);
  expect(cluster.group(at).wounded).toBeUndefined();
  await cluster.write(at, "after");
  await cluster.agreed();
});

test("a node that was away for longer than the log goes back gets a snapshot, once; the application gets it whole", async () => {
  await using cluster = await AppCluster.of(3);
  await cluster.write(0, "first");
  const at = (cluster.leader + 1) % 3;
  const other = (at + 1) % 3;
  const app = cluster.apps[at]!;
  await cluster.restart(at, async () => {
    for (let i = 0; i < 60; i++) await cluster.write(other, `write-${i}`);
    await cluster.until("the log is cut", () => {
      const { leader } = cluster;
      return leader >= 0 && leader !== at && cluster.group(leader).firstIndex > 20;
    });
  });
  await cluster.until("it has everything", () => app.entries.length === 61);
  await cluster.until("it is ready", () => cluster.isReady(at));
  expect(app.count("RecoverFromSnapshot")).toBe(1);
  expect(app.lengths).toEqual([app.received.map(({ byteLength }) => byteLength)[0]!]);
  expect(await cluster.write(at, "after")).toBe("did after");
  await cluster.agreed();
});

test("all nodes and applications start anew: nothing is lost, nothing is given twice", async () => {
  await using cluster = await AppCluster.of(3);
  for (let i = 0; i < 30; i++) await cluster.write(i % 3, `write-${i}`);
  await cluster.until("all have all", () => cluster.apps.every((app) => app.entries.length === 30));
  const before = cluster.apps[0]!.commands;
  await Promise.all(cluster.nodes.map((node) => node.stop()));
  for (const app of cluster.apps) {
    app.stop();
    app.start();
  }
  await Promise.all([0, 1, 2].map((at) => cluster.restart(at)));
  await cluster.until("all are ready", async () => {
    const answers = await Promise.all([0, 1, 2].map((at) => cluster.isReady(at)));
    return answers.every(Boolean);
  });
  expect(await cluster.write(2, "after")).toBe("did after");
  for (const app of cluster.apps) {
    await cluster.until("it has everything", () => app.entries.length === 31);
    expect(app.commands).toEqual([...before, "after"]);
    expect(app.count("RecoverFromSnapshot")).toBe(0);
  }
});
