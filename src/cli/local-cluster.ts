/**
 * Nodes on this machine as child processes of their own, for `demo` and `bench`. A child ends when this process does, however that
 * happens: it watches a pipe that only we hold.
 */
import { type Subprocess } from "bun";
import { randomInt } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { join, relative } from "node:path";
import { optionTable } from "../config.ts";

export interface LocalPorts {
  readonly binary: number;
  readonly http: number;
}

export interface LocalClusterOptions {
  /** Holds the data and the log of each node. Created when absent. */
  readonly dir: string;
  /** One entry per node; ids count from 1. */
  readonly ports: readonly LocalPorts[];
  /** More flags for each `serve`. */
  readonly flags?: readonly string[];
  /** A node ended that we did not end. */
  readonly onDeath?: (node: LocalNode, how: string) => void;
}

const host = "127.0.0.1";
const readyPollMs = 20;
const readyMsMax = 20_000;
/** Longer than a node takes to stop by itself. */
const stopMsMax = 5_000;
const logTailBytes = 2_000;

/** The usual ports where all of them are free, else any free ones. */
export function choosePorts(nodeCount: number): LocalPorts[] {
  const usual = Array.from({ length: nodeCount }, (_, i) => ({
    binary: 9_091 + 100 * i,
    http: 9_090 + 100 * i,
  }));
  return reserve(usual) ?? freePorts(nodeCount);
}

/** Any free ports: for nodes that nobody should find by chance. */
export function freePorts(nodeCount: number): LocalPorts[] {
  for (let tries = 0; tries < portTriesMax; tries++) {
    const wanted = Array.from({ length: nodeCount }, () => ({
      binary: randomInt(portMin, portMax),
      http: randomInt(portMin, portMax),
    }));
    const ports = reserve(wanted);
    if (ports !== undefined) return ports;
  }
  throw new Error(`no ${2 * nodeCount} free ports between ${portMin} and ${portMax}`);
}

/** Below what the kernel hands out by itself: no outgoing connection takes a port before its node does, or while that is down. */
const portMin = 20_000;
const portMax = 32_000;
const portTriesMax = 100;

/** The ports bound for a moment, all at once so that none is given twice; undefined where one is taken. */
function reserve(wanted: readonly LocalPorts[]): LocalPorts[] | undefined {
  const bound: { readonly port: number; stop(force: boolean): void }[] = [];
  const bind = (port: number): number => {
    const listener = Bun.listen({ hostname: host, port, socket: { data(): void {} } });
    bound.push(listener);
    return listener.port;
  };
  try {
    return wanted.map(({ binary, http }) => ({ binary: bind(binary), http: bind(http) }));
  } catch {
    return undefined;
  } finally {
    for (const listener of bound) listener.stop(true);
  }
}

export class LocalNode {
  readonly id: number;
  /** `host:port`. */
  readonly binary: string;
  readonly http: string;
  readonly dataDir: string;
  readonly logFile: string;
  readonly #flags: readonly string[];
  readonly #onDeath: (node: LocalNode, how: string) => void;
  #child: Subprocess<"pipe", "ignore", number> | undefined;
  #stopping = false;
  /** Where its present life begins in the log file. */
  #logStart = 0;

