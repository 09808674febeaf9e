/**
 * The key-value machine against a plain map: random commands and queries, tiny memtables, flushes in slices, full disks, crashes and
 * replays. An uninterrupted twin with other limits must give the same results, answers and state hash.
 */
import { describe, expect, test } from "bun:test";
import { checkLimits, defaultLimits, type Limits } from "../../src/limits.ts";
import { CommonFlushes } from "../../src/machine/common-flushes.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { NullMachine } from "../../src/machine/null.ts";
import { BatchKind, type Batch } from "../../src/wire/batch.ts";
import {
  encodeKvCompareAndDelete,
  encodeKvCompareAndPut,
  encodeKvDelete,
  encodeKvGet,
  encodeKvPut,
  encodeKvRange,
  readKvEntry,
  readKvPage,
  readKvRevision,
  type KvItem,
  type KvRange,
} from "../../src/wire/kv.ts";
import {
  encodeKvTxn,
  KvOperator,
  type KvCompare,
  type KvOperation,
  KvTarget,
  type KvTxn,
  KvTxnList,
  KvTxnProblem,
  encodeKvTxnFault,
  readKvTxnResults,
} from "../../src/wire/kv-txn.ts";
import { plainSection } from "../../src/wire/section.ts";
import { Random } from "../sim/random.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";
import { Answers, Results, TestLog } from "./log.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function limitsWith(changes: Partial<Limits>): Limits {
  return checkLimits({ ...defaultLimits, flushLogBytesMin: 1, ...changes });
}

/** What the machine should be, as simply as possible; keys in hex, whose order is that of the bytes. */
class Model {
  entries = new Map<string, { revision: number; value: Uint8Array }>();
  /** Results that are not plain ok, with what their bytes say, read by `saidBy`. */
  readonly expected = new Map<number, { code: number; says?: unknown }>();
  /** The list that a transaction took, by its index: what the bytes of its result are about. */
  readonly lists = new Map<number, readonly KvOperation[]>();
  readonly #limits: Limits;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  revision(key: Uint8Array): number {
    return this.entries.get(hex(key))?.revision ?? 0;
  }

  put(index: number, key: Uint8Array, value: Uint8Array): void {
    this.entries.set(hex(key), { revision: index, value });
  }

  delete(index: number, key: Uint8Array): void {
    if (!this.entries.delete(hex(key))) this.expected.set(index, { code: ResultCode.notFound });
  }

  /** True when the compare holds. */
  compare(index: number, key: Uint8Array, prevRevision: number): boolean {
    const revision = this.revision(key);
    if (revision === prevRevision) return true;
    this.expected.set(index, { code: ResultCode.compareFailed, says: revision });
    return false;
  }

  txn(index: number, { compare, success, failure }: KvTxn): void {
    const holds = compare.every((each) => this.#holds(each));
    const operations = holds ? success : failure;
    const before = new Map(this.entries);
    // Each result takes 12 bytes, as the whole does within its section; those still to come have theirs reserved.
    let room = this.#limits.resultBytesMax - 12 - 12 * operations.length;
    const said: unknown[] = [];
    let plain = true;
    for (const [position, operation] of operations.entries()) {
      const { size, ...result } = this.#operation(index, operation, room);
      said.push(result);
      const isPlain = size === 0 && !("found" in result && !result.found);
      plain &&= isPlain;
      if (!isPlain && size > room) {
        this.entries = before;
        const list = holds ? KvTxnList.success : KvTxnList.failure;
        const fault = encodeKvTxnFault(list, position, KvTxnProblem.resultTooLarge);
        this.expected.set(index, { code: ResultCode.tooLarge, says: hex(fault) });
        return;
      }
      // What a plain ok does not need is there for the next.
      room += isPlain ? 12 : -size;
    }
    this.lists.set(index, operations);
    const says = plain ? undefined : said;
    if (!holds) this.expected.set(index, { code: ResultCode.failureList, says });
    else if (!plain) this.expected.set(index, { code: ResultCode.ok, says });
  }

  #holds(compare: KvCompare): boolean {
    const entry = this.entries.get(hex(compare.key));
    const { operator } = compare;
    const { equal, less, greater } = KvOperator;
    if (compare.target === KvTarget.exists) return (entry !== undefined) === (operator === equal);
    if (compare.target === KvTarget.value) {
      const same = entry !== undefined && hex(entry.value) === hex(compare.value);
      return same === (operator === equal);
    }
    const revision = entry?.revision ?? 0;
    if (operator === less) return revision < compare.revision;
    if (operator === greater) return revision > compare.revision;
    return (revision === compare.revision) === (operator === equal);
  }

  /** What an operation of a transaction does and says, and how many bytes that takes. */
  #operation(index: number, operation: KvOperation, room: number): Said {
    if (operation.op === "range") return this.#page(operation.range, room);
    const key = hex(operation.key);
    if (operation.op === "put") {
      this.entries.set(key, { revision: index, value: operation.value });
      return { size: 0 };
    }
    if (operation.op === "delete") return { size: 0, found: this.entries.delete(key) };
    const entry = this.entries.get(key);
    if (entry === undefined) return { size: 0, found: false };
    const { revision, value } = entry;
    return { size: 8 + value.byteLength, found: true, revision, value: hex(value) };
  }

  #page(range: KvRange, room: number): Said {
    const { rangeItemsMax, rangeBytesMax } = this.#limits;
    const itemsMax = Math.min(range.limit || rangeItemsMax, rangeItemsMax);
    const all = this.range(range);
    const items: typeof all = [];
    let size = 16;
    for (const item of all) {
      const end = size + 14 + (item.key.length + item.value.length) / 2;
      const fits = items.length < itemsMax && end <= Math.min(16 + rangeBytesMax, room);
      if (!fits && items.length > 0) break;
      items.push(item);
      size = end;
    }
    return { size, items, more: items.length < all.length };
  }

  range(range: KvRange): { key: string; revision: number; value: string }[] {
    const prefix = range.prefix && hex(range.prefix);
    const { from, to, after } = range;
    return [...this.entries]
      .filter(([key]) => prefix === undefined || key.startsWith(prefix))
      .filter(([key]) => prefix !== undefined || from === undefined || key >= hex(from))
      .filter(([key]) => prefix !== undefined || to === undefined || key < hex(to))
      .filter(([key]) => after === undefined || key > hex(after))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, { revision, value }]) => ({
        key,
        revision,
        value: range.keysOnly === true ? "" : hex(value),
      }));
  }
}

