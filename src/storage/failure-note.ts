/**
 * Why a node ended by itself, where its next start finds it. The file is open and has its block from the start on, so that a few bytes can be left in
 * it on a full disk, and without asking a failing one for anything: nothing is synced, and what the kernel then makes of it is luck.
 */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

export interface Failure {
  /** ISO 8601. */
  readonly at: string;
  /** Of fatal.ts. */
  readonly reason: string;
  readonly message: string;
}

const noteBytes = 4_096;
const name = "failure.json";

export class FailureNote {
  /** Of the life before this one; undefined where it did not end by itself. */
  readonly previous: Failure | undefined;
  /** Undefined where it could not be had, on a disk that is full or fails: whoever writes next says why. */
  readonly #descriptor: number | undefined;

  /** Blocks. */
  constructor(folder: string) {
    this.previous = readFailure(folder);
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT;
      this.#descriptor = openSync(join(folder, name), flags, 0o600);
      if (fstatSync(this.#descriptor).size < noteBytes) this.clear();
    } catch {
      // It is for luck.
    }
  }

  write(reason: string, message: string): void {
    const at = new Date().toISOString();
    const textOf = (length: number): string =>
      JSON.stringify({ at, reason, message: message.slice(0, length) } satisfies Failure);
    let length = message.length;
    while (Buffer.byteLength(textOf(length)) > noteBytes) length >>>= 1;
    this.#fill(textOf(length));
  }

  /** It has been told. */
  clear(): void {
    this.#fill("");
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
  }

  #fill(text: string): void {
    if (this.#descriptor === undefined) return;
    const bytes = Buffer.alloc(noteBytes, " ");
    bytes.write(text);
    writeSync(this.#descriptor, bytes, 0, noteBytes, 0);
  }
}

/** What the next start would tell. Changes nothing. */
export function readFailure(folder: string): Failure | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(join(folder, name), constants.O_RDONLY);
  } catch {
    return undefined;
  }
  try {
    return readFailureAt(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function readFailureAt(descriptor: number): Failure | undefined {
  const bytes = Buffer.alloc(noteBytes);
  const length = readSync(descriptor, bytes, 0, noteBytes, 0);
  try {
    const { at, reason, message } = JSON.parse(bytes.toString("utf8", 0, length)) as Record<
      keyof Failure,
      unknown
    >;
    if (typeof at !== "string" || typeof reason !== "string") return undefined;
    return { at, reason, message: String(message) };
  } catch {
    return undefined;
  }
}
