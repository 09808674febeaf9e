/**
 * Runs the whole recovery on folders and holds what it finds against what was promised: a line of JSON each way, `{ folder, expectation }` in,
 * what is wrong or what was found out. A process of its own, because the storage's threads are never ended.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { lastIndexOf } from "../../src/wire/batch.ts";
import { ResultCode, type StateMachine } from "../../src/machine/machine.ts";
import { encodeKvGet, readKvEntry } from "../../src/wire/kv.ts";
import { Answers, Results } from "../machine/log.ts";
import type { Expectation, FoundState } from "./promises.ts";
import {
  closeStorageNode,
  group,
  noStart,
  openStorageNode,
  stateKey,
  type StorageNode,
} from "./storage-node.ts";

export interface ImageTask {
  /** What is above the data folder. */
  readonly folder: string;
  readonly bootId: number;
  readonly expectation: Expectation;
}

export interface ImageVerdict extends FoundState {
  /** Empty where all is well. */
  readonly wrong: string;
}

const noHardState = { term: 0, votedFor: 0, commit: 0 };

async function judge({ folder, bootId, expectation }: ImageTask): Promise<ImageVerdict> {
  let node: StorageNode;
  try {
    node = await openStorageNode(join(folder, "node"), bootId);
  } catch (error) {
    const wrong = expectation.rotten ? "" : `does not open: ${String(error)}`;
    return { wrong, state: "", commit: 0, generation: 0 };
  }
  const found = foundIn(node);
  let wrong: string | undefined;
  try {
    wrong = differs(node, found.state, expectation);
  } catch (error) {
    wrong = expectation.rotten ? undefined : `cannot be read: ${String(error)}`;
  }
  closeStorageNode(node);
  return { wrong: wrong ?? "", ...found };
}

function foundIn({ recovered }: StorageNode): FoundState {
  const {
    hardState = noHardState,
    start = noStart,
    batches = [],
    machineGeneration: generation = 0,
  } = recovered ?? {};
  const last = batches.at(-1);
  const end =
    last === undefined ? start : { index: last.firstIndex + last.count - 1, crc: last.crc };
  return { state: stateKey(hardState, end, generation), commit: hardState.commit, generation };
}

function differs(node: StorageNode, state: string, expected: Expectation): string | undefined {
  const { dataDir, recovered, machine, store, damage } = node;
  const { states, incarnation } = expected;
  if (states.length > 0 && !states.includes(state)) {
    return `the log is at ${state}; it had come to ${states[0]!}, and at most to ${states.at(-1)!}`;
  }
  if (recovered?.wound !== undefined) return `wounded: ${JSON.stringify(recovered.wound)}`;
  if (damage.length > 0 && !expected.rotten) return `reports damage: ${damage.join("; ")}`;
  if (incarnation !== undefined && dataDir.incarnation !== incarnation) {
    return `the folder was ${incarnation} and is ${dataDir.incarnation}`;
  }
  for (const [peer, its] of expected.met) {
    if (dataDir.peers.incarnationOf(peer) !== its) return `peer ${peer} is forgotten`;
  }
  if (expected.formed && !dataDir.peers.formed) return "the cluster had formed, and has not";
  if (dataDir.applyVersion < expected.applyVersion) return "the apply version went back";

  const term = recovered?.hardState.term ?? 0;
  if (term < expected.term) return `the term is ${term}, and was ${expected.term}`;

  const generation = recovered?.machineGeneration ?? 0;
  const least = new Map(expected.durable).get(generation) ?? 0;
  const { appliedIndex } = machine;
  if (appliedIndex < least) return `the machine is at ${appliedIndex}, ${least} was durable`;
  const start = recovered?.start ?? noStart;
  if (appliedIndex < start.index) {
    return `the log begins after ${start.index}, the machine ends at ${appliedIndex}`;
  }
  const end = recovered?.batches.at(-1);
  if (appliedIndex > (end === undefined ? start.index : end.firstIndex + end.count - 1)) {
    return `the machine is at ${appliedIndex}, ahead of its log`;
  }
  const hashes = new Map(expected.hashes);
  const results = new Results();
  const expectHash = (): string | undefined => {
    const known = hashes.get(machine.appliedIndex);
    if (known === undefined || known === machine.stateHash) return undefined;
    return `the machine's hash at ${machine.appliedIndex} is ${machine.stateHash}, it was ${known}`;
  };
  const wrong = expectHash();
  if (wrong !== undefined) return wrong;
  // Every batch can be read, and with those that are committed the machine comes to where it was.
  for (const batch of store.batches(group, start.index + 1, Number.MAX_SAFE_INTEGER, Infinity)) {
    const last = lastIndexOf(batch);
    if (last <= machine.appliedIndex) continue;
    const isCommitted = last <= (recovered?.hardState.commit ?? 0) && hashes.has(last);
    // A daemon that is alone commits what it finds.
    if (states.length > 0 && !isCommitted) break;
    machine.apply([batch], results);
    const differs = expectHash();
    if (differs !== undefined) return differs;
  }
  return writesMissing(machine, expected);
}

function writesMissing(machine: StateMachine, { written }: Expectation): string | undefined {
  const answers = new Answers();
  for (const [key, value, revision] of written) {
    machine.read(encodeKvGet(new TextEncoder().encode(key)), answers);
    const found = answers.code === ResultCode.ok ? readKvEntry(answers.bytes) : undefined;
    if (found === undefined || found.revision < revision) {
      return `${key} was acknowledged at ${revision}, and is at ${found?.revision ?? 0}`;
    }
    const text = new TextDecoder().decode(found.value);
    if (found.revision === revision && text.replace(/\.*$/, "") !== value) {
      return `${key} at ${revision} is ${text.slice(0, 40)}, not ${value}`;
    }
  }
  return undefined;
}

if (import.meta.main) {
  for await (const line of console) {
    const task = JSON.parse(line) as ImageTask;
    const verdict = await judge(task);
    rmSync(task.folder, { recursive: true, force: true });
    process.stdout.write(`${JSON.stringify(verdict)}\n`);
  }
  process.exit(0);
}
