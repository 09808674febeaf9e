/**
 * `barge recover`: a majority of the voters is lost for good, and a survivor becomes the only voter of a new cluster, with all that it has. What others
 * acknowledged without it is not there; what it has not known to be committed is, from now on. So this is for people to decide, who are told what they
 * decide on: `surveyRecovery` looks, `recoverFolder` does it.
 *
 * The order makes a crash harmless: first the state machine takes in the log, then the folder gets the new cluster's id, from where on nobody of the
 * old one speaks to it, and last the log begins anew. To run it again completes it.
 */
import { resolve } from "node:path";
import { FatalError } from "../fatal.ts";
import { defaultLimits } from "../limits.ts";
import { createMachine, KvFiles, type MachineKind } from "../machine/machines.ts";
import type { ResultSink, StateMachine } from "../machine/machine.ts";
import { type DataDir, openDataDir, storedIdentity } from "../storage/data-dir.ts";
import { CorruptBatchError, type LogStore, type RecoveredGroup } from "../storage/log-store.ts";
import { defaultGroup, drawOwner, loneConfiguration, startAt, withLog } from "./cluster-of-one.ts";
import { type GroupReport, verifyFolder } from "./verify.ts";

/** What is known before anything is changed. */
export interface RecoverySurvey {
  readonly folder: string;
  readonly nodeId: number;
  readonly clusterId: string;
  readonly address: string;
  /** Voters that are given up. */
  readonly others: readonly number[];
  readonly lastTerm: number;
  /** All up to here is kept. */
  readonly lastIndex: number;
  /** Known to be committed up to here; what follows may be news to those who wrote it. */
  readonly commitIndex: number;
  /** Up to here the folder had more, which it lost itself. */
  readonly lostTo?: number;
  readonly damage: readonly string[];
}

export interface RecoverOptions {
  readonly dataDir: string;
  /** `host:port` at which others will reach the node from now on. */
  readonly advertise: string;
  /** Others join with the same. */
  readonly clusterToken: string;
}

export interface Recovered {
  readonly folder: string;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly index: number;
}

/** Changes nothing. Throws FatalError where the folder is in use, or cannot be recovered from. */
export function surveyRecovery(dataDir: string): RecoverySurvey {
  const folder = resolve(dataDir);
  const { node, groups, damage, nextStart } = verifyFolder(folder);
  const [group] = groups;
  if (node === undefined || group === undefined) {
    throw new FatalError("wrong_data_dir", `${folder} has no data of a node: ${nextStart.text}`);
  }
  const applied = group.machine?.appliedIndex ?? 0;
  const readable = Math.min(group.lastIndex, (group.damagedAt ?? Infinity) - 1);
  const lastIndex = Math.max(readable, applied);
  if (applied + 1 < group.firstIndex) {
    throw new FatalError(
      "corrupt_data",
      `the state machine's file has come to ${applied}, and the log begins at ${group.firstIndex}: what is between them is lost here. Recover from another node, or restore a backup`,
    );
  }
  if (group.machine?.damage !== undefined) {
    throw new FatalError(
      "corrupt_data",
      `the state machine's file is damaged: ${group.machine.damage}. Recover from another node, or restore a backup`,
    );
  }
  const lostTo = Math.max(group.wounded?.index ?? 0, group.lastIndex);
  return {
    folder,
    nodeId: node.nodeId,
    clusterId: node.clusterId,
    address: group.addresses[node.nodeId] ?? "",
    others: group.voters.filter((id) => id !== node.nodeId),
    lastTerm: group.lastTerm,
    lastIndex,
    commitIndex: Math.min(lastIndex, Math.max(group.commitIndex, applied)),
    ...(lostTo > lastIndex ? { lostTo } : {}),
    damage,
  };
}

