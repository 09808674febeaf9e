/**
 * A chaos run: a cluster of real daemons, clients that share few keys, and faults that come and go, one or two at a time. All that the
 * clients saw is checked while the run goes on; what breaks a promise is a violation, and ends it.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { BargeError } from "../../src/errors.ts";
import { defaultGroup } from "../../src/wire/registry.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";
import {
  type Build,
  type NodePlace,
  TestCluster,
  type TestNode,
  thisBuild,
  until,
} from "../e2e/cluster.ts";
import { groupOf } from "../e2e/groups.ts";
import { NodeDisk } from "../e2e/mount.ts";
import { Random } from "../sim/random.ts";
import { HttpSource, SdkSource } from "./change-sources.ts";
import { ChaosClient, type ClientKind, type Counts, type Shared } from "./clients.ts";
import { FaultProxy } from "./fault-proxy.ts";
import {
  type Fault,
  type FaultKind,
  faultKinds,
  faults,
  type Healing,
  isPossible,
  minFreeBytes,
  type World,
} from "./faults.ts";
import { type FaultFigures, Gaps } from "./gaps.ts";
import { GroupHistory } from "./group-history.ts";
import type { Epoch } from "./histories.ts";
import { Patience } from "./patience.ts";
import { buildPreload, Surroundings } from "./preload.ts";
import { Watcher } from "./watchers.ts";
import type { Network } from "./network.ts";

export interface ChaosOptions {
  readonly seed: number;
  readonly seconds: number;
  readonly nodes: number;
  readonly clients: number;
  /** Of the default group. */
  readonly watchers: number;
  /** Besides the default one; clients are shared out among all. @default 0 */
  readonly groups?: number;
  /** Kinds of faults to draw from. */
  readonly kinds?: readonly FaultKind[];
  /** Chance that two faults come together. */
  readonly pairs: number;
  /** Mean time between two calls of a client. */
  readonly pauseMs: number;
  readonly network?: (random: Random) => Network;
  /** Each node has a small disk of its own, in memory, where such can be mounted: it can run full. */
  readonly smallDisks?: boolean;
  /** What the nodes run. */
  readonly build?: Build;
  /** For people, as it goes. */
  readonly say?: (line: string) => void;
  /** Diagnostics of the clients that watch. */
  readonly watcherSays?: ((line: string) => void) | undefined;
  /** Histories that break a promise are written here. */
  readonly historyDir?: string;
  /** Called with each epoch that was checked. */
  readonly checked?: (epoch: Epoch) => void;
}

export interface ChaosReport {
  readonly seed: number;
  readonly seconds: number;
  readonly nodes: number;
  readonly network: string;
  readonly counts: Counts;
  readonly epochs: number;
  readonly groups: number;
  /** Changes that watchers were told, and how often one was told that it had come too late. */
  readonly changes: number;
  readonly watchGaps: number;
  readonly figures: ReadonlyMap<string, FaultFigures>;
  /** Left out, as it cannot be brought on here. */
  readonly leftOut: readonly FaultKind[];
  readonly violations: readonly string[];
}

/** In turn. The first client also reads the ranges that each epoch ends with. */
const clientKinds: readonly ClientKind[] = ["session", "plain", "session", "http", "session"];
const holdMsMin = 300;
const holdMsMaxDefault = 5_000;
const calmMsMax = 2_500;
/** Chance that the next fault waits until all nodes serve. */
const restChance = 0.4;
/** With all faults healed, all nodes serve within this, and a write succeeds: generous, as a busy machine takes its time to start a process. On the clock of `Patience`. */
const recoveryMsMax = 60_000;
const lastReadMsMax = 60_000;
const watchMs = 200;

/** Cuts the log often, so that who was away needs a snapshot. */
const flags = [
  "--compact-entries=3000",
  "--compact-tail-bytes=65536",
  "--log-level=info",
  `--min-free-bytes=${minFreeBytes}`,
];
const smallDiskSize = "384m";

