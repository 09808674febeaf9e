/**
 * Attacks real daemons with fuzzed frames, at every stage of a connection, whoever dialled it, while a neighbour reads and writes. Whatever comes, no process ends, no
 * group stops (but where the attacker may speak as a leader), each frame that a node sends is one, and in every pause the neighbour goes on.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BargeError, type Client, connect } from "../../src/client/index.ts";
import { FrameType, type Hello } from "../../src/wire/messages.ts";
import { type TestCluster, type TestNode, until, withCluster } from "../e2e/cluster.ts";
import { decodeAny } from "../wire/messages.ts";
import { type Aim, type Chance, FrameFuzz, type Stage } from "./fuzz-frames.ts";
import { HostileListener } from "./hostile-listener.ts";
import { clientHello, frameOf, RawClient } from "./raw-client.ts";
import { encodeAccepted, encodeHello } from "../../src/wire/hello.ts";
import { defaultGroup, systemGroup } from "../../src/wire/registry.ts";
import { applyVersionMax, Feature, featuresKnown } from "../../src/wire/versions.ts";

export interface FuzzRoundOptions {
  /** 1, or 3 of which the last one is the attacker's. */
  readonly nodes: 1 | 3;
  readonly seed: number;
  readonly seconds: number;
  /** The attacker may also speak as the leader of terms to come: then groups may stop, and are started again. */
  readonly leads?: boolean;
}

export interface FuzzReport {
  readonly nodes: number;
  readonly seed: number;
  readonly seconds: number;
  readonly leads: boolean;
  readonly connections: number;
  /** Those that the nodes dialled. */
  readonly dialled: number;
  readonly frames: number;
  /** Of messages, by what they began as. */
  readonly kinds: Readonly<Record<string, number>>;
  readonly framesAnswered: number;
  readonly neighbourWrites: number;
  /** Of these, those whose connection was lost: then they were sent again. */
  readonly neighbourWritesAgain: number;
  /** Longest time that the neighbour waited in a pause of the attack. */
  readonly neighbourMsMax: number;
  readonly groupsStopped: number;
  readonly peakRssMb: number;
}

const attackMs = 2_000;
const atOnce = 24;
const framesMax = 25;
const linger = 10;
const calmMsMax = 15_000;

/** By node: its groups, the default one and the registry's. */
type Aims = ReadonlyMap<TestNode, readonly Aim[]>;

interface Identity {
  readonly clusterId: string;
  readonly incarnation: string;
}

/** Throws with the seed where something must not have happened. */
export async function fuzzRound(options: FuzzRoundOptions): Promise<FuzzReport> {
  let report: FuzzReport | undefined;
  await withCluster({ nodes: options.nodes }, async (cluster) => {
    try {
      report = await new FuzzRound(cluster, options).run();
    } catch (error) {
      const { message } = error as Error;
      throw new Error(`seed ${options.seed}, ${options.nodes} nodes: ${message}`, { cause: error });
    }
  });
  return report!;
}

class FuzzRound {
  readonly #cluster: TestCluster;
  readonly #options: FuzzRoundOptions;
  readonly #fuzz: FrameFuzz;
  readonly #victims: readonly TestNode[];
  readonly #attacker: TestNode | undefined;
  #connections = 0;
  #dialled = 0;
  #frames = 0;
  #answered = 0;
  #stopped = 0;
  #writes = 0;
  #writesAgain = 0;
  #waitMsMax = 0;

