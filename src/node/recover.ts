/**
 * `barge recover`: a majority of the voters is lost for good, and a survivor becomes the only voter of a new cluster, with all that it has. What others
 * acknowledged without it is not there; what it has not known to be committed is, from now on. So this is for people to decide, who are told what they
 * decide on: `surveyRecovery` looks, `recoverFolder` does it.
 *
 * Where the state machine is an application, that has to run: it is given what the log has beyond it, as ever, and keeps its data.
 *
 * The order makes a crash harmless: first the state machine takes in the log, then the folder gets the new cluster's id, from where on nobody of the
 * old one speaks to it, and last the log begins anew. To run it again completes it.
 */
import { resolve } from "node:path";
import { FatalError } from "../fatal.ts";
import { defaultLimits } from "../limits.ts";
import {
  type AppMachineOptions,
  type AppOptions,
  AppTraffic,
  createMachine,
  HttpConnections,
  isMachineKind,
  KvFiles,
  type MachineKind,
} from "../machine/machines.ts";
import type { ResultSink, StateMachine } from "../machine/machine.ts";
import { type DataDir, openDataDir, storedIdentity } from "../storage/data-dir.ts";
import {
  CorruptBatchError,
  type GroupWrite,
  type LogStore,
  type RecoveredGroup,
} from "../storage/log-store.ts";
import { type Batch, lastIndexOf } from "../wire/batch.ts";
import { defaultGroup, systemGroup } from "../wire/registry.ts";
import { drawOwner, loneConfiguration, startAt, withLog } from "./cluster-of-one.ts";
import { loneGroupConfiguration, registryOfOne } from "./recover-groups.ts";
import { RegistryView } from "./registry-view.ts";
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
  /** Groups whose state an application has. */
  readonly applications: readonly number[];
  readonly damage: readonly string[];
}

export interface RecoverOptions {
  readonly dataDir: string;
  /** `host:port` at which others will reach the node from now on. */
  readonly advertise: string;
  /** Others join with the same. */
  readonly clusterToken: string;
  /** Which runs, where there are groups that need one. */
  readonly app?: AppOptions | undefined;
}

export interface Recovered {
  readonly folder: string;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly index: number;
  /** Groups besides the first that go on as well. */
  readonly groupsKept: number;
  /** Those that had no copy in this folder: they are gone. */
  readonly groupsLost: readonly number[];
  /** Those whose copy here is damaged, and why; they have no leader. */
  readonly groupsDamaged: readonly string[];
}

/** Changes nothing. Throws FatalError where the folder is in use, or cannot be recovered from. */
export function surveyRecovery(dataDir: string): RecoverySurvey {
  const folder = resolve(dataDir);
  const { node, groups, damage, nextStart } = verifyFolder(folder);
  const group = groups.find(({ id }) => id === defaultGroup);
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
    applications: groups.filter(isOfApplication).map(({ id }) => id),
    damage,
  };
}

function isOfApplication({ machine }: GroupReport): boolean {
  return machine?.kind === "http";
}

/** Does it. Throws FatalError. */
export async function recoverFolder(options: RecoverOptions): Promise<Recovered> {
  const folder = resolve(options.dataDir);
  const { groups } = verifyFolder(folder);
  const identity = storedIdentity(folder);
  if (identity === undefined || groups.length === 0) {
    throw new FatalError("wrong_data_dir", `${folder} has no data of a node`);
  }
  const { app } = options;
  const first = groups.find(({ id }) => id === defaultGroup);
  if (app === undefined && first !== undefined && isOfApplication(first)) {
    throw new FatalError("application_lost", withoutApplication);
  }
  const { clusterId: oldClusterId, nodeId } = identity;
  const owner = drawOwner(nodeId, options.clusterToken);
  const dataDir = openDataDir(folder, { clusterId: oldClusterId, nodeId });
  try {
    const done = await withLog(dataDir, oldClusterId, async (store, recovered) => {
      const view = new RegistryView();
      const calls = app && {
        ...app,
        nodeId,
        connections: new HttpConnections(),
        traffic: new AppTraffic(defaultLimits),
      };
      const states = await takeAllIn({ dataDir, store, recovered, app: calls }, groups, view);
      calls?.connections.close();
      dataDir.refound(owner);
      dataDir.peers.forget();
      const { incarnation } = dataDir;
      const { advertise: address } = options;
      const kept = new Set(states.taken.keys());
      let lost: readonly number[] = [];
      const writes: GroupWrite[] = [];
      for (const [group, state] of states.taken) {
        const replica = recovered.get(group)!;
        const start = startAt(owner.clusterId, state);
        const configuration =
          group === defaultGroup
            ? loneConfiguration({ nodeId, incarnation, address })
            : loneGroupConfiguration(nodeId, incarnation);
        if (replica.wound !== undefined) store.heal(group);
        store.compactTo(group, start, configuration);
        const term = Math.max(replica.hardState.term, replica.wound?.hardTerm ?? 0, start.term) + 1;
        let append: readonly Batch[] = [];
        if (group === systemGroup) {
          const host = { id: nodeId, incarnation };
          ({ batches: append, lost } = registryOfOne(view, kept, host, start, term));
        }
        const last = append.at(-1);
        const commit = last === undefined ? start.index : lastIndexOf(last);
        writes.push({ group, hardState: { term, votedFor: 0, commit }, append });
      }
      store.append(writes);
      const groupsKept = [...kept].filter((id) => id !== defaultGroup && id !== systemGroup).length;
      return {
        index: states.taken.get(defaultGroup)!.index,
        groupsKept,
        groupsLost: lost.filter((id) => !states.damaged.has(id)),
        groupsDamaged: [...states.damaged.values()],
      };
    });
    return { folder, clusterId: owner.clusterId, nodeId, ...done };
  } finally {
    dataDir.close();
  }
}

