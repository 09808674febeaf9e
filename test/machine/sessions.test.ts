/**
 * Sessions and request ids before a kv machine: each command at most once and in order, whatever comes again; bounds and expiry by the log alone;
 * and all of it still there after a restart.
 */
import { describe, expect, test } from "bun:test";
import { defaultLimits, type Limits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import { NullMachine } from "../../src/machine/null.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { encodeKvCompareAndPut, encodeKvGet, encodeKvPut, readKvEntry } from "../../src/wire/kv.ts";
import { layOutSection, plainSection, SectionKind } from "../../src/wire/section.ts";
import { readSectionResults } from "../../src/wire/section-results.ts";
import { type SessionCommand, sessionCommandSection } from "../../src/wire/session-commands.ts";
import { Random } from "../sim/random.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";
import { Answers, Results, TestLog } from "./log.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const put = (key: string, value: string): Uint8Array => encodeKvPut(text(key), text(value));
const createKey = (key: string, value: string): Uint8Array =>
  encodeKvCompareAndPut(text(key), text(value), 0);
const principal = new Uint8Array(0);

/** A machine that applies each batch as it is added, and what it says of it. */
class Bench {
  readonly log = new TestLog();
  readonly results = new Results();
  readonly limits: Limits;
  file = new SimKvFile({ random: () => 0, schedule: (_, run) => this.later.push(run) });
  readonly later: (() => void)[] = [];
  machine: KvMachine;
  timeMs = 1_000;

  constructor(smaller: Partial<Limits> = {}) {
    this.limits = { ...defaultLimits, ...smaller };
    this.machine = this.#open();
    this.#apply(this.log.raise(2));
  }

  #open(): KvMachine {
    const machine = new KvMachine({ file: this.file, limits: this.limits, nowMs: () => 0 });
    machine.open();
    return machine;
  }

  #apply(batch: TestLog["batches"][number]): number {
    expect(this.machine.apply([batch], this.results)).toBe(1);
    return batch.firstIndex;
  }

  /** Returns the index of the first command. */
  add(...sections: Uint8Array[]): number {
    return this.#apply(this.log.addSections(sections, this.timeMs));
  }

  control(command: SessionCommand): number {
    return this.add(sessionCommandSection(command));
  }

  open(ttlMs = 60_000): number {
    return this.control({ op: "open", ttlMs, principal });
  }

  /** Flushes all that is applied, and goes on from what is on the disk; `replayed` batches from the log's end are applied again. */
  restart(): void {
    this.machine.allowDurable(this.machine.appliedIndex);
    this.machine.flush();
    while (this.machine.durableIndex < this.machine.appliedIndex) {
      this.machine.work(0);
      for (const run of this.later.splice(0)) run();
    }
    const { appliedIndex, stateHash } = this.machine;
    this.file = this.file.crash("none");
    this.machine = this.#open();
    expect(this.machine.appliedIndex).toBe(appliedIndex);
    expect(this.machine.stateHash).toBe(stateHash);
  }

  get(key: string): { value: string; revision: number } | undefined {
    const answers = new Answers();
    this.machine.read(encodeKvGet(text(key)), answers);
    const entry = answers.code === ResultCode.ok ? readKvEntry(answers.bytes) : undefined;
    return entry && { value: new TextDecoder().decode(entry.value), revision: entry.revision };
  }

  refusal(index: number): string | undefined {
    return this.results.refusals.get(index)?.code;
  }
}

function inSession(
  session: number,
  firstSeq: number,
  commands: readonly Uint8Array[],
  doneUpTo = 0,
): Uint8Array {
  return layOutSection(commands, { kind: SectionKind.session, session, firstSeq, doneUpTo });
}

function keyed(id: number, command: Uint8Array): Uint8Array {
  const identity = { session: id, firstSeq: 2 * id, doneUpTo: 3 * id };
  return layOutSection([command], { kind: SectionKind.keyed, ...identity });
}