  constructor(cluster: TestCluster, options: FuzzRoundOptions) {
    this.#cluster = cluster;
    this.#options = options;
    this.#attacker = options.nodes === 3 ? cluster.nodes[2] : undefined;
    this.#victims = cluster.nodes.filter((node) => node !== this.#attacker);
    this.#fuzz = new FrameFuzz({
      seed: options.seed,
      attacker: this.#attacker?.id ?? 2,
      leads: options.leads ?? false,
    });
  }

  async run(): Promise<FuzzReport> {
    const { nodes, seed, seconds, leads = false } = this.#options;
    // Without a session: its id could be guessed, and until there are identities whoever does so may use it.
    const endpoints = this.#victims.map(({ binary }) => binary).join(",");
    const neighbour = connect({ endpoints, session: false });
    await neighbour.put("neighbour", "before", { timeoutMs: calmMsMax });
    const identity = identityOf(this.#attacker ?? this.#victims[0]!);
    await this.#attacker?.kill();
    await this.#cluster.leader(this.#victims);
    const endMs = performance.now() + seconds * 1_000;
    let round = 0;
    while (performance.now() < endMs) {
      const aims = await this.#look();
      const attackEndMs = Math.min(endMs, performance.now() + attackMs);
      const listener = this.#listenerFor(aims, identity);
      listener?.open();
      try {
        await Promise.all(
          Array.from({ length: atOnce }, async () => {
            while (performance.now() < attackEndMs) await this.#attack(aims, identity);
          }),
        );
      } finally {
        listener?.close();
      }
      this.#dialled += listener?.connections ?? 0;
      this.#frames += listener?.frames ?? 0;
      if (listener?.wrong !== undefined) throw new Error(listener.wrong);
      await this.#look();
      const value = `round ${++round}`;
      const beganMs = performance.now();
      await this.#write(neighbour, value, beganMs + calmMsMax);
      const found = await neighbour.get("neighbour", { timeoutMs: calmMsMax });
      if (Buffer.from(found?.value ?? []).toString() !== value) throw new Error("another value");
      this.#waitMsMax = Math.max(this.#waitMsMax, performance.now() - beganMs);
      this.#writes++;
    }
    await neighbour.close();
    const statuses = await Promise.all(this.#victims.map((node) => node.status()));
    if (!leads) await this.#comeTogether();
    return {
      nodes,
      seed,
      seconds,
      leads,
      connections: this.#connections,
      dialled: this.#dialled,
      frames: this.#frames,
      kinds: Object.fromEntries([...this.#fuzz.counts].sort()),
      framesAnswered: this.#answered,
      neighbourWrites: this.#writes,
      neighbourWritesAgain: this.#writesAgain,
      neighbourMsMax: Math.round(this.#waitMsMax),
      groupsStopped: this.#stopped,
      peakRssMb: Math.round(Math.max(...statuses.map((each) => each.peakRssBytes)) / 2 ** 20),
    };
  }

  /** Again where it is not known whether it was written: its connection may have been silent for too long under the attack. */
  async #write(neighbour: Client, value: string, untilMs: number): Promise<void> {
    for (;;) {
      try {
        const timeoutMs = Math.max(1, Math.ceil(untilMs - performance.now()));
        await neighbour.put("neighbour", value, { timeoutMs });
        return;
      } catch (error) {
        const isLost = error instanceof BargeError && error.code === "outcome_unknown";
        if (!isLost || performance.now() >= untilMs) throw error;
        this.#writesAgain++;
      }
    }
  }

  /** What was forged has not parted the nodes, and the one that was away finds back, however far terms were led on meanwhile. */
  async #comeTogether(): Promise<void> {
    if (this.#attacker !== undefined) await this.#cluster.start([this.#attacker]);
    await this.#cluster.converged();
    await until("all nodes hold the same registry", async () => {
      const statuses = await Promise.all(this.#cluster.nodes.map((node) => node.status()));
      const held = statuses.map(({ groups }) => groups.find(({ id }) => id === systemGroup));
      const [first] = held;
      return held.every(
        (each) =>
          each !== undefined &&
          each.appliedIndex === first!.lastIndex &&
          each.stateHash === first!.stateHash,
      );
    });
  }

  /** All run, and what an attacker knows of them. */
  async #look(): Promise<Aims> {
    const aims = new Map<TestNode, readonly Aim[]>();
    for (const node of this.#victims) {
      if (!node.running) throw new Error(`node ${node.id} has ended\n${node.logTail()}`);
      await until(`node ${node.id} answers`, async () => (await node.group()) !== undefined);
      const { groups } = await node.status();
      const stopped = groups.find(({ role }) => role === "stopped");
      if (stopped === undefined) continue;
      this.#stopped++;
      const { leads = false } = this.#options;
      if (!leads) {
        throw new Error(`group ${stopped.id} of node ${node.id} stopped\n${node.logTail()}`);
      }
      await node.kill();
    }
    await this.#cluster.start(this.#victims);
    await this.#cluster.leader(this.#victims);
    await until("one of them leads the registry too", () => this.#hasRegistry());
    for (const node of this.#victims) {
      const { groups } = await node.status();
      const aimed = groups.filter(({ id }) => id === defaultGroup || id === systemGroup);
      aims.set(
        node,
        aimed.map(({ id, term, lastIndex }) => ({ nodeId: node.id, group: id, term, lastIndex })),
      );
    }
    return aims;
  }

  /** The attacker may have led it before: of that term it would be believed. */
  async #hasRegistry(): Promise<boolean> {
    const statuses = await Promise.all(this.#victims.map((node) => node.status()));
    const held = statuses.map(({ groups }) => groups.find(({ id }) => id === systemGroup));
    const { leader, term } = held[0] ?? {};
    return (
      this.#victims.some(({ id }) => id === leader) &&
      held.every((group) => group?.leader === leader && group?.term === term)
    );
  }

  /** The nodes dial the attacker too. */
  #listenerFor(aims: Aims, identity: Identity): HostileListener | undefined {
    if (this.#attacker === undefined) return undefined;
    const { id: nodeId, binary: address } = this.#attacker;
    const aim = (id: number): Aim | undefined => {
      const [, at] = [...aims].find(([node]) => node.id === id) ?? [];
      return at === undefined ? undefined : this.#fuzz.chance.pick(at);
    };
    return new HostileListener({ address, nodeId, identity, fuzz: this.#fuzz, aim, framesMax });
  }

  async #attack(aims: Aims, identity: Identity): Promise<void> {
    const { chance } = this.#fuzz;
    const node = chance.pick(this.#victims);
    const stage = this.#stage(chance);
    const hello = this.#hello(stage, node, identity);
    let wrong: string | undefined;
    using client = await RawClient.connect(node.binary, {
      onFrame: (type, payload, fieldsBytes) => {
        this.#answered++;
        const isWhole = decodeAny({ type, payload, fieldsBytes }) !== undefined;
        if (!isWhole) wrong = `node ${node.id} sent what is no frame of type ${type}`;
      },
    }).catch((error: Error) => {
      throw new Error(`node ${node.id} takes no connection: ${error.message}\n${node.logTail()}`);
    });
    this.#connections++;
    const whole = stage !== "stranger" && chance.one(2);
    const parts = hello === undefined ? [] : [frameOf((out) => encodeHello(out, hello))];
    // It is answered there, as it cannot be dialled.
    const isAnswered =
      stage.startsWith("peer") && ((hello?.features ?? 0) & Feature.bothWays) !== 0;
    if (isAnswered) parts.push(frameOf(encodeAccepted));
    for (let i = 0; i <= chance.below(framesMax); i++) {
      this.#frames++;
      parts.push(this.#fuzz.bytes(stage, chance.pick(aims.get(node)!), whole));
    }
    // In pieces that have nothing to do with frames, now and then.
    const bytes = Buffer.concat(parts);
    const cut = chance.one(4) ? chance.below(bytes.byteLength) : bytes.byteLength;
    client.send(bytes.subarray(0, cut));
    if (cut < bytes.byteLength) {
      await Bun.sleep(1);
      client.send(bytes.subarray(cut));
    }
    const untilMs = performance.now() + linger;
    while (!client.closed && performance.now() < untilMs) await Bun.sleep(2);
    if (wrong !== undefined) throw new Error(wrong);
  }

  #stage(chance: Chance): Stage {
    if (this.#attacker === undefined) return chance.pick(["stranger", "client", "client"] as const);
    return chance.pick(["stranger", "client", "peer-control", "peer-bulk", "peer-bulk"] as const);
  }

  #hello(stage: Stage, node: TestNode, identity: Identity): Hello | undefined {
    if (stage === "stranger") return undefined;
    const features = this.#fuzz.chance.below(featuresKnown + 1);
    const versions = { versionMin: 1, versionMax: 2, features };
    if (stage === "client") return { ...clientHello, ...versions };
    return {
      role: stage,
      ...versions,
      software: "fuzz",
      ...identity,
      nodeId: this.#attacker!.id,
      expectNodeId: node.id,
      applyVersionMax,
    };
  }
}

function identityOf(node: TestNode): Identity {
  const text = readFileSync(join(node.dataDir, "identity.json"), "utf8");
  const { clusterId, incarnation } = JSON.parse(text) as Identity;
  return { clusterId, incarnation };
}

export const frameKinds: readonly string[] = Object.keys(FrameType);
