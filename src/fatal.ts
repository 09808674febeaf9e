/**
 * The only way a daemon ends on purpose other than SIGTERM: one exit status per reason. The hook lets storage
 * leave its databases without a single further sync [17] before the process goes.
 */

export const fatalStatus = {
  /** Wrong usage or an invalid option. */
  usage: 2,
  /** The data folder belongs to another node id or another cluster, or has an unknown format. */
  wrong_data_dir: 20,
  /** Another process holds the data folder. */
  data_dir_locked: 21,
  /** The data folder cannot be created or written. */
  data_dir_not_writable: 22,
  /** An address to listen on is taken or cannot be bound. */
  port_in_use: 23,
  /** The durable log ends before the watermark: acknowledged data was lost. */
  below_watermark: 24,
  /** A checksum, chain or format check failed on data that was durable. */
  corrupt_data: 25,
  /** fsync, fdatasync or SQLite reported an I/O error; nothing after it can be trusted. */
  sync_failed: 26,
  /** A broken invariant. */
  invariant: 27,
  /** Another member knows this node with another data folder: this one must not vote in its place. */
  replaced_data_dir: 28,
} as const;

export type FatalReason = keyof typeof fatalStatus;

/** Thrown during start-up, turned into the exit by the CLI; after start-up call `fatal` instead. */
export class FatalError extends Error {
  override readonly name: string = "FatalError";
  readonly reason: FatalReason;
  constructor(reason: FatalReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}

type LeaveHook = () => void;
let leaveHook: LeaveHook | undefined;
let leaving = false;

/** Storage registers how to leave its databases; called once, before the exit. */
export function onFatal(hook: LeaveHook): void {
  leaveHook = hook;
}

/** Prints the reason on stderr, leaves storage without a sync, ends the process. Never returns. */
export function fatal(reason: FatalReason, message: string): never {
  if (!leaving) {
    leaving = true;
    process.stderr.write(`barge: ${reason}: ${message}\n`);
    try {
      leaveHook?.();
    } catch {
      // Leaving failed: an ordinary exit could still sync, so take the way that cannot.
      process.kill(process.pid, "SIGKILL");
    }
  }
  process.exit(fatalStatus[reason]);
}