describe("a session", () => {
  test("applies a section once; one that comes again gets the index and the results of then", () => {
    const bench = new Bench();
    const session = bench.open();
    const section = inSession(session, 1, [createKey("a", "1"), createKey("a", "2")]);
    const first = bench.add(section);
    expect(bench.get("a")).toEqual({ value: "1", revision: first });
    const second = bench.add(inSession(session, 3, [put("a", "3")]));
    const again = bench.add(section);
    expect(bench.get("a")).toEqual({ value: "3", revision: second });
    const repeat = bench.results.repeats.get(again)!;
    expect(repeat.original).toBe(first);
    expect(repeat.count).toBe(2);
    const [result] = readSectionResults(repeat.bytes, 2)!;
    expect(result).toMatchObject({ position: 1, code: ResultCode.compareFailed });
    expect(bench.results.all.has(again + 1)).toBe(false);
  });

  test("keeps its order: what comes too early is refused, and nothing of it is done", () => {
    const bench = new Bench();
    const session = bench.open();
    const early = bench.add(inSession(session, 2, [put("a", "2")]));
    expect(bench.refusal(early)).toBe("sequence_gap");
    expect(bench.get("a")).toBeUndefined();
    const second = inSession(session, 2, [put("a", "2")]);
    const [first] = [bench.add(inSession(session, 1, [put("a", "1")]), second)];
    expect(bench.refusal(first)).toBeUndefined();
    bench.add(second);
    expect(bench.get("a")?.value).toBe("2");
  });

  test("tells other commands under the same numbers from those that came before", () => {
    const bench = new Bench();
    const session = bench.open();
    bench.add(inSession(session, 1, [put("a", "1"), put("b", "1")]));
    for (const other of [
      inSession(session, 1, [put("a", "x"), put("b", "1")]),
      inSession(session, 1, [put("a", "1")]),
      inSession(session, 2, [put("b", "1")]),
      inSession(session, 2, [put("b", "1"), put("c", "1")]),
      inSession(session, 0, [put("a", "1")]),
      inSession(session, Number.MAX_SAFE_INTEGER, [put("a", "1"), put("a", "1")]),
    ]) {
      const index = bench.add(other);
      expect(["session_mismatch", "sequence_gap"]).toContain(bench.refusal(index)!);
    }
    expect(bench.get("a")?.value).toBe("1");
    expect(bench.get("c")).toBeUndefined();
  });

  test("is its own: equal numbers and bytes in another session are other commands", () => {
    const bench = new Bench();
    const [one, two] = [bench.open(), bench.open()];
    bench.add(inSession(one, 1, [createKey("a", "1")]));
    const index = bench.add(inSession(two, 1, [createKey("a", "1")]));
    expect(bench.results.repeats.size).toBe(0);
    expect(bench.results.all.get(index)?.code).toBe(ResultCode.compareFailed);
  });

  test("forgets results that the client has confirmed, and still does nothing twice", () => {
    const bench = new Bench();
    const session = bench.open();
    const sections = [1, 2, 3].map((seq) => inSession(session, seq, [put("a", `${seq}`)], seq - 1));
    for (const section of sections) bench.add(section);
    expect(bench.refusal(bench.add(sections[0]!))).toBe("result_forgotten");
    expect(bench.refusal(bench.add(sections[1]!))).toBe("result_forgotten");
    const again = bench.add(sections[2]!);
    expect(bench.results.repeats.get(again)?.original).toBe(again - 3);
    expect(bench.get("a")?.value).toBe("3");
  });

  test("keeps so many sections at most, and says of older ones that they were applied", () => {
    const bench = new Bench({ sessionWindowSections: 2 });
    const session = bench.open();
    const sections = [1, 2, 3].map((seq) => inSession(session, seq, [put("a", `${seq}`)]));
    for (const section of sections) bench.add(section);
    expect(bench.refusal(bench.add(sections[0]!))).toBe("result_forgotten");
    expect(bench.results.repeats.has(bench.add(sections[1]!))).toBe(true);
  });

  test("keeps so many bytes of results, of which nobody can take its share", () => {
    const compareFailed = 12 + 8;
    const bench = new Bench({
      sessionsMax: 2,
      sessionWindowBytes: 3 * compareFailed,
      sessionResultBytesMax: 2 * compareFailed,
    });
    bench.add(plainSection([put("a", "0")]));
    const [one, two] = [bench.open(), bench.open()];
    const fails = (session: number, seq: number): Uint8Array =>
      inSession(session, seq, [createKey("a", `${session} ${seq}`)]);
    // The first may have what nobody else has taken yet, and no more than its window.
    for (let seq = 1; seq <= 3; seq++) bench.add(fails(one, seq));
    expect(bench.refusal(bench.add(fails(one, 1)))).toBe("result_forgotten");
    expect(bench.results.repeats.has(bench.add(fails(one, 2)))).toBe(true);
    // The share of the second is there all the same.
    bench.add(fails(two, 1));
    expect(bench.results.repeats.has(bench.add(fails(two, 1)))).toBe(true);
    bench.add(fails(two, 2));
    expect(bench.refusal(bench.add(fails(two, 1)))).toBe("result_forgotten");
    expect(bench.machine.figures()["sessionBytes"]).toBe(3 * compareFailed);
  });

  test("ends when so much of the cluster's time has passed since it was used", () => {
    const bench = new Bench();
    const session = bench.open(5_000);
    bench.timeMs += 5_000;
    bench.control({ op: "keepAlive", session });
    bench.timeMs += 5_000;
    bench.add(inSession(session, 1, [put("a", "1")]));
    bench.timeMs += 5_001;
    expect(bench.refusal(bench.add(inSession(session, 2, [put("a", "2")])))).toBe(
      "session_expired",
    );
    expect(bench.refusal(bench.control({ op: "keepAlive", session }))).toBe("session_expired");
    expect(bench.refusal(bench.control({ op: "close", session }))).toBeUndefined();
    expect(bench.get("a")?.value).toBe("1");
    expect(bench.machine.figures()["sessions"]).toBe(0);
  });

  test("goes on where a leader has led the cluster's time to the end of numbers, also after a restart", () => {
    const bench = new Bench();
    bench.timeMs = Number.MAX_SAFE_INTEGER - 5;
    const session = bench.open();
    bench.restart();
    bench.timeMs = Number.MAX_SAFE_INTEGER;
    bench.control({ op: "keepAlive", session });
    bench.restart();
    expect(bench.machine.figures()["sessions"]).toBe(1);
  });

  test("is gone once it is closed", () => {
    const bench = new Bench();
    const session = bench.open();
    bench.control({ op: "close", session });
    expect(bench.refusal(bench.add(inSession(session, 1, [put("a", "1")])))).toBe(
      "session_expired",
    );
    expect(bench.get("a")).toBeUndefined();
  });

  test("is refused where there are too many, until idle ones are gone; none is evicted", () => {
    const bench = new Bench({ sessionsMax: 2 });
    const [one] = [bench.open(5_000), bench.open(50_000)];
    const third = bench.open();
    expect(bench.refusal(third)).toBe("sessions_full");
    bench.add(inSession(one, 1, [put("a", "1")]));
    bench.timeMs += 5_001;
    const fourth = bench.open();
    expect(bench.refusal(fourth)).toBeUndefined();
    expect(bench.refusal(bench.add(inSession(one, 2, [put("a", "2")])))).toBe("session_expired");
  });

  test("takes malformed commands as applied, with a result each, so that it goes on behind them", () => {
    const bench = new Bench();
    const session = bench.open();
    const broken = inSession(session, 1, [text("no command"), text("nor this")]);
    const index = bench.add(broken);
    expect(bench.results.all.get(index)?.code).toBe(ResultCode.malformed);
    const repeat = bench.results.repeats.get(bench.add(broken))!;
    expect(readSectionResults(repeat.bytes, 2)!.map(({ code }) => code)).toEqual([1, 1]);
    bench.add(inSession(session, 3, [put("a", "1")]));
    expect(bench.get("a")?.value).toBe("1");
  });
});

