/**
 * Reads, writes, verifies and removes files of snapshots off the event loop, in a Worker of its own, so that a chunk never waits for a checkpoint.
 * An error of the disk ends the process, as everywhere [D9].
 */
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";
import { fatal } from "../fatal.ts";
import type { BytesProof, FileProof, SnapshotJob, SnapshotJobDone } from "./snapshot-jobs.ts";
import { latchMemory } from "./sync-latch.ts";

export type { BytesProof, FileProof } from "./snapshot-jobs.ts";

type Done = (done: SnapshotJobDone) => void;

/** Of chunks that were written; as many as are under way in a window. */
const sparesMax = 6;

interface Waiting {
  /** Of what is written; undefined: it is only read. */
  readonly path: string | undefined;
  readonly done: Done;
}

export class SnapshotFiles {
  #worker: Worker | undefined;
  /** Of jobs under way, in their order. */
  readonly #waiting: Waiting[] = [];
  /** Used again and again: what is left to the garbage collector lies about until it runs, here and in the Worker. */
  readonly #spares: Uint8Array<ArrayBuffer>[] = [];

  /** `descriptor` stays open until `done` runs. The bytes lie in `memory`, where that is given; all of it is handed over, and comes back with them. */
  read(
    descriptor: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    const bytes = memory?.byteLength === length ? memory : new Uint8Array(length);
    this.#post({ kind: "read", descriptor, offset, bytes }, (job) => done(job.bytes!));
  }

  /** Creates the file where there is none; `bytes` are copied within the call. `ok` is false when the disk is full. */
  write(path: string, offset: number, bytes: Uint8Array, done: (ok: boolean) => void): void {
    const own = this.#spareOf(bytes.byteLength);
    own.set(bytes);
    this.#post({ kind: "write", path, offset, bytes: own }, (job) => {
      if (job.bytes !== undefined) this.#spares.push(job.bytes);
      if (this.#spares.length > sparesMax) this.#spares.shift();
      done(job.ok);
    });
  }

  #spareOf(length: number): Uint8Array<ArrayBuffer> {
    const at = this.#spares.findIndex(({ byteLength }) => byteLength === length);
    return at < 0 ? new Uint8Array(length) : this.#spares.splice(at, 1)[0]!;
  }

  /** A small file, which has the old text or the new one after any crash. `ok` is false when the disk is full. */
  replace(path: string, text: string, done: (ok: boolean) => void): void {
    this.#post({ kind: "replace", path, text }, ({ ok }) => done(ok));
  }

  /** Makes the file durable, with its name, and says whether it is what `proof` says. */
  finish(path: string, proof: FileProof | BytesProof, done: (ok: boolean) => void): void {
    this.#post({ kind: "finish", path, proof }, ({ ok }) => done(ok));
  }

  /** A database that nobody has open, or what has come of one. */
  remove(path: string, done: () => void = () => {}): void {
    this.#post({ kind: "remove", path }, done);
  }

  /** All that is in it, where nothing has it open or knows it by that name any more. */
  removeFolder(path: string): void {
    this.#post({ kind: "removeFolder", path }, () => {});
  }

  /** Something in that folder. */
  isWriting(directory: string): boolean {
    return this.#waiting.some(({ path }) => path !== undefined && dirname(path) === directory);
  }

  /** The Worker sleeps on: a thread is never terminated. */
  close(): void {
    this.#worker?.unref();
  }

  #post(job: SnapshotJob, done: Done): void {
    this.#worker ??= this.#start();
    this.#worker.ref();
    this.#waiting.push({ path: job.kind === "read" ? undefined : job.path, done });
    this.#worker.postMessage(job, "bytes" in job ? [job.bytes.buffer] : []);
  }

  #start(): Worker {
    const worker = new Worker(new URL("./snapshot-worker.ts", import.meta.url), {
      workerData: latchMemory(),
    });
    worker.on("message", (done: SnapshotJobDone) => {
      if (done.failed !== undefined) fatal("sync_failed", done.failed);
      const waiting = this.#waiting.shift()!;
      if (this.#waiting.length === 0) this.#worker?.unref();
      waiting.done(done);
    });
    worker.on("error", (error) => fatal("sync_failed", `the snapshot Worker died: ${error}`));
    return worker;
  }
}