interface Said {
  readonly size: number;
  readonly found?: boolean;
  readonly [what: string]: unknown;
}

class Workload {
  readonly log = new TestLog();
  readonly model: Model;
  readonly #random: Random;

  constructor(random: Random, limits: Limits) {
    this.#random = random;
    this.model = new Model(limits);
  }

  key(): Uint8Array {
    const random = this.#random;
    return Uint8Array.from({ length: random.between(1, 4) }, () => random.pick([0, 1, 97, 255]));
  }

  batch(): Batch {
    const random = this.#random;
    if (random.chance(0.05)) return this.log.addBody(new Uint8Array(0), 1, BatchKind.noop);
    let index = this.log.lastIndex;
    const sections: Uint8Array[] = [];
    let count = 0;
    for (let section = random.between(1, 3); section > 0; section--) {
      const commands: Uint8Array[] = [];
      for (let i = random.between(1, 20); i > 0; i--) {
        index += 1;
        commands.push(this.#command(index));
      }
      count += commands.length;
      sections.push(plainSection(commands));
    }
    return this.log.addBody(Buffer.concat(sections), count, BatchKind.commands);
  }

  #command(index: number): Uint8Array {
    const random = this.#random;
    const { model } = this;
    const key = this.key();
    const length = random.below(random.chance(0.05) ? 500 : 20);
    const value = Uint8Array.from({ length }, () => random.below(256));
    const guess = random.chance(0.7) ? model.revision(key) : random.below(index);
    switch (random.weighted([6, 2, 2, 1, 3, 0.3])) {
      case 0:
        model.put(index, key, value);
        return encodeKvPut(key, value);
      case 1:
        model.delete(index, key);
        return encodeKvDelete(key);
      case 2:
        if (model.compare(index, key, guess)) model.put(index, key, value);
        return encodeKvCompareAndPut(key, value, guess);
      case 3:
        if (model.compare(index, key, guess)) model.delete(index, key);
        return encodeKvCompareAndDelete(key, guess);
      case 4: {
        const txn = this.#txn(index);
        model.txn(index, txn);
        return encodeKvTxn(txn);
      }
      default:
        model.expected.set(index, { code: ResultCode.malformed });
        return Uint8Array.from({ length: random.below(12) }, () => random.below(5));
    }
  }