const withoutApplication =
  "an application keeps its state, and may lack what the log has: start that application, with the data that it has, and give --app-url (and --app-sync, if it had that)";

/** The application of all groups that have one. */
type Application = AppOptions & Pick<AppMachineOptions, "nodeId" | "connections" | "traffic">;

/** The folder of a node that is stopped. */
interface Folder {
  readonly dataDir: DataDir;
  readonly store: LogStore;
  readonly recovered: ReadonlyMap<number, RecoveredGroup>;
  readonly app: Application | undefined;
}

interface AllTakenIn {
  readonly taken: ReadonlyMap<number, TakenIn>;
  readonly damaged: ReadonlyMap<number, string>;
}

/** Of all groups; what is damaged of one but the first harms no other. What the registry says is in `view` then. */
async function takeAllIn(
  folder: Folder,
  reports: readonly GroupReport[],
  view: RegistryView,
): Promise<AllTakenIn> {
  const { recovered, app } = folder;
  const taken = new Map<number, TakenIn>();
  const damaged = new Map<number, string>();
  // The registry tells what the others are.
  const first = [defaultGroup, systemGroup].filter((id) => recovered.has(id));
  const others = [...recovered.keys()].filter((id) => !first.includes(id));
  for (const id of [...first, ...others]) {
    const { start, batches } = recovered.get(id)!;
    // It had been given nothing yet.
    if (id !== defaultGroup && start.index === 0 && batches.length === 0) continue;
    const found = reports.find((report) => report.id === id)?.machine?.kind;
    const said = view.group(id)?.entry.machine;
    const kind = found ?? (said !== undefined && isMachineKind(said) ? said : "kv");
    try {
      if (kind === "http" && app === undefined) throw new Error(withoutApplication);
      const look =
        id === systemGroup ? (machine: StateMachine) => view.refresh(machine) : undefined;
      taken.set(id, await takeIn(folder, id, kind, look));
    } catch (error) {
      if (id === defaultGroup) throw error;
      damaged.set(id, `group ${id}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { taken, damaged };
}

interface TakenIn {
  readonly index: number;
  readonly term: number;
  readonly timeMs: number;
}

const applyBytes = 4 * 1024 * 1024;
const applicationWaitMs = 20_000;
const silent = { info: (): void => {}, warn: (): void => {}, error: (): void => {} };
const nobody: ResultSink = { result: () => {}, repeated: () => {}, refused: () => {} };

/** The state machine applies what the log has beyond it, up to the first batch that is damaged, and makes it durable. */
async function takeIn(
  { dataDir, store, recovered, app }: Folder,
  id: number,
  kind: MachineKind,
  look: ((machine: StateMachine) => void) | undefined,
): Promise<TakenIn> {
  const { machineGeneration: generation, start, batches, wound } = recovered.get(id)!;
  const last = batches.at(-1);
  const lastIndex = last === undefined ? start.index : last.firstIndex + last.count - 1;
  const files = new KvFiles({ limits: defaultLimits });
  const machine = createMachine(kind, {
    directory: dataDir.machinePath(id),
    generation,
    files,
    limits: defaultLimits,
    nowMs: () => performance.now(),
    app: app && {
      ...app,
      group: id,
      logger: silent,
      wake: () => {},
      logStart: () => start.index,
      logIndex: lastIndex,
      isWounded: wound !== undefined,
    },
  });
  try {
    if (machine.open() < start.index) throw new Error("its state is behind the start of its log");
    machine.allowDurable(lastIndex);
    const patience = new Patience();
    await applyTo(machine, patience, store, id, lastIndex);
    machine.flush();
    while (machine.durableIndex < machine.appliedIndex || machine.absence !== undefined) {
      await workOn(machine, patience);
    }
    look?.(machine);
    const index = machine.appliedIndex;
    return { index, term: last?.term ?? start.term, timeMs: clusterTimeOf(machine) };
  } finally {
    machine.close();
    files.close();
  }
}

async function applyTo(
  machine: StateMachine,
  patience: Patience,
  store: LogStore,
  id: number,
  lastIndex: number,
): Promise<void> {
  let endIndex = lastIndex;
  while (machine.appliedIndex < endIndex) {
    try {
      if (machine.takesBatches === false) {
        await workOn(machine, patience);
        continue;
      }
      const from = machine.appliedIndex + 1;
      const batches = store.batches(id, from, endIndex, applyBytes);
      if (machine.apply(batches, nobody) < batches.length) await workOn(machine, patience);
    } catch (error) {
      if (!(error instanceof CorruptBatchError)) throw error;
      endIndex = error.firstIndex - 1;
    }
  }
}

function clusterTimeOf(machine: StateMachine): number {
  return machine.figures()["clusterTimeMs"] ?? 0;
}

/** For an application that has to answer. */
class Patience {
  #sinceMs: number | undefined;

  /** Throws FatalError where it has been out for too long. */
  look({ absence }: StateMachine, nowMs: number): void {
    if (absence === undefined) this.#sinceMs = undefined;
    else this.#sinceMs ??= nowMs;
    if (nowMs - (this.#sinceMs ?? nowMs) < applicationWaitMs) return;
    throw new FatalError("application_lost", `the application is waited for: ${absence?.reason}`);
  }
}

/** A slice of its flush, which goes on in a Worker; or an application answers. */
async function workOn(machine: StateMachine, patience: Patience): Promise<void> {
  const nowMs = performance.now();
  machine.work(nowMs);
  patience.look(machine, nowMs);
  await Bun.sleep(1);
}
