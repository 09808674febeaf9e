/**
 * Linearizable reads of one group: those of a turn share a read index, and each is answered once that index is applied [34].
 */
import { BargeError } from "../errors.ts";
import type { ReadWaiter } from "../server/groups.ts";

interface WaitingRead {
  readonly waiter: ReadWaiter;
  readonly deadlineMs: number;
}

interface Round {
  readonly context: number;
  /** Infinity until the read index is known. */
  index: number;
  reads: WaitingRead[];
}

export class ReadQueue {
  /** Arrived since the last round was asked for. */
  #fresh: WaitingRead[] = [];
  /** In the order asked for; read indexes rise with it. */
  #rounds: Round[] = [];
  #context = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Some wait for a round that has not begun. */
  get hasFresh(): boolean {
    return this.#fresh.length > 0;
  }

  add(waiter: ReadWaiter, deadlineMs: number): void {
    this.#fresh.push({ waiter, deadlineMs });
    this.#size++;
  }

  /** Begins a round for the reads that arrived; returns its context for `Raft.readIndex`, or 0 when there is none. */
  begin(): number {
    if (this.#fresh.length === 0) return 0;
    this.#context++;
    this.#rounds.push({
      context: this.#context,
      index: Number.POSITIVE_INFINITY,
      reads: this.#fresh,
    });
    this.#fresh = [];
    return this.#context;
  }

  /** The core's answer for a round. */
  resolve(context: number, index: number, ok: boolean): void {
    const at = this.#rounds.findIndex((round) => round.context === context);
    if (at < 0) return;
    const round = this.#rounds[at]!;
    if (ok) {
      round.index = index;
      return;
    }
    this.#rounds.splice(at, 1);
    this.#fail(round.reads, () => new BargeError("no_leader", "No leader confirmed the read."));
  }

  /** Reads whose index is applied, taken out. */
  takeReady(appliedIndex: number): ReadWaiter[] {
    const ready: ReadWaiter[] = [];
    if (this.#rounds.length === 0) return ready;
    this.#rounds = this.#rounds.filter((round) => {
      if (round.index > appliedIndex) return true;
      for (const { waiter } of round.reads) ready.push(waiter);
      return false;
    });
    this.#size -= ready.length;
    return ready;
  }

  expire(nowMs: number): void {
    if (this.#size === 0) return;
    const late: WaitingRead[] = [];
    const keep = (read: WaitingRead): boolean => {
      if (read.deadlineMs > nowMs) return true;
      late.push(read);
      return false;
    };
    this.#fresh = this.#fresh.filter(keep);
    for (const round of this.#rounds) round.reads = round.reads.filter(keep);
    this.#rounds = this.#rounds.filter((round) => round.reads.length > 0);
    this.#fail(late, readTimeout);
  }

  failAll(error: BargeError): void {
    const reads = this.#rounds.flatMap((round) => round.reads).concat(this.#fresh);
    this.#rounds = [];
    this.#fresh = [];
    this.#fail(reads, () => error);
  }

  #fail(reads: readonly WaitingRead[], error: () => BargeError): void {
    this.#size -= reads.length;
    for (const { waiter } of reads) waiter.failed(error());
  }
}

function readTimeout(): BargeError {
  return new BargeError("timeout", "The read was not confirmed in time.", {
    outcome: "not-applied",
  });
}
