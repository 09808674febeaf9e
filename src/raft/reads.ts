/**
 * Linearizable reads without a log write (Raft dissertation 6.4, ReadIndex) [34].
 *
 * On the leader, all reads that wait share one round of heartbeats; a read never joins a round that was sent before it came, since an
 * answer only proves leadership at some moment after that round was sent. On a follower, all reads that wait share one question to the leader,
 * by the same rule.
 */

export interface LeaderRead {
  readonly context: number;
  /** The follower that asked; 0 = this node. */
  readonly from: number;
}

interface Round {
  readonly seq: number;
  readonly sentTick: number;
  readonly commit: number;
  readonly reads: readonly LeaderRead[];
}

const noReads: readonly LeaderRead[] = [];
/** Confirmed rounds, at most one a tick, that are remembered to tell how fresh a lagging follower is. */
const historyMax = 32;

/** A leader's rounds; made anew at each election. */
export class ReadRounds {
  #waiting: LeaderRead[] = [];
  /** Sent, not confirmed, in order. Bounded by check-quorum: without answers the leader steps down. */
  #open: Round[] = [];
  #history: Round[] = [];
  #lastSeq = 0;
  #readsOpen = 0;
  /** When the newest confirmed round was sent: the leader led at that moment. */
  #confirmedTick: number;
  #isConfirmed = false;

  constructor(nowTick: number) {
    this.#confirmedTick = nowTick;
  }

  /** At this tick the leader surely led; until a quorum has answered, when it was elected. */
  get confirmedTick(): number {
    return this.#confirmedTick;
  }

