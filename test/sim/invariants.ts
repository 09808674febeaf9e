/**
 * What must hold after each event, whatever happens: the safety properties of Raft (figure 3 of the paper) and the order of durability of
 * design.md section 6. Each is checked at the moment at which it could break, against observers that share no code with what they check.
 */
import type { Limits } from "../../src/limits.ts";
import type { Batch } from "../../src/wire/batch.ts";
import type { PeerMessage, RaftMessage } from "../../src/wire/messages.ts";
import type { DurableLedger, Shadow } from "./durable-ledger.ts";
import { decides, Electorate, shown } from "./electorate.ts";
import { Oracle } from "./oracle.ts";
import { Staleness } from "./staleness.ts";
import { Transfers } from "./transfers.ts";

/** What a core says of itself. */
export interface CoreView {
  readonly role: string;
  readonly term: number;
  readonly commit: number;
  readonly durableIndex: number;
  readonly wound: object | undefined;
  readonly lastIndex: number;
  /** Whom it hands leadership over to; 0 = nobody. */
  readonly transferTarget: number;
  readonly transferSinceTick: number;
  /** The others as a leader sees them. */
  progress(): readonly { readonly id: number; readonly match: number }[];
}

export interface InvariantOptions {
  readonly group: number;
  /** Only what the cluster does counts: what is applied and what clients see, not what nodes promise each other. */
  readonly blackBox: boolean;
  readonly limits: Limits;
  /** Of the simulation. */
  readonly nowMs: () => number;
}

/** Breaks of an invariant; anything else that is thrown is a failure just as well. */
export class Violation extends Error {
  override readonly name: string = "Violation";
}

/** No leader proposes in it. */
const foundingTerm = 1;

export class Invariants {
  readonly oracle: Oracle;
  /** The group is removed: one after the other its members forget what they have. */
  isOver = false;
  readonly #ledgers: ReadonlyMap<number, DurableLedger>;
  readonly #electorate: Electorate;
  readonly #blackBox: boolean;
  /** Crc by (last index, term) of every batch that was ever in a log. */
  readonly #logged = new Map<string, number>();
  /** Who led a term, and in which of his lives. */
  readonly #leaders = new Map<number, { readonly nodeId: number; readonly life: number }>();
  #newestTerm = 0;
  readonly #lives = new Map<number, number>();
  readonly #transfers: Transfers;
  readonly #staleness = new Staleness();
  readonly #nowMs: () => number;
  /** Whom a node voted for in a term. */
  readonly #votes = new Map<string, number>();
  /** Highest index that a node has acknowledged to another in a term. */
  readonly #acknowledgedIn = new Map<string, number>();
  /** What each node showed after its last turn. */
  readonly #shown = new Map<
    number,
    Pick<CoreView, "role" | "term" | "commit" | "wound"> & { readonly life: number }
  >();
  /** The highest that a node took for committed, whatever it remembers. */
  #commitMax = 0;
  /** What a machine had applied when its node's log was found damaged: it may be ahead of it. */
  readonly #ahead = new Map<number, number>();

  constructor(
    ledgers: ReadonlyMap<number, DurableLedger>,
    { group, blackBox, limits, nowMs }: InvariantOptions,
  ) {
    this.oracle = new Oracle(group, limits);
    this.#blackBox = blackBox;
    this.#transfers = new Transfers(limits);
    this.#nowMs = nowMs;
    this.#ledgers = ledgers;
    this.#electorate = new Electorate(ledgers, group !== 0);
  }

  /** Terms in which somebody led. */
  get leaders(): number {
    return this.#leaders.size;
  }

  /** A node starts, or ends: what its earlier life led is over. */
  lives(nodeId: number, life: number): void {
    this.#lives.set(nodeId, life);
  }

