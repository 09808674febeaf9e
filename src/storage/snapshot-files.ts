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

interface Waiting {
  /** Of what is written; undefined: it is only read. */
  readonly path: string | undefined;
  readonly done: Done;
}

export class SnapshotFiles {
  #worker: Worker | undefined;
  /** Of jobs under way, in their order. */
  readonly #waiting: Waiting[] = [];

  /** `descriptor` stays open until `done` runs. */
  read(
    descriptor: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array) => void,
  ): void {
    this.#post({ kind: "read", descriptor, offset, length }, ({ bytes }) => done(bytes!));
  }

  /** Creates the file where there is none; `bytes`, with all of its memory, is handed over. `ok` is false when the disk is full. */
  write(
    path: string,
    offset: number,
    bytes: Uint8Array<ArrayBuffer>,
    done: (ok: boolean) => void,
  ): void {
    this.#post({ kind: "write", path, offset, bytes }, ({ ok }) => done(ok));
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
    this.#worker.postMessage(job, job.kind === "write" ? [job.bytes.buffer] : []);
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
