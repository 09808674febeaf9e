/** Whole nodes over applications, in this process: writes and reads, an application that goes, forgets, falls behind, and what the cluster makes of it. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { type RunningNode, startNode } from "../../src/node/node.ts";
import { AppServer } from "../machine/http/app-server.ts";
import { freePorts } from "../e2e/cluster.ts";

const limits = { ...defaultLimits, appPollMs: 200, appTimeoutMs: 1_000, appRetryMsMax: 200 };

class Cluster implements AsyncDisposable {
  readonly apps: AppServer[];
  readonly nodes: RunningNode[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), "barge-application-"));
  #members: ReadonlyMap<number, string> = new Map();

  constructor(size: number) {
    this.apps = Array.from({ length: size }, () => new AppServer());
  }

  static async of(size: number): Promise<Cluster> {
    const cluster = new Cluster(size);
    const ports = await freePorts(size);
    cluster.#members = new Map(ports.map((port, at) => [at + 1, `127.0.0.1:${port}`]));
    cluster.nodes.push(...(await Promise.all(ports.map((_, at) => cluster.#start(at)))));
    await cluster.until("all are ready", async () => {
      const answers = await Promise.all(cluster.nodes.map((_, at) => cluster.isReady(at)));
      return answers.every(Boolean);
    });
    return cluster;
  }

  #start(at: number): Promise<RunningNode> {
    const nodeId = at + 1;
    const members = this.#members;
    const advertise = members.get(nodeId)!;
    return startNode({
      nodeId,
      dataDir: join(this.#folder, String(nodeId)),
      listen: { host: "127.0.0.1", port: Number(advertise.split(":")[1]) },
      advertise,
      httpListen: { host: "127.0.0.1", port: 0 },
      metricsListen: undefined,
      initialMembers: members,
      machine: "http",
      app: { url: this.apps[at]!.url, sync: false },
      clusterToken: "",
      logLevel: "silent",
      compaction: { entries: 20, bytes: undefined, tailBytes: 0 },
      limits,
    });
  }

  async restart(at: number, meanwhile: () => Promise<void> = async () => {}): Promise<void> {
    await this.nodes[at]!.stop();
    await meanwhile();
    this.nodes[at] = await this.#start(at);
  }

  url(at: number): string {
    return `http://127.0.0.1:${this.nodes[at]!.httpPort}`;
  }

  async isReady(at: number): Promise<boolean> {
    return (await fetch(`${this.url(at)}/readyz`)).ok;
  }

  group(at: number) {
    return this.nodes[at]!.status().groups[0]!;
  }

  /** Index of the node that leads; -1 where none does. */
  get leader(): number {
    return this.nodes.findIndex((_, at) => this.group(at).role === "leader");
  }

  /** Tried again until it is told to be applied. */
  async write(at: number, command: string): Promise<string> {
    let text = "";
    await this.until(`${command} is written`, async () => {
      const headers = { "barge-request-id": command };
      const body = { method: "POST", body: command, headers };
      const response = await fetch(`${this.url(at)}/raft/update`, body);
      text = await response.text();
      return response.ok || response.status === 410;
    });
    return text;
  }

  /** All applications have the same. */
  async agreed(): Promise<void> {
    const first = this.apps[0]!;
    for (const app of this.apps) {
      await this.until("all have as many", () => app.entries.length === first.entries.length);
      expect(app.entries).toEqual(first.entries);
    }
  }

  async until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
    const untilMs = performance.now() + 20_000;
    while (!(await isSo())) {
      if (performance.now() > untilMs) {
        const groups = this.nodes.map((_, at) => this.group(at));
        throw new Error(`${what}: not in time; ${JSON.stringify(groups)}`);
      }
      await Bun.sleep(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()));
    for (const app of this.apps) app.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

test("a write to any node is applied by callback everywhere, and its result comes back", async () => {
  await using cluster = await Cluster.of(3);
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
  await using cluster = await Cluster.of(3);
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

test("an application that has lost what the log has dropped gets another member's state, and its node keeps its vote", async () => {
  await using cluster = await Cluster.of(3);
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
  await using cluster = await Cluster.of(3);
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
  await using cluster = await Cluster.of(3);
  for (let i = 0; i < 30; i++) await cluster.write(i % 3, `write-${i}`);
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
