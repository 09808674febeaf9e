/**
 * The simulated folder of a machine that is an application: states that were saved, whole or not at all, and snapshots that are received, which a power cut
 * takes until they are finished.
 */
import { crc32 } from "node:zlib";
import type {
  AppFolder,
  IncomingFile,
  ReceivedSnapshot,
} from "../../src/machine/http/app-folder.ts";
import {
  decodeState,
  encodeState,
  type SavedState,
  stateBytes,
} from "../../src/machine/http/saved-state.ts";
import type { Limits } from "../../src/limits.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import type { CrashMode } from "./sim-disk.ts";
import { stepMs, type SimKvFileOptions } from "./sim-kv-file.ts";

interface Received {
  readonly bytes: Uint8Array;
  isFinished: boolean;
}

export class SimAppFolder implements AppFolder {
  readonly #options: SimKvFileOptions;
  readonly #limits: Limits;
  /** Durable, the newest first. */
  #states: readonly Uint8Array[];
  readonly #snapshots: Map<number, Received>;
  #saving: Uint8Array | undefined;
  #number = 0;
  /** The first one is under way. */
  readonly #jobs: (() => void)[] = [];
  #dead = false;
  bytesMax = Infinity;

  constructor(
    options: SimKvFileOptions,
    limits: Limits,
    states: readonly Uint8Array[] = [],
    snapshots = new Map<number, Received>(),
  ) {
    this.#options = options;
    this.#limits = limits;
    this.#states = states;
    this.#snapshots = snapshots;
  }

  load(): SavedState[] {
    return this.#states.map((bytes) => decodeState(bytes, this.#limits)!);
  }

  save(state: SavedState, done: (ok: boolean) => void): void {
    if (this.#saving !== undefined) throw new Error("sim-app-folder: two states at a time");
    const bytes = encodeState(state);
    this.#saving = bytes;
    this.#later(() => {
      const isFull = this.bytesMax < Infinity;
      if (!isFull && this.#options.syncFails?.() === true) return;
      this.#saving = undefined;
      if (!isFull) this.#keep(bytes);
      done(!isFull);
    });
  }

  #keep(bytes: Uint8Array): void {
    this.#states = [bytes, ...this.#states].slice(0, 2);
  }

  receive(byteLength: number): IncomingFile {
    const number = ++this.#number;
    const received: Received = { bytes: new Uint8Array(byteLength), isFinished: false };
    this.#snapshots.set(number, received);
    let wanted = true;
    const later = (run: () => void): void => this.#later(() => void (wanted && run()));
    return {
      number,
      write: (offset, given, done) => {
        const part = given.slice();
        later(() => {
          const isFull = this.bytesMax < Infinity;
          if (!isFull) received.bytes.set(part, offset);
          done(!isFull);
        });
      },
      finish: ({ bytes, chunkBytes, digest }, done) => {
        later(() => {
          if (this.#options.syncFails?.() === true) return;
          received.isFinished = true;
          let found = 0;
          for (let offset = 0; offset < bytes; offset += chunkBytes) {
            const part = received.bytes.subarray(offset, offset + chunkBytes);
            found = nextDigest(found, crc32(part));
          }
          done(bytes === byteLength && found === digest);
        });
      },
      discard: () => {
        wanted = false;
        this.#later(() => this.#snapshots.delete(number));
      },
    };
  }

  open(number: number): ReceivedSnapshot | undefined {
    const bytes = this.#snapshots.get(number)?.bytes;
    const offset = bytes && stateBytes(bytes, this.#limits);
    if (bytes === undefined || offset === undefined) return undefined;
    const state = decodeState(bytes.subarray(0, offset), this.#limits);
    return state && { state, offset, appBytes: bytes.byteLength - offset };
  }

  read(
    number: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    const { bytes } = this.#snapshots.get(number)!;
    // What is handed over is spoilt for whoever still looks at it.
    memory?.fill(0xff);
    this.#later(() => done(bytes.slice(offset, offset + length)));
  }

  remove(number: number): void {
    this.#snapshots.delete(number);
  }

  keepOnly(kept: number, used: number): void {
    this.#number = Math.max(this.#number, used, kept, ...this.#snapshots.keys());
    for (const number of this.#snapshots.keys()) {
      if (number !== kept) this.#snapshots.delete(number);
    }
  }

  close(): void {
    this.#dead = true;
  }

  /** Ends this folder, whose callbacks never run again, and returns the one that the next start finds. */
  crash(mode: CrashMode): SimAppFolder {
    this.#dead = true;
    // It was there under its name already, or not yet.
    if (this.#saving !== undefined && mode !== "none" && this.#options.random() < 0.5) {
      this.#keep(this.#saving);
    }
    const snapshots = new Map<number, Received>();
    for (const [number, received] of this.#snapshots) {
      if (mode === "all" || received.isFinished) snapshots.set(number, received);
    }
    const next = new SimAppFolder(this.#options, this.#limits, this.#states, snapshots);
    next.bytesMax = this.bytesMax;
    return next;
  }

  /** One job after the other, in the order given, as the Worker does. */
  #later(job: () => void): void {
    this.#jobs.push(job);
    if (this.#jobs.length === 1) this.#next();
  }

  #next(): void {
    this.#options.schedule(stepMs(this.#options), () => {
      if (this.#dead) return;
      this.#jobs[0]!();
      this.#jobs.shift();
      if (this.#jobs.length > 0) this.#next();
    });
  }
}
