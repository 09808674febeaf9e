/** Backups as files, for those who keep them: written whole or not at all, and read through once they are. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { readBackupFile } from "../storage/backup-file.ts";
import { fsyncDirectory, fsyncFile } from "../storage/sync-latch.ts";
import type { BackupHeader } from "../wire/backup.ts";

export { BackupError, type BackupHeader } from "../wire/backup.ts";
export { readBackupFile };

/** Durable, and every checksum compared with what the disk has, before it gets its name. */
export async function saveBackup(
  path: string,
  parts: AsyncIterable<Uint8Array>,
  written: (bytes: number) => void,
): Promise<BackupHeader> {
  const file = resolve(path);
  const partial = `${file}.partial`;
  try {
    const descriptor = openSync(partial, "w", 0o600);
    try {
      let bytes = 0;
      for await (const part of parts) {
        for (let at = 0; at < part.byteLength;) {
          at += writeSync(descriptor, part, at, part.byteLength - at);
        }
        written((bytes += part.byteLength));
      }
      fsyncFile(descriptor);
    } finally {
      closeSync(descriptor);
    }
    const header = readBackupFile(partial);
    renameSync(partial, file);
    fsyncDirectory(dirname(file));
    return header;
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}
