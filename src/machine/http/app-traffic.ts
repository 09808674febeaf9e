/**
 * What all groups of a node ask of applications, taken together: with a thousand groups beside one process that would be a thousand connections at once, and
 * hundreds of questions a second whether it is ready. Each group may always have one update and one read under way, so that those of one group that hangs stand
 * in no other's way; what goes beyond that shares these bounds.
 *
 * Ties that are quiet ask whether their application is ready, the seldomer the more there are. Once one of them hears nothing, all ask as soon as they may.
 */
import type { Limits } from "../../limits.ts";

/** To the application of one group. */
export interface Tie {
  /** Asks for a turn. */
  wake(): void;
}

export class AppTraffic {
  readonly #limits: Limits;
  #openings = 0;
  #reads = 0;
  #polls = 0;
  /** For an opening. */
  readonly #waiting = new Set<Tie>();
  #ties = 0;
  #doubtedMs = -Infinity;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** False where it has to wait, and is woken; else `opened` follows, however that ends. */
  mayOpen(tie: Tie): boolean {
    if (this.#openings >= this.#limits.appOpeningsMax) {
      this.#waiting.add(tie);
      return false;
    }
    this.#waiting.delete(tie);
    this.#openings++;
    return true;
  }

  opened(): void {
    this.#openings--;
    const [next] = this.#waiting;
    if (next === undefined) return;
    this.#waiting.delete(next);
    next.wake();
  }

  /** For a read besides the first of a group. */
  get hasRoomForReads(): boolean {
    return this.#reads < this.#limits.appReadsOfAllMax;
  }

  reads(change: number): void {
    this.#reads += change;
  }

  /** Counts until `leave`. */
  join(): void {
    this.#ties++;
  }

  leave(tie: Tie): void {
    this.#ties--;
    this.#waiting.delete(tie);
  }

  /** Of a tie that is open, and heard something last at that time; `phase`, from 0 to 1, spreads them. True: it may ask now, and `polled` follows, however that ends. */
  mayPoll(heardMs: number, phase: number, nowMs: number): boolean {
    const { appPollMs, appPollsMax } = this.#limits;
    const everyMs = appPollMs * Math.max(1, this.#ties / appPollsMax);
    const isQuiet = nowMs - heardMs >= appPollMs / 2;
    const isDue =
      heardMs < this.#doubtedMs ||
      (isQuiet && Math.floor(nowMs / everyMs + phase) > Math.floor(heardMs / everyMs + phase));
    if (!isDue || this.#polls >= appPollsMax) return false;
    this.#polls++;
    return true;
  }

  polled(): void {
    this.#polls--;
  }

  /** One of them got no answer at all. */
  doubt(nowMs: number): void {
    this.#doubtedMs = nowMs;
  }
}
