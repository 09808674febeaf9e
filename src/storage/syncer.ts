/** The seam of "make these files durable". The Worker behind it is file-syncer.ts; the simulated twin is in test/sim. */

export interface Syncer {
  /** True while a round is under way. */
  readonly syncing: boolean;
  /**
   * fdatasync of each descriptor, in order, off the event loop; then `done`, on the event loop. One round at a time. An error never comes
   * back: it ends the process [D9].
   */
  sync(descriptors: readonly number[], done: () => void): void;
  close(): void;
}
