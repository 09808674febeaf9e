/**
 * What the registry says, as far as this node has applied it: a copy of the keys of `system` in objects. Read again whenever that group has applied something, so it
 * is the same after a restart or a snapshot; only what has changed is decoded.
 */
import { ResultCode, type StateMachine } from "../machine/machine.ts";
import { encodeKvGet, encodeKvRange, type KvPage, readKvEntry, readKvPage } from "../wire/kv.ts";
import {
  decodeEntry,
  decodeGoing,
  decodeIds,
  goingKey,
  type GoingNode,
  groupIdMax,
  groupIdMin,
  groupPrefix,
  type IdRun,
  idsKey,
  type RegistryEntry,
} from "../wire/registry.ts";

export interface RegisteredGroup {
  readonly entry: RegistryEntry;
  /** Index of the registry's log at which it was written. */
  readonly revision: number;
}

/** The keys of `system` as its machine has them. */
export type RegistryState = Pick<StateMachine, "appliedIndex" | "read">;

export class RegistryView {
  #index = 0;
  #groups = new Map<number, RegisteredGroup>();
  #names = new Map<string, number>();
  #runs: readonly IdRun[] = [];
  #idsRevision = 0;
  #going: readonly GoingNode[] = [];
  #goingRevision = 0;
  #unreadable = new Set<number>();
  readonly #told: (id: number) => void;

  /** `told` hears of each group that has changed, come or gone. */
  constructor(told: (id: number) => void = () => {}) {
    this.#told = told;
  }

  /** All that the registry's log says up to here is in it. */
  get index(): number {
    return this.#index;
  }

  get groups(): ReadonlyMap<number, RegisteredGroup> {
    return this.#groups;
  }

  group(id: number): RegisteredGroup | undefined {
    return this.#groups.get(id);
  }

  /** There is such a group, and this build does not understand what the registry says of it: it is left as it is. */
  isUnreadable(id: number): boolean {
    return this.#unreadable.has(id);
  }

  named(name: string): number | undefined {
    return this.#names.get(name);
  }

  /** Ids that were ever given, and where that was written; 0 = nowhere yet. */
  get ids(): { readonly runs: readonly IdRun[]; readonly revision: number } {
    return { runs: this.#runs, revision: this.#idsRevision };
  }

  /** The nodes that leave the cluster, and where that was written; 0 = there are none. */
  get going(): { readonly nodes: readonly GoingNode[]; readonly revision: number } {
    return { nodes: this.#going, revision: this.#goingRevision };
  }

  isGoing(id: number): boolean {
    return this.#going.some((node) => node.id === id);
  }

  refresh(state: RegistryState): void {
    if (state.appliedIndex === this.#index) return;
    this.#index = state.appliedIndex;
    const changed: number[] = [];
    const groups = new Map<number, RegisteredGroup>();
    const names = new Map<string, number>();
    const unreadable = new Set<number>();
    let after: Uint8Array | undefined;
    for (let more = true; more;) {
      const page = readPage(state, after);
      for (const { key, value, revision } of page.items) {
        const id = idOf(key);
        const known = this.#known(id, revision);
        const found = known ?? decoded(id, value, revision);
        after = key;
        if (found === undefined) {
          unreadable.add(id);
          continue;
        }
        const { name } = found.entry;
        if (known === undefined) changed.push(id);
        groups.set(id, found);
        if (name !== undefined) names.set(name, id);
      }
      more = page.more;
    }
    for (const id of this.#groups.keys()) if (!groups.has(id)) changed.push(id);
    this.#groups = groups;
    this.#names = names;
    this.#unreadable = unreadable;
    this.#readIds(state);
    this.#readGoing(state);
    for (const id of changed) this.#told(id);
  }

  #known(id: number, revision: number): RegisteredGroup | undefined {
    const known = this.#groups.get(id);
    return known?.revision === revision ? known : undefined;
  }

  #readIds(state: RegistryState): void {
    const found = valueAt(state, idsKey);
    if (found === undefined || found.revision === this.#idsRevision) return;
    this.#runs = decodeIds(found.value) ?? allIds;
    this.#idsRevision = found.revision;
  }

  #readGoing(state: RegistryState): void {
    const found = valueAt(state, goingKey);
    const revision = found?.revision ?? 0;
    if (revision === this.#goingRevision) return;
    // What this build does not understand is written anew by whoever leads group 0.
    this.#going = (found && decodeGoing(found.value)) ?? [];
    this.#goingRevision = revision;
  }
}

/** Where this build does not understand which ids were given, it gives none. */
const allIds: readonly IdRun[] = [[groupIdMin, groupIdMax]];

/** NaN where it is none. */
function idOf(key: Uint8Array): number {
  let id = 0;
  for (let at = groupPrefix.byteLength; at < key.byteLength; at++) {
    const digit = key[at]! - 48;
    if (digit < 0 || digit > 9) return NaN;
    id = id * 10 + digit;
  }
  return id;
}

function readPage(state: RegistryState, after: Uint8Array | undefined): KvPage {
  const bytes = answerOf(state, encodeKvRange({ prefix: groupPrefix, after, limit: 0 }));
  return (bytes === undefined ? undefined : readKvPage(bytes)) ?? noPage();
}

function noPage(): never {
  throw new Error("registry: the machine does not answer");
}

function valueAt(state: RegistryState, key: Uint8Array): ReturnType<typeof readKvEntry> {
  const bytes = answerOf(state, encodeKvGet(key));
  return bytes === undefined ? undefined : readKvEntry(bytes);
}

/** Undefined where there is nothing. */
function answerOf(state: RegistryState, query: Uint8Array): Uint8Array | undefined {
  let found: Uint8Array | undefined;
  state.read(query, {
    answer: (code, bytes) => {
      if (code === ResultCode.ok) found = bytes?.slice();
    },
  });
  return found;
}

/** Under the key of another group it is no entry either. */
function decoded(id: number, value: Uint8Array, revision: number): RegisteredGroup | undefined {
  const entry = decodeEntry(value);
  return entry?.id === id ? { entry, revision } : undefined;
}