  /** Log matching: logs that agree on (index, term) agree on everything up to there, as the crc is chained. */
  appended(nodeId: number, batch: Batch, log: Shadow): void {
    const lastIndex = batch.firstIndex + batch.count - 1;
    const key = `${lastIndex}/${batch.term}`;
    const known = this.#logged.get(key);
    if (known === undefined) this.#logged.set(key, batch.crc);
    else if (known !== batch.crc) {
      throw new Violation(`log matching: node ${nodeId} has another batch at ${key}`);
    }
    const wrong = this.#electorate.appended(batch, log);
    if (wrong !== undefined && !this.#blackBox && !this.isOver) throw new Violation(wrong);
    const before = log.log.at(-2);
    if (before !== undefined && before.lastIndex + 1 !== batch.firstIndex) {
      throw new Violation(`node ${nodeId} has a gap in its log before ${batch.firstIndex}`);
    }
    if (before !== undefined && before.term > batch.term) {
      throw new Violation(`node ${nodeId} appends term ${batch.term} after ${before.term}`);
    }
  }

  /** A message is about to leave: what it promises must be durable. */
  sent(life: number, message: PeerMessage): void {
    switch (message.type) {
      case "append":
      case "heartbeat":
      case "snapshotOffer":
      case "snapshotChunk":
        return this.#led(message.from, life, message);
      default:
    }
    if (this.#blackBox) return;
    switch (message.type) {
      case "preVote":
      case "vote":
        return this.#elects(message);
      case "preVoteReply":
        if (message.granted) this.#elects(message);
        return;
      case "voteReply":
        if (message.granted) this.#elects(message);
        if (message.granted) this.#voted(message);
        return;
      case "appendReply":
        if (message.accepted) this.#acknowledged(message.from, message);
        return;
      case "timeoutNow": {
        // Where somebody else leads by now, he may rewrite what this one knew.
        if (message.term < this.#newestTerm || this.isOver) return;
        const [leader, target] = [this.#ledger(message.from), this.#ledger(message.to)];
        return this.#wrong(this.#transfers.asked(message, leader, target));
      }
      case "heartbeatReply":
        // Round 0 is none: it tells a leader of an older term that it is one.
        if (message.readSeq > 0 && this.#ledger(message.from).durable.term < message.term) {
          throw new Violation(
            `node ${message.from} answers a heartbeat of term ${message.term}, which is not durable there`,
          );
        }
        return;
      default:
        return;
    }
  }

  /** A beat says that a node leads in that term. */
  claimed(nodeId: number, life: number, term: number): void {
    this.#led(nodeId, life, { term });
  }

  /** Takes part in an election: nothing that others may count on is missing there [22]. */
  #elects({ type, from, term }: RaftMessage): void {
    const { lacks, promised, durable } = this.#ledger(from);
    if (!lacks) return;
    throw new Violation(
      `wounded node ${from} sends a ${type} of term ${term}: it has ${durable.lastIndex} of term ${durable.lastTerm}, and had ${promised?.lastIndex} of term ${promised?.lastTerm}`,
    );
  }

  #led(nodeId: number, life: number, { term }: { readonly term: number }): void {
    const known = this.#leaders.get(term);
    if (known !== undefined) {
      if (!this.#blackBox && (known.nodeId !== nodeId || known.life !== life)) {
        throw new Violation(
          `two leaders in term ${term}: ${known.nodeId} (life ${known.life}) and ${nodeId} (life ${life})`,
        );
      }
      return;
    }
    this.#leaders.set(term, { nodeId, life });
    // A late first message of an old term may lack what a newer leader has committed.
    if (term < this.#newestTerm) return;
    this.#newestTerm = term;
    if (this.#blackBox) return;
    const { lastIndex, lastCrc } = this.oracle;
    const { visible } = this.#ledger(nodeId);
    if (lastIndex > 0 && visible.at(lastIndex)?.crc !== lastCrc) {
      throw new Violation(
        `leader completeness: ${nodeId} leads term ${term} without the committed batch at ${lastIndex}`,
      );
    }
    const backers = [...this.#ledgers].filter(([, ledger]) => ledger.backs(nodeId, term));
    const ids = backers.map(([id]) => id);
    const standing = this.#electorate.at(visible, visible.lastIndex);
    if (standing === undefined || !decides(standing.configuration, (id) => ids.includes(id))) {
      throw new Violation(
        `${nodeId} leads term ${term} with the durable votes of ${ids.join()}; ${shown(standing)}`,
      );
    }
  }

  /** Its members have decided to be without that node. An application may apply that much later. */
  decidedWithout(nodeId: number): boolean {
    return this.#electorate.decidedWithout(nodeId, this.oracle.lastIndex);
  }

  #wrong(what: string | undefined): void {
    if (what !== undefined) throw new Violation(what);
  }

  #voted(message: RaftMessage): void {
    const { from, to, term } = message;
    const key = `${from}/${term}`;
    const known = this.#votes.get(key);
    if (known !== undefined && known !== to) {
      throw new Violation(`node ${from} votes for ${known} and for ${to} in term ${term}`);
    }
    this.#votes.set(key, to);
    const { durable } = this.#ledger(from);
    if (durable.term < term || (durable.term === term && durable.votedFor !== to)) {
      throw new Violation(`node ${from} grants ${to} a vote of term ${term} that is not durable`);
    }
  }

  #acknowledged(from: number, message: RaftMessage & { readonly type: "appendReply" }): void {
    const { index, term, to } = message;
    const { durable } = this.#ledger(from);
    const key = `${from}>${to}/${term}`;
    this.#acknowledgedIn.set(key, Math.max(index, this.#acknowledgedIn.get(key) ?? 0));
    if (durable.term < term) {
      throw new Violation(`node ${from} acknowledges in term ${term}, which is not durable there`);
    }
    if (index === 0) return;
    const entry = durable.at(index);
    if (entry?.lastIndex !== index) {
      throw new Violation(
        `node ${from} acknowledges ${index} in term ${term}; durable there: ${durable.lastIndex}`,
      );
    }
    const leader = this.#ledger(to).visible;
    const led = this.#leaders.get(term);
    const leads = led?.nodeId === to && led.life === this.#lives.get(to) && leader.term === term;
    if (leads && leader.at(index)?.crc !== entry.crc) {
      throw new Violation(
        `node ${from} acknowledges ${index}, where its log differs from that of leader ${to}`,
      );
    }
  }

  /** A node applies a batch: it is committed, so a quorum must hold it durably. */
  applied(nodeId: number, batch: Batch): void {
    if (!this.oracle.apply(nodeId, batch)) return;
    this.#electorate.applied(batch);
    const lastIndex = batch.firstIndex + batch.count - 1;
    this.#staleness.applied(lastIndex, this.#nowMs());
    // What a log is founded with is the same on all by construction, and committed from the start [36].
    if (batch.term === foundingTerm || this.#blackBox || this.isOver) return;
    const holds = (id: number): boolean => this.#ledger(id).holds(lastIndex, batch.crc);
    if (!this.#electorate.commits(this.#ledger(nodeId).visible, lastIndex, holds)) {
      const holders = [...this.#ledgers.keys()].filter(holds);
      throw new Violation(
        `index ${lastIndex} (term ${batch.term}) is applied by ${nodeId}, durable on ${holders.join()}; ${shown(this.#electorate.at(this.#ledger(nodeId).visible, lastIndex))}`,
      );
    }
  }

  /** A node has no replica any more: what it showed says nothing of one that it may get later. */
  replicaGone(nodeId: number): void {
    this.#shown.delete(nodeId);
    this.#ahead.delete(nodeId);
  }

  /** A node answers a local read with what it has applied up to an index, which is to be no older than so long on its clock. */
  answeredLocally(
    node: { readonly id: number; readonly clockRate: number },
    appliedIndex: number,
    boundMs: number,
  ): void {
    this.#wrong(this.#staleness.answered(node, appliedIndex, boundMs, this.#nowMs()));
  }

  /** The machine may make durable what the node's own log has for sure, and no more [23]. */
  allowedDurable(nodeId: number, index: number): void {
    // A call may be under way to an application while the replica goes.
    if (this.#blackBox || this.#ledger(nodeId).visible.isGone) return;
    const lastIndex = this.#durableOf(nodeId);
    if (index > lastIndex) {
      throw new Violation(
        `the machine of node ${nodeId} may make ${index} durable, its log is so up to ${lastIndex}`,
      );
    }
  }

  /** After a turn of a node, at `nowMs` of its clock. */
  turned(
    nodeId: number,
    life: number,
    core: CoreView,
    { appliedIndex }: { readonly appliedIndex: number },
    nowMs: number,
  ): void {
    const { durable, visible } = this.#ledger(nodeId);
    if (this.#blackBox) return;
    if (core.durableIndex > this.#durableOf(nodeId)) {
      throw new Violation(
        `node ${nodeId} takes ${core.durableIndex} for durable, durable is ${durable.lastIndex}`,
      );
    }
    if (core.term < durable.term) {
      throw new Violation(
        `node ${nodeId} is in term ${core.term}, its durable term is ${durable.term}`,
      );
    }
    const shown = this.#shown.get(nodeId);
    const sameLife = shown?.life === life;
    if (!sameLife) this.#ahead.delete(nodeId);
    if (core.wound !== undefined && !(sameLife && shown.wound !== undefined))
      this.#ahead.set(nodeId, appliedIndex);
    if (appliedIndex > Math.max(core.commit, this.#ahead.get(nodeId) ?? 0)) {
      throw new Violation(`node ${nodeId} applied ${appliedIndex}, committed is ${core.commit}`);
    }
    if (core.commit > visible.lastIndex) {
      throw new Violation(
        `node ${nodeId} commits ${core.commit}, its log ends at ${visible.lastIndex}`,
      );
    }
    if (core.role === "leader") this.#matched(nodeId, core);
    this.#wrong(this.#transfers.turned(nodeId, life, core, nowMs));
    const { role, term, commit, wound } = core;
    this.#shown.set(nodeId, { life, role, term, commit, wound });
    const isNew = commit > this.#commitMax;
    if (isNew) this.#commitMax = commit;
    if (!sameLife) return;
    if (commit < shown.commit && wound === undefined) {
      throw new Violation(`commit of node ${nodeId} falls from ${shown.commit} to ${commit}`);
    }
    // §5.4.2: what earlier leaders left is committed only under a batch of the leader's own term; or it was before, and its machine holds it.
    const leads = role === "leader" && shown.role === "leader" && term === shown.term;
    if (leads && isNew && visible.at(commit)?.term !== term) {
      throw new Violation(
        `node ${nodeId} leads term ${term} and commits ${commit}, a batch of an earlier term`,
      );
    }
  }

  /** What a log is founded with is the same whenever it is written, and nothing that leaves the node is covered by a sync without it. */
  #durableOf(nodeId: number): number {
    const { durable, visible } = this.#ledger(nodeId);
    const founding = visible.log.findLast(({ term }) => term === foundingTerm);
    return Math.max(durable.lastIndex, founding?.lastIndex ?? 0);
  }

  /** What a leader takes for matched, the other has acknowledged in this very term, and has durably as the leader has it. */
  #matched(nodeId: number, core: CoreView): void {
    const { visible } = this.#ledger(nodeId);
    // Somebody else leads by now, and may rewrite what this one knew.
    if (core.term < this.#newestTerm || this.isOver) return;
    for (const { id, match } of core.progress()) {
      if (match > (this.#acknowledgedIn.get(`${id}>${nodeId}/${core.term}`) ?? 0)) {
        throw new Violation(
          `node ${nodeId} leads term ${core.term} and takes ${match} for matched on ${id}, which has not said so in this term`,
        );
      }
      const crc = visible.at(match)?.crc;
      if (match === 0 || this.#ledger(id).holds(match, crc)) continue;
      throw new Violation(
        `node ${nodeId} leads term ${core.term} and takes ${match} for matched on ${id}, which has other batches there`,
      );
    }
  }

  #ledger(nodeId: number): DurableLedger {
    const ledger = this.#ledgers.get(nodeId);
    if (ledger === undefined) throw new Error(`no node ${nodeId}`);
    return ledger;
  }
}
