/**
 * A life of the storage of a node, run under strace by crash images: `storage-life.ts FOLDER SEED STEPS [kill]`. It does what a node does, in an order
 * drawn from the seed: appends, votes, truncations, syncs, flushes, checkpoints, compaction, rotation, snapshots taken over, what is noted of
 * peers. What it promises it says as marks, each once the storage has called it durable. With `kill` it ends in the midst of it all, for another
 * one to go on.
 */
import { mkdirSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import type { MachineSnapshot, StateMachine } from "../../src/machine/machine.ts";
import { createMachine } from "../../src/machine/machines.ts";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import {
  BatchKind,
  batchHeaderBytes,
  lastIndexOf,
  sealBatch,
  type Batch,
  type LogStart,
} from "../../src/wire/batch.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { plainSection } from "../../src/wire/section.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { Results } from "../machine/log.ts";
import { Random } from "../sim/random.ts";
import type { Mark } from "./promises.ts";
import {
  closeStorageNode,
  group,
  limits,
  nodeId,
  noStart,
  openStorageNode,
  stateKey,
} from "./storage-node.ts";

const chunkBytes = 16_384;
const flushMsMax = 40;
/** How long the log's pointer to a snapshot may be without a sync. */
const pointerMsMax = 5;
const configuration = encodeConfiguration({
  voters: [nodeId],
  outgoing: [],
  learners: [],
  addresses: { [nodeId]: "localhost:1" },
});

const [folder = "", seedText = "1", stepsText = "100", end] = process.argv.slice(2);
const seed = Number(seedText);
const random = new Random(seed);
const results = new Results();
const encoder = new TextEncoder();

function mark(said: Mark): void {
  writeSync(1, `mark ${JSON.stringify(said)}\n`);
}
const did = (what: string): void => mark({ kind: "did", what });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const node = await openStorageNode(folder, seed);
const { dataDir, store, machine } = node;
mark({ kind: "incarnation", incarnation: dataDir.incarnation });

let hardState = node.recovered?.hardState ?? { term: 0, votedFor: 0, commit: 0 };
let start: LogStart = node.recovered?.start ?? noStart;
let generation = node.recovered?.machineGeneration ?? 0;
/** The live log. */
let batches = store.batches(group, start.index + 1, Number.MAX_SAFE_INTEGER, Infinity);
let commit = machine.appliedIndex;
/** The log's end that is durable, and the number of that state. */
let syncedIndex = endOf().index;
/** Far from those of the life before. */
let stateNumber = seed * 1_000_000;
/** Which state the log is in after which record of its stream. */
let appended = [{ appendSeq: store.appendSeq, number: stateNumber }];
let durableSaid = -1;
let helpers = 0;
let timeMs = batches.at(-1)?.timeMs ?? start.timeMs;

function endOf(): LogStart {
  const last = batches.at(-1);
  if (last === undefined) return start;
  return { index: lastIndexOf(last), term: last.term, crc: last.crc, timeMs: last.timeMs };
}

function announce(): void {
  mark({ kind: "state", number: ++stateNumber, key: stateKey(hardState, endOf(), generation) });
}

// All that was found is durable by now, also what the life before had not synced.
announce();
mark({ kind: "synced", number: stateNumber });

function makeBatch(after: LogStart, term: number): Batch {
  const kind = random.chance(0.05) ? BatchKind.configuration : BatchKind.commands;
  const commands = Array.from({ length: random.between(1, 4) }, () => {
    const key = encoder.encode(`key-${random.below(200)}`);
    return encodeKvPut(
      key,
      new Uint8Array(random.pick([8, 100, 1_500, 6_000])).fill(random.below(256)),
    );
  });
  const body = kind === BatchKind.configuration ? configuration : plainSection(commands);
  const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
  bytes.set(body, batchHeaderBytes);
  timeMs = Math.max(timeMs, after.timeMs) + random.below(5);
  const count = kind === BatchKind.configuration ? 1 : commands.length;
  const firstIndex = after.index + 1;
  return sealBatch({ group, kind, firstIndex, count, term, timeMs, prevCrc: after.crc }, bytes);
}

/** Batches that follow on a place, one after the other. */
function makeRun(after: LogStart, term: number, count: number): Batch[] {
  const run: Batch[] = [];
  let at = after;
  for (let i = 0; i < count; i++) {
    const batch = makeBatch(at, term);
    run.push(batch);
    at = { index: lastIndexOf(batch), term, crc: batch.crc, timeMs: batch.timeMs };
  }
  return run;
}

/** One transaction: perhaps another term, vote or commit, perhaps in place of a suffix that is not committed. */
function append(): void {
  let { term, votedFor } = hardState;
  const isNewTerm = term === 0 || random.chance(0.05);
  if (isNewTerm) {
    term += random.between(1, 3);
    votedFor = random.pick([0, 1, 2, 3]);
  } else if (votedFor === 0 && random.chance(0.3)) {
    votedFor = random.pick([1, 2, 3]);
  }
  const changed = term !== hardState.term || votedFor !== hardState.votedFor;
  const count = random.chance(0.2) ? 0 : random.between(1, 3);
  if (count > 0 && isNewTerm && random.chance(0.5)) {
    const kept = batches.filter((batch) => lastIndexOf(batch) <= commit);
    if (kept.length < batches.length) {
      batches = batches.slice(0, random.between(kept.length, batches.length - 1));
      did("truncation");
    }
  }
  const run = makeRun(endOf(), term, count);
  batches.push(...run);
  if (!changed && random.chance(0.8) && count === 0) return;
  hardState = { term, votedFor, commit };
  syncedIndex = Math.min(syncedIndex, (run[0]?.firstIndex ?? Infinity) - 1);
  announce();
  appended.push({
    appendSeq: store.append([{ group, hardState, append: run }]),
    number: stateNumber,
  });
  if (changed) did("vote");
}

function sync(): void {
  const { index, crc } = endOf();
  store.sync((syncedSeq) => {
    const covered = appended.findLast(({ appendSeq }) => appendSeq <= syncedSeq)!;
    appended = appended.slice(appended.indexOf(covered));
    mark({ kind: "synced", number: covered.number });
    // Unless it was replaced meanwhile.
    const still = batches.find((batch) => lastIndexOf(batch) === index);
    if (still?.crc === crc || start.index >= index) syncedIndex = Math.max(syncedIndex, index);
  });
}

async function synced(): Promise<void> {
  const target = store.appendSeq;
  while (store.syncedSeq < target) {
    sync();
    await turn();
  }
}

/** A leader can commit by what the others have, ahead of its own disk. */
function apply(until = random.chance(0.3) ? Infinity : syncedIndex): void {
  const ends = batches.map(lastIndexOf).filter((index) => index > commit && index <= until);
  if (ends.length > 0) commit = random.pick(ends);
  applyOn(machine, batches, commit);
}

/** Each step is told, so that the hash is known wherever a flush may fall. */
function applyOn(
  on: StateMachine,
  log: readonly Batch[],
  until: number,
  tell: (said: Mark) => void = mark,
): void {
  for (const batch of log) {
    const last = lastIndexOf(batch);
    if (last <= on.appliedIndex || last > until) continue;
    if (on.apply([batch], results) === 0) return;
    tell({ kind: "applied", index: on.appliedIndex, hash: on.stateHash });
  }
}

function work(on: StateMachine = machine): void {
  if (on === machine) machine.allowDurable(Math.min(commit, syncedIndex));
  on.work(performance.now());
  if (on !== machine || machine.durableIndex === durableSaid) return;
  durableSaid = machine.durableIndex;
  mark({ kind: "durable", index: durableSaid, generation });
}

async function workUntil(on: StateMachine, isDone: () => boolean): Promise<void> {
  while (!isDone()) {
    work(on);
    await turn();
  }
}

/** Up to some batch that the machine has on the disk. */
function compact(): void {
  const covered = batches.filter((batch) => lastIndexOf(batch) <= machine.durableIndex);
  const last = covered.at(-random.between(1, 3));
  if (last === undefined) return;
  start = { index: lastIndexOf(last), term: last.term, crc: last.crc, timeMs: last.timeMs };
  batches = batches.slice(batches.indexOf(last) + 1);
  store.compactTo(group, start, configuration);
  did("compaction");
}

async function snapshotOf(on: StateMachine): Promise<MachineSnapshot | undefined> {
  let found: MachineSnapshot | null | undefined;
  on.prepareSnapshot((snapshot) => (found = snapshot ?? null));
  await workUntil(on, () => found !== undefined);
  return found ?? undefined;
}

/** What is read from one machine is received by the other; it is not live yet. */
async function transfer(from: MachineSnapshot, to: StateMachine) {
  const { index, bytes } = from;
  const incoming = to.receiveSnapshot(bytes)!;
  let digest = 0;
  for (let offset = 0; offset < bytes; offset += chunkBytes) {
    const length = Math.min(chunkBytes, bytes - offset);
    const part = await new Promise<Uint8Array>((done) =>
      from.read(offset, length, (bytes) => done(bytes!)),
    );
    digest = nextDigest(digest, crc32(part));
    const ok = await new Promise<boolean>((done) =>
      incoming.write(offset, new Uint8Array(part), done),
    );
    if (!ok) throw new Error("a chunk was not written");
  }
  const proof = { index, bytes, chunkBytes, digest, applyVersionMax: 2 };
  const whole = await new Promise<boolean>((done) => incoming.finish(proof, done));
  if (!whole || !incoming.open()) throw new Error("a snapshot was not taken");
  return incoming;
}

/** A node far behind: another one's machine, which has gone further, takes the place of log and machine. */
async function install(): Promise<void> {
  await synced();
  apply();
  machine.flush();
  await workUntil(machine, () => machine.durableIndex >= machine.appliedIndex);
  const own = machine.durableIndex === 0 ? undefined : await snapshotOf(machine);
  if (own === undefined) return;
  const directory = join(dirname(folder), "..", `helper-${seed}-${++helpers}`);
  mkdirSync(directory, { recursive: true });
  const nowMs = (): number => performance.now();
  const helper = createMachine("kv", { directory, files: node.files, limits, nowMs });
  helper.open();
  helper.recoverFromSnapshot(await transfer(own, helper));
  helper.snapshotDurable();
  own.release();
  if (random.chance(0.3)) {
    // A leader that goes on without it, as a snapshot comes in: the received file is given up.
    const snapshot = (await snapshotOf(helper))!;
    (await transfer(snapshot, machine)).discard();
    snapshot.release();
    did("snapshot given up");
  }
  const at = batches.findLast((batch) => lastIndexOf(batch) <= helper.appliedIndex);
  const from: LogStart =
    at === undefined
      ? start
      : { index: lastIndexOf(at), term: at.term, crc: at.crc, timeMs: at.timeMs };
  const term = hardState.term + 1;
  const ahead = makeRun(from, term, random.between(2, 6));
  const applied: Mark[] = [];
  applyOn(helper, ahead, Infinity, (said) => applied.push(said));
  helper.allowDurable(helper.appliedIndex);
  helper.flush();
  await workUntil(helper, () => helper.durableIndex >= helper.appliedIndex);
  const theirs = (await snapshotOf(helper))!;
  if (theirs.index <= endOf().index) {
    theirs.release();
    helper.close();
    return;
  }
  const incoming = await transfer(theirs, machine);
  theirs.release();
  helper.close();
  const last = ahead.at(-1)!;
  start = { index: lastIndexOf(last), term: last.term, crc: last.crc, timeMs: last.timeMs };
  batches = [];
  generation = incoming.generation;
  commit = start.index;
  hardState = { term, votedFor: 0, commit };
  for (const said of applied) mark(said);
  announce();
  const machineGeneration = generation;
  const restore = { start, configuration, machineGeneration };
  appended.push({
    appendSeq: store.append([{ group, hardState, restore, append: [] }]),
    number: stateNumber,
  });
  machine.recoverFromSnapshot(incoming);
  const syncAtMs = performance.now() + random.pick([0, pointerMsMax]);
  await workUntil(machine, () => performance.now() > syncAtMs);
  await synced();
  syncedIndex = start.index;
  machine.snapshotDurable();
  machine.allowDurable(commit);
  durableSaid = -1;
  did("snapshot taken over");
  rmSync(directory, { recursive: true, force: true });
}

function note(): void {
  const peer = random.between(2, 6);
  mark({ kind: "met", peer, incarnation: dataDir.peers.meet(peer, `incarnation-${seed}-${peer}`) });
  if (random.chance(0.3)) {
    dataDir.peers.form();
    mark({ kind: "formed" });
  }
  if (random.chance(0.3)) dataDir.peers.setOtherVoters(random.chance(0.5));
  if (dataDir.applyVersion === 1 && random.chance(0.3)) {
    dataDir.raiseApplyVersion(2);
    mark({ kind: "applyVersion", version: 2 });
  }
}

for (let step = 0; step < Number(stepsText); step++) {
  switch (random.weighted([40, 25, 15, 4, 6, 10, 1, 3])) {
    case 0:
      append();
      break;
    case 1:
      sync();
      if (random.chance(0.3)) await synced();
      break;
    case 2:
      apply();
      break;
    case 3: {
      const isAhead = random.chance(0.4);
      if (isAhead) {
        append();
        apply(Infinity);
      }
      machine.flush();
      if (isAhead || random.chance(0.5)) {
        // Where the log is not as far yet, it gets no further.
        const giveUpMs = performance.now() + flushMsMax;
        const isOver = (): boolean => machine.durableIndex >= machine.appliedIndex;
        await workUntil(machine, () => isOver() || performance.now() > giveUpMs);
      }
      break;
    }
    case 4:
      compact();
      break;
    case 5:
      store.tick(performance.now());
      break;
    case 6:
      await install();
      break;
    case 7:
      note();
      break;
  }
  work();
  await turn();
}
if (end === "kill") process.kill(process.pid, "SIGKILL");
await synced();
closeStorageNode(node);
mark({ kind: "did", what: "end" });