describe("a request id", () => {
  test("is applied once, told from another request, and forgotten by the cluster's time", () => {
    const bench = new Bench({ requestIdTtlMs: 5_000 });
    const section = keyed(7, createKey("a", "1"));
    const first = bench.add(section);
    const again = bench.add(section);
    expect(bench.results.repeats.get(again)?.original).toBe(first);
    expect(bench.refusal(bench.add(keyed(7, createKey("a", "2"))))).toBe("session_mismatch");
    bench.timeMs += 5_000;
    expect(bench.results.repeats.has(bench.add(section))).toBe(true);
    bench.timeMs += 1;
    const late = bench.add(section);
    expect(bench.results.all.get(late)?.code).toBe(ResultCode.compareFailed);
    expect(bench.machine.figures()["requestIds"]).toBe(1);
  });

  test("is refused where there are too many, and none is forgotten for it", () => {
    const bench = new Bench({ requestIdsMax: 3, requestIdTtlMs: 5_000 });
    for (let id = 1; id <= 3; id++) bench.add(keyed(id, put("a", `${id}`)));
    expect(bench.refusal(bench.add(keyed(4, put("a", "4"))))).toBe("request_ids_full");
    expect(bench.results.repeats.has(bench.add(keyed(1, put("a", "1"))))).toBe(true);
    expect(bench.get("a")?.value).toBe("3");
    bench.timeMs += 5_001;
    expect(bench.refusal(bench.add(keyed(4, put("a", "4"))))).toBeUndefined();
  });

  test("keeps its place while others come and go", () => {
    const bench = new Bench({ requestIdTtlMs: 1_000 });
    for (let id = 1; id <= 3_000; id++) {
      bench.timeMs += 10;
      const first = bench.add(keyed(id, createKey("a", `${id}`)));
      if (id % 500 === 0) bench.restart();
      const again = bench.add(keyed(id, createKey("a", `${id}`)));
      expect(bench.results.repeats.get(again)?.original).toBe(first);
    }
    expect(bench.machine.figures()["requestIds"]).toBe(101);
  });
});