  constructor(id: number, members: string, options: LocalClusterOptions) {
    const { dir, ports, flags = [], onDeath = (): void => {} } = options;
    const { binary, http } = ports[id - 1]!;
    this.id = id;
    this.binary = `${host}:${binary}`;
    this.http = `${host}:${http}`;
    this.dataDir = join(dir, `node${id}`);
    this.logFile = join(dir, `node${id}.log`);
    this.#onDeath = onDeath;
    this.#flags = [
      `--node-id=${id}`,
      `--data-dir=${this.dataDir}`,
      `--listen=${this.binary}`,
      `--http-listen=${this.http}`,
      `--initial-members=${members}`,
      ...flags,
    ];
  }

  /** Undefined while it does not run. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** A command line that runs this node in another terminal. */
  get command(): string {
    return [programWords(), "serve", ...this.#flags].join(" ");
  }

  start(): void {
    const log = openSync(this.logFile, "a");
    this.#logStart = fstatSync(log).size;
    const child = Bun.spawn([...selfCommand(), "serve", ...this.#flags, "--exit-with-parent"], {
      stdin: "pipe",
      stdout: "ignore",
      stderr: log,
      env: serverEnvironment(),
      onExit: (ended, code, signal) => {
        if (this.#child !== ended) return;
        this.#child = undefined;
        if (!this.#stopping) this.#onDeath(this, endText(code, signal));
      },
    });
    closeSync(log);
    this.#child = child;
  }

  /** Resolves once the node serves; rejects when it ends or takes too long. */
  async ready(): Promise<void> {
    const deadline = performance.now() + readyMsMax;
    while (performance.now() < deadline) {
      if (this.#child === undefined) throw new Error(`node ${this.id} ended:\n${this.logTail()}`);
      if (await this.#answersReady()) return;
      await Bun.sleep(readyPollMs);
    }
    throw new Error(
      `node ${this.id} is not ready after ${readyMsMax / 1_000} s:\n${this.logTail()}`,
    );
  }

  async #answersReady(): Promise<boolean> {
    try {
      const response = await fetch(`http://${this.http}/readyz`, {
        signal: AbortSignal.timeout(1_000),
      });
      await response.text();
      return response.status === 200;
    } catch {
      return false;
    }
  }

  /** Why it ended, in its own words, else what it said last. */
  logTail(): string {
    const log = readFileSync(this.logFile).subarray(this.#logStart).toString();
    const reason = /^barge: .*$/ms.exec(log);
    return (reason?.[0] ?? log.slice(-logTailBytes)).trimEnd();
  }

  /** Lets it finish what is in flight; ends it the hard way if that takes too long. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    if (child === undefined) return;
    // Closing the pipe asks it to stop. A signal could be its second one after Ctrl-C, which ends it at once.
    child.stdin.end();
    const timer = setTimeout(() => child.kill("SIGKILL"), stopMsMax);
    await child.exited;
    clearTimeout(timer);
  }

  kill(): void {
    this.#child?.kill("SIGKILL");
  }
}

export class LocalCluster {
  readonly nodes: readonly LocalNode[];

  constructor(options: LocalClusterOptions) {
    mkdirSync(options.dir, { recursive: true });
    const members = options.ports.map(({ binary }, i) => `${i + 1}=${host}:${binary}`).join(",");
    this.nodes = options.ports.map((_, i) => new LocalNode(i + 1, members, options));
  }

  get endpoints(): string {
    return this.nodes.map((node) => node.binary).join(",");
  }

  /** Starts all and waits until each serves. */
  async start(): Promise<void> {
    for (const node of this.nodes) node.start();
    await Promise.all(this.nodes.map((node) => node.ready()));
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()));
  }
}

function endText(code: number | null, signal: number | string | null): string {
  if (signal === null) return `status ${code}`;
  const found = Object.entries(constants.signals).find(([, number]) => number === signal);
  return found?.[0] ?? String(signal);
}

/** What runs this very program again: Bun and main.ts, or the one file that holds both. */
function selfCommand(): string[] {
  return isCompiled() ? [process.execPath] : [process.execPath, Bun.main];
}

function isCompiled(): boolean {
  return Bun.main.startsWith("/$bunfs/");
}

/** The words with which a user starts this program from the current folder. */
export function programWords(): string {
  if (isCompiled() || !Bun.main.endsWith(".ts")) return "barge";
  const main = relative(process.cwd(), Bun.main);
  // Through npx a `bun` is on our path, but not on that of the user's other terminals.
  const bun = Bun.which("bun")?.includes("node_modules") === false ? "bun" : "npx bun";
  return `${bun} ${main.startsWith("..") ? Bun.main : main}`;
}

const optionNames: ReadonlySet<string> = new Set(
  Object.values(optionTable).flatMap(({ environment }) => [...environment]),
);

/** Our own environment without options of a node: what a user has set for one node is not meant for these. */
function serverEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !optionNames.has(name)) environment[name] = value;
  }
  return environment;
}
