/**
 * Watches against a model: whatever is applied, whoever has room when, and whatever becomes of the log, each watch is told every change of its keys
 * from where it begins up to where it stands, in order and once.
 */
import { expect, test } from "bun:test";
import type { BargeError } from "../../src/errors.ts";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { Watches } from "../../src/node/watches.ts";
import type { Changes, WatchHandle, Watcher } from "../../src/server/groups.ts";
import { lastIndexOf } from "../../src/wire/batch.ts";
import {
  encodeKvCompareAndDelete,
  encodeKvCompareAndPut,
  encodeKvDelete,
  encodeKvGet,
  encodeKvPut,
  readKvEntry,
} from "../../src/wire/kv.ts";
import {
  encodeKvTxn,
  type KvOperation,
  KvOperator,
  KvTarget,
  type KvTxn,
} from "../../src/wire/kv-txn.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { plainSection, sealSection, SectionKind } from "../../src/wire/section.ts";
import { Answers, Results, TestLog } from "../machine/log.ts";
import { Random } from "../sim/random.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const text = (value: Uint8Array): string => new TextDecoder().decode(value);

interface Told {
  readonly revision: number;
  readonly key: string;
  readonly value: string | undefined;
}

function newMachine(limits: Limits): KvMachine {
  const file = new SimKvFile({ random: () => 0, schedule: () => undefined });
  const machine = new KvMachine({ file, limits, nowMs: () => 0 });
  machine.open();
  return machine;
}

class Recorder implements Watcher {
  hasRoom = true;
  readonly told: Told[] = [];
  /** Where it begins, and how far it has come. */
  first = -1;
  position = -1;
  end: BargeError | undefined;
  handle: WatchHandle | undefined;
  readonly prefix: string;
  readonly exact: boolean;
  /** Takes so many frames, then has no room. */
  frames = Infinity;

  constructor(prefix: string, exact = false) {
    this.prefix = prefix;
    this.exact = exact;
  }

  changed(revision: number, changes: Changes): void {
    expect(this.end).toBeUndefined();
    expect(changes.count).toBeGreaterThan(0);
    let size = 0;
    while (changes.next()) {
      const { keyAt, keyLength, valueLength, deleted } = changes;
      const valueAt = keyAt + keyLength;
      size += keyLength + valueLength;
      this.told.push({
        revision: changes.revision,
        key: text(changes.bytes.subarray(keyAt, keyAt + keyLength)),
        value: deleted ? undefined : text(changes.bytes.subarray(valueAt, valueAt + valueLength)),
      });
    }
    expect(changes.byteLength).toBe(size);
    expect(revision).toBeGreaterThan(this.position);
    this.position = revision;
    if (--this.frames <= 0) this.hasRoom = false;
  }

  progressed(revision: number): void {
    expect(revision).toBeGreaterThanOrEqual(this.position);
    if (this.first < 0) this.first = revision;
    this.position = revision;
  }

  ended(revision: number, error: BargeError): void {
    expect(this.end).toBeUndefined();
    expect(revision).toBeGreaterThanOrEqual(this.position);
    this.position = revision;
    this.end = error;
  }

  wants(key: string): boolean {
    return this.exact ? key === this.prefix : key.startsWith(this.prefix);
  }
}

const keys = ["a", "ab", "abc", "b", "ba", "c"];

/** A node's part of a group, as far as watches see it; and the truth, taken from the states of a second machine that applies one command at a time. */
class World {
  readonly random: Random;
  readonly limits: Limits;
  readonly machine: KvMachine;
  readonly #model: KvMachine;
  readonly log = new TestLog();
  readonly #modelLog = new TestLog();
  readonly truth: Told[] = [];
  readonly #values = new Map<string, number>();
  /** (revision, key) of deletions that may be told though the key was not there: a transaction had put it just before. */
  readonly passing = new Set<string>();
  readonly watches: Watches;
  readonly recorders: Recorder[] = [];
  readonly #keyed: Uint8Array[] = [];
  logStart = 0;
  nowMs = 0;
  #number = 0;

  constructor(random: Random, limits: Limits) {
    this.random = random;
    this.limits = limits;
    this.machine = newMachine(limits);
    this.#model = newMachine(limits);
    // From there on sections under a request id are applied once.
    this.machine.apply([this.log.raise(applyVersionMax)], new Results());
    this.#model.apply([this.#modelLog.raise(applyVersionMax)], new Results());
    this.watches = new Watches({
      limits,
      history: this.machine.history,
      read: (from, to, bytesMax) => this.#read(from, to, bytesMax),
      logStart: () => this.logStart,
      appliedIndex: () => this.machine.appliedIndex,
      wake: () => undefined,
    });
  }

