/** Three whole nodes in this process, each over an application in it. */
import { expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { type RunningNode, startNode } from "../../src/node/node.ts";
import { freePorts } from "../e2e/cluster.ts";
import { AppServer } from "../machine/http/app-server.ts";

const limits = { ...defaultLimits, appPollMs: 200, appTimeoutMs: 1_000, appRetryMsMax: 200 };

export class AppCluster implements AsyncDisposable {
  readonly apps: AppServer[];
  readonly nodes: RunningNode[] = [];
  readonly #sync: boolean;
  readonly #machine: "kv" | "http";
  readonly #folder = mkdtempSync(join(tmpdir(), "barge-application-"));
  #members: ReadonlyMap<number, string> = new Map();

  constructor(size: number, sync: boolean, machine: "kv" | "http") {
    this.#sync = sync;
    this.#machine = machine;
    this.apps = Array.from({ length: size }, () => new AppServer());
    for (const app of this.apps) app.syncs = sync;
  }

  /** `machine`: that of group 0. */
  static async of(
    size: number,
    sync = false,
    machine: "kv" | "http" = "http",
  ): Promise<AppCluster> {
    const cluster = new AppCluster(size, sync, machine);
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
      machine: this.#machine,
      app: { url: this.apps[at]!.url, sync: this.#sync },
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

  group(at: number, id = 0) {
    return this.nodes[at]!.status().groups.find((group) => group.id === id)!;
  }

  /** Index of the node that leads; -1 where none does. */
  get leader(): number {
    return this.nodes.findIndex((_, at) => this.group(at).role === "leader");
  }

  /** Tried again until it is told to be applied. */
  async write(at: number, command: string, group = 0): Promise<string> {
    let text = "";
    await this.until(`${command} is written`, async () => {
      const headers = { "barge-request-id": command };
      const body = { method: "POST", body: command, headers };
      const response = await fetch(`${this.url(at)}/raft/update?group=${group}`, body);
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
