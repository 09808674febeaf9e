/**
 * The seam between the machine and what it keeps on this node's disk [43]: how far the application was, with sessions and request ids as of there [15], and
 * snapshots that were received and that the application still has to be given. In files (app-files.ts) or simulated. Types only.
 *
 * The contract that both keep:
 * - A state is there whole or not at all, and after a crash one that is at least as new as the last that was durable.
 * - The two newest are kept. Names are never used twice [25].
 * - Any failure other than a full disk ends the process.
 */
import type { SavedState } from "./saved-state.ts";
import type { BytesProof } from "../../storage/snapshot-files.ts";

/** A snapshot on this disk: the state that came with it, then the application's own bytes. */
export interface ReceivedSnapshot {
  readonly state: SavedState;
  /** Where the application's bytes begin, and how many there are. */
  readonly offset: number;
  readonly appBytes: number;
}

export interface IncomingFile {
  readonly number: number;
  /** `bytes` are copied within the call. */
  write(offset: number, bytes: Uint8Array, done: (ok: boolean) => void): void;
  /** Durable, and what the proof says. */
  finish(proof: BytesProof, done: (ok: boolean) => void): void;
  discard(): void;
}

export interface AppFolder {
  /** What was saved, the newest first, and durable. Blocks. */
  load(): SavedState[];
  /** One at a time. `ok` false: the disk is full, and nothing has changed; else it is durable. Never within the call. */
  save(state: SavedState, done: (ok: boolean) => void): void;
  /** Undefined where there is no room for so many bytes. */
  receive(bytes: number): IncomingFile | undefined;
  /** Undefined where it is not there, or is none. Blocks; it stays open until it is removed. */
  open(number: number): ReceivedSnapshot | undefined;
  /** Of one that is open. `memory` is handed over, for the bytes to lie in; not given, it is new. */
  read(
    number: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void;
  remove(number: number): void;
  /** At the start of a process: all snapshots but that one go; numbers up to `used` were used before. Blocks. */
  keepOnly(number: number, used: number): void;
  close(): void;
}
