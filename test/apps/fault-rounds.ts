/**
 * Three daemons, each beside an application, under appends and reads through all of them, while daemons and applications are killed at random and started again: for the test
 * in CI and for the soak. Every history is checked (append-history.ts).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loopbackPlace, TestCluster, type TestNode, until } from "../e2e/cluster.ts";
import type { Random } from "../sim/random.ts";
import { type ListOperation, listProblem } from "./append-history.ts";
import { type Language, TestApplication } from "./applications.ts";

const clients = 8;
/** Beyond it a client goes over to another key, so that lists stay short. */
const listMax = 60;
const pauseMsMax = 400;
/** An update is sent again, under its id, for so long. */
const patienceMs = 20_000;

const kinds = [
  "an application",
  "the leader's application",
  "a daemon",
  "the leader's daemon",
  "a daemon and its application",
  "all applications",
  "everything",
] as const;
const weights = [4, 4, 3, 3, 3, 1, 1];

export interface Counts {
  readonly acknowledged: number;
  readonly reads: number;
  readonly refused: number;
  readonly unknown: number;
}

export class FaultRounds implements AsyncDisposable {
  readonly cluster: TestCluster;
  readonly #apps: TestApplication[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), "barge-fault-rounds-"));
  readonly #random: Random;
  readonly counts: { -readonly [Key in keyof Counts]: number } = {
    acknowledged: 0,
    reads: 0,
    refused: 0,
    unknown: 0,
  };
  #history: ListOperation[] = [];
  #round = 0;
  #values = 0;
  #stopping = false;

  constructor(language: Language, random: Random) {
    this.#random = random;
    const place = (): ReturnType<typeof loopbackPlace> => {
      const app = new TestApplication(language, join(this.#folder, `app${this.#apps.length + 1}`));
      this.#apps.push(app);
      return { ...loopbackPlace(), environment: { BARGE_APP_URL: app.url } };
    };
    this.cluster = new TestCluster({ place });
  }

  async start(): Promise<void> {
    await Promise.all(this.#apps.map((app) => app.start()));
    await this.cluster.start();
  }

  /** Throws where the history cannot be; returns what was killed. */
  async round(): Promise<string> {
    this.#history = [];
    this.#round++;
    this.#stopping = false;
    const working = Promise.all(Array.from({ length: clients }, (_, i) => this.#work(i)));
    await Bun.sleep(this.#random.between(50, pauseMsMax));
    const what = await this.#kill();
    await until(
      "all nodes serve again",
      async () => {
        const answers = await Promise.all(this.cluster.nodes.map((node) => node.fetch("/rc")));
        return answers.every(({ ok }) => ok);
      },
      60_000,
    );
    await Bun.sleep(this.#random.between(50, pauseMsMax));
    this.#stopping = true;
    await working;
    // Every node has all that was acknowledged.
    const keys = new Set(this.#history.map(({ key }) => key));
    for (const key of keys) for (const node of this.cluster.nodes) await this.#read(node, key);
    const problem = listProblem(this.#history);
    if (problem !== undefined) throw new Error(`round ${this.#round}, ${what}: ${problem}`);
    return what;
  }

  async #kill(): Promise<string> {
    const kind = kinds[this.#random.weighted(weights)]!;
    const { nodes } = this.cluster;
    const isLeader = kind.startsWith("the leader");
    const victim = isLeader ? await this.cluster.leader() : this.#random.pick(nodes);
    const all = kind.startsWith("all") || kind === "everything";
    const victims = all ? nodes : [victim];
    const daemons = kind.includes("daemon") || kind === "everything" ? victims : [];
    const apps = kind.includes("application") || kind === "everything" ? victims : [];
    await Promise.all([
      ...daemons.map((node) => node.kill()),
      ...apps.map((node) => this.#apps[node.id - 1]!.kill()),
    ]);
    await Bun.sleep(this.#random.between(0, pauseMsMax));
    await Promise.all([
      ...apps.map((node) => this.#apps[node.id - 1]!.start()),
      this.cluster.start(daemons),
    ]);
    return `${kind} (${victims.map(({ id }) => id).join(", ")})`;
  }

  async #work(client: number): Promise<void> {
    for (let i = 0; !this.#stopping; i++) {
      const key = `r${this.#round}-${client % 3}-${Math.floor(i / listMax)}`;
      const node = this.#random.pick(this.cluster.nodes);
      if (this.#random.between(0, 3) === 0) await this.#read(node, key);
      else await this.#append(key);
    }
  }

  async #read(node: TestNode, key: string): Promise<void> {
    const callMs = performance.now();
    try {
      const init = { method: "POST", body: `get ${key}` };
      const response = await node.fetch("/raft/read", init, 8_000);
      if (!response.ok) return;
      const seen = listOf(await response.text());
      const returnMs = performance.now();
      this.counts.reads++;
      this.#history.push({ key, value: undefined, callMs, returnMs, outcome: "ok", seen });
    } catch {
      // What was not answered says nothing.
    }
  }

  /** Under an id, to whichever node, until its fate is known. */
  async #append(key: string): Promise<void> {
    const value = `v${++this.#values}`;
    const callMs = performance.now();
    const headers = { "barge-request-id": `${key}-${value}` };
    let outcome: "applied" | "refused" | "unknown" = "refused";
    while (performance.now() < callMs + patienceMs) {
      const node = this.#random.pick(this.cluster.nodes);
      try {
        const init = { method: "POST", headers, body: `append ${key} ${value}` };
        const response = await node.fetch("/raft/update", init, 8_000);
        if (response.ok) {
          const seen = listOf(await response.text());
          // Where the answer of the first time is lost there is none, but it was applied.
          const returnMs = performance.now();
          this.counts.acknowledged++;
          const ended = seen.length === 0 ? "applied" : "ok";
          return void this.#history.push({ key, value, callMs, returnMs, outcome: ended, seen });
        }
        const { error } = (await response.json()) as { error: { outcome: string } };
        if (error.outcome === "applied") {
          outcome = "applied";
          break;
        }
        if (error.outcome === "unknown") outcome = "unknown";
      } catch {
        outcome = "unknown";
      }
      await Bun.sleep(20);
    }
    this.counts[outcome === "applied" ? "acknowledged" : outcome]++;
    this.#history.push({ key, value, callMs, returnMs: Infinity, outcome, seen: [] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    await this.cluster[Symbol.asyncDispose]();
    await Promise.all(this.#apps.map((app) => app.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function listOf(text: string): string[] {
  return text.split(",").filter((value) => value !== "");
}
