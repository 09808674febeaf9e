/**
 * What the machine keeps, in files of its folder: `state-12`, the twelfth state that was saved, and `snapshot-7`, the seventh that was received. Written
 * under a new name, made durable, and only then counted; so the one before stays until the next is there.
 */
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  unlinkSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Limits } from "../../limits.ts";
import type { SnapshotFiles } from "../../storage/snapshot-files.ts";
import { fsyncDirectory, fsyncFile } from "../../storage/sync-latch.ts";
import type { AppFolder, IncomingFile, ReceivedSnapshot } from "./app-folder.ts";
import { decodeState, encodeState, type SavedState, stateBytes } from "./saved-state.ts";
import { nextDigest } from "../../wire/snapshot-messages.ts";

const statesKept = 2;
const probeBytes = 12;

export interface AppFilesOptions {
  /** Exists, and is nobody else's. */
  readonly directory: string;
  readonly files: SnapshotFiles;
  readonly limits: Limits;
  readonly hasRoomFor: (bytes: number) => boolean;
}

interface OpenSnapshot extends ReceivedSnapshot {
  readonly descriptor: number;
  reads: number;
  removed: boolean;
}

export class AppFiles implements AppFolder {
  readonly #directory: string;
  readonly #files: SnapshotFiles;
  readonly #limits: Limits;
  readonly #hasRoomFor: (bytes: number) => boolean;
  readonly #open = new Map<number, OpenSnapshot>();
  /** The highest of each that was ever used, as far as the folder tells. */
  #state = 0;
  #snapshot = 0;
  /** Names of states that are there, the oldest first. */
  #states: number[] = [];

  constructor({ directory, files, limits, hasRoomFor }: AppFilesOptions) {
    this.#directory = directory;
    this.#files = files;
    this.#limits = limits;
    this.#hasRoomFor = hasRoomFor;
    for (const [kind, number] of this.#names()) {
      if (kind === "state") this.#states.push(number);
      if (kind === "snapshot") this.#snapshot = Math.max(this.#snapshot, number);
    }
    this.#states.sort((a, b) => a - b);
    this.#state = this.#states.at(-1) ?? 0;
  }

  load(): SavedState[] {
    const found: SavedState[] = [];
    for (const number of this.#states.toReversed()) {
      const state = this.#readState(this.#path("state", number));
      if (state !== undefined) found.push(state);
    }
    for (const { snapshot } of found) this.#snapshot = Math.max(this.#snapshot, snapshot);
    if (found.length > 0) fsyncDirectory(this.#directory);
    return found;
  }

  #readState(path: string): SavedState | undefined {
    const descriptor = openSync(path, "r");
    try {
      // It may have been visible only.
      fsyncFile(descriptor);
      return decodeState(readFileSync(descriptor), this.#limits);
    } finally {
      closeSync(descriptor);
    }
  }

  save(state: SavedState, done: (ok: boolean) => void): void {
    const number = ++this.#state;
    const path = this.#path("state", number);
    const bytes = encodeState(state);
    const digest = nextDigest(0, crc32(bytes));
    const { byteLength } = bytes;
    if (!this.#hasRoomFor(byteLength)) return void setImmediate(() => done(false));
    const failed = (): void => {
      this.#files.remove(path);
      done(false);
    };
    const proof = { bytes: byteLength, chunkBytes: byteLength, digest };
    this.#files.write(path, 0, bytes, (isWritten) => {
      if (!isWritten) return failed();
      this.#files.finish(path, proof, (isWhole) => {
        if (!isWhole) return failed();
        this.#saved(number);
        done(true);
      });
    });
  }

  #saved(number: number): void {
    this.#states.push(number);
    while (this.#states.length > statesKept) {
      this.#files.remove(this.#path("state", this.#states.shift()!));
    }
  }

  receive(bytes: number): IncomingFile | undefined {
    if (!this.#hasRoomFor(bytes)) return undefined;
    const number = ++this.#snapshot;
    const path = this.#path("snapshot", number);
    let wanted = true;
    const ifWanted =
      (done: (ok: boolean) => void) =>
      (ok: boolean): void => {
        if (wanted) done(ok);
      };
    return {
      number,
      write: (offset, part, done) => this.#files.write(path, offset, part, ifWanted(done)),
      finish: (proof, done) => this.#files.finish(path, proof, ifWanted(done)),
      discard: () => {
        wanted = false;
        if (this.#open.has(number)) this.remove(number);
        else this.#files.remove(path);
      },
    };
  }

  open(number: number): ReceivedSnapshot | undefined {
    const known = this.#open.get(number);
    if (known !== undefined) return known;
    this.#snapshot = Math.max(this.#snapshot, number);
    const descriptor = tryOpen(this.#path("snapshot", number));
    if (descriptor === undefined) return undefined;
    const state = this.#stateIn(descriptor);
    if (state === undefined) {
      closeSync(descriptor);
      return undefined;
    }
    const offset = encodeState(state).byteLength;
    const appBytes = fstatSync(descriptor).size - offset;
    const opened = { state, offset, appBytes, descriptor, reads: 0, removed: false };
    this.#open.set(number, opened);
    return opened;
  }

  #stateIn(descriptor: number): SavedState | undefined {
    const head = new Uint8Array(probeBytes);
    if (readSync(descriptor, head, 0, probeBytes, 0) < probeBytes) return undefined;
    const length = stateBytes(head, this.#limits);
    if (length === undefined) return undefined;
    const bytes = new Uint8Array(length);
    if (readSync(descriptor, bytes, 0, length, 0) < length) return undefined;
    return decodeState(bytes, this.#limits);
  }

  read(
    number: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    const opened = this.#open.get(number);
    if (opened === undefined) throw new Error(`http: snapshot ${number} is not open`);
    opened.reads++;
    const read = (bytes: Uint8Array<ArrayBuffer>): void => {
      opened.reads--;
      if (opened.removed) this.#leave(number, opened);
      else done(bytes);
    };
    this.#files.read(opened.descriptor, offset, length, read, memory);
  }

  remove(number: number): void {
    const opened = this.#open.get(number);
    if (opened === undefined) return this.#files.remove(this.#path("snapshot", number));
    opened.removed = true;
    this.#leave(number, opened);
  }

  /** No descriptor is closed while it is read. */
  #leave(number: number, { descriptor, reads }: OpenSnapshot): void {
    if (reads > 0) return;
    this.#open.delete(number);
    closeSync(descriptor);
    this.#files.remove(this.#path("snapshot", number));
  }

  keepOnly(kept: number, used: number): void {
    this.#snapshot = Math.max(this.#snapshot, kept, used);
    let removed = false;
    for (const [kind, number] of this.#names()) {
      if (kind !== "snapshot" || number === kept) continue;
      unlinkSync(this.#path(kind, number));
      removed = true;
    }
    if (removed) fsyncDirectory(this.#directory);
  }

  close(): void {
    for (const { descriptor, reads } of this.#open.values()) if (reads === 0) closeSync(descriptor);
    this.#open.clear();
  }

  #path(kind: string, number: number): string {
    return join(this.#directory, `${kind}-${number}`);
  }

  #names(): [kind: string, number: number][] {
    const names: [string, number][] = [];
    for (const name of readdirSync(this.#directory)) {
      const match = /^(state|snapshot)-([1-9][0-9]{0,15})$/.exec(name);
      if (match !== null) names.push([match[1]!, Number(match[2])]);
    }
    return names;
  }
}

function tryOpen(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
