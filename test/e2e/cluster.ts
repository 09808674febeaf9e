/**
 * Real daemons for tests: each node a process of its own with real sockets and a real file system, to be killed, paused and started
 * again at will. None outlives the test: a node ends when the pipe that only we hold is closed, and on our own exit all are killed, the
 * paused ones too. What a node said last is part of every failure.
 */
import type { Subprocess } from "bun";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GroupStatus, NodeStatus } from "../../src/client/index.ts";
import type { PeerNetwork } from "./peer-network.ts";

const host = "127.0.0.1";
const program = join(import.meta.dir, "../../src/main.ts");
const pollMs = 10;
/** Generous: CI runs other tests on the same cores. */
const waitMsMax = 20_000;
const logTailBytes = 3_000;
/**
 * Below what the kernel hands out by itself, and each process of a test run has a part of its own, so that the port of a killed node is still free when
 * it comes back.
 */
const portParts = 8;
const portCount = 1_500;
const portMin = 20_000 + (Number(process.env["BUN_TEST_WORKER_ID"] ?? 0) % portParts) * portCount;

/** How a process ended. */
export interface Ended {
  /** Null where a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | number | null;
  /** What it wrote to stderr in this life. */
  readonly stderr: string;
}

export interface ClusterOptions {
  readonly nodes?: number;
  /** More flags for each `serve`. */
  readonly flags?: readonly string[];
  /** Data folder of a node, where it is not the usual one. */
  readonly dataDir?: (id: number) => string | undefined;
  /** Where a node runs, where that is not simply on loopback; asked once for each node. */
  readonly place?: (id: number) => NodePlace;
  /** Of all nodes, at first. */
  readonly build?: Build;
  /** Through which the nodes reach each other; without one directly. */
  readonly network?: PeerNetwork;
}

/** All as `host:port`. */
export interface NodePlace {
  readonly listen: string;
  /** Where others reach the binary port. */
  readonly advertise: string;
  readonly http: string;
  /** What starts the program there. */
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** What a node runs: builds.ts has others. */
export interface Build {
  readonly name: string;
  /** Up to the program. */
  readonly bunArguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

export const thisBuild: Build = { name: "this", bunArguments: [program], environment: {} };

/** Runs `body` on a cluster that serves; whatever happens, nothing of it is left. A failure shows what each node said last. */
export async function withCluster(
  options: ClusterOptions,
  body: (cluster: TestCluster) => Promise<void>,
): Promise<void> {
  await using cluster = new TestCluster(options);
  try {
    await cluster.start();
    await body(cluster);
  } catch (error) {
    process.stderr.write(cluster.logTails());
    throw error;
  }
}

export class TestCluster implements AsyncDisposable {
  readonly dir: string;
  /** The members, as far as `join` and `leave` were told. */
  readonly nodes: TestNode[];
  readonly members: string;
  readonly #flags: readonly string[];
  readonly #place: (id: number) => NodePlace;
  readonly #dataDir: (id: number) => string;
  /** Nodes that were members once. */
  readonly #former: TestNode[] = [];

  /** Starts nothing yet. */
  constructor({
    nodes: count = 3,
    flags = [],
    dataDir,
    place = loopbackPlace,
    build = thisBuild,
    network,
  }: ClusterOptions = {}) {
    this.dir = mkdtempSync(join(tmpdir(), "barge-e2e-"));
    this.#flags = flags;
    this.#place = place;
    this.#dataDir = (id) => dataDir?.(id) ?? join(this.dir, `node${id}`);
    const places = Array.from({ length: count }, (_, at) => ({ id: at + 1, ...place(at + 1) }));
    this.members = places
      .map(({ id, advertise }) => `${id}=${network?.listen(id, advertise) ?? advertise}`)
      .join(",");
    this.nodes = places.map(
      (each) =>
        new TestNode({
          ...each,
          dataDir: this.#dataDir(each.id),
          logFile: join(this.dir, `node${each.id}.log`),
          flags: [`--initial-members=${this.members}`, ...flags],
        }),
    );
    for (const node of this.nodes) node.build = build;
  }

