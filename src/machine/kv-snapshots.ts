/**
 * Handles on a kv file's main file [29]. After a checkpoint, and until the next, the main file alone is the state at one index; so a handle
 * waits for a checkpoint, and while any is open no other runs.
 */
import type { KvFile } from "./kv-file.ts";
import type { MachineSnapshot } from "./machine.ts";

type Waiting = (snapshot: MachineSnapshot | undefined) => void;

export class KvSnapshots {
  readonly #file: KvFile;
  #waiting: Waiting[] = [];
  #handles = 0;
  /** Of the main file, while there are handles. */
  #index = 0;
  #bytes = 0;

  constructor(file: KvFile) {
    this.#file = file;
  }

  /** No checkpoint may run. */
  get held(): boolean {
    return this.#handles > 0;
  }

  /** A checkpoint should run as soon as it can. */
  get wanted(): boolean {
    return this.#waiting.length > 0;
  }

  want(done: Waiting): void {
    this.#waiting.push(done);
  }

  /** A checkpoint is complete, or handles are open since one: the main file is the state at `index`. Called later than `want`. */
  serve(index: number): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) {
      if (this.#handles === 0) {
        this.#index = index;
        this.#bytes = this.#file.hold();
      }
      this.#handles += 1;
      done(this.#handle());
    }
  }

  /** Serves from the handles that are open. */
  share(): void {
    if (this.held) this.serve(this.#index);
  }

  /** There is nothing to hold, or no room for a checkpoint. */
  refuse(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) done(undefined);
  }

  #handle(): MachineSnapshot {
    let released = false;
    return {
      index: this.#index,
      bytes: this.#bytes,
      read: (offset, length, done, memory) => this.#file.readMain(offset, length, done, memory),
      release: () => {
        if (released) throw new Error("kv: a snapshot is released twice");
        released = true;
        this.#handles -= 1;
        if (this.#handles === 0) this.#file.letGo();
      },
    };
  }
}
