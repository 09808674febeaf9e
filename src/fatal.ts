/**
 * The only way a daemon ends on purpose other than SIGTERM: one exit status per reason. The hook lets storage
 * leave its databases without a single further sync [17] before the process goes.
 */

export interface FatalRow {
  /** Exit status of the process. */
  readonly status: number;
  /** What it means and what to do, for the generated documentation. */
  readonly help: string;
}

const row = (status: number, help: string): FatalRow => ({ status, help });

export const fatalTable = {
  wrong_data_dir: row(
    20,
    "The data folder belongs to another node or cluster, is damaged, or has an unknown format. Give the options of its first start, or another folder.",
  ),
  data_dir_locked: row(21, "Another process uses the data folder. Stop that one first."),
  data_dir_not_writable: row(22, "The data folder cannot be created or written, or has no space."),
  port_in_use: row(23, "An address to listen on is taken or cannot be bound."),
  below_watermark: row(
    24,
    "The log, or the state that it goes on from, ends before what was known to be durable, and there is no other member to fetch it from. Bring the folder back from a copy.",
  ),
  corrupt_data: row(
    25,
    "A checksum, chain or format check failed on data that was durable. Nothing was changed. The other nodes have it.",
  ),
  sync_failed: row(
    26,
    "The disk reported an error; nothing after it can be trusted, so the process stopped at once. Check the disk, then start again.",
  ),
  invariant: row(27, "A bug: a rule that must hold did not. Please report it with the message."),
  replaced_data_dir: row(
    28,
    "Most members know this node with another data folder: a new one must not vote in its place. Bring the old folder back.",
  ),
  member_removed: row(
    29,
    "This node was removed from the cluster: its log says so, or most members do. Its id is never used again. To bring the machine back: another id, an empty folder, --join.",
  ),
  join_refused: row(
    30,
    "The cluster does not take this node as a member: another cluster, another token, or the id belongs to somebody else. The message says what to do.",
  ),
  build_too_old: row(
    32,
    "The data folder, or the cluster that it was to join, is at an apply version that this build cannot. Start a newer build; nothing was changed.",
  ),
  application_lost: row(
    46,
    "The application beside this node is out, for a serve longer than --app-exit-ms. Start it, then the node; or leave that option away, and the node waits.",
  ),
} as const satisfies Record<string, FatalRow>;

export type FatalReason = keyof typeof fatalTable;

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

/** Notes why the process ends, for its next start. */
type NoteHook = (reason: FatalReason, message: string) => void;
let noteHook: NoteHook | undefined;

/** Undefined: no more. */
export function onFatalNote(hook: NoteHook | undefined): void {
  noteHook = hook;
}

/** Prints the reason on stderr, leaves storage without a sync, ends the process. Never returns. */
export function fatal(reason: FatalReason, message: string): never {
  if (!leaving) {
    leaving = true;
    process.stderr.write(`barge: ${reason}: ${message}\n`);
    try {
      noteHook?.(reason, message);
    } catch {
      // The disk may be what failed.
    }
    try {
      leaveHook?.();
    } catch {
      // Leaving failed: an ordinary exit could still sync, so take the way that cannot.
      process.kill(process.pid, "SIGKILL");
    }
  }
  process.exit(fatalTable[reason].status);
}
