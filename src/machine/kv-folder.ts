/**
 * The seam between a machine and the folder in which its files lie [25, 43]: the live one, and one that is being received beside it. A file is named
 * by its generation; 0 is the one that the machine has made itself. In SQLite (sqlite-kv-folder.ts) or simulated. Types only.
 */
import type { KvFile, KvMeta } from "./kv-file.ts";
import type { IncomingSnapshot } from "./machine.ts";

export interface IncomingKvFile extends Omit<IncomingSnapshot, "open"> {
  /** Undefined where there is no space for that. */
  open(): KvMeta | undefined;
}

export interface KvFolder {
  /** Neither created nor opened yet. */
  file(generation: number): KvFile;
  /** At the start of a process: all other files go, durably. Blocks. */
  keepOnly(generation: number): void;
  /** A new file, under a name that was never used. Undefined where there is no room for so many bytes. */
  receive(bytes: number): IncomingKvFile | undefined;
  /** A file that the machine has closed goes, off the event loop. */
  remove(generation: number): void;
}
