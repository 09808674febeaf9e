/**
 * The simulated folder of kv files: the live one, and snapshots that are received beside it. What is received is visible while it is written, and
 * durable only once it is finished; a power cut takes it before that, together with whatever was built on it.
 */
import { crc32 } from "node:zlib";
import type { IncomingKvFile, KvFolder } from "../../src/machine/kv-folder.ts";
import type { SnapshotProof } from "../../src/machine/machine.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import type { CrashMode } from "./sim-disk.ts";
import { decodeState, SimKvFile, stepMs, type SimKvFileOptions } from "./sim-kv-file.ts";

interface Incoming {
  readonly bytes: Uint8Array;
  finished: boolean;
}

export class SimKvFolder implements KvFolder {
  readonly #options: SimKvFileOptions;
  readonly #files: Map<number, SimKvFile>;
  readonly #incoming: Map<number, Incoming>;
  /** Files that were opened on what is not durable. */
  readonly #unfounded = new Set<number>();
  /** The first one is under way. */
  readonly #jobs: (() => void)[] = [];
  #generation = 0;
  #bytesMax = Infinity;
  #dead = false;

  constructor(
    options: SimKvFileOptions,
    files = new Map<number, SimKvFile>(),
    incoming = new Map<number, Incoming>(),
  ) {
    this.#options = options;
    this.#files = files;
    this.#incoming = incoming;
  }

  get bytesMax(): number {
    return this.#bytesMax;
  }

  set bytesMax(bytes: number) {
    this.#bytesMax = bytes;
    for (const file of this.#files.values()) file.bytesMax = bytes;
  }

  /** One that is not there, or is no whole file, is as if it had never been written. */
  file(generation: number): SimKvFile {
    this.#generation = Math.max(this.#generation, generation);
    let file = this.#files.get(generation);
    if (file === undefined) {
      const incoming = this.#incoming.get(generation);
      if (incoming?.finished === false) this.#unfounded.add(generation);
      file = new SimKvFile(this.#options, incoming && decodeState(incoming.bytes));
      file.bytesMax = this.#bytesMax;
      this.#files.set(generation, file);
      this.#incoming.delete(generation);
    }
    return file;
  }

  keepOnly(generation: number): void {
    for (const found of [...this.#files.keys(), ...this.#incoming.keys()]) {
      this.#generation = Math.max(this.#generation, found);
      if (found !== generation) this.#delete(found);
    }
  }

  receive(bytes: number): IncomingKvFile {
    const generation = ++this.#generation;
    const incoming: Incoming = { bytes: new Uint8Array(bytes), finished: false };
    this.#incoming.set(generation, incoming);
    let wanted = true;
    const later = (run: () => void): void => this.#later(() => void (wanted && run()));
    return {
      generation,
      write: (offset, given, done) => {
        const part = given.slice();
        later(() => {
          if (this.#bytesMax < Infinity) return done(false);
          incoming.bytes.set(part, offset);
          done(true);
        });
      },
      finish: (proof, done) => {
        later(() => {
          if (this.#options.syncFails?.() === true) return;
          incoming.finished = true;
          done(matches(incoming.bytes, proof));
        });
      },
      open: () => (this.#bytesMax < Infinity ? undefined : decodeState(incoming.bytes)?.meta),
      discard: () => {
        wanted = false;
        this.#later(() => this.#delete(generation));
      },
    };
  }

  /** At once and for good: whoever may still come back to it finds nothing. */
  remove(generation: number): void {
    this.#delete(generation);
  }

  /** The folder that the next start finds. */
  crash(mode: CrashMode): SimKvFolder {
    this.#dead = true;
    const files = new Map<number, SimKvFile>();
    for (const [generation, file] of this.#files) {
      if (mode !== "all" && this.#unfounded.has(generation)) continue;
      files.set(generation, file.crash(mode));
    }
    const incoming = new Map<number, Incoming>();
    for (const [generation, found] of this.#incoming) {
      if (mode === "all" || found.finished) incoming.set(generation, found);
    }
    const next = new SimKvFolder(this.#options, files, incoming);
    next.bytesMax = this.#bytesMax;
    return next;
  }

  #delete(generation: number): void {
    this.#files.delete(generation);
    this.#incoming.delete(generation);
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

function matches(whole: Uint8Array, proof: SnapshotProof): boolean {
  const { index, bytes, chunkBytes, digest, applyVersionMax } = proof;
  let found = 0;
  for (let offset = 0; offset < bytes; offset += chunkBytes) {
    found = nextDigest(found, crc32(whole.subarray(offset, offset + chunkBytes)));
  }
  const meta = found === digest ? decodeState(whole)?.meta : undefined;
  return meta?.appliedIndex === index && meta.applyVersion <= applyVersionMax;
}
