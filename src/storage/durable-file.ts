/** Small files that are there whole, old or new, after any crash, and on a full disk. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { DiskFullError } from "./disk.ts";
import { isDiskFull } from "./sqlite.ts";
import { fsyncDirectory, fsyncFile } from "./sync-latch.ts";

/**
 * Writes beside it, syncs, renames, syncs the folder. Blocks: for what is written once in a life. Throws DiskFullError where there is no space, and then the
 * file is as it was.
 */
export function writeFileDurably(path: string, text: string): void {
  const temporary = `${path}.new`;
  try {
    writeSynced(temporary, text);
    renameSync(temporary, path);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    rmSync(temporary, { force: true });
    throw new DiskFullError(`no space left to write ${path}`);
  }
  fsyncDirectory(dirname(path));
}

function writeSynced(path: string, text: string): void {
  const bytes = Buffer.from(text);
  const descriptor = openSync(path, "w", 0o600);
  try {
    // What has room for a part of it takes that part.
    for (let at = 0; at < bytes.byteLength;) at += writeSync(descriptor, bytes, at);
    fsyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