  #read(from: number, to: number, bytesMax: number): ReturnType<TestLog["from"]> {
    if (from <= this.logStart) return [];
    const found: ReturnType<TestLog["from"]> = [];
    let size = 0;
    for (const batch of this.log.from(from)) {
      size += batch.bytes.byteLength;
      if (lastIndexOf(batch) > to || (found.length > 0 && size > bytesMax)) break;
      found.push(batch);
    }
    return found;
  }

  #value(): Uint8Array {
    return bytes(`v${++this.#number}`);
  }

  #operation(): KvOperation {
    const { random } = this;
    const key = bytes(random.pick(keys));
    const choice = random.below(10);
    if (choice < 5) return { op: "put", key, value: this.#value() };
    if (choice < 8) return { op: "delete", key };
    if (choice < 9) return { op: "get", key };
    return { op: "range", range: { prefix: key, limit: 0 } };
  }

  #operations(): KvOperation[] {
    return Array.from({ length: this.random.below(5) }, () => this.#operation());
  }

  #txn(): KvTxn {
    const target = KvTarget.exists;
    const key = bytes(this.random.pick(keys));
    return {
      compare: this.random.chance(0.5) ? [{ key, target, operator: KvOperator.equal }] : [],
      success: this.#operations(),
      failure: this.#operations(),
    };
  }

  #command(): { readonly command: Uint8Array; readonly txn?: KvTxn } {
    const { random } = this;
    const key = random.pick(keys);
    const prev = random.chance(0.6) ? (this.#values.get(key) ?? 0) : random.below(50);
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
        return { command: encodeKvPut(bytes(key), this.#value()) };
      case 3:
        return { command: encodeKvDelete(bytes(key)) };
      case 4:
        return { command: encodeKvCompareAndPut(bytes(key), this.#value(), prev) };
      case 5:
        return { command: encodeKvCompareAndDelete(bytes(key), prev) };
      case 6:
        return { command: random.pick([new Uint8Array(0), bytes("nonsense"), Uint8Array.of(5)]) };
      default: {
        const txn = this.#txn();
        return { command: encodeKvTxn(txn), txn };
      }
    }
  }

  #keyedSection(command: Uint8Array): Uint8Array {
    const section = plainSection([command]);
    const id = 1 + this.random.below(1_000_000);
    const bodyBytes = 4 + command.byteLength;
    const kind = SectionKind.keyed;
    sealSection(section, 0, { kind, count: 1, bodyBytes, session: id, firstSeq: 1, doneUpTo: 1 });
    this.#keyed.push(section);
    return section;
  }

  /** One batch of some sections, on this machine and, section by section, on the model. */
  apply(): void {
    const sections: Uint8Array[] = [];
    for (let left = 1 + this.random.below(4); left > 0; left--) {
      const { command, txn } = this.#command();
      const again = this.#keyed.length > 0 && this.random.chance(0.15);
      const section = again
        ? this.random.pick(this.#keyed)
        : this.random.chance(0.3)
          ? this.#keyedSection(command)
          : plainSection([command]);
      sections.push(section);
      this.#applyToModel(section, again ? undefined : txn);
    }
    this.log.addSections(sections);
    const timeMs = this.log.batches.at(-1)!.timeMs;
    expect(timeMs).toBeGreaterThan(0);
    this.machine.apply(this.log.from(this.machine.appliedIndex + 1), new Results());
    expect(this.machine.appliedIndex).toBe(this.#model.appliedIndex);
  }

  /** In one batch, past the model; returns the last revision. */
  put(written: readonly string[]): number {
    const section = plainSection(written.map((key) => encodeKvPut(bytes(key), this.#value())));
    const batch = this.log.addSections([section]);
    this.machine.apply([batch], new Results());
    return lastIndexOf(batch);
  }

  #applyToModel(section: Uint8Array, txn: KvTxn | undefined): void {
    const before = this.#state();
    const batch = this.#modelLog.addSections([section]);
    this.#model.apply([batch], new Results());
    const revision = batch.firstIndex;
    for (const [key, after] of this.#state()) {
      const had = before.get(key)!;
      if (after.revision !== had.revision) this.truth.push({ revision, key, value: after.value });
      this.#values.set(key, after.revision);
      if (txn === undefined || had.revision !== 0 || after.revision !== 0) continue;
      const operations = [...txn.success, ...txn.failure];
      const puts = operations.some((each) => each.op === "put" && text(each.key) === key);
      if (puts) this.passing.add(`${revision} ${key}`);
    }
  }

  #state(): Map<string, { revision: number; value: string | undefined }> {
    const state = new Map<string, { revision: number; value: string | undefined }>();
    for (const key of keys) {
      const answers = new Answers();
      this.#model.read(encodeKvGet(bytes(key)), answers);
      const entry = answers.code === ResultCode.ok ? readKvEntry(answers.bytes) : undefined;
      const value = entry === undefined ? undefined : text(entry.value);
      state.set(key, { revision: entry?.revision ?? 0, value });
    }
    return state;
  }

  open(recorder: Recorder, from: number): void {
    recorder.handle = this.watches.open(
      { prefix: bytes(recorder.prefix), exact: recorder.exact, from },
      recorder,
    );
    this.recorders.push(recorder);
  }

  serve(): boolean {
    return this.watches.serve((this.nowMs += 30), this.random.chance(0.5));
  }

  settle(): void {
    for (const recorder of this.recorders) {
      recorder.hasRoom = true;
      recorder.frames = Infinity;
    }
    // Each turn is a step on the clock, so that everybody hears how far it has come.
    const { appliedIndex } = this.machine;
    const isThere = ({ end, position }: Recorder): boolean =>
      end !== undefined || position >= appliedIndex;
    this.serve();
    for (let turn = 0; turn < 2_000 && !this.recorders.every(isThere); turn++) this.serve();
  }

  check(recorder: Recorder): void {
    const due = this.truth.filter(
      ({ revision, key }) =>
        revision > recorder.first && revision <= recorder.position && recorder.wants(key),
    );
    const told = recorder.told.filter(({ revision, key, value }) => {
      const expected = due.some((each) => each.revision === revision && each.key === key);
      return expected || value !== undefined || !this.passing.has(`${revision} ${key}`);
    });
    const byKey = (a: Told, b: Told): number =>
      a.revision - b.revision || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
    expect(told.map(({ revision }) => revision)).toEqual(
      told.map(({ revision }) => revision).sort((a, b) => a - b),
    );
    // Within one transaction the order of the keys is that of its operations.
    expect(told.toSorted(byKey)).toEqual(due.toSorted(byKey));
  }
}

function drawLimits(random: Random): Limits {
  return checkLimits({
    ...defaultLimits,
    watchSliceChanges: random.pick([1, 2, defaultLimits.watchSliceChanges]),
    watchSliceBytes: random.pick([1, 300, defaultLimits.watchSliceBytes]),
    watchBytesPerTurn: random.pick([1, 500, defaultLimits.watchBytesPerTurn]),
    watchCatchUpBytesPerTurn: random.pick([1, 500, defaultLimits.watchCatchUpBytesPerTurn]),
    outcomeBytesMax: random.pick([1, 200, defaultLimits.outcomeBytesMax]),
  });
}

function run(seed: number): void {
  const random = new Random(seed);
  const world = new World(random, drawLimits(random));
  const { recorders, watches } = world;
  for (let step = 0; step < 120; step++) {
    const { appliedIndex } = world.machine;
    switch (random.below(9)) {
      case 0:
      case 1:
      case 2:
        world.apply();
        break;
      case 3: {
        const recorder = new Recorder(random.pick(["", "a", "ab", "b", "zz"]), random.chance(0.2));
        const from = random.pick([0, appliedIndex + 1, 1 + random.below(appliedIndex + 5)]);
        try {
          world.open(recorder, from);
          expect(recorder.first).toBe(from === 0 ? appliedIndex : from - 1);
        } catch (error) {
          expect((error as BargeError).code).toBe("compacted");
          const oldest = Math.max(world.machine.history.floor, world.logStart);
          expect(from - 1).toBeLessThan(oldest);
        }
        break;
      }
      case 4: {
        const recorder = recorders.length > 0 ? random.pick(recorders) : undefined;
        if (recorder !== undefined) recorder.frames = random.below(3);
        break;
      }
      case 5: {
        const recorder = recorders.length > 0 ? random.pick(recorders) : undefined;
        if (recorder === undefined) break;
        recorder.hasRoom = true;
        recorder.frames = Infinity;
        if (random.chance(0.5)) recorder.handle!.resume();
        break;
      }
      case 6:
        // The log is cut, at the end of a batch.
        if (random.chance(0.2) && world.log.batches.length > 0) {
          const cut = lastIndexOf(random.pick(world.log.batches));
          if (cut <= appliedIndex) world.logStart = Math.max(world.logStart, cut);
        }
        // A snapshot takes the place of the state, some commands on.
        if (random.chance(0.1)) {
          world.apply();
          world.machine.history.reset(world.machine.appliedIndex);
          world.logStart = world.machine.appliedIndex;
        }
        break;
      default:
        world.serve();
    }
    if (random.chance(0.02) && recorders.length > 0) {
      const gone = recorders.splice(random.below(recorders.length), 1)[0]!;
      if (gone.end === undefined) gone.handle!.close();
      world.check(gone);
    }
  }
  world.settle();
  const { appliedIndex } = world.machine;
  for (const recorder of recorders) {
    world.check(recorder);
    if (recorder.end === undefined) {
      expect(recorder.position).toBe(Math.max(appliedIndex, recorder.first));
    } else {
      expect(recorder.end.code).toBe("compacted");
      const oldest = Math.max(world.machine.history.floor, world.logStart);
      expect(recorder.position).toBeLessThan(oldest);
    }
  }
  const living = recorders.filter(({ end }) => end === undefined).length;
  expect(watches.figures()).toMatchObject({ watches: living, waiting: 0 });
}

const first = Number(process.env["BARGE_SEED"] ?? 1);
const seeds = Number(process.env["BARGE_SEEDS"] ?? 120);

test(`watches of ${seeds} random lives are told everything, in order, once`, () => {
  for (let seed = first; seed < first + seeds; seed++) {
    try {
      run(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
}, 20_000);

test("where nobody watches, serving does nothing", () => {
  const world = new World(new Random(1), defaultLimits);
  world.apply();
  expect(world.serve()).toBe(false);
});

test("a watch that has ended, or was closed, is told nothing more", () => {
  const world = new World(new Random(2), defaultLimits);
  const closed = new Recorder("");
  const ended = new Recorder("");
  world.open(closed, 1);
  world.open(ended, 1);
  closed.handle!.close();
  world.watches.endAll("shutting_down");
  expect(ended.end).toMatchObject({ code: "shutting_down", retryable: true });
  world.apply();
  world.settle();
  expect(closed.told).toEqual([]);
  expect(ended.told).toEqual([]);
  closed.handle!.close();
  ended.handle!.resume();
  expect(world.watches.size).toBe(0);
});

test("watches have a bound", () => {
  const world = new World(new Random(3), checkLimits({ ...defaultLimits, watchesMax: 2 }));
  world.open(new Recorder("a"), 0);
  world.open(new Recorder("b"), 0);
  expect(() => world.open(new Recorder("c"), 0)).toThrow("as many watches as it takes");
});

test("while there are writes, watches are told at a pace; and at once where there is no other work", () => {
  const world = new World(new Random(4), defaultLimits);
  const recorders = Array.from({ length: 100 }, () => new Recorder(""));
  for (const recorder of recorders) world.open(recorder, 1);
  const [recorder] = recorders;
  const put = (key: string): number => world.put([key]);
  const nowMs = world.nowMs + 1_000;
  const first = put("a");
  world.watches.serve(nowMs, true);
  expect(recorder!.position).toBe(first);
  // A hundred were just woken up.
  const second = put("b");
  world.watches.serve(nowMs + 1, true);
  expect(recorder!.position).toBe(first);
  world.watches.serve(nowMs + 1, false);
  expect(recorder!.position).toBe(second);
  const third = put("c");
  world.watches.serve(nowMs + 2, true);
  expect(recorder!.position).toBe(second);
  // They never wait for long.
  world.watches.serve(nowMs + 50, true);
  expect(recorder!.position).toBe(third);
});

test("a batch that concerns many is told in slices, between its commands; a full connection is told no more", () => {
  const watchSliceChanges = 10;
  const watchBytesPerTurn = 1;
  const world = new World(
    new Random(5),
    checkLimits({ ...defaultLimits, watchSliceChanges, watchBytesPerTurn }),
  );
  // Both have room as long as their connection has.
  let room = 3;
  const sharing = () => {
    const told: number[] = [];
    const watcher: Watcher = {
      get hasRoom() {
        return room > 0;
      },
      changed(_, changes) {
        room--;
        while (changes.next()) told.push(changes.revision);
      },
      progressed: () => undefined,
      ended: (_, error) => expect(error).toBeUndefined(),
    };
    const request = { prefix: bytes("a"), exact: true, from: 0 };
    return { told, handle: world.watches.open(request, watcher) };
  };
  const both = [sharing(), sharing()];
  const last = world.put(Array.from({ length: 20 }, () => "a"));
  expect(world.watches.serve(1_000, false)).toBe(true);
  expect(both.map(({ told }) => told.length)).toEqual([5, 5]);
  world.watches.serve(2_000, false);
  expect(both.map(({ told }) => told.length).toSorted()).toEqual([10, 5]);
  expect(world.watches.figures().waiting).toBe(2);
  room = Infinity;
  for (const { handle } of both) handle.resume();
  for (let turn = 0; turn < 100; turn++) world.watches.serve(3_000 + turn, false);
  const revisions = Array.from({ length: 20 }, (_, at) => last - 19 + at);
  for (const { told } of both) expect(told).toEqual(revisions);
});
