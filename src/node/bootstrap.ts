/**
 * The first moments of a replica: the identity of a cluster, the first batch of a log, and a core out of what recovery found [26, 36].
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { FatalError } from "../fatal.ts";
import type { Limits } from "../limits.ts";
import { decodeConfiguration, encodeConfiguration } from "../raft/configuration.ts";
import { Raft } from "../raft/raft.ts";
import type { Configuration } from "../raft/ready.ts";
import type { GroupWrite, LogStore, RecoveredGroup } from "../storage/log-store.ts";
import {
  applyVersionBytes,
  BatchKind,
  batchHeaderBytes,
  sealBatch,
  type Batch,
  type HardState,
  type LogStart,
} from "../wire/batch.ts";
import { applyVersionFirst } from "../wire/versions.ts";

/** Term of the first batch, which no leader proposed: every initial member writes the same bytes. */
const bootstrapTerm = 1;

/** 32 hex digits: equal on all nodes that were given the same token and the same initial members. */
export function clusterIdOf(token: string, members: ReadonlyMap<number, string>): string {
  const list = [...members].sort(([a], [b]) => a - b).map(([id, address]) => `${id}=${address}`);
  return createHash("sha256")
    .update(JSON.stringify([token, ...list]))
    .digest("hex")
    .slice(0, 32);
}

/** Shows a cluster that a node which asks to join was given the same token. */
export function tokenHashOf(token: string): string {
  return createHash("sha256")
    .update(JSON.stringify(["barge join", token]))
    .digest("hex")
    .slice(0, 32);
}

/** Start of every crc chain of the cluster: logs of two clusters can never be taken for one another. */
export function seedCrcOf(clusterId: string): number {
  return crc32(clusterId);
}

export function initialConfiguration(members: ReadonlyMap<number, string>): Configuration {
  const voters = [...members.keys()].sort((a, b) => a - b);
  return {
    voters,
    outgoing: [],
    learners: [],
    addresses: Object.fromEntries(members),
  };
}

/** Batch 1 of a group: its initial configuration, byte-identical on all members. */
export function firstBatch(group: number, configuration: Configuration, seedCrc: number): Batch {
  return founding(group, BatchKind.configuration, 1, seedCrc, encodeConfiguration(configuration));
}

function founding(
  group: number,
  kind: BatchKind,
  index: number,
  prevCrc: number,
  body: Uint8Array,
): Batch {
  const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
  bytes.set(body, batchHeaderBytes);
  const place = { firstIndex: index, count: 1, term: bootstrapTerm, timeMs: 0, prevCrc };
  return sealBatch({ group, kind, ...place }, bytes);
}

/** What a replica begins with: to be written, and the same as if it had been recovered. */
export interface FirstLog {
  readonly write: GroupWrite;
  readonly recovered: RecoveredGroup;
}

export interface Founding {
  readonly group: number;
  readonly configuration: Configuration;
  readonly seedCrc: number;
  /** Which the group has from its very beginning, by a batch of its own [16]; the first one, if nothing is said. */
  readonly applyVersion?: number;
  /** Of the registry's entry that makes the replica. */
  readonly registryIndex?: number;
}

/** The first log of a first member: its bytes are those of all others. */
export function foundingLog(first: Founding): FirstLog {
  const { group, configuration, seedCrc, applyVersion = applyVersionFirst } = first;
  const batches = [firstBatch(group, configuration, seedCrc)];
  if (applyVersion > applyVersionFirst) {
    const body = applyVersionBytes(applyVersion).subarray(batchHeaderBytes);
    batches.push(founding(group, BatchKind.applyVersion, 2, batches[0]!.crc, body));
  }
  // All first members have them, so they are committed.
  const hardState = { term: bootstrapTerm, votedFor: 0, commit: batches.length };
  return firstLog(first, hardState, batches);
}

/** A replica that joins has no log, and no configuration until the leader sends it one. */
export function emptyLog(
  place: Omit<Founding, "configuration">,
  /** In earlier ones this node may have been heard as a member before, and has forgotten what it said: whoever still leads in one of them is told of this one. */
  term = 0,
): FirstLog {
  return firstLog(place, { term, votedFor: 0, commit: 0 }, []);
}

function firstLog(
  { group, seedCrc, registryIndex }: Omit<Founding, "configuration">,
  hardState: HardState,
  batches: readonly Batch[],
): FirstLog {
  return {
    write: { group, hardState, append: batches, registryIndex },
    recovered: {
      hardState,
      start: veryStart(seedCrc),
      startConfiguration: new Uint8Array(0),
      machineGeneration: 0,
      registryIndex: registryIndex ?? 0,
      wound: undefined,
      batches: batches.map(({ bytes, firstIndex, count, term, timeMs, crc }) => ({
        firstIndex,
        count,
        term,
        bytes: bytes.byteLength,
        timeMs,
        crc,
      })),
      configurations: batches.filter(({ kind }) => kind === BatchKind.configuration),
    },
  };
}

