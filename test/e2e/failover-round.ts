/** One change of leader by force, and for how long clients of several kinds could not write. */
import { type Client, connect } from "../../src/client/index.ts";
import type { Random } from "../sim/random.ts";
import { type TestCluster, type TestNode, until } from "./cluster.ts";
import { type Door, HttpDoor, SdkDoor } from "./doors.ts";

export const faults = ["SIGKILL", "SIGSTOP"] as const;
export type Fault = (typeof faults)[number];

/** How a client writes continuously. */
export const clientKinds = [
  "SDK, one write at a time",
  "SDK, a write each 5 ms",
  "HTTP, a write each 5 ms, node by node",
] as const;
export type ClientKind = (typeof clientKinds)[number];

const periodMs = 5;
const timeoutMs = 5_000;
const delayMsMax = 400;

/** Milliseconds from the fault to the first acknowledgement of a write that began after it. */
export type Outages = Record<ClientKind, number>;

export async function failoverRound(
  cluster: TestCluster,
  random: Random,
  fault: Fault,
): Promise<Outages> {
  await cluster.converged();
  const leader = await cluster.leader();
  await using clients = new Clients(cluster);
  await clients.allWrite(0);
  await Bun.sleep(random.between(0, delayMsMax));

  const faultMs = performance.now();
  const killed = fault === "SIGKILL" ? leader.kill() : leader.pause();
  await clients.allWrite(faultMs);
  await killed;
  const outages = clients.outages(faultMs);

  if (fault === "SIGKILL") leader.start();
  else leader.resume();
  await clients.stop();
  await leader.ready();
  return outages;
}

interface Success {
  readonly beganMs: number;
  readonly endedMs: number;
}

class Clients implements AsyncDisposable {
  readonly #successes: Record<ClientKind, Success[]> = {
    "SDK, one write at a time": [],
    "SDK, a write each 5 ms": [],
    "HTTP, a write each 5 ms, node by node": [],
  };
  readonly #sdk: Client[];
  readonly #loops: Promise<void>[];
  #stopping = false;

  constructor(cluster: TestCluster) {
    const [first, second] = [0, 1].map(() => connect({ endpoints: cluster.endpoints, timeoutMs }));
    this.#sdk = [first!, second!];
    const doors = cluster.nodes.map((node: TestNode) => new HttpDoor(node));
    this.#loops = [
      this.#closedLoop("SDK, one write at a time", new SdkDoor(first!)),
      this.#openLoop("SDK, a write each 5 ms", [new SdkDoor(second!)]),
      this.#openLoop("HTTP, a write each 5 ms, node by node", doors),
    ];
  }

  async #closedLoop(kind: ClientKind, door: Door): Promise<void> {
    while (!this.#stopping) await this.#write(kind, door);
  }

  async #openLoop(kind: ClientKind, doors: readonly Door[]): Promise<void> {
    const inFlight = new Set<Promise<void>>();
    for (let turn = 0; !this.#stopping; turn++) {
      const write = this.#write(kind, doors[turn % doors.length]!);
      inFlight.add(write);
      void write.then(() => inFlight.delete(write));
      await Bun.sleep(periodMs);
    }
    await Promise.all(inFlight);
  }

  async #write(kind: ClientKind, door: Door): Promise<void> {
    const beganMs = performance.now();
    try {
      await door.put("failover", kind, timeoutMs);
      this.#successes[kind].push({ beganMs, endedMs: performance.now() });
    } catch {
      // What the outage is about; whether outcomes are right is checked elsewhere.
      await Bun.sleep(1);
    }
  }

  /** Waits until each has had a write acknowledged that began after that moment. */
  async allWrite(sinceMs: number): Promise<void> {
    await until("all clients write", () =>
      clientKinds.every((kind) => this.#firstAfter(kind, sinceMs) !== undefined),
    );
  }

  outages(faultMs: number): Outages {
    const all = clientKinds.map((kind) => [kind, this.#firstAfter(kind, faultMs)! - faultMs]);
    return Object.fromEntries(all) as Outages;
  }

  #firstAfter(kind: ClientKind, sinceMs: number): number | undefined {
    const ended = this.#successes[kind]
      .filter(({ beganMs }) => beganMs >= sinceMs)
      .map(({ endedMs }) => endedMs);
    return ended.length === 0 ? undefined : Math.min(...ended);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    for (const client of this.#sdk) client.close();
    await Promise.all(this.#loops);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}