  /** A node more, with an id that nobody had, that will ask the others to be added. Starts nothing yet. */
  join(more: readonly string[] = []): TestNode {
    const id = Math.max(...[...this.nodes, ...this.#former].map((node) => node.id)) + 1;
    const node = new TestNode({
      ...this.#place(id),
      id,
      dataDir: this.#dataDir(id),
      logFile: join(this.dir, `node${id}.log`),
      flags: [`--join=${this.endpoints}`, ...this.#flags, ...more],
    });
    this.nodes.push(node);
    return node;
  }

  /** It is no member any more: nothing is expected of it. */
  leave(node: TestNode): void {
    this.nodes.splice(this.nodes.indexOf(node), 1);
    this.#former.push(node);
  }

  /** Of the binary ports, for `connect`. */
  get endpoints(): string {
    return this.nodes.map(({ binary }) => binary).join(",");
  }

  /** Starts what does not run, and waits until all serve. */
  async start(nodes: readonly TestNode[] = this.nodes): Promise<void> {
    for (const node of nodes) node.start();
    await Promise.all(nodes.map((node) => node.ready()));
  }

  /** Waits until one of the nodes leads, and a majority of the cluster knows it in its own term. */
  async leader(among: readonly TestNode[] = this.nodes): Promise<TestNode> {
    let found: TestNode | undefined;
    await until("a majority follows one leader", async () => {
      const groups = await Promise.all(among.map((node) => node.group().catch(() => undefined)));
      const at = groups.findIndex((group) => group?.role === "leader");
      const leader = groups[at];
      if (leader === undefined) return false;
      const following = groups.filter(
        (group) => group?.leader === leader.leader && group.term === leader.term,
      );
      found = among[at];
      return following.length * 2 > this.nodes.length;
    });
    return found!;
  }

  async followers(): Promise<TestNode[]> {
    const leader = await this.leader();
    return this.nodes.filter((node) => node !== leader);
  }

  /** Waits until all nodes have applied the very same log; only while nobody writes. Their state hashes must be equal then. */
  async converged(): Promise<GroupStatus> {
    let groups: GroupStatus[] = [];
    await until("all nodes applied the same log", async () => {
      groups = await Promise.all(this.nodes.map((node) => node.group()));
      const { term, lastIndex } = groups[0]!;
      return groups.every(
        (group) =>
          group.leader !== 0 &&
          group.term === term &&
          group.lastIndex === lastIndex &&
          group.commitIndex === lastIndex &&
          group.appliedIndex === lastIndex,
      );
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${JSON.stringify(groups, undefined, 1)}`);
    });
    const hashes = new Set(groups.map(({ stateHash }) => stateHash));
    if (hashes.size > 1) {
      throw new Error(`state hashes differ at index ${groups[0]!.lastIndex}: ${[...hashes]}`);
    }
    return groups[0]!;
  }

  logTails(): string {
    return [...this.#former, ...this.nodes]
      .map((node) => `--- node ${node.id}\n${node.logTail()}\n`)
      .join("");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#former, ...this.nodes].map((node) => node.kill()));
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface TestNodeOptions extends NodePlace {
  readonly id: number;
  readonly dataDir: string;
  readonly logFile: string;
  readonly flags: readonly string[];
}

export class TestNode {
  readonly id: number;
  readonly dataDir: string;
  /** `host:port` at which others reach it. */
  readonly binary: string;
  /** `host:port` where it listens for them. */
  readonly listen: string;
  readonly http: string;
  /** From the next start on. */
  build: Build = thisBuild;
  readonly #options: TestNodeOptions;
  #child: Subprocess<"pipe", "ignore", number> | undefined;
  #paused = false;
  #endAsked = false;
  #unexpectedEnd: string | undefined;
  /** Where its present life begins in the log file. */
  #logStart = 0;

  constructor(options: TestNodeOptions) {
    this.id = options.id;
    this.dataDir = options.dataDir;
    this.binary = options.advertise;
    this.listen = options.listen;
    this.http = options.http;
    this.#options = options;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** Of the process that runs. */
  get pid(): number {
    if (this.#child === undefined) throw new Error(`node ${this.id} does not run`);
    return this.#child.pid;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** How it ended without having been told to, in any of its lives. */
  get unexpectedEnd(): string | undefined {
    return this.#unexpectedEnd;
  }

  /** `more` replaces flags of the same name. Does nothing where it runs. */
  start(more: readonly string[] = []): void {
    if (this.#child !== undefined) return;
    const { id, dataDir, listen, advertise, http, flags, logFile, command, environment } =
      this.#options;
    const log = openSync(logFile, "a");
    this.#logStart = readFileSync(logFile).byteLength;
    const replaced = new Set(more.map(flagName));
    const all = [
      `--node-id=${id}`,
      `--data-dir=${dataDir}`,
      `--listen=${listen}`,
      ...(advertise === listen ? [] : [`--advertise=${advertise}`]),
      `--http-listen=${http}`,
      ...flags,
    ].filter((flag) => !replaced.has(flagName(flag)));
    const child = Bun.spawn(
      [
        ...(command ?? []),
        process.execPath,
        ...this.build.bunArguments,
        "serve",
        ...all,
        ...more,
        "--exit-with-parent",
      ],
      {
        stdin: "pipe",
        stdout: "ignore",
        stderr: log,
        env: {
          PATH: process.env["PATH"] ?? "",
          HOME: process.env["HOME"] ?? "",
          ...environment,
          ...this.build.environment,
        },
      },
    );
    closeSync(log);
    alive.add(child);
    this.#child = child;
    this.#paused = false;
    this.#endAsked = false;
    void this.#gone(child);
  }

  /** Waits until it serves: it knows a leader and has applied what is committed. */
  async ready(): Promise<void> {
    await until(`node ${this.id} serves`, async () => {
      return this.#child === undefined || (await this.fetch("/readyz")).ok;
    });
    if (this.#child === undefined) throw new Error(`node ${this.id} ended\n${this.logTail()}`);
  }

  /** `kill -9`; resolves once it is gone. */
  async kill(): Promise<void> {
    this.#endAsked = true;
    const child = this.#signal("SIGKILL");
    if (child !== undefined) await this.#gone(child);
  }

  /** SIGTERM; resolves once it has ended. */
  async terminate(): Promise<Ended> {
    this.#endAsked = true;
    const child = this.#signal("SIGTERM");
    if (child === undefined) throw new Error(`node ${this.id} does not run`);
    return this.#ended(child);
  }

  /** Whether an end of this life is no news. */
  set mayEnd(may: boolean) {
    this.#endAsked = may;
  }

  /** Waits for it to end by itself. */
  async ended(): Promise<Ended> {
    const child = this.#child;
    if (child === undefined) throw new Error(`node ${this.id} does not run`);
    return this.#ended(child);
  }

  /** SIGSTOP: its sockets stay open, and nobody answers. */
  pause(): void {
    this.#signal("SIGSTOP");
    this.#paused = true;
  }

  /** SIGCONT. */
  resume(): void {
    this.#signal("SIGCONT");
    this.#paused = false;
  }

  async status(): Promise<NodeStatus> {
    const response = await this.fetch("/v1/status");
    return (await response.json()) as NodeStatus;
  }

  /** Status of the one group. */
  async group(): Promise<GroupStatus> {
    const { groups } = await this.status();
    return groups[0]!;
  }

  /** Never waits for ever, for the node may be paused. */
  fetch(path: string, init: RequestInit = {}, timeoutMs = 2_000): Promise<Response> {
    return fetch(`http://${this.http}${path}`, {
      signal: AbortSignal.timeout(timeoutMs),
      ...init,
    });
  }

  log(): string {
    return readFileSync(this.#options.logFile, "utf8");
  }

  logTail(): string {
    return this.log().slice(-logTailBytes);
  }

  #signal(signal: NodeJS.Signals): Subprocess<"pipe", "ignore", number> | undefined {
    this.#child?.kill(signal);
    return this.#child;
  }

  async #gone(child: Subprocess): Promise<void> {
    await child.exited;
    alive.delete(child);
    if (this.#child !== child) return;
    this.#child = undefined;
    if (this.#endAsked) return;
    const how = child.signalCode ?? `status ${child.exitCode}`;
    this.#unexpectedEnd ??= `node ${this.id} ended with ${how}: ${this.logTail().slice(-500)}`;
  }

  async #ended(child: Subprocess<"pipe", "ignore", number>): Promise<Ended> {
    await this.#gone(child);
    const stderr = readFileSync(this.#options.logFile).subarray(this.#logStart).toString();
    return { status: child.exitCode, signal: child.signalCode, stderr };
  }
}

/** Polls until `condition` holds; one that throws does not hold yet. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = waitMsMax,
): Promise<void> {
  const untilMs = performance.now() + timeoutMs;
  let last: unknown;
  while (performance.now() < untilMs) {
    try {
      if (await condition()) return;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await Bun.sleep(pollMs);
  }
  const why = last instanceof Error ? `: ${last.message}` : "";
  throw new Error(`not within ${timeoutMs} ms: ${what}${why}`);
}

function flagName(flag: string): string {
  return flag.split("=", 1)[0]!;
}

/** A port is taken once its node runs, and that may be later than another cluster looks for one. */
const handedOut = new Set<number>();

export function loopbackPlace(): NodePlace {
  const [binary, http] = freePorts(2).map((port) => `${host}:${port}`) as [string, string];
  return { listen: binary, advertise: binary, http };
}

export function freePorts(count: number): number[] {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = portMin + Math.floor(Math.random() * portCount);
    if (handedOut.has(port) || !isFree(port)) continue;
    handedOut.add(port);
    ports.push(port);
  }
  return ports;
}

function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: host, port, socket: { data(): void {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

/** Processes that must not outlive this one. */
const alive = new Set<Subprocess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});
