/**
 * Random schedules over whole cores: loss, reordering, duplicates, late syncs, crashes that keep only what was synced (or some more), partitions,
 * compaction. After each event the safety properties of the paper's figure 3 and the rules about durability are checked; at
 * the end everything heals, and the cluster must elect a leader and commit. A failure prints the seed: RAFT_SEED=n repeats it alone.
 */
import { describe, expect, test } from "bun:test";
import { checkLimits } from "../../src/limits.ts";
import type { Limits } from "../../src/limits.ts";
import { lastIndexOf } from "../../src/wire/batch.ts";
import type { Batch } from "../../src/wire/batch.ts";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { TestNode, batchAt, configurationOf, randomFrom, testLimits } from "./harness.ts";

const only = process.env["RAFT_SEED"];
const firstSeed = only === undefined ? 1 : Number(only);
const seeds = only === undefined ? Number(process.env["RAFT_SEEDS"] ?? 300) : 1;
const eventsPerSeed = 2_000;
const inFlightMax = 200;

/** What a seed does, and how often: each seed draws its own mix, with many weights at zero (swarm testing). */
interface Weights {
  deliver: number;
  tick: number;
  sync: number;
  propose: number;
  read: number;
  drop: number;
  duplicate: number;
  crash: number;
  partition: number;
  heal: number;
  reset: number;
  compact: number;
  stepDown: number;
}

function check(ok: boolean, what: string): asserts ok {
  if (!ok) throw new Error(what);
}

class Run {
  readonly #random: () => number;
  readonly #weights: Weights;
  readonly #limits: Limits;
  readonly #reorders: boolean;
  readonly #nodes: TestNode[] = [];
  readonly #wire: RaftMessage[] = [];
  /** Nodes on one side of a partition; a cut may be one-way. */
  #side = new Set<number>();
  #oneWay = false;

  // What has been seen so far, over all nodes and lives.
  readonly #leaderOfTerm = new Map<number, number>();
  readonly #voteOfTerm = new Map<string, number>();
  /** (firstIndex, term) → crc: sealed once, so equal everywhere; the chain makes it stand for all before. */
  readonly #sealed = new Map<string, number>();
  /** Committed batches in order, and by last index. */
  readonly #committed: Batch[] = [];
  readonly #committedAt = new Map<number, Batch>();
  #committedIndex = 0;
  /** Context → the highest index that was committed when the read began. */
  readonly #reads = new Map<string, number>();
  #nextContext = 1;
  readsOk = 0;
  elections = 0;

  get batchesCommitted(): number {
    return this.#committed.length;
  }

