/** Small files that are there whole, old or new, after any crash. */
import { closeSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { fsyncDirectory, fsyncFile } from "./sync-latch.ts";

/** Writes beside it, syncs, renames, syncs the folder. Blocks: for what is written once in a life. */
export function writeFileDurably(path: string, text: string): void {
  const temporary = `${path}.new`;
  const descriptor = openSync(temporary, "w", 0o600);
  try {
    writeSync(descriptor, text);
    fsyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, path);
  fsyncDirectory(dirname(path));
}
