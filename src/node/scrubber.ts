/**
 * Reads what lies on the disk and nobody asks for, slowly, so that damage is found while others still have what it hit: first the segments of the log,
 * oldest first, then the state machines' files, group by group. So many bytes per second, in steps of its own thread, and nothing of it while it is paused.
 *
 * A segment that is damaged is emptied: what is live in it is copied forward, and where that is what was damaged it comes from the leader again [22]. Of
 * the state machine's file it can only be said.
 */
import type { Limits } from "../limits.ts";
import type { ScrubStep, ScrubTarget } from "../storage/scrub-jobs.ts";
import { ScrubThread } from "../storage/scrub-thread.ts";
import type { ScrubStatus } from "../wire/status.ts";

/** A part of the folder to be read. */
export interface ScrubPart {
  /** For people. */
  readonly name: string;
  /** Of the log; undefined = a state machine's file, after the whole log. */
  readonly segment: number | undefined;
  /** Whose state machine it is. */
  readonly group?: number;
  readonly target: ScrubTarget;
  /** It may go again. */
  readonly release: () => void;
}

export interface ScrubberOptions {
  readonly limits: Limits;
  /** 0 = never. */
  readonly bytesPerSecond: number;
  /** The part after that segment (0 = the first); undefined where there is none. */
  readonly next: (afterSegment: number) => ScrubPart | undefined;
  /** After the last segment: the file of the next group above that one (-1 = the first). */
  readonly machine: (afterGroup: number) => ScrubPart | undefined;
  /** What to do about it: for people. Empty where the part is gone by now, and so is what was found. */
  readonly damaged: (part: ScrubPart) => string;
  readonly logger: {
    info(fields: Record<string, unknown>, message: string): void;
    error(fields: Record<string, unknown>, message: string): void;
  };
  readonly random: () => number;
}

export interface ScrubPolicy {
  readonly bytesPerSecond?: number | undefined;
  readonly paused?: boolean | undefined;
  /** Begin a pass at once; one that is under way begins anew. */
  readonly now?: boolean | undefined;
}

/** What it may be behind with, so that a pause does not end in a burst. */
const budgetSeconds = 0.5;
const findingsMax = 8;

export class Scrubber {
  readonly #options: ScrubberOptions;
  readonly #thread = new ScrubThread();
  #bytesPerSecond: number;
  #paused = false;
  #closed = false;
  /** What may be read now; below zero after a step that was longer. */
  #budget = 0;
  #tickedMs: number;
  #nextPassMs: number;
  /** A pass is under way, and has come to this segment. */
  #running = false;
  #segment = 0;
  /** Undefined while it reads the log; else the group whose file it has come to. */
  #group: number | undefined;
  #part: ScrubPart | undefined;
  #passes = 0;
  #passBytes = 0;
  #passStartedMs = 0;
  #passEndedMs: number | undefined;
  #bytes = 0;
  #damages = 0;
  readonly #findings: string[] = [];

  constructor(options: ScrubberOptions, nowMs: number) {
    this.#options = options;
    this.#bytesPerSecond = options.bytesPerSecond;
    this.#tickedMs = nowMs;
    const { scrubDelayMs } = options.limits;
    // Not all nodes at the same time.
    this.#nextPassMs = nowMs + scrubDelayMs * (1 + options.random());
  }

  set(policy: ScrubPolicy): void {
    this.#bytesPerSecond = policy.bytesPerSecond ?? this.#bytesPerSecond;
    this.#paused = policy.paused ?? this.#paused;
    if (policy.now !== true) return;
    this.#running = false;
    this.#nextPassMs = -Infinity;
  }

  /** Some times a second. */
  tick(nowMs: number): void {
    const sinceMs = nowMs - this.#tickedMs;
    this.#tickedMs = nowMs;
    const most = this.#bytesPerSecond * budgetSeconds;
    this.#budget = Math.min(most, this.#budget + (this.#bytesPerSecond * sinceMs) / 1_000);
    this.#goOn(nowMs);
  }

  #goOn(nowMs: number): void {
    if (this.#closed || this.#paused || this.#budget <= 0 || !this.#thread.idle) return;
    if (!this.#running) {
      if (nowMs < this.#nextPassMs) return;
      this.#beginPass(nowMs);
    }
    if (this.#part === undefined) this.#beginPart(nowMs);
    else this.#step();
  }

  /** Its thread sleeps on. */
  close(): void {
    this.#closed = true;
    this.#part?.release();
    this.#part = undefined;
  }

  status(nowMs: number): ScrubStatus {
    const state =
      this.#bytesPerSecond === 0
        ? "off"
        : this.#paused
          ? "paused"
          : this.#running
            ? "running"
            : "waiting";
    const endedMs = this.#passEndedMs;
    return {
      state,
      bytesPerSecond: this.#bytesPerSecond,
      passes: this.#passes,
      bytes: this.#bytes,
      damages: this.#damages,
      ...(this.#running
        ? { at: this.#part?.name ?? "its beginning", passBytes: this.#passBytes }
        : {}),
      ...(endedMs === undefined ? {} : { passedSecondsAgo: Math.floor((nowMs - endedMs) / 1_000) }),
      findings: this.#findings,
    };
  }

  #beginPass(nowMs: number): void {
    this.#running = true;
    this.#segment = 0;
    this.#group = undefined;
    this.#passBytes = 0;
    this.#passStartedMs = nowMs;
    // What is found in this pass counts, not what was before.
    this.#findings.length = 0;
    this.#letGo();
  }

  #beginPart(nowMs: number): void {
    const { next, machine } = this.#options;
    let part = this.#group === undefined ? next(this.#segment) : machine(this.#group);
    if (part === undefined && this.#group === undefined) part = machine(-1);
    if (part === undefined) return this.#endPass(nowMs);
    this.#part = part;
    this.#thread.begin(part.target, (step) => this.#stepped(part, step));
  }

  #step(): void {
    const part = this.#part!;
    this.#thread.step((step) => this.#stepped(part, step));
  }

  #stepped(part: ScrubPart, { bytes, done, damage }: ScrubStep): void {
    this.#budget -= bytes;
    this.#bytes += bytes;
    this.#passBytes += bytes;
    // Another pass has begun meanwhile, or the node stops.
    if (this.#part !== part) return;
    if (damage !== undefined) this.#found(part, damage);
    if (done) {
      if (part.segment !== undefined) this.#segment = part.segment;
      else this.#group = part.group ?? Infinity;
      this.#letGo();
    }
    this.#goOn(this.#tickedMs);
  }

  #letGo(): void {
    const part = this.#part;
    if (part === undefined) return;
    this.#part = undefined;
    this.#thread.end(() => {
      part.release();
      this.#goOn(this.#tickedMs);
    });
  }

  #found(part: ScrubPart, damage: string): void {
    const { damaged, logger } = this.#options;
    const todo = damaged(part);
    if (todo === "") return;
    this.#damages++;
    const text = `${part.name}: ${damage}; ${todo}`;
    if (this.#findings.length < findingsMax) this.#findings.push(text);
    logger.error({ scrub: part.name }, text);
  }

  #endPass(nowMs: number): void {
    this.#running = false;
    this.#passes++;
    this.#passEndedMs = nowMs;
    this.#nextPassMs = this.#passStartedMs + this.#options.limits.scrubEveryMs;
    const seconds = Math.round((nowMs - this.#passStartedMs) / 1_000);
    const found = this.#findings.length === 0 ? "all of it is whole" : "damage was found";
    this.#options.logger.info(
      { bytes: this.#passBytes, seconds },
      `the disk was read through: ${found}`,
    );
  }
}
