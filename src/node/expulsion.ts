/**
 * Members that say that this node is none of them: that it was removed, or that they know it with another data folder [36]. Either would end the
 * process, so it takes more than one who lies or errs: it is believed once those who say it are a majority of the voters, as far as this node
 * knows them. Until then the node goes on, which harms nobody, as whoever has no place gets no vote either; and it tells, ever less often. What its own log
 * says of it needs no witness.
 */
import { membersOf } from "../raft/configuration.ts";
import { quorumValue } from "../raft/quorum.ts";
import type { Configuration } from "../raft/ready.ts";

/** Codes of a refused hello. */
export type ExpulsionCode = "member_removed" | "wrong_incarnation";

export interface ExpulsionOptions {
  readonly nodeId: number;
  /** In force by this node's own log. */
  readonly configuration: () => Configuration;
  /** Those that a new node knows before it has a log. */
  readonly contacts: readonly number[];
  readonly tell: (message: string) => void;
}

const tellEveryMsMin = 5_000;
const tellEveryMsMax = 300_000;

const words: Readonly<Record<ExpulsionCode, string>> = {
  member_removed: "this node was removed from the cluster",
  wrong_incarnation: "this node's data folder is not the one that is known to them",
};

export class Expulsion {
  readonly #options: ExpulsionOptions;
  /** The last word of each. */
  readonly #words = new Map<number, ExpulsionCode>();
  #tellAtMs = -Infinity;
  #tellEveryMs = tellEveryMsMin;

  constructor(options: ExpulsionOptions) {
    this.#options = options;
  }

  /** Returns whether it is to be believed. */
  said(from: number, code: ExpulsionCode, nowMs: number): boolean {
    this.#words.set(from, code);
    if (this.#isBelieved(code)) return true;
    if (nowMs < this.#tellAtMs) return false;
    this.#tellAtMs = nowMs + this.#tellEveryMs;
    this.#tellEveryMs = Math.min(2 * this.#tellEveryMs, tellEveryMsMax);
    this.#options.tell(this.doubt ?? "");
    return false;
  }

  /** That member takes this node for what it is. */
  withdrawn(from: number): void {
    this.#words.delete(from);
  }

  /** What is said and not believed, in words. */
  get doubt(): string | undefined {
    const [first] = this.#words.values();
    if (first === undefined) return undefined;
    const from = [...this.#words].filter(([, code]) => code === first).map(([id]) => id);
    const { voters } = this.#witnesses;
    return `node ${from.join(", ")} says that ${words[first]}; that is believed once most of the voters (${voters.join(", ")}) say so. Ask one that is trusted: barge member list`;
  }

  #isBelieved(code: ExpulsionCode): boolean {
    const witnesses = this.#witnesses;
    return quorumValue(witnesses, (id) => (this.#says(id, code, witnesses) ? 1 : 0)) === 1;
  }

  #says(id: number, code: ExpulsionCode, { voters, learners }: Configuration): boolean {
    if (id !== this.#options.nodeId) return this.#words.get(id) === code;
    // Its own log has a change on its way by which it goes: one vote of the former members is its own.
    return code === "member_removed" && !voters.includes(id) && !learners.includes(id);
  }

  get #witnesses(): Configuration {
    const configuration = this.#options.configuration();
    if (membersOf(configuration).length > 0) return configuration;
    return { ...configuration, voters: this.#options.contacts };
  }
}
