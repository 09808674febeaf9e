/**
 * What `barge recover` does about groups besides the first: those that have a copy in the folder go on with this node as their only voter, as group 0 does, and the
 * registry says so from its next entries on. Those that have none are gone, and their ids with them.
 */
import { encodeConfiguration } from "../raft/configuration.ts";
import { type Batch, BatchKind, batchHeaderBytes, sealBatch } from "../wire/batch.ts";
import type { LogStart } from "../wire/batch.ts";
import { encodeKvDelete, encodeKvPut } from "../wire/kv.ts";
import {
  encodeEntry,
  groupKey,
  type GroupMember,
  nameKey,
  type RegistryEntry,
  systemGroup,
} from "../wire/registry.ts";
import { plainSection } from "../wire/section.ts";
import { placeholderAddress } from "./group-members.ts";
import type { RegistryView } from "./registry-view.ts";

/** The configuration of such a group: where the node is reached group 0 says. */
export function loneGroupConfiguration(nodeId: number, incarnation: string): Uint8Array {
  return encodeConfiguration({
    voters: [nodeId],
    outgoing: [],
    learners: [],
    addresses: { [nodeId]: placeholderAddress(nodeId) },
    incarnations: { [nodeId]: incarnation },
  });
}

export interface RegistryOfOne {
  /** They follow on the log's new start. */
  readonly batches: readonly Batch[];
  readonly lost: readonly number[];
}

/** Commands of one batch. */
const commandsPerBatch = 256;

/** The registry with this folder as the only member of all that it has. */
export function registryOfOne(
  view: RegistryView,
  kept: ReadonlySet<number>,
  host: Pick<GroupMember, "id" | "incarnation">,
  start: LogStart,
  term: number,
): RegistryOfOne {
  const lost: number[] = [];
  const commands: Uint8Array[] = [];
  for (const { entry } of view.groups.values()) {
    const { id, name } = entry;
    if (kept.has(id)) commands.push(encodeKvPut(groupKey(id), encodeEntry(ofOne(entry, host))));
    else {
      lost.push(id);
      commands.push(encodeKvDelete(groupKey(id)));
      if (name !== undefined) commands.push(encodeKvDelete(nameKey(name)));
    }
  }
  const batches: Batch[] = [];
  let { index, crc } = start;
  for (let at = 0; at < commands.length; at += commandsPerBatch) {
    const some = commands.slice(at, at + commandsPerBatch);
    const section = plainSection(some);
    const bytes = new Uint8Array(batchHeaderBytes + section.byteLength);
    bytes.set(section, batchHeaderBytes);
    const { timeMs } = start;
    const place = { firstIndex: index + 1, count: some.length, term, timeMs, prevCrc: crc };
    const batch = sealBatch({ group: systemGroup, kind: BatchKind.commands, ...place }, bytes);
    batches.push(batch);
    index += some.length;
    ({ crc } = batch);
  }
  return { batches, lost };
}

function ofOne(entry: RegistryEntry, host: Pick<GroupMember, "id" | "incarnation">): RegistryEntry {
  const version = entry.version + 1;
  const members = [{ id: host.id, incarnation: host.incarnation, since: version }];
  return { ...entry, members, leaving: [], former: undefined, version };
}