  /** A quorum has answered since the election. */
  get isConfirmed(): boolean {
    return this.#isConfirmed;
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Reads that are not answered yet. */
  get count(): number {
    return this.#waiting.length + this.#readsOpen;
  }

  /** Reads wait and no round with reads is under way. */
  get roundDue(): boolean {
    return this.#waiting.length > 0 && this.#readsOpen === 0;
  }

  add(read: LeaderRead): void {
    this.#waiting.push(read);
  }

  /**
   * A round of heartbeats leaves now. It takes the waiting reads along only when `commit` is from the leader's own term: before that, a
   * new leader's commit index may be behind what its predecessor acknowledged.
   */
  open(nowTick: number, commit: number, commitIsOwn: boolean): number {
    let reads = noReads;
    if (commitIsOwn && this.#waiting.length > 0) {
      reads = this.#waiting;
      this.#waiting = [];
      this.#readsOpen += reads.length;
    }
    const seq = ++this.#lastSeq;
    this.#open.push({ seq, sentTick: nowTick, commit: commitIsOwn ? commit : Infinity, reads });
    return seq;
  }

  /** A quorum answered `seq`: all rounds up to it are confirmed. Calls `done` for each of their reads. */
  confirm(seq: number, done: (read: LeaderRead, index: number) => void): void {
    let confirmed = 0;
    for (const round of this.#open) {
      if (round.seq > seq) break;
      confirmed++;
      this.ledAt(round.sentTick);
      this.#readsOpen -= round.reads.length;
      for (const read of round.reads) done(read, round.commit);
      // One a tick is enough, and the first of it is the easiest for a lagging follower to reach.
      if (round.sentTick !== this.#history.at(-1)?.sentTick)
        this.#history.push({ ...round, reads: noReads });
    }
    this.#open.splice(0, confirmed);
    if (this.#history.length > historyMax)
      this.#history.splice(0, this.#history.length - historyMax);
  }

  /** A quorum has confirmed, by rounds or otherwise, that the leader led at that tick. */
  ledAt(tick: number): void {
    this.#confirmedTick = Math.max(this.#confirmedTick, tick);
    this.#isConfirmed = true;
  }

  /** The newest round under way that was sent before that tick: whoever answers what was sent then answers it too. 0 = none. */
  sentBefore(tick: number): number {
    for (let at = this.#open.length - 1; at >= 0; at--) {
      if (this.#open[at]!.sentTick < tick) return this.#open[at]!.seq;
    }
    return 0;
  }

  /** The newest moment at which the leader led and all that was committed then is at or below `index`; -Infinity = none known. */
  freshTick(index: number): number {
    return this.#fresh(index)?.sentTick ?? -Infinity;
  }

  /** The round that was sent at that moment; 0 = none known. */
  freshSeq(index: number): number {
    return this.#fresh(index)?.seq ?? 0;
  }

  #fresh(index: number): Round | undefined {
    for (let at = this.#history.length - 1; at >= 0; at--) {
      const round = this.#history[at]!;
      if (round.commit <= index) return round;
    }
    return undefined;
  }

  /** Leadership is lost: takes out all reads that are not answered. */
  drain(): readonly LeaderRead[] {
    const reads = this.#open.flatMap((round) => round.reads).concat(this.#waiting);
    this.#open = [];
    this.#waiting = [];
    this.#readsOpen = 0;
    return reads;
  }
}

interface Stamped {
  readonly stamp: number;
  /** The newest round that had been sent when the stamp came. */
  readonly lastSeq: number;
  readonly tick: number;
}

/**
 * The stamps that one follower's answers carried, as its leader keeps them: which of them is surely older than a round [35]. The follower
 * gets that one back and measures from it on its own clock, so no delay on the way and no other clock can make its state look fresher.
 */
export class Stamps {
  #entries: Stamped[] = [];

  /** It came now, when `lastSeq` was the newest round sent. One a tick is enough, and its first is the easiest to be older than a round. */
  add(stamp: number, lastSeq: number, tick: number): void {
    if (this.#entries.at(-1)?.tick === tick) return;
    this.#entries.push({ stamp, lastSeq, tick });
    if (this.#entries.length > historyMax) this.#entries.shift();
  }

  /** The newest that came before round `seq` was sent; 0 = none. */
  before(seq: number): number {
    for (let at = this.#entries.length - 1; at >= 0; at--) {
      const entry = this.#entries[at]!;
      if (entry.lastSeq < seq) return entry.stamp;
    }
    return 0;
  }
}

interface FollowerRead {
  readonly context: number;
  readonly sinceTick: number;
  /** The question that covers it; 0 = none yet. */
  question: number;
}

/** Reads of a node that does not lead, in order of arrival. */
export class ReadQuestions {
  #reads: FollowerRead[] = [];
  #lastQuestion: number;
  /** The newest question, while it waits for its answer; 0 = none. */
  #outstanding = 0;
  #askedTick = 0;

  /** `firstQuestion` is random, so that an answer to a question from before a crash cannot be taken for one of this life. */
  constructor(firstQuestion: number) {
    this.#lastQuestion = firstQuestion;
  }

  get count(): number {
    return this.#reads.length;
  }

  add(context: number, nowTick: number): void {
    this.#reads.push({ context, sinceTick: nowTick, question: 0 });
  }

  /** Reads wait, and no question is outstanding or it is older than `retryTicks`. */
  due(nowTick: number, retryTicks: number): boolean {
    if (this.#reads.length === 0) return false;
    return this.#outstanding === 0 || nowTick - this.#askedTick >= retryTicks;
  }

  /** A question leaves now, on behalf of all reads. */
  ask(nowTick: number): number {
    this.#outstanding = ++this.#lastQuestion;
    this.#askedTick = nowTick;
    for (let at = this.#reads.length - 1; at >= 0 && this.#reads[at]!.question === 0; at--)
      this.#reads[at]!.question = this.#outstanding;
    return this.#outstanding;
  }

  /**
   * The answer came; calls `done` for each read that the question covers. A refusal leaves them to be asked again. Returns when the question
   * was asked: the leader led, and had committed no more than it answered, at some moment after that; -Infinity = not known.
   */
  answer(question: number, ok: boolean, done: (context: number) => void): number {
    if (!ok || question > this.#lastQuestion) return -Infinity;
    this.#take((read) => read.question !== 0 && read.question <= question, done);
    // After a refusal the next question waits for its time: asking again at once could spin.
    if (question !== this.#outstanding) return -Infinity;
    this.#outstanding = 0;
    return this.#askedTick;
  }

  /** Ask again as soon as possible: the leader, or the connection to it, is a new one. */
  askAgain(): void {
    this.#outstanding = 0;
  }

  /** Takes out the reads that wait since before `sinceTick`. */
  expire(sinceTick: number, done: (context: number) => void): void {
    if (this.#reads.length > 0) this.#take((read) => read.sinceTick < sinceTick, done);
  }

  drain(done: (context: number) => void): void {
    this.#take(() => true, done);
    this.#outstanding = 0;
  }

  /** The reads that `taken` holds for are a prefix: reads stand in order of arrival and of question. */
  #take(taken: (read: FollowerRead) => boolean, done: (context: number) => void): void {
    let count = 0;
    for (const read of this.#reads) {
      if (!taken(read)) break;
      count++;
      done(read.context);
    }
    if (count > 0) this.#reads.splice(0, count);
  }
}
