/**
 * Leaders spread over the nodes by themselves. Each node says with its beats how many groups it leads; one that leads more than another by more than the
 * tolerance hands some over to it, a few at a time, until the difference is small. Never to and fro: a group that has changed its leader stays for a
 * while, what was handed over counts there at once, and near the end a node gives no more than one before it looks again.
 *
 * All other reasons stand above this one. Nobody is given a group who would rather not lead, and where one of two nodes is preferred, whose rule is
 * in hand-over.ts, nothing is balanced between them.
 */
import type { Limits } from "../limits.ts";
import type { Raft } from "../raft/raft.ts";
import type { PeerLoad } from "./beats.ts";

/** What balancing has to do with a group. */
export interface BalancedGroup {
  readonly nodeId: number;
  readonly raft: Raft;
  readonly stopped: string | undefined;
  /** For how long this node has led it, and has not tried to hand it over so. */
  ledForMs(nowMs: number): number;
  /** False where that member cannot take over now. */
  balanceTo(target: number, nowMs: number): boolean;
}

export interface BalanceOptions<G extends BalancedGroup> {
  readonly limits: Limits;
  readonly groups: ReadonlyMap<number, G>;
  /** Undefined where nothing is known of that node. */
  readonly loadOf: (nodeId: number) => PeerLoad | undefined;
  /** As many as are connected, and this one. */
  readonly nodes: () => number;
  /** Before a group is handed over: its core will have something to do. */
  readonly activate: (group: G) => void;
}

/** Between two looks: time enough for beats to say what became of the last. */
const lookEveryMs = 500;

export class Balance<G extends BalancedGroup> {
  readonly #limits: Limits;
  readonly #groups: ReadonlyMap<number, G>;
  readonly #loadOf: (nodeId: number) => PeerLoad | undefined;
  readonly #nodes: () => number;
  readonly #activate: (group: G) => void;
  #lookedMs = -Infinity;
  /** By node, how many groups it is about to lead. */
  readonly #coming = new Map<number, number>();
  /** What was handed over since the last look. */
  #handed: { readonly group: G; readonly target: number }[] = [];
  /** By node that did not take over: until when it is left alone. */
  readonly #shunnedUntilMs = new Map<number, number>();

  constructor(options: BalanceOptions<G>) {
    this.#limits = options.limits;
    this.#groups = options.groups;
    this.#loadOf = options.loadOf;
    this.#nodes = options.nodes;
    this.#activate = options.activate;
  }

  /** At each tick or so. */
  step(nowMs: number): void {
    if (nowMs - this.#lookedMs < lookEveryMs) return;
    this.#lookedMs = nowMs;
    this.#shunThoseThatDidNot(nowMs);
    const led: G[] = [];
    let own = 0;
    this.#coming.clear();
    for (const group of this.#groups.values()) {
      const { raft } = group;
      if (raft.role !== "leader" || group.stopped !== undefined) continue;
      if (raft.transferTarget === 0) {
        own++;
        led.push(group);
      } else this.#count(raft.transferTarget);
    }
    if (own > this.#leastThatIsTooMuch(0)) this.#spread(led, own, nowMs);
  }

  /** A leader that hands over proposes nothing for as long as it takes: for nothing, where the other does not take over. */
  #shunThoseThatDidNot(nowMs: number): void {
    for (const { group, target } of this.#handed) {
      const { role, transferTarget } = group.raft;
      if (role !== "leader" || transferTarget !== 0 || group.stopped !== undefined) continue;
      this.#shunnedUntilMs.set(target, nowMs + this.#limits.stallWindowMs);
    }
    this.#handed = [];
    for (const [id, untilMs] of this.#shunnedUntilMs) {
      if (untilMs <= nowMs) this.#shunnedUntilMs.delete(id);
    }
  }

  #leastThatIsTooMuch(leads: number): number {
    return leads + 1 + this.#limits.balanceTolerance;
  }

  #spread(led: readonly G[], ledBefore: number, nowMs: number): void {
    let own = ledBefore;
    let left = Infinity;
    // Those with writes under way only where there are no others.
    for (const busy of [false, true]) {
      for (const group of led) {
        if (left <= 0) return;
        const { raft } = group;
        if (raft.commit < raft.lastIndex !== busy) continue;
        if (group.ledForMs(nowMs) < this.#limits.balanceRestMs) continue;
        const target = this.#leastLoaded(group);
        const excess = own - this.#leastThatIsTooMuch(this.#leadsOf(target));
        if (target === 0 || excess <= 0) continue;
        left = Math.min(left, this.#atOnce(excess));
        this.#activate(group);
        if (!group.balanceTo(target, nowMs)) continue;
        this.#handed.push({ group, target });
        this.#count(target);
        own--;
        left--;
      }
    }
  }

  /** Little enough that nobody gets too much where all others give to the same node at once. */
  #atOnce(excess: number): number {
    const { balanceAtOnceMax } = this.#limits;
    return Math.min(balanceAtOnceMax, Math.max(1, Math.floor(excess / this.#nodes())));
  }

  /** Of the voters that could lead as well as this node; 0 = there is none. */
  #leastLoaded({ nodeId, raft }: G): number {
    let least = 0;
    for (const id of raft.configuration.voters) {
      const load = id === nodeId ? undefined : this.#loadOf(id);
      if (load === undefined || load.reluctant || load.preferred !== raft.isPreferred) continue;
      if (this.#shunnedUntilMs.has(id)) continue;
      if (least === 0 || this.#leadsOf(id) < this.#leadsOf(least)) least = id;
    }
    return least;
  }

  #leadsOf(nodeId: number): number {
    return (this.#loadOf(nodeId)?.leads ?? 0) + (this.#coming.get(nodeId) ?? 0);
  }

  #count(nodeId: number): void {
    this.#coming.set(nodeId, (this.#coming.get(nodeId) ?? 0) + 1);
  }
}
