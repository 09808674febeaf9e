/** A backup that lies in a file: read through, with every checksum. */
import { closeSync, openSync, readSync } from "node:fs";
import { type BackupHeader, readBackup } from "../wire/backup.ts";

/** Throws BackupError where it is not whole; `chunk` has seen some of it by then. Blocks. */
export function readBackupFile(
  path: string,
  chunk: (body: Uint8Array, header: BackupHeader) => void = () => {},
): BackupHeader {
  const descriptor = openSync(path, "r");
  try {
    return readBackup((offset, length) => readSome(descriptor, offset, length), chunk);
  } finally {
    closeSync(descriptor);
  }
}

function readSome(descriptor: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(descriptor, bytes, done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}
