/** What a machine over an application keeps, in memory: a crash leaves what was durable, and maybe the state that was on its way. */
import type {
  AppFolder,
  IncomingFile,
  ReceivedSnapshot,
} from "../../../src/machine/http/app-folder.ts";
import {
  decodeState,
  encodeState,
  type SavedState,
  stateBytes,
} from "../../../src/machine/http/saved-state.ts";
import type { Limits } from "../../../src/limits.ts";

export class FakeFolder implements AppFolder {
  readonly #limits: Limits;
  /** Durable, the newest first. */
  states: Uint8Array[] = [];
  readonly snapshots = new Map<number, Buffer>();
  isFull = false;
  #later: (() => void)[] = [];
  #saving: Uint8Array | undefined;
  #number = 0;
  /** Nothing of a life that is over comes any more. */
  #life = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** `kept`: the state that was being saved is there. */
  crash(kept: boolean): void {
    this.#life++;
    this.#later = [];
    if (kept && this.#saving !== undefined)
      this.states = [this.#saving, ...this.states].slice(0, 2);
    this.#saving = undefined;
  }

  run(): boolean {
    const actions = this.#later;
    this.#later = [];
    for (const action of actions) action();
    return actions.length > 0;
  }

  load(): SavedState[] {
    return this.states.map((bytes) => decodeState(bytes, this.#limits)!);
  }

  save(state: SavedState, done: (ok: boolean) => void): void {
    if (this.#saving !== undefined) throw new Error("two at a time");
    const bytes = encodeState(state);
    this.#saving = bytes;
    this.#soon(() => {
      this.#saving = undefined;
      if (!this.isFull) this.states = [bytes, ...this.states].slice(0, 2);
      done(!this.isFull);
    });
  }

  receive(): IncomingFile {
    const number = ++this.#number;
    const parts: Uint8Array[] = [];
    return {
      number,
      write: (_, bytes, done) => {
        parts.push(bytes.slice());
        this.#soon(() => done(true));
      },
      finish: (_, done) => {
        this.snapshots.set(number, Buffer.concat(parts));
        this.#soon(() => done(true));
      },
      discard: () => void this.snapshots.delete(number),
    };
  }

  open(number: number): ReceivedSnapshot | undefined {
    const bytes = this.snapshots.get(number);
    if (bytes === undefined) return undefined;
    const offset = stateBytes(bytes, this.#limits);
    const state =
      offset === undefined ? undefined : decodeState(bytes.subarray(0, offset), this.#limits);
    if (state === undefined) return undefined;
    return { state, offset: offset!, appBytes: bytes.byteLength - offset! };
  }

  read(
    number: number,
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    // As it is handed over, nobody may find in it what was there.
    memory?.fill(0xff);
    const bytes = memory?.byteLength === length ? memory : new Uint8Array(length);
    bytes.set(this.snapshots.get(number)!.subarray(offset, offset + length));
    this.#soon(() => done(bytes));
  }

  remove(number: number): void {
    this.snapshots.delete(number);
  }

  keepOnly(kept: number, used: number): void {
    this.#number = Math.max(this.#number, used, kept, ...this.snapshots.keys());
    for (const number of this.snapshots.keys()) if (number !== kept) this.snapshots.delete(number);
  }

  close(): void {}

  #soon(action: () => void): void {
    const life = this.#life;
    this.#later.push(() => {
      if (life === this.#life) action();
    });
  }
}
