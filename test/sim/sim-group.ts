/**
 * The groups of a simulated cluster. Each has everything of its own that judges it, and clients of its own: what one group holds, votes and
 * acknowledges says nothing of another, and nothing of one may ever be seen in another.
 */
import type { Limits } from "../../src/limits.ts";
import { membersOf } from "../../src/raft/configuration.ts";
import type { LogStartRecord, ReplicaRecord } from "../../src/storage/records.ts";
import type { Batch } from "../../src/wire/batch.ts";
import { defaultGroup } from "../../src/wire/registry.ts";
import type { BeatMessage } from "../../src/wire/beat-message.ts";
import type { PeerMessage } from "../../src/wire/messages.ts";
import type { BeatJudge } from "./beat-judge.ts";
import type { ClientNode, Clients } from "./clients.ts";
import type { Ledgers } from "./disk-watch.ts";
import { DurableLedger, type Entry, type Shadow } from "./durable-ledger.ts";
import { Invariants, Violation } from "./invariants.ts";
import type { SimNode } from "./sim-node.ts";

export interface SimGroupOptions {
  readonly id: number;
  /** All nodes that could ever have a replica. */
  readonly nodeIds: readonly number[];
  readonly limits: Limits;
  readonly blackBox: boolean;
  readonly nowMs: () => number;
  /** A node's log says that it has a replica from now on, or has none any more. */
  readonly replicaChanged: (node: number, replica: ReplicaRecord) => number;
}

export class SimGroup {
  readonly id: number;
  /** By node. */
  readonly ledgers: ReadonlyMap<number, DurableLedger>;
  readonly invariants: Invariants;
  /** None for `system`. */
  clients: Clients | undefined;
  /** Nodes that its clients ask: those that it is on, or is to be on. Changed in place. */
  readonly hosts: SimNode[] = [];
  /** By node: the term up to which its replica has forgotten what it said. */
  readonly #forgotten = new Map<number, number>();
  /** By node: how many configurations there were when its replica was made. */
  readonly #madeIn = new Map<number, number>();
  /** The registry has none of it any more. */
  isRemoved = false;

  constructor(options: SimGroupOptions) {
    const { id, nodeIds, limits, blackBox, nowMs, replicaChanged } = options;
    this.id = id;
    const ledgers = new Map<number, DurableLedger>();
    for (const node of nodeIds) {
      const onAppend = (batch: Batch, log: Shadow): void =>
        this.invariants.appended(node, batch, log);
      const onRestore = ({ start, configuration }: LogStartRecord): void =>
        this.invariants.oracle.members(node, start.index, configuration);
      const committed = (): readonly Entry[] => this.invariants.oracle.batches;
      const onReplica = (replica: ReplicaRecord): void => {
        this.#mayChange(node, replica);
        this.#forgotten.set(node, replicaChanged(node, replica));
        if (replica.removed) this.invariants.replicaGone(node);
        else this.#madeIn.set(node, this.invariants.oracle.configurationCount);
      };
      ledgers.set(node, new DurableLedger(id, onAppend, committed, onRestore, onReplica));
    }
    this.ledgers = ledgers;
    this.invariants = new Invariants(ledgers, { group: id, blackBox, limits, nowMs });
  }

  /** A member that has come back promises nothing in terms in which it has promised something else. */
  #remembers(message: PeerMessage): void {
    const { type, from } = message;
    const promises =
      (type === "appendReply" && message.accepted) ||
      (type === "voteReply" && message.granted) ||
      (type === "heartbeatReply" && message.readSeq > 0);
    const forgotten = this.#forgotten.get(from) ?? 0;
    if (!promises || message.term > forgotten) return;
    throw new Violation(
      `node ${from} sends a ${type} of term ${message.term} of group ${this.id}: what it said up to term ${forgotten} it has forgotten`,
    );
  }

  /** A message is about to leave. */
  sent(life: number, message: PeerMessage): void {
    if (this.ledger(message.from).visible.isGone) {
      throw new Violation(
        `node ${message.from} sends a ${message.type} of group ${this.id}, which is not there any more`,
      );
    }
    this.#remembers(message);
    this.invariants.sent(life, message);
  }

  /** A replica may go once the group's members have decided to be without it, or with the group. They may want a new one of the same node by then. */
  #mayChange(node: number, { removed, registryIndex }: ReplicaRecord): void {
    const { oracle } = this.invariants;
    const { configuration } = oracle;
    if (!removed || this.isRemoved || configuration === undefined) return;
    const isMember = membersOf(configuration).includes(node);
    const hasLeft =
      oracle.hasLeft(node, this.#madeIn.get(node) ?? 0) || this.invariants.decidedWithout(node);
    if (isMember && !hasLeft) {
      throw new Violation(
        `node ${node} takes away its replica of group ${this.id} as of ${registryIndex}, of which it is a member; it was made at ${this.ledger(node).visible.madeAt}`,
      );
    }
  }

  /** Of one node. */
  ledger(node: number): DurableLedger {
    const ledger = this.ledgers.get(node);
    if (ledger === undefined) throw new Error(`no node ${node}`);
    return ledger;
  }
}

export class SimGroups {
  /** None where only what the cluster does counts. */
  beats: BeatJudge | undefined;
  readonly #groups = new Map<number, SimGroup>();

  add(group: SimGroup): void {
    this.#groups.set(group.id, group);
  }

  find(id: number): SimGroup | undefined {
    return this.#groups.get(id);
  }

  /** Throws where no such group was ever made. */
  of(id: number): SimGroup {
    const group = this.#groups.get(id);
    if (group === undefined) throw new Violation(`there is no group ${id}`);
    return group;
  }

  all(): Iterable<SimGroup> {
    return this.#groups.values();
  }

  get default(): SimGroup {
    return this.of(defaultGroup);
  }

  ledgersOf(node: number): Ledgers {
    const all = (): Iterable<SimGroup> => this.all();
    return {
      of: (group) => this.of(group).ledger(node),
      *all() {
        for (const group of all()) yield group.ledger(node);
      },
    };
  }

  /** A node starts, or ends. */
  lives(node: number, life: number): void {
    for (const { invariants } of this.#groups.values()) invariants.lives(node, life);
  }

  /** A node is gone, with everything that was asked of it. */
  crashed(node: ClientNode): void {
    for (const { clients } of this.#groups.values()) clients?.crashed(node);
  }

  /** No new requests. */
  stopClients(): void {
    for (const { clients } of this.#groups.values()) clients?.stop();
  }

  /** A message is about to leave. */
  sent(life: number, message: PeerMessage): void {
    if (message.type === "beat") return this.#beat(life, message);
    this.of(message.group).sent(life, message);
  }

  /** A node claims to lead groups, each in a term. */
  #beat(life: number, beat: BeatMessage): void {
    const { from, claims } = beat;
    const wrong = this.beats?.sent(beat);
    if (wrong !== undefined) throw new Violation(wrong);
    for (const { group, term } of claims) {
      if (term > 0) this.of(group).invariants.claimed(from, life, term);
    }
  }

  /** Terms in which somebody led, over all groups. */
  get leaders(): number {
    let leaders = 0;
    for (const { invariants } of this.#groups.values()) leaders += invariants.leaders;
    return leaders;
  }
}
