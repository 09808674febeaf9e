/**
 * The one timer of a client: fine while anything is under way, so that no call pays for a timer of its own; slow when idle, for the
 * pings that keep a connection alive. Runs only once there was a call, and then does not hold the process up.
 */

const busySweepMs = 20;
const idleSweepMs = 10_000;
/** Quiet for so many sweeps before it slows down: a timer is not set up and torn down for each call. */
const calmSweeps = 50;

export class Sweeper {
  readonly #sweep: (nowMs: number) => boolean;
  readonly #gapMsMax: number;
  #timer: ReturnType<typeof setInterval> | undefined;
  #everyMs = 0;
  #calm = 0;
  #lastMs = 0;
  #forgiven = false;
  #stopped = false;

  /** `sweep` says whether anything is under way. */
  constructor(attemptTimeoutMs: number, sweep: (nowMs: number) => boolean) {
    this.#sweep = sweep;
    this.#gapMsMax = Math.max(busySweepMs * 2, attemptTimeoutMs / 2);
  }

  busy(): void {
    this.#calm = 0;
    if (this.#everyMs !== busySweepMs && !this.#stopped) this.#run(busySweepMs);
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  #run(everyMs: number): void {
    clearInterval(this.#timer);
    this.#everyMs = everyMs;
    this.#lastMs = performance.now();
    this.#timer = setInterval(this.#tick, everyMs);
    if (everyMs === idleSweepMs) this.#timer.unref();
  }

  readonly #tick = (): void => {
    const nowMs = performance.now();
    const gapMs = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    // The loop stood still: answers may lie in the sockets unread. They are read before anybody is called late.
    if (this.#everyMs === busySweepMs && gapMs > this.#gapMsMax && !this.#forgiven) {
      this.#forgiven = true;
      return;
    }
    this.#forgiven = false;
    if (this.#sweep(nowMs)) {
      this.#calm = 0;
      if (this.#everyMs === idleSweepMs) this.#run(busySweepMs);
    } else if (++this.#calm >= calmSweeps && this.#everyMs === busySweepMs) {
      this.#run(idleSweepMs);
    }
  };
}