/**
 * Writes the first batch of a group that has no log yet. The caller makes it durable (one sync of the store) before the group's core acts;
 * until then nothing may leave this node.
 */
export function bootstrapGroup(
  store: LogStore,
  group: number,
  configuration: Configuration,
  seedCrc: number,
): RecoveredGroup {
  return written(store, foundingLog({ group, configuration, seedCrc }));
}

/** As above, for a node that joins. */
export function joiningGroup(store: LogStore, group: number, seedCrc: number): RecoveredGroup {
  return written(store, emptyLog({ group, seedCrc }));
}

function written(store: LogStore, { write, recovered }: FirstLog): RecoveredGroup {
  store.append([write]);
  return recovered;
}

/**
 * What can be used of a replica: with its newest records a damaged log may have lost which file its state machine is, and then it may begin above all
 * that the machine has. Nothing of such a log is of use, and the leader sends everything again [22].
 */
function usableReplica({ store, group, recovered, appliedIndex }: CoreOptions): RecoveredGroup {
  const { wound, start } = recovered;
  if (wound === undefined || appliedIndex >= start.index) return recovered;
  return {
    ...recovered,
    start: store.empty(group),
    startConfiguration: new Uint8Array(0),
    batches: [],
    configurations: [],
  };
}

/**
 * The machine's file is gone, or an old one is in its place, and what it lacks the log has dropped: the replica is wounded, and the leader sends the
 * state again [22]. Throws FatalError where there is no other member to send it.
 */
export function withoutState(
  store: Pick<LogStore, "woundState">,
  group: number,
  recovered: RecoveredGroup,
  appliedIndex: number,
  canHeal: boolean,
): RecoveredGroup {
  const { start, wound } = recovered;
  if (wound !== undefined || appliedIndex >= start.index) return recovered;
  if (!canHeal) {
    throw new FatalError(
      "below_watermark",
      `The state of group ${group} ends at index ${appliedIndex}, and its log begins behind ${start.index}: files are missing in machine/${group} of the data folder. There is no other member to fetch them from. Bring the folder's files back whole, or restore a backup into a new cluster.`,
    );
  }
  return { ...recovered, wound: store.woundState(group) };
}

/** What to do where the log is whole and the state machine's files are not. */
export function machineAdvice(path: string): string {
  return `Bring the files in ${path} back whole; or, where there are other members, stop this node, move that folder away and start again: the state is made anew from the log, or fetched from the leader.`;
}

/** The state machine's file is there, and cannot be opened. */
export function unreadableState(group: number, path: string, why: string): FatalError {
  return new FatalError(
    "corrupt_data",
    `The state of group ${group} cannot be read: ${why}. ${machineAdvice(path)}`,
  );
}

export interface CoreOptions {
  readonly group: number;
  readonly nodeId: number;
  readonly limits: Limits;
  readonly random: () => number;
  readonly store: Pick<LogStore, "empty">;
  readonly recovered: RecoveredGroup;
  readonly appliedIndex: number;
  /** See RaftOptions. */
  readonly formerTerm?: number | undefined;
  /** This node should lead rather than one that does not say so. */
  readonly preferred?: boolean;
}

/** Where the log of a group begins that has none. */
export function veryStart(seedCrc: number): LogStart {
  return { index: 0, term: 0, crc: seedCrc, timeMs: 0 };
}

/** The Raft core of a replica as its log says. Throws InvariantError or FatalError where the log cannot be used. */
export function createCore(options: CoreOptions): Raft {
  const recovered = usableReplica(options);
  if (recovered.wound === undefined && options.appliedIndex < recovered.start.index) {
    throw new FatalError(
      "corrupt_data",
      `The state of group ${options.group} ends at index ${options.appliedIndex}, and its log begins behind ${recovered.start.index}.`,
    );
  }
  return new Raft({
    group: options.group,
    nodeId: options.nodeId,
    limits: options.limits,
    random: options.random,
    hardState: recovered.hardState,
    start: recovered.start,
    startConfiguration: startConfigurationOf(recovered),
    batches: recovered.batches,
    configurations: recovered.configurations,
    appliedIndex: options.appliedIndex,
    preferred: options.preferred ?? false,
    wound: recovered.wound,
    formerTerm: options.formerTerm,
  });
}

function startConfigurationOf(recovered: RecoveredGroup): Configuration {
  const none: Configuration = { voters: [], outgoing: [], learners: [], addresses: {} };
  if (recovered.startConfiguration.byteLength === 0) return none;
  const configuration = decodeConfiguration(recovered.startConfiguration);
  if (configuration === undefined)
    throw new Error("the configuration at the log's start is damaged");
  return configuration;
}
