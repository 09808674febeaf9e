/** One replica of a group over a scripted application, without Raft: a log that is committed as the test says, turns, and what whoever waited was told. */
import { crc32 } from "node:zlib";
import { defaultLimits, type Limits } from "../../../src/limits.ts";
import { AppTraffic } from "../../../src/machine/http/app-traffic.ts";
import { HttpMachine } from "../../../src/machine/http/http-machine.ts";
import type { MachineSnapshot } from "../../../src/machine/machine.ts";
import { type Batch, BatchKind, batchHeaderBytes } from "../../../src/wire/batch.ts";
import { sectionHeaderBytes } from "../../../src/wire/section.ts";
import { nextDigest } from "../../../src/wire/snapshot-messages.ts";
import { Results, TestLog } from "../log.ts";
import { FakeApp } from "./fake-app.ts";
import { FakeFolder } from "./fake-folder.ts";

export const quickLimits: Limits = {
  ...defaultLimits,
  appTimeoutMs: 400,
  appSnapshotStallMs: 400,
  appPollMs: 300,
  appParkMs: 200,
  appRetryMsMax: 100,
  memtableFlushMs: 1_000,
};

const turnMs = 25;
const batchesPerTurn = 4;
/** Turns between two in which a group at rest is looked at. */
const restTurns = 8;

export interface WorldOptions {
  readonly sync?: boolean;
  readonly limits?: Limits;
  readonly log?: TestLog;
  readonly app?: FakeApp;
  readonly isWounded?: boolean;
  readonly group?: number;
  readonly traffic?: AppTraffic;
  /** As a shard does: while it says that it rests, and nothing wakes it, it is looked at only now and then. */
  readonly rests?: boolean;
}

