/** The state machines there are, by the name that `--machine` gives. */
import { join } from "node:path";
import type { Limits } from "../limits.ts";
import type { KvFiles } from "./kv-files.ts";
import { KvMachine } from "./kv.ts";
import type { StateMachine } from "./machine.ts";
import { NullMachine } from "./null.ts";

export { KvFiles } from "./kv-files.ts";

export type MachineKind = "kv" | "null";

export interface MachineOptions {
  /** A folder of its own, which exists. */
  readonly directory: string;
  /** Shared by all machines of a shard. */
  readonly files: KvFiles;
  readonly limits: Limits;
  /** Monotonic; measures slices of work. */
  readonly nowMs: () => number;
}

/** Touches no file before `open`. */
export function createMachine(kind: MachineKind, options: MachineOptions): StateMachine {
  const { directory, files, limits, nowMs } = options;
  const file = files.file(join(directory, `${kind}.db`));
  return kind === "kv"
    ? new KvMachine({ file, limits, nowMs })
    : new NullMachine({ file, limits, nowMs });
}