export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { seed, nodes, say } = options;
  using folder = new Folder();
  await using network = (options.network ?? ((random) => new FaultProxy(random)))(
    new Random(seed, 2),
  );
  const library = buildPreload(folder.path);
  const surroundings = new Map<number, Surroundings>();
  const disks = new Map<number, NodeDisk>();
  using mounts = new DisposableStack();
  const dataDir = (id: number): string | undefined => {
    if (options.smallDisks !== true) return undefined;
    const disk = NodeDisk.make(join(folder.path, `disk${id}`), smallDiskSize);
    if (disk !== undefined) disks.set(id, mounts.use(disk));
    return disk?.folder;
  };
  const place = (id: number): NodePlace => {
    const here = network.place(id);
    if (library === undefined) return here;
    const around = new Surroundings(library, join(folder.path, `surroundings${id}`));
    surroundings.set(id, around);
    return { ...here, environment: { ...here.environment, ...around.environment } };
  };
  await using cluster = new TestCluster({
    nodes,
    flags,
    dataDir,
    place,
    build: options.build ?? thisBuild,
  });
  const groups: number[] = [];
  const random = new Random(seed, 1);
  using patience = new Patience();
  const world: World = {
    cluster,
    network,
    random,
    surroundings,
    disks,
    groups,
    patience,
    seen: [],
  };
  const ids = Array.from({ length: options.groups ?? 0 }, (_, at) => at + 1);
  await using run = new ChaosRun(options, world, [defaultGroup, ...ids]);
  try {
    await cluster.start();
    await knowsSessions(cluster);
    if (ids.length > 0) groups.push(...(await createGroups(cluster, ids)));
    await run.run();
  } catch (error) {
    run.violation(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const report = run.report();
  if (report.violations.length > 0) say?.(cluster.logTails());
  return report;
}

/** The cluster has just begun: a moment later it comes to the apply version of today. */
function knowsSessions(cluster: TestCluster): Promise<void> {
  return until("all nodes apply sessions", async () => {
    const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
    return groups.every(({ applyVersion }) => applyVersion === applyVersionMax);
  });
}

/** Of three members each, with these ids. */
async function createGroups(cluster: TestCluster, ids: readonly number[]): Promise<number[]> {
  await using client = connect({ endpoints: cluster.endpoints });
  await until("there are groups", async () => {
    try {
      await client.admin("createGroups", {
        request: `chaos ${ids.join()}`,
        id: ids[0]!,
        count: ids.length,
      });
      return true;
    } catch (error) {
      if (!(error instanceof BargeError) || !error.retryable) throw error;
      return false;
    }
  });
  return [...ids];
}

class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "barge-chaos-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

class ChaosRun implements AsyncDisposable {
  readonly #options: ChaosOptions;
  readonly #world: World;
  readonly #clients: readonly ChaosClient[];
  readonly #watchers: readonly Watcher[];
  readonly #gaps = new Gaps();
  readonly #violations: string[] = [];
  readonly #counts: Counts = {
    operations: 0,
    succeeded: 0,
    refused: 0,
    unknown: 0,
    errors: new Map(),
  };
  readonly #possible: readonly FaultKind[];
  readonly #startMs = performance.now();
  /** Of the nodes that are or were members. */
  readonly #nodes = new Set<TestNode>();
  readonly #histories: readonly GroupHistory[];
  #clock = 0;
  /** Of `Patience`; Infinity while a fault is in force: on a crowded machine a rolling restart takes minutes, and what it is paired with lasts as long. */
  #calmSinceMs = 0;
  /** Looks out for daemons that end by themselves. */
  readonly #watch = setInterval(() => this.#nobodyFell(), watchMs);
  readonly #broken = Promise.withResolvers<void>();
  #running: Promise<void> | undefined;

  constructor(options: ChaosOptions, world: World, groups: readonly number[]) {
    this.#options = options;
    this.#world = world;
    const { clients, pauseMs, seed, kinds = faultKinds } = options;
    this.#possible = kinds.filter((kind) => isPossible(kind, world, groups.length > 1));
    const shared: Omit<Shared, "epoch"> = {
      tick: () => ++this.#clock,
      succeeded: () => this.#gaps.succeeded(),
      violation: (what) => this.violation(what),
      counts: this.#counts,
    };
    this.#clients = Array.from({ length: clients }, (_, number) => {
      const random = new Random(seed, 10 + number);
      return new ChaosClient({
        number,
        // Some know one node only, and learn the others.
        endpoints: random.chance(0.5)
          ? world.cluster.endpoints
          : random.pick(world.cluster.nodes).binary,
        random,
        shared: { ...shared, epoch: () => this.#historyOf(number).current() },
        group: groups[number % groups.length]!,
        kind: clientKinds[number % clientKinds.length]!,
        nodes: () => world.cluster.nodes,
        pauseMs,
      });
    });
    const { nodes } = world.cluster;
    this.#watchers = Array.from({ length: options.watchers }, (_, number) => {
      // Each knows one node at first; the last follows over HTTP.
      const speaksHttp = number > 0 && number === options.watchers - 1;
      const source = speaksHttp
        ? new HttpSource(() => nodes, new Random(seed, 1_000 + number))
        : new SdkSource(nodes[number % nodes.length]!.binary, options.watcherSays);
      return new Watcher({ source, violation: (what) => this.violation(what) });
    });
    this.#histories = groups.map((group, at) => this.#historyOfGroup(group, this.#clients[at]!));
  }

  /** Of a client, by its number: they are shared out in turn. */
  #historyOf(client: number): GroupHistory {
    return this.#histories[client % this.#histories.length]!;
  }

  /** The reader speaks no HTTP, which has no ranges here. */
  #historyOfGroup(group: number, reader: ChaosClient): GroupHistory {
    const watchers = group === defaultGroup ? this.#watchers : [];
    const { patience } = this.#world;
    return new GroupHistory({
      group,
      clientCount: this.#options.clients,
      reader: () => reader,
      watchers,
      nowMs: () => patience.nowMs,
      isLate: (sinceMs) => patience.nowMs - Math.max(sinceMs, this.#calmSinceMs) > lastReadMsMax,
      watched: (revision) => this.#watched(revision),
      violation: (what) => this.violation(what),
      broken: (epoch, wrong) => this.#broke(group, epoch, wrong),
      checked: (epoch) => this.#options.checked?.(epoch),
    });
  }

  get #checkedCount(): number {
    return this.#histories.reduce((sum, { checkedCount }) => sum + checkedCount, 0);
  }

  get #isBroken(): boolean {
    return this.#violations.length > 0;
  }

  violation(what: string): void {
    this.#broken.resolve();
    this.#violations.push(what);
    this.#options.say?.(`VIOLATION: ${what}`);
  }

  /** Resolves at the end of all, or at the first violation. */
  async run(): Promise<void> {
    this.#running = this.#run();
    await Promise.race([this.#running, this.#broken.promise]);
  }

  async #run(): Promise<void> {
    for (const watcher of this.#watchers) watcher.start();
    for (const client of this.#clients) client.start();
    const checking = Promise.all(this.#histories.map((history) => history.check()));
    const untilMs = this.#startMs + this.#options.seconds * 1_000;
    for (const kind of this.#order()) {
      if (performance.now() >= untilMs || this.#isBroken) break;
      await this.#bringOn(kind);
    }
    await this.#recovers();
    await Promise.all(this.#clients.map((client) => client.stop()));
    for (const history of this.#histories) history.end();
    await checking;
    if (!this.#isBroken) await this.#converges();
  }

  /** Each group has one state, wherever it has replicas. */
  async #converges(): Promise<void> {
    const { cluster, groups, patience } = this.#world;
    await cluster.converged();
    for (const id of groups) {
      await patience.until(
        `all replicas of group ${id} have the same state`,
        async () => {
          const found = await Promise.all(cluster.nodes.map((node) => groupOf(node, id)));
          const states = found.filter((group) => group !== undefined);
          const { lastIndex, stateHash } = states[0]!;
          return states.every(
            (each) =>
              each.leader !== 0 &&
              each.lastIndex === lastIndex &&
              each.appliedIndex === lastIndex &&
              each.stateHash === stateHash,
          );
        },
        recoveryMsMax,
      );
    }
  }

  report(): ChaosReport {
    const { seed, nodes, kinds = faultKinds } = this.#options;
    return {
      seed,
      seconds: Math.round((performance.now() - this.#startMs) / 1_000),
      nodes,
      network: this.#world.network.name,
      counts: this.#counts,
      epochs: this.#checkedCount,
      groups: this.#histories.length,
      changes: this.#watchers.reduce((sum, { changeCount }) => sum + changeCount, 0),
      watchGaps: this.#watchers.reduce((sum, { gapCount }) => sum + gapCount, 0),
      figures: this.#gaps.figures,
      leftOut: kinds.filter((kind) => !this.#possible.includes(kind)),
      violations: this.#violations,
    };
  }

  /* ---------------------------------------------------------------- faults */

  /** All kinds in turn, each round in another order. */
  *#order(): Generator<FaultKind> {
    const { random } = this.#world;
    for (;;) {
      const left = [...this.#possible];
      while (left.length > 0) yield left.splice(random.below(left.length), 1)[0]!;
    }
  }

  async #bringOn(first: FaultKind): Promise<void> {
    const { random } = this.#world;
    const kinds = [first];
    if (random.chance(this.#options.pairs)) {
      const second = random.pick(this.#possible);
      if (second !== first) kinds.push(second);
    }
    const beganMs = performance.now();
    const healings: Healing[] = [];
    this.#calmSinceMs = Infinity;
    for (const kind of kinds) {
      const fault: Fault = faults[kind];
      this.#gaps.begin(kind);
      healings.push(await fault.begin(this.#world));
      await Bun.sleep(random.between(0, 300));
    }
    const holdMs = Math.min(
      ...kinds.map((kind) => (faults[kind] as Fault).holdMsMax ?? holdMsMaxDefault),
    );
    await Bun.sleep(random.between(Math.min(holdMsMin, holdMs), holdMs));
    for (const { heal } of healings) await heal();
    for (const { settle } of healings) await settle?.();
    for (const kind of kinds) this.#gaps.end(kind);
    this.#calmSinceMs = this.#world.patience.nowMs;
    const seconds = ((performance.now() - beganMs) / 1_000).toFixed(1);
    const atSeconds = Math.round((performance.now() - this.#startMs) / 1_000);
    this.#options.say?.(
      `${atSeconds} s: ${kinds.join(" and ")} for ${seconds} s; ${this.#summary()}`,
    );
    if (random.chance(restChance)) await this.#recovers();
    else await Bun.sleep(random.between(0, calmMsMax));
  }

  /** A node ends when it is told to, or is a member no more. Nor has a fault seen what must not be. */
  #nobodyFell(): void {
    for (const what of this.#world.seen.splice(0)) this.violation(what);
    for (const node of this.#world.cluster.nodes) this.#nodes.add(node);
    for (const node of this.#nodes) {
      if (node.unexpectedEnd === undefined) continue;
      const wasRemoved = !this.#world.cluster.nodes.includes(node);
      if (!wasRemoved) this.violation(node.unexpectedEnd);
      this.#nodes.delete(node);
    }
  }

  #summary(): string {
    const { operations, refused, unknown } = this.#counts;
    return `${operations} operations, ${refused} refused, ${unknown} unknown, ${this.#checkedCount} epochs checked`;
  }

  /** With nothing wrong any more, all nodes come to serve, and writes succeed. */
  async #recovers(): Promise<void> {
    if (this.#isBroken) return;
    const { cluster, patience } = this.#world;
    const beginMs = performance.now();
    for (const node of cluster.nodes) node.start();
    await patience.until(
      "all nodes serve and a write succeeds, with all faults healed",
      async () => {
        const serving = await Promise.all(cluster.nodes.map((node) => node.fetch("/readyz")));
        const written = this.#gaps.sinceLastMs < performance.now() - beginMs;
        return this.#isBroken || (written && serving.every(({ ok }) => ok));
      },
      recoveryMsMax,
    );
  }

  /* ---------------------------------------------------------------- histories */

  #broke(group: number, epoch: Epoch, wrong: string): void {
    const { historyDir } = this.#options;
    let where = "";
    if (historyDir !== undefined) {
      mkdirSync(historyDir, { recursive: true });
      const name = `seed-${this.#options.seed}-group-${group}-epoch-${epoch.number}.jsonl`;
      const path = join(historyDir, name);
      writeFileSync(path, epoch.operations.map((each) => `${JSON.stringify(each)}\n`).join(""));
      where = ` (history: ${path})`;
    }
    this.violation(`epoch ${epoch.number} of group ${group}: ${wrong}${where}`);
  }

  /** Waits until the watchers have come as far as an epoch was read. */
  async #watched(revision: number): Promise<void> {
    const { patience } = this.#world;
    const come = patience.until(
      `watches come to revision ${revision}`,
      () => this.#isBroken || this.#watchers.every((each) => each.revision >= revision),
      lastReadMsMax,
    );
    await come.catch((error: Error) => {
      const there = this.#watchers.map((watcher) => watcher.revision);
      this.violation(`${error.message}; they are at ${there.join(", ")}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watch);
    for (const history of this.#histories) history.abandon();
    const all = [...this.#clients, ...this.#watchers];
    await Promise.all(all.map((each) => each[Symbol.asyncDispose]()));
    // Whatever holds the nodes at the moment lets go of them first. What it says now is no news.
    await this.#running?.catch(() => undefined);
  }
}