export class World {
  readonly limits: Limits;
  readonly log: TestLog;
  readonly app: FakeApp;
  readonly folder: FakeFolder;
  readonly messages: string[] = [];
  readonly results = new Results();
  readonly #options: WorldOptions;
  machine!: HttpMachine;
  commit = 0;
  /** This node's own log is durable up to there. */
  durable = Infinity;
  generation = 0;
  /** The log is cut up to there. */
  logStart = 0;
  nowMs = 0;
  #turns = 0;
  #isActive = true;
  #heard = "";
  /** Batches that were looked at by `apply`. */
  looks = 0;

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.limits = options.limits ?? quickLimits;
    this.log = options.log ?? new TestLog();
    this.app = options.app ?? new FakeApp();
    this.folder = new FakeFolder(this.limits);
    this.start();
  }

  /** The daemon starts, or starts anew. */
  start(logIndex = this.log.lastIndex): void {
    const say = (fields: Record<string, unknown>, message: string): void =>
      void this.messages.push(`${message} ${JSON.stringify(fields)}`);
    this.machine = new HttpMachine({
      group: this.#options.group ?? 0,
      nodeId: 2,
      calls: this.app,
      traffic: this.#options.traffic ?? new AppTraffic(this.limits),
      folder: this.folder,
      generation: this.generation,
      limits: this.limits,
      logger: { info: say, warn: say, error: say },
      wake: () => void (this.#isActive = true),
      sync: this.#options.sync ?? false,
      logStart: () => this.logStart,
      logIndex,
      isWounded: this.#options.isWounded ?? false,
    });
    this.machine.open();
    this.#isActive = true;
  }

  /** Killed. `kept`: what was being saved is there. */
  crash(kept = false): void {
    this.app.close();
    this.folder.crash(kept);
  }

  /** Commits all there is. */
  commitAll(): void {
    this.commit = this.log.lastIndex;
  }

  turn(): boolean {
    this.nowMs += turnMs;
    this.#turns++;
    const { machine } = this;
    const before = machine.appliedIndex;
    if (this.#takesPart) this.#take();
    else if (this.#turns % restTurns === 0) {
      machine.work(this.nowMs);
      this.#isActive ||= !this.#isQuiet;
    }
    const answered = this.app.run();
    const saved = this.folder.run();
    return answered || saved || machine.appliedIndex !== before;
  }

  get #takesPart(): boolean {
    const heard = `${this.commit} ${this.durable}`;
    const isNew = heard !== this.#heard;
    this.#heard = heard;
    return this.#options.rests !== true || this.#isActive || isNew;
  }

  get #isQuiet(): boolean {
    const { resting, appliedIndex, takesBatches } = this.machine;
    return resting && (appliedIndex >= this.commit || !takesBatches);
  }

  #take(): void {
    const { machine } = this;
    machine.allowDurable(Math.min(this.commit, this.durable));
    for (let rounds = 0; rounds < 4; rounds++) {
      if (machine.appliedIndex >= this.commit || !machine.takesBatches) break;
      const batches = this.#committedFrom(machine.appliedIndex + 1);
      this.looks += batches.length;
      if (machine.apply(batches, this.results) < batches.length) break;
    }
    machine.work(this.nowMs);
    this.#isActive = !this.#isQuiet;
  }

  #committedFrom(index: number): Batch[] {
    if (index <= this.logStart)
      throw new Error(`index ${index} is needed, and the log has dropped it`);
    const batches = this.log.from(index).filter(({ firstIndex }) => firstIndex <= this.commit);
    return batches.slice(0, batchesPerTurn);
  }

  /** Throws where that does not come about. */
  until(isSo: () => boolean, what = "that"): void {
    for (let turns = 0; turns < 4_000; turns++) {
      if (isSo()) return;
      this.turn();
    }
    throw new Error(`${what} did not come about: ${JSON.stringify(this.machine.absence)}`);
  }

  caughtUp(): void {
    this.commitAll();
    this.until(() => this.machine.appliedIndex === this.commit, "everything applied");
  }

  /** What a command came to: the application's bytes, or the code of what is said instead. */
  resultAt(index: number): string | undefined {
    const result = this.results.all.get(index);
    if (result !== undefined) return Buffer.from(result.bytes ?? []).toString("latin1");
    for (const [first, { count, code }] of this.results.refusals) {
      if (index >= first && index < first + count) return code;
    }
    return undefined;
  }

  prepared(): MachineSnapshot | undefined {
    let found: { snapshot: MachineSnapshot | undefined } | undefined;
    this.machine.prepareSnapshot((snapshot) => (found = { snapshot }));
    this.until(() => found !== undefined, "a snapshot prepared");
    return found!.snapshot;
  }

  part(snapshot: MachineSnapshot, offset: number, length: number): Uint8Array | undefined {
    let found: { bytes: Uint8Array | undefined } | undefined;
    snapshot.read(offset, length, (bytes) => (found = { bytes }));
    this.until(() => found !== undefined, "a part read");
    return found!.bytes;
  }

  all(snapshot: MachineSnapshot, chunkBytes = 512): Buffer | undefined {
    const parts: Uint8Array[] = [];
    for (let offset = 0; offset < snapshot.bytes; offset += chunkBytes) {
      const part = this.part(snapshot, offset, Math.min(chunkBytes, snapshot.bytes - offset));
      if (part === undefined) return undefined;
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  /** Receives those bytes as a snapshot of `index`; returns how opening it went. */
  receive(bytes: Uint8Array, index: number) {
    const incoming = this.machine.receiveSnapshot(bytes.byteLength)!;
    let done = false;
    const whole = new Uint8Array(bytes);
    const digest = nextDigest(0, crc32(whole));
    incoming.write(0, whole, () => {
      const { byteLength } = whole;
      const proof = {
        index,
        bytes: byteLength,
        chunkBytes: byteLength,
        digest,
        applyVersionMax: 9,
      };
      incoming.finish(proof, () => (done = true));
    });
    this.until(() => done, "a snapshot received");
    return { incoming, opening: incoming.open() };
  }

  /** As Raft takes one over: the pointer is visible, and then, unless the process is killed before, durable. */
  takeOver(bytes: Uint8Array, index: number, isKilled = false): void {
    const { incoming, opening } = this.receive(bytes, index);
    if (opening !== "opened") throw new Error(`it is ${opening}`);
    this.machine.recoverFromSnapshot(incoming);
    if (isKilled) return;
    this.generation = incoming.generation;
    this.commit = Math.max(this.commit, index);
    this.logStart = Math.max(this.logStart, index);
    this.machine.snapshotDurable();
  }
}

export function commands(...texts: string[]): Uint8Array[] {
  return texts.map((text) => Buffer.from(text, "latin1"));
}

/** What the application has. */
export function entriesOf(world: World): string[] {
  return world.app.entries.map(({ index, command }) => `${command}@${index}`);
}

/** What it must have of the log: each plain command, once. */
export function expected(world: World, through = world.log.lastIndex): string[] {
  const entries: string[] = [];
  for (const { firstIndex, count, kind, bytes } of world.log.batches) {
    if (kind !== BatchKind.commands || firstIndex + count - 1 > through) continue;
    let at = batchHeaderBytes;
    let index = firstIndex;
    const buffer = Buffer.from(bytes);
    while (at < buffer.byteLength) {
      const end = at + sectionHeaderBytes + buffer.readUInt32LE(at + 8);
      at += sectionHeaderBytes;
      while (at < end) {
        const length = buffer.readUInt32LE(at);
        entries.push(`${buffer.toString("latin1", at + 4, at + 4 + length)}@${index++}`);
        at += 4 + length;
      }
    }
  }
  return entries;
}