  constructor(seed: number) {
    this.#random = randomFrom(seed);
    const pick = (...choices: readonly number[]): number =>
      choices[Math.floor(this.#random() * choices.length)]!;
    this.#weights = {
      deliver: 60,
      tick: pick(8, 20, 40),
      sync: pick(3, 10, 30),
      propose: pick(2, 6, 15),
      read: pick(0, 3, 8),
      drop: pick(0, 0, 2, 10),
      duplicate: pick(0, 0, 2, 5),
      crash: pick(0, 0.3, 1),
      partition: pick(0, 0.2, 0.5),
      heal: pick(0.05, 0.2, 0.5),
      reset: pick(0, 0.5),
      compact: pick(0, 1),
      stepDown: pick(0, 0, 0.2),
    };
    this.#reorders = pick(0, 1) === 1;
    this.#limits = checkLimits({
      ...testLimits,
      inflightFramesMax: pick(1, 2, 8),
      inflightBytesMax: pick(100, 1_000, 100_000),
      appendBytesMax: pick(100, 1_000, 100_000),
    });
    const ids = pick(3, 3, 5) === 3 ? [1, 2, 3] : [1, 2, 3, 4, 5];
    const configuration = configurationOf(ids);
    for (const id of ids)
      this.#nodes.push(new TestNode({ id, configuration, seed, limits: this.#limits }));
  }

  #any<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#random() * list.length)];
  }

  event(): void {
    let total = 0;
    for (const weight of Object.values(this.#weights)) total += weight;
    let left = this.#random() * total;
    for (const [name, weight] of Object.entries(this.#weights)) {
      left -= weight;
      if (left >= 0) continue;
      this.#perform(name as keyof Weights);
      return;
    }
  }

  #perform(event: keyof Weights): void {
    const node = this.#any(this.#nodes)!;
    switch (event) {
      case "deliver":
        return this.#deliver(this.#take());
      case "drop":
        this.#take();
        return;
      case "duplicate": {
        const message = this.#any(this.#wire);
        if (message !== undefined) this.#wire.push(message);
        return;
      }
      case "tick":
        node.raft.tick();
        break;
      case "sync":
        node.sync(1 + Math.floor(this.#random() * node.writes.length));
        break;
      case "propose": {
        const leader = this.#any(this.#nodes.filter(({ raft }) => raft.role === "leader"));
        if (leader === undefined) return;
        leader.propose(1 + Math.floor(this.#random() * 4), "x".repeat(this.#random() * 60));
        this.#turn(leader);
        return;
      }
      case "read": {
        const context = this.#nextContext++;
        this.#reads.set(`${node.id}/${context}`, this.#committedIndex);
        node.raft.readIndex(context);
        break;
      }
      case "crash":
        node.restart(Math.floor(this.#random() * (node.writes.length + 1)));
        this.#checkRestart(node);
        if (this.#random() < 0.8) this.#reset(node.id);
        break;
      case "partition":
        this.#side = new Set(this.#nodes.filter(() => this.#random() < 0.5).map(({ id }) => id));
        this.#oneWay = this.#random() < 0.3;
        return;
      case "heal":
        this.#side = new Set();
        return;
      case "reset":
        this.#reset(node.id);
        break;
      case "compact":
        node.apply();
        node.compact(Math.min(node.appliedDurable, node.raft.minMatch()));
        break;
      case "stepDown":
        node.raft.stepDown("test");
        break;
    }
    this.#turn(node);
  }

  #take(): RaftMessage | undefined {
    if (this.#wire.length === 0) return undefined;
    const at = this.#reorders ? Math.floor(this.#random() * this.#wire.length) : 0;
    return this.#wire.splice(at, 1)[0];
  }

  #cut({ from, to }: RaftMessage): boolean {
    const inside = this.#side.has(from);
    if (inside === this.#side.has(to)) return false;
    return this.#oneWay ? inside : true;
  }

  #deliver(message: RaftMessage | undefined): void {
    if (message === undefined || this.#cut(message)) return;
    const node = this.#nodes.find(({ id }) => id === message.to)!;
    node.raft.step(message);
    this.#turn(node);
  }

  #reset(nodeId: number): void {
    for (const node of this.#nodes) if (node.id !== nodeId) node.raft.peerReset(nodeId);
  }

  #turn(node: TestNode): void {
    const commitBefore = node.commit;
    const roleBefore = node.raft.role;
    for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
      const { ready, messages } = turn;
      for (const batch of ready.append) this.#checkSealed(batch);
      for (const message of messages) this.#checkSent(node, message);
      if (ready.softState?.role === "leader") this.#checkLeader(node);
      this.#wire.push(...messages);
    }
    this.#checkCommit(node, commitBefore);
    check(node.raft.term >= node.durable.hardState.term, "the term fell below the durable one");
    if (roleBefore === "leader" && node.raft.role === "leader") this.#checkLeader(node);
    for (const { context, index, ok } of node.reads.splice(0)) {
      const key = `${node.id}/${context}`;
      const bound = this.#reads.get(key);
      check(bound !== undefined, `read ${key} was answered twice, or after a crash`);
      this.#reads.delete(key);
      if (!ok) continue;
      this.readsOk++;
      check(index >= bound, `stale read: index ${index} where ${bound} was committed before it`);
    }
    // A full wire loses what is oldest, as a connection that is cut does.
    if (this.#wire.length > inFlightMax) this.#wire.splice(0, this.#wire.length - inFlightMax);
  }

  #checkSealed(batch: Batch): void {
    const key = `${batch.firstIndex}/${batch.term}`;
    const crc = this.#sealed.get(key);
    check(crc === undefined || crc === batch.crc, `two batches are sealed at ${key}`);
    this.#sealed.set(key, batch.crc);
  }

  /** Election safety and leader completeness. */
  #checkLeader(node: TestNode): void {
    const { term } = node.raft;
    const leader = this.#leaderOfTerm.get(term);
    check(leader === undefined || leader === node.id, `two leaders in term ${term}`);
    if (leader !== undefined) return;
    this.elections++;
    this.#leaderOfTerm.set(term, node.id);
    const last = this.#committed.at(-1);
    if (last === undefined) return;
    check(
      this.#holds(node, "visible", last),
      `leader ${node.id} of term ${term} misses a committed batch`,
    );
  }

  #holds(node: TestNode, image: "visible" | "durable", batch: Batch): boolean {
    const { start } = node[image];
    if (lastIndexOf(batch) < start.index) return true;
    if (lastIndexOf(batch) === start.index) return start.crc === batch.crc;
    return batchAt(node[image], batch.firstIndex)?.crc === batch.crc;
  }

  /** What leaves a node is covered by what is on its disk. */
  #checkSent(node: TestNode, message: RaftMessage): void {
    const { hardState } = node.durable;
    switch (message.type) {
      case "vote":
        check(hardState.term === message.term, "a vote is asked for in a term that is not durable");
        check(hardState.votedFor === node.id, "a candidate's own vote is not durable");
        this.#checkVote(node.id, message.term, node.id);
        break;
      case "voteReply":
        if (!message.granted) break;
        check(hardState.term === message.term, "a vote is granted in a term that is not durable");
        check(hardState.votedFor === message.to, "a granted vote is not durable");
        this.#checkVote(node.id, message.term, message.to);
        break;
      case "heartbeatReply":
        if (message.readSeq > 0)
          check(hardState.term === message.term, "a heartbeat is answered in a forgettable term");
        break;
      case "appendReply": {
        if (!message.accepted) break;
        check(hardState.term === message.term, "an append is acknowledged in a forgettable term");
        if (message.index <= node.durable.start.index) break;
        const batch = batchAt(node.durable, message.index);
        check(
          batch !== undefined && lastIndexOf(batch) === message.index,
          `node ${node.id} acknowledges ${message.index}, which is not durable there`,
        );
        const leader = this.#nodes.find(({ id }) => id === message.to)!;
        if (leader.raft.term === message.term && leader.raft.role === "leader")
          check(this.#holds(leader, "visible", batch), "what is acknowledged is not the leader's");
        break;
      }
      default:
        break;
    }
  }

  #checkVote(voter: number, term: number, candidate: number): void {
    const key = `${voter}/${term}`;
    const before = this.#voteOfTerm.get(key);
    check(before === undefined || before === candidate, `node ${voter} votes twice in ${term}`);
    this.#voteOfTerm.set(key, candidate);
  }

  /** Committed batches are the same everywhere, for ever, and a quorum has them on its disks. */
  #checkCommit(node: TestNode, commitBefore: number): void {
    check(node.commit >= commitBefore, "commit went down");
    for (let index = commitBefore + 1; index <= node.commit;) {
      const batch = batchAt(node.visible, index);
      check(batch !== undefined, `node ${node.id} commits ${index} and does not have it`);
      index = lastIndexOf(batch) + 1;
      check(index - 1 <= node.commit, "commit is within a batch");
      const known = this.#committedAt.get(index - 1);
      if (known !== undefined) {
        check(known.crc === batch.crc, `two nodes commit different batches at ${index - 1}`);
        continue;
      }
      check(batch.firstIndex === this.#committedIndex + 1, "commits overlap differently");
      const copies = this.#nodes.filter((other) => this.#holds(other, "durable", batch)).length;
      check(copies > this.#nodes.length / 2, `${index - 1} is committed without a durable quorum`);
      this.#committed.push(batch);
      this.#committedAt.set(index - 1, batch);
      this.#committedIndex = index - 1;
    }
  }

  #checkRestart(node: TestNode): void {
    for (const key of this.#reads.keys())
      if (key.startsWith(`${node.id}/`)) this.#reads.delete(key);
    // What commit is afterwards must be consistent with what others committed.
    const before = node.visible.start.index;
    this.#checkCommit(node, before);
  }

  /** Everything heals; the cluster must elect a leader and commit on all nodes. */
  finish(): void {
    this.#side = new Set();
    // Recovery must not depend on being told that connections were lost.
    if (this.#random() < 0.5) for (const node of this.#nodes) this.#reset(node.id);
    const target = this.#committedIndex + 1;
    for (let rounds = 0; rounds < 600; rounds++) {
      for (const node of this.#nodes) {
        node.raft.tick();
        this.#turn(node);
      }
      for (let left = 500; left > 0 && this.#wire.length > 0; left--)
        this.#deliver(this.#wire.shift());
      for (const node of this.#nodes) {
        node.sync();
        this.#turn(node);
      }
      const leader = this.#nodes.find(({ raft }) => raft.role === "leader");
      if (leader !== undefined && rounds % 10 === 9 && leader.raft.lastIndex < target + 10) {
        leader.propose();
        this.#turn(leader);
      }
      const lowest = Math.min(...this.#nodes.map(({ commit }) => commit));
      if (lowest >= target && lowest === this.#committedIndex && this.#reads.size === 0) return;
    }
    const states = this.#nodes.map(({ id, raft, commit }) => ({
      id,
      role: raft.role,
      term: raft.term,
      commit,
      lastIndex: raft.lastIndex,
      durableIndex: raft.durableIndex,
      progress: raft.progress(),
    }));
    throw new Error(`no progress after healing: ${JSON.stringify(states)}`);
  }
}

describe("random schedules", () => {
  test(`${seeds} seeds of ${eventsPerSeed} events`, () => {
    let batches = 0;
    let reads = 0;
    let elections = 0;
    for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
      let event = 0;
      try {
        const run = new Run(seed);
        for (; event < eventsPerSeed; event++) run.event();
        run.finish();
        batches += run.batchesCommitted;
        reads += run.readsOk;
        elections += run.elections;
      } catch (error) {
        throw new Error(`RAFT_SEED=${seed}, event ${event}: ${String(error)}`, { cause: error });
      }
    }
    // A schedule in which nothing happens proves nothing.
    expect(batches).toBeGreaterThan(seeds * 20);
    expect(elections).toBeGreaterThan(seeds);
    expect(reads).toBeGreaterThan(seeds);
    if (process.env["RAFT_STATS"])
      process.stderr.write(`${JSON.stringify({ batches, reads, elections })}\n`);
  }, 60_000);
});
