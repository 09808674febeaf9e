/**
 * What the registry says, by the history of `system` that all nodes apply: which groups there are and were, and which nodes each names. Against it the
 * coming and going of replicas is judged: nothing but an entry makes one, nothing but an entry takes it away, and an id never comes back.
 */
import type { ReplicaRecord } from "../../src/storage/records.ts";
import { decodeEntry, groupPrefix, type RegistryEntry } from "../../src/wire/registry.ts";
import { Violation } from "./invariants.ts";

/** What an entry became at an index of the registry's log; undefined = the group was removed. */
interface Version {
  readonly index: number;
  readonly entry: RegistryEntry | undefined;
}

export interface RegistryEvents {
  /** A group is there from now on. */
  readonly created: (entry: RegistryEntry) => void;
  readonly changed: (entry: RegistryEntry) => void;
  readonly removed: (id: number) => void;
}

const prefix = new TextDecoder().decode(groupPrefix);

export class RegistryJudge {
  readonly #versions = new Map<number, Version[]>();
  readonly #events: RegistryEvents;

  constructor(events: RegistryEvents) {
    this.#events = events;
  }

  /** A key of `system` is written, or deleted, by the command at that index. */
  written(key: string, value: Uint8Array | undefined, index: number): void {
    if (!key.startsWith(prefix)) return;
    const id = Number(key.slice(prefix.length));
    const versions = this.#versions.get(id) ?? [];
    const before = versions.at(-1);
    const entry = value === undefined ? undefined : decodeEntry(value);
    if (value !== undefined && entry?.id !== id) {
      throw new Violation(`the registry has a malformed entry of group ${id} at ${index}`);
    }
    if (before !== undefined && before.entry === undefined) {
      throw new Violation(`group ${id} was removed at ${before.index} and comes back at ${index}`);
    }
    const version = before?.entry?.version ?? 0;
    if (entry !== undefined && entry.version !== version + 1) {
      throw new Violation(`group ${id} goes from version ${version} to ${entry.version}`);
    }
    this.#versions.set(id, [...versions, { index, entry }]);
    if (entry === undefined) this.#events.removed(id);
    else if (before === undefined) this.#events.created(entry);
    else this.#events.changed(entry);
  }

  /** As it is now; undefined where there is no such group, or not any more. */
  entry(id: number): RegistryEntry | undefined {
    return this.#versions.get(id)?.at(-1)?.entry;
  }

  /** Of the registry's log: where it became what it is. */
  indexOf(id: number): number {
    return this.#versions.get(id)?.at(-1)?.index ?? 0;
  }

  wasThere(id: number): boolean {
    return this.#versions.has(id);
  }

  get entries(): RegistryEntry[] {
    return [...this.#versions.keys()].flatMap((id) => this.entry(id) ?? []);
  }

  /**
   * A node's log says that it has a replica from now on, or has none any more. Returns the term up to which it may have been heard as a member before: of
   * that it has forgotten everything.
   */
  replica(node: number, group: number, { removed, registryIndex }: ReplicaRecord): number {
    const version = this.#versions.get(group)?.findLast(({ index }) => index <= registryIndex);
    const isNamed = names(version?.entry, node);
    if (!removed && (version?.index !== registryIndex || !isNamed)) {
      throw new Violation(
        `node ${node} makes a replica of group ${group} by the registry's entry at ${registryIndex}, which ${version?.index === registryIndex ? "names others" : "there is not"}`,
      );
    }
    if (removed && isNamed) {
      throw new Violation(
        `node ${node} takes away its replica of group ${group} as of ${registryIndex}, when the registry named it`,
      );
    }
    return version?.entry?.members.find(({ id }) => id === node)?.aboveTerm ?? 0;
  }
}

/** It is a member, or on its way out. */
export function names(entry: RegistryEntry | undefined, node: number): boolean {
  if (entry === undefined) return false;
  return [...entry.members, ...entry.leaving].some(({ id }) => id === node);
}
