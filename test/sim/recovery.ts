/**
 * The end of a run: with everything healed, a cluster must serve again within some elections, through every node; everybody who asked must
 * be answered; all nodes must come to the same index; and whoever leads then must go on to lead.
 */
import type { Group } from "../../src/node/group.ts";
import type { Clients } from "./clients.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import type { Swarm } from "./swarm.ts";

export interface RecoveryOptions {
  readonly scheduler: Scheduler;
  readonly swarm: Swarm;
  readonly nodes: readonly SimNode[];
  readonly clients: Clients;
  readonly oracle: Oracle;
  readonly group: number;
  /** What applications may need beside all else. */
  readonly appPatienceMs: number;
  readonly memberChanges: { readonly unanswered: number };
  /** Runs the next event. */
  readonly step: () => void;
  /** The group is removed: who asked for that may have given up long ago. Nothing is waited for any more. */
  readonly isGone: () => boolean;
}

/**
 * Within so many of the longest election time-outs, of the slowest clock, there is a leader that serves; or, while a backlog is worked off at
 * strange bounds, no such time goes by without some of it being applied.
 */
const progressElections = 10;
const convergeElections = 30;
const stableElections = 4;
/** Times that one group is handed over until leaders are spread; and why, as its node says. */
const balanceMovesMax = 4;
const balanceReason = "it leads fewer groups";

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #electionMs: number;
  /** Heartbeats of the slowest clock come in time for the fastest. */
  readonly #clocksAgree: boolean;

  constructor(options: RecoveryOptions) {
    this.#options = options;
    const { heartbeatTicks, electionTicksMin, electionTicksMax, tickMs } = options.swarm.limits;
    const rates = options.nodes.map(({ clockRate }) => clockRate);
    const slowest = Math.min(...rates);
    this.#electionMs = (electionTicksMax * tickMs) / slowest;
    const heartbeatTicksThere = ((heartbeatTicks + 1) * Math.max(...rates)) / slowest;
    this.#clocksAgree = heartbeatTicksThere + 1 < electionTicksMin;
  }

  get #progressMs(): number {
    return progressElections * this.#electionMs + this.#options.appPatienceMs;
  }

  /** A client may wait for its time-out, and its node for the one of the forward; a watch for its turn, on one node and the next. */
  get #patienceMs(): number {
    const { timeoutMs, limits } = this.#options.swarm;
    const turnsMs = 3 * limits.watchProgressMs;
    const { appPatienceMs } = this.#options;
    return convergeElections * this.#electionMs + 3 * timeoutMs + turnsMs + appPatienceMs + 2_000;
  }

  /** Reads come first: a leader must be able to serve them though nobody writes. */
  run(): void {
    const { clients } = this.#options;
    const answered = { get: new Set<SimNode>(), put: new Set<SimNode>() };
    const probeAll = (kind: "get" | "put"): void => {
      for (const node of this.#options.nodes) this.#probe(node, kind, answered[kind]);
    };
    const { get, put } = answered;

    probeAll("get");
    this.#until("a read", this.#progressMs, () => get.size > 0, true);
    probeAll("put");
    this.#until("a write", this.#progressMs, () => put.size > 0, true);
    const patienceMs = this.#patienceMs;
    this.#until("all nodes to serve", patienceMs, () =>
      this.#everyUp((node) => get.has(node) && put.has(node)),
    );
    this.#until(
      "sessions to know what became of their writes",
      patienceMs,
      () => clients.unfinished === 0,
    );
    this.#until(
      "everybody to be answered",
      patienceMs,
      () => clients.unanswered === 0 && this.#options.memberChanges.unanswered === 0,
    );
    this.settles();
  }

  /** All come to the same; a write whose outcome nobody knows may come late, and once more at any time. */
  settles(): void {
    const { oracle } = this.#options;
    this.#until("the members to be settled, and equal", this.#patienceMs, () => {
      const isEqual = (node: SimNode): boolean =>
        this.#replica(node)?.machine.appliedIndex === oracle.lastIndex;
      return this.#everyUp(isEqual) && this.#isSettled();
    });
  }

  /** Something else that peace brings about, as soon as nodes get to it. */
  until(what: string, done: () => boolean): void {
    this.#until(what, this.#patienceMs, done);
  }

  /** The same, of what takes a leader that stays: where clocks make heartbeats late there may never be one. */
  untilLed(what: string, done: () => boolean): void {
    if (this.#clocksAgree) this.until(what, done);
  }

  /** Nobody deposes a leader while nothing goes wrong, as long as no clock makes its heartbeats late. To be called after `run`. */
  staysLed(): void {
    if (!this.#clocksAgree || !this.#prefers()) return;
    for (let moves = 0; moves <= balanceMovesMax; moves++) {
      const terms = this.#terms();
      const leader = this.up.find((node) => this.#leads(node));
      this.#wait(stableElections);
      if (this.#terms() === terms) return;
      if (!this.#gaveAway(leader)) {
        throw new Violation(`leader and term change in peace: from ${terms} to ${this.#terms()}`);
      }
    }
    throw new Violation("leaders are balanced again and again");
  }

  /** Where there are other groups, a leader may go to a node that leads fewer. */
  #gaveAway(leader: SimNode | undefined): boolean {
    const group = leader === undefined ? undefined : this.#replica(leader);
    const handOver = group?.status().handOver;
    return handOver?.reason === balanceReason && handOver.to === group?.leader;
  }

  /** Where nodes are preferred, one of them comes to lead. False where none of them could yet, and so leadership may still move. */
  #prefers(): boolean {
    const { limits, preferredUpTo } = this.#options.swarm;
    if (preferredUpTo === 0) return true;
    if (!this.#voters.some(({ id }) => id <= preferredUpTo)) return false;
    const slowest = Math.min(...this.up.map(({ clockRate }) => clockRate));
    const patienceMs =
      (2 * limits.preferredDelayMs) / slowest + progressElections * this.#electionMs;
    this.#until("a preferred leader", patienceMs, () =>
      this.#voters.some((node) => node.id <= preferredUpTo && this.#leads(node)),
    );
    this.#wait(1);
    return true;
  }

  #replica(node: SimNode): Group | undefined {
    return node.replica(this.#options.group);
  }

  /** Those that could lead. */
  get #voters(): readonly SimNode[] {
    return this.up.filter((node) => {
      const raft = this.#replica(node)?.raft;
      return raft?.wound === undefined && raft?.configuration.voters.includes(node.id) === true;
    });
  }

  /** In peace a leader that is asked hands over to any voter, at once: without an election that somebody has to wait for. */
  handsOver(random: Random): void {
    const voters = this.#voters;
    if (!this.#clocksAgree || voters.length === 0) return;
    const { id: target } = random.pick(voters);
    let outcome = "";
    // Somebody may lead who is not known yet, or hand over for another reason.
    const ask = (): void =>
      random.pick(voters).transfer(
        this.#options.group,
        target,
        (leader) => (outcome = leader === target ? "done" : `done by ${leader}`),
        ({ code, message }) => {
          if (code === "not_transferred" && message.includes("in time")) outcome = message;
          else this.#options.scheduler.after(this.#options.swarm.limits.tickMs, ask);
        },
      );
    ask();
    const patienceMs = progressElections * this.#electionMs + 2_000;
    this.#until(`a transfer to ${target}`, patienceMs, () => outcome !== "");
    if (outcome !== "done") throw new Violation(`transfer in peace: ${outcome}`);
  }

  /** The members that have to serve. A refused node stays down, and may find out late. */
  get up(): readonly SimNode[] {
    return this.#options.nodes.filter((node) => this.#isUp(node));
  }

  #isUp(node: SimNode): boolean {
    const { voters = [], outgoing = [], learners = [] } = this.#options.oracle.configuration ?? {};
    const { id } = node;
    const isMember = voters.includes(id) || outgoing.includes(id) || learners.includes(id);
    return isMember && !node.refused;
  }

  /** As it is asked after each event, nothing is made for the answer. */
  #everyUp(does: (node: SimNode) => boolean): boolean {
    return this.#options.nodes.every((node) => !this.#isUp(node) || does(node));
  }

  /** No joint state is left over, nobody waits for a promotion, and a voter leads, as all know. */
  #isSettled(): boolean {
    const { nodes, oracle } = this.#options;
    const { voters = [], outgoing = [], promotions } = oracle.configuration ?? {};
    const [leader, ...others] = nodes.filter((node) => this.#leads(node));
    // A promotion takes a leader that stays, which late heartbeats may never let be.
    if (outgoing.length > 0 || (promotions !== undefined && this.#clocksAgree)) return false;
    if (leader === undefined || others.length > 0 || !voters.includes(leader.id)) return false;
    return this.#everyUp((node) => this.#replica(node)?.leader === leader.id);
  }

  #leads(node: SimNode): boolean {
    return this.#replica(node)?.raft.role === "leader";
  }

  #terms(): string {
    const replicas = this.up.map((node) => this.#replica(node));
    return [...new Set(replicas.map((group) => `${group?.leader}/${group?.raft.term}`))].join(" ");
  }

  /** Asks until it is done. */
  #probe(node: SimNode, kind: "get" | "put", answered: Set<SimNode>): void {
    const { scheduler, swarm, clients } = this.#options;
    const again = (): void =>
      scheduler.after(swarm.limits.tickMs, () => this.#probe(node, kind, answered));
    if (node.refused || node.left) return;
    if (node.door === undefined || !this.up.includes(node)) return again();
    clients.probe(node, kind, (ok) => {
      if (ok) answered.add(node);
      else again();
    });
  }

  /** By all, together. */
  #applied(): number {
    let sum = 0;
    for (const node of this.#options.nodes) sum += this.#replica(node)?.machine.appliedIndex ?? 0;
    return sum;
  }

  #wait(elections: number): void {
    const { scheduler, step } = this.#options;
    const endMs = scheduler.nowMs + elections * this.#electionMs;
    while (scheduler.nowMs < endMs) step();
  }

  /** Of the log as it was: what an election adds to it later is no progress. */
  #replicated(lastIndex: number): number {
    let sum = 0;
    for (const node of this.#options.nodes) {
      sum += Math.min(this.#replica(node)?.raft.lastIndex ?? 0, lastIndex);
    }
    return sum;
  }

  /**
   * With `goesOn`, patience begins anew with everything that is applied, for the first time or again, and everything that a member gets of the log: nothing of
   * earlier terms is committed before the last of it is (§5.4.2), however small the window is.
   */
  #until(what: string, patienceMs: number, done: () => boolean, goesOn = false): void {
    const { scheduler, step, oracle, clients, nodes } = this.#options;
    let deadlineMs = scheduler.nowMs + patienceMs;
    const ends = nodes.map((node) => this.#replica(node)?.raft.lastIndex ?? 0);
    const lastIndex = Math.max(...ends);
    const progress = (): number => this.#applied() + this.#replicated(lastIndex);
    let before = goesOn ? progress() : 0;
    while (!done()) {
      step();
      if (this.#options.isGone()) return;
      if (goesOn) {
        const now = progress();
        if (now > before) deadlineMs = scheduler.nowMs + patienceMs;
        before = now;
      }
      if (scheduler.nowMs <= deadlineMs) continue;
      const views = nodes.map((node) => {
        const { id, refused } = node;
        if (refused) return `${id} refused`;
        const group = this.#replica(node);
        return `${id} ${group?.raft.role} of term ${group?.raft.term}, applied ${group?.machine.appliedIndex}`;
      });
      throw new Violation(
        `no recovery of group ${this.#options.group}: waited ${Math.round(patienceMs)} ms for ${what}; ${clients.unanswered} requests wait, history ends at ${oracle.lastIndex}; ${views.join("; ")}`,
      );
    }
  }
}