test("below apply version 2 sections of every kind are plain, and a control section is malformed", () => {
  const log = new TestLog();
  const machine = new KvMachine({
    file: new SimKvFile({ random: () => 0, schedule: () => {} }),
    limits: defaultLimits,
    nowMs: () => 0,
  });
  machine.open();
  const results = new Results();
  const section = inSession(9, 5, [createKey("a", "1")]);
  machine.apply([log.addSections([section, section, keyed(1, put("b", "1"))])], results);
  expect(results.all.get(2)?.code).toBe(ResultCode.compareFailed);
  expect(results.refusals.size).toBe(0);
  machine.apply(
    [log.addSections([sessionCommandSection({ op: "open", ttlMs: 9_000, principal }), section])],
    results,
  );
  expect([4, 5].map((index) => results.all.get(index)?.code)).toEqual([1, 1]);
  expect(machine.figures()["sessions"]).toBe(0);
});

test("a control section that is none gives each of its commands an error", () => {
  const bench = new Bench();
  const control = (commands: readonly Uint8Array[]): Uint8Array =>
    layOutSection(commands, { kind: SectionKind.control, session: 0, firstSeq: 0, doneUpTo: 0 });
  const open = Uint8Array.of(1, 1, 0, 0, 0, 0, 1, 0);
  for (const commands of [
    [new Uint8Array(0)],
    [open.subarray(0, 7)],
    [Uint8Array.of(9, 1, 0, 0, 0, 0, 0, 0)],
    [Uint8Array.of(2, 1, 0, 0, 0, 0, 0, 0)],
    [Uint8Array.of(2, 1, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)],
    [Uint8Array.of(1, 2, 0, 0, 0, 0, 1, 0)],
    [Uint8Array.of(1, 1, 1, 0, 0, 0, 1, 0)],
    [open, open],
  ]) {
    const index = bench.add(control(commands));
    for (let at = 0; at < commands.length; at++) {
      expect(bench.results.all.get(index + at)?.code).toBe(ResultCode.malformed);
    }
  }
  expect(bench.machine.figures()["sessions"]).toBe(0);
});