/** Does it. Throws FatalError. */
export async function recoverFolder(options: RecoverOptions): Promise<Recovered> {
  const folder = resolve(options.dataDir);
  const { groups } = verifyFolder(folder);
  const identity = storedIdentity(folder);
  if (identity === undefined || groups.length === 0) {
    throw new FatalError("wrong_data_dir", `${folder} has no data of a node`);
  }
  if (kindOf(groups[0]!) === "http") {
    throw new FatalError(
      "wrong_data_dir",
      `the state of ${folder} is an application's, and only a cluster that has its majority can bring that up to date. Bring the folders of the other members back`,
    );
  }
  const { clusterId: oldClusterId, nodeId } = identity;
  const owner = drawOwner(nodeId, options.clusterToken);
  const dataDir = openDataDir(folder, { clusterId: oldClusterId, nodeId });
  try {
    const index = await withLog(dataDir, oldClusterId, async (store, recovered) => {
      const replica = recovered.get(defaultGroup)!;
      const state = await takeIn(dataDir, store, replica, kindOf(groups[0]!));
      dataDir.refound(owner);
      dataDir.peers.forget();
      const start = startAt(owner.clusterId, state);
      const { incarnation } = dataDir;
      const { advertise: address } = options;
      if (replica.wound !== undefined) store.heal(defaultGroup);
      store.compactTo(defaultGroup, start, loneConfiguration({ nodeId, incarnation, address }));
      const term = Math.max(replica.hardState.term, replica.wound?.hardTerm ?? 0, start.term) + 1;
      const hardState = { term, votedFor: 0, commit: start.index };
      store.append([{ group: defaultGroup, hardState, append: [] }]);
      return start.index;
    });
    return { folder, clusterId: owner.clusterId, nodeId, index };
  } finally {
    dataDir.close();
  }
}

function kindOf({ machine }: GroupReport): MachineKind {
  return machine?.kind ?? "kv";
}

interface TakenIn {
  readonly index: number;
  readonly term: number;
  readonly timeMs: number;
}

const applyBytes = 4 * 1024 * 1024;
const nobody: ResultSink = { result: () => {}, repeated: () => {}, refused: () => {} };

/** The state machine applies what the log has beyond it, up to the first batch that is damaged, and makes it durable. */
async function takeIn(
  dataDir: DataDir,
  store: LogStore,
  { machineGeneration: generation, start, batches }: RecoveredGroup,
  kind: MachineKind,
): Promise<TakenIn> {
  const files = new KvFiles({ limits: defaultLimits });
  const machine = createMachine(kind, {
    directory: dataDir.machinePath(defaultGroup),
    generation,
    files,
    limits: defaultLimits,
    nowMs: () => performance.now(),
  });
  try {
    machine.open();
    const last = batches.at(-1);
    const lastIndex = last === undefined ? start.index : last.firstIndex + last.count - 1;
    machine.allowDurable(lastIndex);
    await applyTo(machine, store, lastIndex);
    machine.flush();
    while (machine.durableIndex < machine.appliedIndex) await workOn(machine);
    const index = machine.appliedIndex;
    return { index, term: last?.term ?? start.term, timeMs: clusterTimeOf(machine) };
  } finally {
    machine.close();
    files.close();
  }
}

async function applyTo(machine: StateMachine, store: LogStore, lastIndex: number): Promise<void> {
  let endIndex = lastIndex;
  while (machine.appliedIndex < endIndex) {
    try {
      const from = machine.appliedIndex + 1;
      const batches = store.batches(defaultGroup, from, endIndex, applyBytes);
      if (machine.apply(batches, nobody) < batches.length) await workOn(machine);
    } catch (error) {
      if (!(error instanceof CorruptBatchError)) throw error;
      endIndex = error.firstIndex - 1;
    }
  }
}

function clusterTimeOf(machine: StateMachine): number {
  return machine.figures()["clusterTimeMs"] ?? 0;
}

/** A slice of its flush, which goes on in a Worker. */
async function workOn(machine: StateMachine): Promise<void> {
  machine.work(performance.now());
  await Bun.sleep(1);
}
