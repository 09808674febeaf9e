/** The scrubber's side of its Worker: one target at a time, each step when it is asked for. The thread is made with the first target. */
import { Worker } from "node:worker_threads";
import type { ScrubJob, ScrubStep, ScrubTarget } from "./scrub-jobs.ts";

type Done = (step: ScrubStep) => void;

export class ScrubThread {
  #worker: Worker | undefined;
  /** Of jobs under way, in their order. */
  readonly #waiting: Done[] = [];

  /** No job is under way. */
  get idle(): boolean {
    return this.#waiting.length === 0;
  }

  begin(target: ScrubTarget, done: Done): void {
    this.#post({ kind: "begin", target }, done);
  }

  step(done: Done): void {
    this.#post({ kind: "step" }, done);
  }

  /** What was begun is let go of. */
  end(done: Done): void {
    this.#post({ kind: "end" }, done);
  }

  #post(job: ScrubJob, done: Done): void {
    this.#worker ??= this.#start();
    this.#waiting.push(done);
    this.#worker.postMessage(job);
  }

  #start(): Worker {
    const worker = new Worker(new URL("./scrub-worker.ts", import.meta.url));
    worker.on("message", (step: ScrubStep) => this.#waiting.shift()!(step));
    worker.on("error", (error) => {
      const damage = `the scrubber's thread ended: ${String(error)}`;
      for (const done of this.#waiting.splice(0)) done({ bytes: 0, done: true, damage });
      this.#worker = undefined;
    });
    worker.unref();
    return worker;
  }
}