  #txn(index: number): KvTxn {
    const random = this.#random;
    const list = (): KvOperation[] =>
      Array.from({ length: random.below(5) }, () => this.#operation());
    const compare = Array.from({ length: random.below(3) }, () => this.#compare(index));
    return { compare, success: list(), failure: list() };
  }

  #compare(index: number): KvCompare {
    const random = this.#random;
    const key = this.key();
    const entry = this.model.entries.get(hex(key));
    const operator = random.pick([KvOperator.equal, KvOperator.notEqual]);
    switch (random.below(3)) {
      case 0:
        return { key, target: KvTarget.exists, operator };
      case 1: {
        const value = entry !== undefined && random.chance(0.7) ? entry.value : text("other");
        return { key, target: KvTarget.value, operator, value };
      }
      default: {
        const revision = random.chance(0.5) ? (entry?.revision ?? 0) : random.below(index);
        const any = random.pick(Object.values(KvOperator));
        return { key, target: KvTarget.revision, operator: any, revision };
      }
    }
  }

  #operation(): KvOperation {
    const random = this.#random;
    const key = this.key();
    const value = Uint8Array.from({ length: random.below(20) }, () => random.below(256));
    switch (random.weighted([3, 2, 2, 1])) {
      case 0:
        return { op: "put", key, value };
      case 1:
        return { op: "delete", key };
      case 2:
        return { op: "get", key };
      default:
        return { op: "range", range: this.range() };
    }
  }

  range(): KvRange {
    const random = this.#random;
    const maybe = (): Uint8Array | undefined => (random.chance(0.5) ? this.key() : undefined);
    const by = random.chance(0.4) ? { prefix: this.key() } : { from: maybe(), to: maybe() };
    const after = random.chance(0.3) ? this.key() : undefined;
    return { ...by, after, limit: random.pick([0, 1, 3, 10]), keysOnly: random.chance(0.2) };
  }
}

class Harness {
  readonly random: Random;
  readonly workload: Workload;
  readonly results = new Results();
  readonly #limits: Limits;
  #nowMs = 0;
  #timers: { atMs: number; run: () => void }[] = [];
  #file: SimKvFile;
  #synced = 0;
  machine: KvMachine;
  crashes = 0;

