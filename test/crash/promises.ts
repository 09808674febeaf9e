/** What a life says on its way, so that the folder it leaves at any moment can be held against it: one mark each. */

export type Mark =
  /** The log is about to be in this state: from now on it may be found in it. The number rises. */
  | { readonly kind: "state"; readonly number: number; readonly key: string }
  /** The state of that number is durable: nothing before it may be found any more. */
  | { readonly kind: "synced"; readonly number: number }
  /** What the machine's hash is at an index. */
  | { readonly kind: "applied"; readonly index: number; readonly hash: number }
  /** The machine has this much on the disk, in the file of that generation. */
  | { readonly kind: "durable"; readonly index: number; readonly generation: number }
  /** The folder is this one for ever. */
  | { readonly kind: "incarnation"; readonly incarnation: string }
  | { readonly kind: "met"; readonly peer: number; readonly incarnation: string }
  | { readonly kind: "formed" }
  | { readonly kind: "applyVersion"; readonly version: number }
  /** Of a daemon: a write was acknowledged. */
  | {
      readonly kind: "written";
      readonly key: string;
      readonly value: string;
      readonly revision: number;
    }
  /** Of a daemon: it has acknowledged something as the leader of that term. */
  | { readonly kind: "led"; readonly term: number }
  /** The life has come to this, for the report. */
  | { readonly kind: "did"; readonly what: string };

/** What holds at one moment. */
export interface Expectation {
  /** The log is in one of these states, the newest last. None are told of a daemon, whose log is all committed. */
  readonly states: readonly string[];
  /** By index, as pairs. */
  readonly hashes: readonly (readonly [number, number])[];
  /** By generation, as pairs: the least that its file says of itself. */
  readonly durable: readonly (readonly [number, number])[];
  readonly incarnation: string | undefined;
  readonly met: readonly (readonly [number, string])[];
  readonly formed: boolean;
  readonly applyVersion: number;
  /** The newest value of each key, with its revision. */
  readonly written: readonly (readonly [key: string, value: string, revision: number])[];
  readonly term: number;
  /** A bit was turned: to refuse the start is right. */
  readonly rotten: boolean;
}

export interface FoundState {
  /** Of the log. */
  readonly state: string;
  readonly commit: number;
  /** Which file is the machine. */
  readonly generation: number;
}

/** Follows the marks of a life. */
export class Promises {
  #states: { number: number; key: string }[];
  #hasSynced = false;
  readonly #hashes = new Map<number, number>();
  readonly #durable = new Map<number, number>();
  readonly #met = new Map<number, string>();
  #incarnation: string | undefined;
  #formed = false;
  #applyVersion = 1;
  readonly #written = new Map<string, { value: string; revision: number }>();
  #term = 0;
  /** What the life has done, and how often. */
  readonly counts = new Map<string, number>();

  /** `state`: of a folder that has not been used yet; none where states are not told. */
  constructor(state?: string) {
    this.#states = state === undefined ? [] : [{ number: 0, key: state }];
  }

  take(mark: Mark): void {
    switch (mark.kind) {
      case "state":
        this.#states.push(mark);
        break;
      case "synced":
        this.#hasSynced = true;
        this.#states = this.#states.filter(({ number }) => number >= mark.number);
        break;
      case "applied":
        this.#hashes.set(mark.index, mark.hash);
        break;
      case "durable":
        this.#durable.set(mark.generation, mark.index);
        break;
      case "incarnation":
        this.#incarnation = mark.incarnation;
        break;
      case "met":
        this.#met.set(mark.peer, mark.incarnation);
        break;
      case "formed":
        this.#formed = true;
        break;
      case "applyVersion":
        this.#applyVersion = mark.version;
        break;
      case "written":
        if (mark.revision > (this.#written.get(mark.key)?.revision ?? 0)) {
          this.#written.set(mark.key, mark);
        }
        break;
      case "led":
        this.#term = Math.max(this.#term, mark.term);
        break;
      case "did":
        this.counts.set(mark.what, (this.counts.get(mark.what) ?? 0) + 1);
        break;
    }
  }

  /**
   * The life ended here, and this was found. What was promised stays so; what might have been found beyond it is gone, and others may come in its
   * place.
   */
  endedAt({ state, commit, generation }: FoundState): Promises {
    const next = this.#states.length === 0 ? new Promises() : new Promises(state);
    for (const [key, newest] of this.#written) next.#written.set(key, newest);
    next.#term = this.#term;
    for (const [index, hash] of this.#hashes) if (index <= commit) next.#hashes.set(index, hash);
    for (const [file, index] of this.#durable) {
      if (file <= generation) next.#durable.set(file, index);
    }
    for (const [peer, incarnation] of this.#met) next.#met.set(peer, incarnation);
    next.#incarnation = this.#incarnation;
    next.#formed = this.#formed;
    next.#applyVersion = this.#applyVersion;
    return next;
  }

  /** What lies in the log now has been durable once, which the watermark says. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  at(rotten: boolean): Expectation {
    return {
      states: this.#states.map(({ key }) => key),
      hashes: [...this.#hashes],
      durable: [...this.#durable],
      incarnation: this.#incarnation,
      met: [...this.#met],
      formed: this.#formed,
      applyVersion: this.#applyVersion,
      written: [...this.#written].map(([key, { value, revision }]) => [key, value, revision]),
      term: this.#term,
      rotten,
    };
  }
}