test("the null machine has sessions too", () => {
  const log = new TestLog();
  const file = new SimKvFile({ random: () => 0, schedule: () => {} });
  const machine = new NullMachine({ file, limits: defaultLimits, nowMs: () => 0 });
  machine.open();
  const results = new Results();
  const section = inSession(2, 1, [put("a", "1")]);
  const open = sessionCommandSection({ op: "open", ttlMs: 9_000, principal });
  for (const sections of [[open], [section], [section]]) {
    if (log.lastIndex === 0) machine.apply([log.raise(2)], results);
    machine.apply([log.addSections(sections)], results);
  }
  expect(results.repeats.get(4)?.original).toBe(3);
});

/** Requests of a few clients that send again, too early, other bytes, and late; what a machine makes of them does not depend on restarts. */
test("whatever comes, a machine that starts again and again says and keeps the same as one that runs on", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const smaller: Partial<Limits> = {
      sessionsMax: 3,
      sessionTtlMsMin: 1,
      sessionSweepMs: random.pick([1, 50, 1_000]),
      sessionWindowSections: random.between(1, 4),
      sessionWindowBytes: random.pick([1, 40, 200]),
      sessionResultBytesMax: random.pick([1, 60, 300]),
      requestIdsMax: random.pick([2, 10]),
      requestIdTtlMs: random.pick([50, 500]),
      requestIdBytesMax: random.pick([100, 400, 10_000]),
    };
    const [steady, restarted] = [new Bench(smaller), new Bench(smaller)];
    const sessions: number[] = [0];
    for (let step = 0; step < 150; step++) {
      const sections = Array.from({ length: random.between(1, 3) }, () =>
        randomSection(random, random.pick(sessions)),
      );
      const timeMs = steady.timeMs + random.pick([0, 1, 20, 200]);
      steady.timeMs = timeMs;
      restarted.timeMs = timeMs;
      const index = steady.add(...sections);
      expect(restarted.add(...sections)).toBe(index);
      sessions.push(index);
      if (sessions.length > 4) sessions.shift();
      if (random.chance(0.1)) restarted.restart();
      if (restarted.machine.stateHash !== steady.machine.stateHash) {
        throw new Error(`seed ${seed}: after step ${step} the state hashes differ`);
      }
      const equal = Buffer.compare(
        steady.machine.savedSessions(),
        restarted.machine.savedSessions(),
      );
      if (equal !== 0) throw new Error(`seed ${seed}: after step ${step} the sessions differ`);
    }
    expect(restarted.results).toEqual(steady.results);
  }
});

function randomSection(random: Random, session: number): Uint8Array {
  const key = `k${random.below(3)}`;
  const command = random.chance(0.5) ? put(key, "v") : createKey(key, "v");
  const choice = random.float();
  if (choice < 0.15) {
    const ttlMs = random.pick([30, 300, 3_000]);
    return sessionCommandSection({ op: "open", ttlMs, principal });
  }
  if (choice < 0.2) return sessionCommandSection({ op: "close", session });
  if (choice < 0.25) return sessionCommandSection({ op: "keepAlive", session });
  if (choice < 0.5) return keyed(random.below(6), command);
  const commands = Array.from({ length: random.between(1, 2) }, () => command);
  return inSession(session, random.between(1, 4), commands, random.below(3));
}
