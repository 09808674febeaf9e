/**
 * Three nodes, each beside one application process that keeps many groups, each below a path of its own; then one path hangs on all three, or refuses, while
 * the others are written to and read as before. For the test and for the script that prints figures.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Language, TestApplication } from "../apps/applications.ts";
import { freePorts, loopbackPlace, TestCluster, type TestNode, until } from "./cluster.ts";
import { createGroups, groupOf, groupsOf } from "./groups.ts";

export type Mode = "well" | "hang" | "refuse";

/** Milliseconds. */
export interface Latencies {
  readonly writes: number;
  readonly p50: number;
  readonly p99: number;
}

/** Rounded, and beyond appParkMs. */
const parkedSeconds = 2;

const environment = {
  BARGE_APP_TIMEOUT_MS: "500",
  BARGE_APP_RETRY_MS_MAX: "200",
};

export class ManyApplications implements AsyncDisposable {
  readonly groups: readonly number[];
  readonly #dir = mkdtempSync(join(tmpdir(), "barge-application-groups-"));
  readonly #apps: TestApplication[] = [];
  readonly #modePorts: number[] = [];
  readonly cluster: TestCluster;
  /** By group: words that were acknowledged, in order. */
  readonly acknowledged = new Map<number, string[]>();
  #words = 0;

  constructor(groups: number) {
    this.groups = Array.from({ length: groups }, (_, at) => at + 1);
    const place = (): ReturnType<typeof loopbackPlace> => {
      const app = this.#makeApp();
      return { ...loopbackPlace(), environment: { BARGE_APP_URL: app.url, ...environment } };
    };
    this.cluster = new TestCluster({ place });
  }

  #makeApp(): TestApplication {
    const [modePort] = freePorts(1) as [number];
    const program = join(import.meta.dir, "../apps/many/app.ts");
    const command = ["env", `MODE_PORT=${modePort}`, process.execPath, program];
    const many: Language = { name: "many", command };
    const app = new TestApplication(many, join(this.#dir, `app${this.#apps.length + 1}`));
    this.#apps.push(app);
    this.#modePorts.push(modePort);
    return app;
  }

  async start(): Promise<this> {
    await Promise.all(this.#apps.map((app) => app.start()));
    await this.cluster.start();
    const [first] = this.cluster.nodes as [TestNode];
    await createGroups(first, { count: this.groups.length, machine: "http" });
    await until("each group has a leader, known on every node", async () => {
      const all = await Promise.all(this.cluster.nodes.map((node) => groupsOf(node)));
      return all.every((some) =>
        this.groups.every((id) => some.some((group) => group.id === id && group.leader !== 0)),
      );
    });
    return this;
  }

  async mode(group: number, mode: Mode): Promise<void> {
    const body = JSON.stringify({ group, mode });
    await Promise.all(
      this.#modePorts.map((port) => fetch(`http://127.0.0.1:${port}`, { method: "POST", body })),
    );
  }

  /** What a node answers to one write. */
  async write(node: TestNode, group: number): Promise<Response> {
    const word = `w${++this.#words}`;
    const headers = { "barge-request-id": word };
    // Kept alive it may be closed by the node just when it is used again.
    const init = { method: "POST", body: word, headers, keepalive: false };
    const response = await node.fetch(`/raft/update?group=${group}&timeoutMs=5000`, init, 10_000);
    if (response.ok) {
      const known = this.acknowledged.get(group) ?? [];
      this.acknowledged.set(group, [...known, word]);
    }
    return response;
  }

  async read(node: TestNode, group: number): Promise<string[]> {
    const path = `/raft/read?group=${group}&timeoutMs=5000`;
    const init = { method: "POST", body: "all", keepalive: false };
    const response = await node.fetch(path, init, 10_000);
    const text = await response.text();
    if (!response.ok) throw new Error(`group ${group} on node ${node.id}: ${text}`);
    return text === "" ? [] : text.split(" ");
  }

  /** So many clients at once, each a write and a read of the next of these groups in turn, for so long. All must succeed. */
  async load(groups: readonly number[], millis: number, clients = 8): Promise<Latencies> {
    const took: number[] = [];
    const endMs = performance.now() + millis;
    let next = 0;
    const client = async (number: number): Promise<void> => {
      const { nodes } = this.cluster;
      const node = nodes[number % nodes.length]!;
      while (performance.now() < endMs || next < groups.length) {
        const group = groups[next++ % groups.length]!;
        const beginMs = performance.now();
        const response = await this.write(node, group);
        if (!response.ok) throw new Error(`group ${group}: ${await response.text()}`);
        took.push(performance.now() - beginMs);
        const written = this.acknowledged.get(group)!.at(-1)!;
        const words = await this.read(node, group);
        if (!words.includes(written)) throw new Error(`group ${group} lacks ${written}`);
      }
    };
    await Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
    took.sort((a, b) => a - b);
    const at = (share: number): number => took[Math.floor(share * (took.length - 1))]!;
    return { writes: took.length, p50: at(0.5), p99: at(0.99) };
  }

  /** Every node says that it waits for this group's application, for longer than a moment. */
  async parked(group: number): Promise<void> {
    await until(`group ${group} is parked`, async () => {
      const all = await Promise.all(this.cluster.nodes.map((node) => groupOf(node, group)));
      return all.every((status) => (status?.application?.forSeconds ?? 0) >= parkedSeconds);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
    await Promise.all(this.#apps.map((app) => app.kill()));
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