  constructor(seed: number, limits: Limits) {
    this.random = new Random(seed);
    this.workload = new Workload(this.random.fork(1), limits);
    this.#limits = limits;
    const disk = this.random.fork(2);
    this.#file = new SimKvFile({
      random: () => disk.float(),
      schedule: (delayMs, run) => this.#timers.push({ atMs: this.#nowMs + delayMs, run }),
    });
    this.machine = this.#open();
  }

  #open(): KvMachine {
    // Time passes with each look at the clock, so that a slice ends in the midst of a flush.
    const nowMs = (): number => (this.#nowMs += 0.3);
    const machine = new KvMachine({ file: this.#file, limits: this.#limits, nowMs });
    const index = machine.open();
    expect(index).toBe(machine.appliedIndex);
    expect(index).toBe(machine.durableIndex);
    return machine;
  }

  /** One turn of a shell: time passes, the log syncs, what is committed is applied, the machine works. */
  turn(): void {
    const { random, machine } = this;
    const { log } = this.workload;
    this.#nowMs += random.below(5);
    const due = this.#timers.filter(({ atMs }) => atMs <= this.#nowMs);
    this.#timers = this.#timers.filter(({ atMs }) => atMs > this.#nowMs);
    for (const { run } of due) run();
    const batches = log.from(machine.appliedIndex + 1).slice(0, random.between(1, 5));
    const taken = machine.apply(batches, this.results);
    expect(taken).toBeLessThanOrEqual(batches.length);
    if (random.chance(0.6)) this.#synced = Math.max(this.#synced, machine.appliedIndex);
    machine.allowDurable(this.#synced);
    machine.work(this.#nowMs);
    expect(machine.durableIndex).toBeLessThanOrEqual(this.#synced);
    this.#file.bytesMax = random.chance(0.1) ? 0 : Number.POSITIVE_INFINITY;
  }

  crash(): void {
    const durable = this.machine.durableIndex;
    this.machine.close();
    this.#file = this.#file.crash(this.random.pick(["all", "none", "prefix"]));
    this.machine = this.#open();
    expect(this.machine.appliedIndex).toBeGreaterThanOrEqual(durable);
    this.crashes += 1;
  }

  settle(): void {
    for (let turns = 0; this.machine.appliedIndex < this.workload.log.lastIndex; turns++) {
      if (turns > 100_000) throw new Error("the machine does not get on");
      this.turn();
    }
  }

  /** Reads everything that the model can say, in pages too. */
  check(): void {
    const { machine, workload } = this;
    for (let i = 0; i < 15; i++) {
      const key = workload.key();
      const answers = new Answers();
      machine.read(encodeKvGet(key), answers);
      const entry = workload.model.entries.get(hex(key));
      expect(answers.code).toBe(entry === undefined ? ResultCode.notFound : ResultCode.ok);
      if (entry !== undefined) {
        const read = readKvEntry(answers.bytes)!;
        expect({ ...read, value: hex(read.value) }).toEqual({ ...entry, value: hex(entry.value) });
      }
    }
    for (let i = 0; i < 5; i++) {
      const range = workload.range();
      const items = readAll(machine, range);
      const plain = items.map(({ key, revision, value }) => ({
        key: hex(key),
        revision,
        value: hex(value),
      }));
      expect(plain).toEqual(workload.model.range(range));
    }
  }
}

/** All pages of a range. */
function readAll(machine: KvMachine, range: KvRange): KvItem[] {
  const items: KvItem[] = [];
  let { after } = range;
  for (;;) {
    const answers = new Answers();
    machine.read(encodeKvRange({ ...range, after }), answers);
    expect(answers.code).toBe(ResultCode.ok);
    const page = readKvPage(answers.bytes)!;
    expect(page.revision).toBe(machine.appliedIndex);
    if (range.limit > 0) expect(page.items.length).toBeLessThanOrEqual(range.limit);
    items.push(...page.items);
    if (!page.more) return items;
    after = page.items.at(-1)!.key;
  }
}

function expectResults(results: Results, model: Model): void {
  const got = [...results.all]
    .sort(([a], [b]) => a - b)
    .map(([index, { code, bytes }]) => [
      index,
      code,
      bytes && saidBy(code, bytes, model.lists.get(index)),
    ]);
  const expected = [...model.expected]
    .sort(([a], [b]) => a - b)
    .map(([index, { code, says }]) => [index, code, says]);
  expect(got).toEqual(expected);
}

/** The bytes of a result in the words of the model. */
function saidBy(
  code: number,
  bytes: Uint8Array,
  operations: readonly KvOperation[] | undefined,
): unknown {
  if (code === ResultCode.compareFailed) return readKvRevision(bytes);
  if (operations === undefined) return hex(bytes);
  return readKvTxnResults(operations, bytes)?.map((result) => {
    if (result.op === "put") return {};
    if (result.op === "delete") return { found: result.deleted };
    if (result.op === "range") {
      const { items, more } = result.page;
      const plain = items.map(({ key, revision, value }) => ({
        key: hex(key),
        revision,
        value: hex(value),
      }));
      return { items: plain, more };
    }
    const { entry } = result;
    if (entry === undefined) return { found: false };
    return { found: true, revision: entry.revision, value: hex(entry.value) };
  });
}

describe("kv against a model", () => {
  for (let seed = 1; seed <= 15; seed++) {
    test(`crashes, replays, flushes and full disks (seed ${seed})`, () => {
      const small = new Random(seed, 9);
      const limits = limitsWith({
        memtableBytes: small.pick([1, 500, 4_000, 20_000]),
        memtableFlushMs: small.pick([1, 50, 1_000]),
        flushSliceMs: 1,
        flushLogBytes: small.pick([1, 3_000, 1 << 30]),
        kvWalBytesMax: small.pick([1, 2_000, 1 << 30]),
        rangeItemsMax: small.pick([2, 1_000, 1_000]),
        rangeBytesMax: small.pick([1, 200, 10_000, 10_000]),
        resultBytesMax: small.pick([60, 150, 300, 1 << 20]),
      });
      const harness = new Harness(seed, limits);
      const { random, workload } = harness;
      for (let round = 0; round < 60; round++) {
        for (let i = random.below(6); i > 0; i--) workload.batch();
        for (let i = random.below(12); i > 0; i--) harness.turn();
        if (random.chance(0.15)) harness.crash();
        if (random.chance(0.3)) {
          harness.settle();
          harness.check();
        }
      }
      harness.settle();
      harness.check();
      expectResults(harness.results, workload.model);
      // What results are made of is the same on all nodes; the rest may differ.
      const { rangeItemsMax, rangeBytesMax, resultBytesMax } = limits;
      const same = limitsWith({ rangeItemsMax, rangeBytesMax, resultBytesMax });
      const twin = uninterrupted(workload.log, same);
      expect(harness.machine.stateHash).toBe(twin.machine.stateHash);
      expectResults(twin.results, workload.model);
    });
  }

  test("the seeds above do crash, flush, checkpoint and wait", () => {
    const limits = limitsWith({ memtableBytes: 500, memtableFlushMs: 1, kvWalBytesMax: 1 });
    const harness = new Harness(99, limits);
    let flushes = 0;
    let checkpoints = 0;
    let durable = 0;
    for (let round = 0; round < 200; round++) {
      harness.workload.batch();
      harness.turn();
      flushes = Math.max(flushes, harness.machine.figures()["flushes"]!);
      checkpoints = Math.max(checkpoints, harness.machine.figures()["checkpoints"]!);
      durable = Math.max(durable, harness.machine.durableIndex);
    }
    expect(flushes).toBeGreaterThan(3);
    expect(checkpoints).toBeGreaterThan(1);
    expect(durable).toBeGreaterThan(0);
  });
});

function uninterrupted(
  log: TestLog,
  limits = defaultLimits,
): { machine: KvMachine; results: Results } {
  const machine = new KvMachine({ file: stillFile(), limits, nowMs: () => 0 });
  machine.open();
  const results = new Results();
  expect(machine.apply(log.batches, results)).toBe(log.batches.length);
  return { machine, results };
}

/** A file whose writes never complete. */
function stillFile(): SimKvFile {
  return new SimKvFile({ random: () => 0, schedule: () => undefined });
}

describe("kv", () => {
  test("a freeze waits for the node's own log before its commit", () => {
    const timers: (() => void)[] = [];
    const file = new SimKvFile({ random: () => 0, schedule: (_, run) => timers.push(run) });
    const limits = limitsWith({ memtableFlushMs: 1 });
    const machine = new KvMachine({ file, limits, nowMs: () => 0 });
    machine.open();
    const log = new TestLog();
    machine.apply([log.add([[encodeKvPut(text("a"), text("1"))]])], new Results());
    machine.work(0);
    for (let nowMs = 10; nowMs < 20; nowMs++) expect(machine.work(nowMs)).toBe(false);
    expect(timers).toHaveLength(0);
    expect(file.get(text("a"))).toBeUndefined();
    machine.allowDurable(1);
    expect(machine.work(20)).toBe(false);
    // The transaction is committed, then it is said so, then it is durable.
    timers.shift()!();
    expect(file.get(text("a"))?.revision).toBe(1);
    timers.shift()!();
    expect(machine.durableIndex).toBe(0);
    timers.shift()!();
    expect(machine.durableIndex).toBe(1);
  });

  test("of machines that come of age together one flushes after the other, unless one is twice as old", () => {
    const timers: (() => void)[] = [];
    const flushes = new CommonFlushes();
    const limits = limitsWith({ memtableFlushMs: 10, flushLogBytesMin: 1 });
    const machines = [1, 2, 3].map(() => {
      const file = new SimKvFile({ random: () => 0, schedule: (_, run) => timers.push(run) });
      const machine = new KvMachine({ file, limits, flushes, nowMs: () => 0 });
      machine.open();
      const log = new TestLog();
      machine.apply([log.add([[encodeKvPut(text("a"), text("1"))]])], new Results());
      machine.allowDurable(1);
      return machine;
    });
    const [first, second, third] = machines as [KvMachine, KvMachine, KvMachine];
    const workAll = (nowMs: number): void => {
      for (const machine of machines) machine.work(nowMs);
    };
    workAll(0);
    workAll(10);
    workAll(19);
    expect(timers).toHaveLength(1);
    while (first.durableIndex === 0) timers.shift()!();
    expect(timers).toHaveLength(0);
    // The next one leaves before its flush has ended, and nobody waits for it.
    workAll(19);
    expect(timers).toHaveLength(1);
    second.close();
    timers.length = 0;
    workAll(19);
    expect(timers).toHaveLength(1);
    while (third.durableIndex === 0) timers.shift()!();
    // Somebody's flush that does not get on holds the others up for a while only.
    flushes.begun();
    const log = new TestLog();
    for (const key of ["a", "b"]) log.add([[encodeKvPut(text(key), text("2"))]]);
    first.apply(log.from(2), new Results());
    first.allowDurable(2);
    for (const nowMs of [30, 40, 49]) first.work(nowMs);
    expect(timers).toHaveLength(0);
    first.work(50);
    expect(timers).toHaveLength(1);
  });

  test.each([
    ["are full", { memtableBytes: 1 }],
    ["hold back as much log as they may", { flushLogBytes: 1 }],
  ])(
    "apply takes fewer batches while both memtables %s, and goes on after the flush",
    (_, small) => {
      const limits = limitsWith(small);
      const timers: (() => void)[] = [];
      const file = new SimKvFile({ random: () => 0, schedule: (_, run) => timers.push(run) });
      const machine = new KvMachine({ file, limits, nowMs: () => 0 });
      machine.open();
      const log = new TestLog();
      for (let i = 0; i < 5; i++) log.add([[encodeKvPut(text(`k${i}`), text("v"))]]);
      const results = new Results();
      expect(machine.apply(log.batches, results)).toBe(2);
      expect(machine.apply(log.from(3), results)).toBe(0);
      machine.allowDurable(2);
      machine.work(0);
      // Committed, and said so: the frozen memtable is free.
      timers.shift()!();
      expect(machine.apply(log.from(3), results)).toBe(0);
      timers.shift()!();
      expect(machine.apply(log.from(3), results)).toBe(1);
      expect(machine.appliedIndex).toBe(3);
    },
  );

  test("apply resumes within a batch and skips what is applied", () => {
    const limits = defaultLimits;
    const log = new TestLog();
    const put = (key: string): Uint8Array => encodeKvPut(text(key), text("v"));
    log.add([
      [put("a"), put("b")],
      [put("c"), encodeKvDelete(text("x"))],
    ]);
    const sessions = new Uint8Array(0);
    const meta = { appliedIndex: 2, stateHash: 0, timeMs: 0, applyVersion: 1, sessions };
    const found = { entries: new Map(), meta };
    const file = new SimKvFile({ random: () => 0, schedule: () => undefined }, found);
    const machine = new KvMachine({ file, limits, nowMs: () => 0 });
    expect(machine.open()).toBe(2);
    const results = new Results();
    expect(machine.apply(log.batches, results)).toBe(1);
    expect([...results.all.keys()]).toEqual([4]);
    expect(readAll(machine, { limit: 0 }).map(({ key }) => Buffer.from(key).toString())).toEqual([
      "c",
    ]);
    expect(machine.apply(log.batches, results)).toBe(1);
    expect(machine.appliedIndex).toBe(4);
  });

  test("a gap in the log is refused", () => {
    const log = new TestLog();
    log.add([[encodeKvDelete(text("a"))]]);
    log.add([[encodeKvDelete(text("a"))]]);
    const machine = new KvMachine({ file: stillFile(), limits: defaultLimits, nowMs: () => 0 });
    machine.open();
    expect(() => machine.apply(log.from(2), new Results())).toThrow("where 1 was due");
  });

  test("keys and values over their bounds change nothing", () => {
    const limits = limitsWith({ keyBytesMax: 4, valueBytesMax: 10 });
    const machine = new KvMachine({ file: stillFile(), limits, nowMs: () => 0 });
    machine.open();
    const log = new TestLog();
    const results = new Results();
    log.add([
      [
        encodeKvPut(text("12345"), text("v")),
        encodeKvPut(text("1234"), text("12345678901")),
        encodeKvPut(text("1234"), text("1234567890")),
        encodeKvCompareAndPut(text("12345"), text("v"), 0),
      ],
    ]);
    machine.apply(log.batches, results);
    expect([...results.all].map(([index, { code }]) => [index, code])).toEqual([
      [1, ResultCode.tooLarge],
      [2, ResultCode.tooLarge],
      [4, ResultCode.tooLarge],
    ]);
    expect(readAll(machine, { limit: 0 })).toHaveLength(1);
    const answers = new Answers();
    machine.read(encodeKvGet(text("12345")), answers);
    expect(answers.code).toBe(ResultCode.tooLarge);
  });

  for (const seed of [1, 2, 3, 4]) {
    test(`apply and read are total: any bytes give results, the same twice (seed ${seed})`, () => {
      const random = new Random(seed);
      const log = new TestLog();
      const workload = new Workload(random.fork(1), defaultLimits);
      for (let i = 0; i < 300; i++) {
        const { bytes, count } = workload.batch();
        const body = bytes.slice(48);
        for (let flips = random.below(4); flips > 0 && body.length > 0; flips--) {
          const at = random.below(Math.min(body.length, random.pick([40, 60, 10_000])));
          body[at] = random.pick([0, 1, 255, random.below(256)]);
        }
        const cut = random.chance(0.2) ? random.below(body.length + 1) : body.length;
        const lie = random.chance(0.1) ? random.pick([1, 2, 0xffff_ffff]) : count;
        log.addBody(body.subarray(0, cut), lie, BatchKind.commands);
      }
      const first = uninterrupted(log);
      const second = uninterrupted(log);
      expect(second.machine.stateHash).toBe(first.machine.stateHash);
      expect(second.results.all).toEqual(first.results.all);
      expect(first.machine.appliedIndex).toBe(log.lastIndex);
      for (let i = 0; i < 2_000; i++) {
        const query = random.chance(0.5)
          ? encodeKvRange(workload.range())
          : encodeKvGet(workload.key());
        const at = random.below(query.length);
        query[at] = random.below(256);
        const answers = new Answers();
        first.machine.read(query.subarray(0, random.below(query.length + 1)), answers);
        expect(answers.code).toBeGreaterThanOrEqual(0);
      }
    });
  }

  test("a section whose inner lengths lie gives each of its commands a result, its neighbours theirs", () => {
    const good = plainSection([encodeKvPut(text("a"), text("1"))]);
    const bad = plainSection([
      encodeKvPut(text("b"), text("2")),
      encodeKvPut(text("c"), text("3")),
    ]);
    new DataView(bad.buffer).setUint32(40, 5, true);
    const log = new TestLog();
    log.addBody(Buffer.concat([good, bad, good]), 4, BatchKind.commands);
    const { machine, results } = uninterrupted(log);
    expect([...results.all].map(([index, { code }]) => [index, code])).toEqual([
      [2, ResultCode.malformed],
      [3, ResultCode.malformed],
    ]);
    expect(readAll(machine, { limit: 0 }).map(({ revision }) => revision)).toEqual([4]);
  });
});

describe("null", () => {
  test("counts, hashes what it applied, and keeps its index", () => {
    const timers: (() => void)[] = [];
    const options = { random: () => 0, schedule: (_: number, run: () => void) => timers.push(run) };
    const file = new SimKvFile(options);
    const limits = limitsWith({ memtableFlushMs: 5 });
    const log = new TestLog();
    for (let i = 0; i < 4; i++) log.add([[encodeKvPut(text("a"), text("1")), text("junk")]]);
    const machine = new NullMachine({ file, limits, nowMs: () => 0 });
    expect(machine.open()).toBe(0);
    expect(machine.apply(log.batches.slice(0, 3), new Results())).toBe(3);
    machine.allowDurable(5);
    machine.work(0);
    machine.work(10);
    expect(timers).toHaveLength(0);
    machine.allowDurable(6);
    machine.work(11);
    while (timers.length > 0) timers.shift()!();
    expect(machine.durableIndex).toBe(6);
    expect(machine.figures()["commands"]).toBe(6);
    machine.apply(log.from(7), new Results());

    const next = new NullMachine({ file: file.crash("none"), limits, nowMs: () => 0 });
    expect(next.open()).toBe(6);
    next.apply(log.from(7), new Results());
    expect(next.stateHash).toBe(machine.stateHash);
    expect(next.appliedIndex).toBe(8);
  });
});
