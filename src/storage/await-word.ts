/** Blocks this thread until a Worker has come as far as it should: for leaving, and for what the event loop cannot go on without. */

import { fatal } from "../fatal.ts";

/** A disk that takes longer than this for one sync is as good as failed; waiting on would keep a stopping process for ever. */
const waitMsMax = 10_000;

export function awaitWord(words: Int32Array, index: number, wanted: number, what: string): void {
  const deadlineMs = performance.now() + waitMsMax;
  for (;;) {
    const found = Atomics.load(words, index);
    if (found === wanted) return;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) fatal("sync_failed", `${what} did not end within ${waitMsMax / 1_000} s`);
    Atomics.wait(words, index, found, leftMs);
  }
}
