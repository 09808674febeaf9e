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

  constructor(size: number) {
    this.apps = Array.from({ length: size }, () => new AppServer());
  }

  static async of(size: number): Promise<Cluster> {
    const cluster = new Cluster(size);
    const ports = await freePorts(size);
    const members = new Map(ports.map((port, at) => [at + 1, `127.0.0.1:${port}`]));
    const starting = ports.map((port, at) => cluster.#start(at + 1, port, members));
    cluster.nodes.push(...(await Promise.all(starting)));
    await cluster.until("all are ready", async () => {
      const answers = await Promise.all(cluster.nodes.map((_, at) => cluster.isReady(at)));
      return answers.every(Boolean);
    });
    return cluster;
  }

  #start(nodeId: number, port: number, members: ReadonlyMap<number, string>): Promise<RunningNode> {
    return startNode({
      nodeId,
      dataDir: join(this.#folder, String(nodeId)),
      listen: { host: "127.0.0.1", port },
      advertise: members.get(nodeId)!,
      httpListen: { host: "127.0.0.1", port: 0 },
      metricsListen: undefined,
      initialMembers: members,
      machine: "http",
      app: { url: this.apps[nodeId - 1]!.url, sync: false },
      clusterToken: "",
      logLevel: "silent",
      compaction: { entries: 20, bytes: undefined, tailBytes: 0 },
      limits,
    });
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
  expect(app.commands).toEqual(cluster.apps[other]!.commands);
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
  expect(app.commands).toEqual(cluster.apps[cluster.leader]!.commands);
});
