/** The machine that is an application: what it is given, in which order, and what becomes of each of its failures. */
import { expect, test } from "bun:test";
import { BatchKind } from "../../../src/wire/batch.ts";
import { layOutSection, SectionKind } from "../../../src/wire/section.ts";
import { Answers } from "../log.ts";
import type { Fault } from "./fake-app.ts";
import { FakeApp } from "./fake-app.ts";
import { commands, entriesOf, expected, quickLimits, World } from "./world.ts";

const all256 = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join("");

function noop(world: World): void {
  world.log.addBody(new Uint8Array(0), 1, BatchKind.noop);
}

/** Some writes with no-ops between them; the commands that an application has to have. */
function fill(world: World, count: number): void {
  for (let i = 0; i < count; i++) {
    if (i % 5 === 3) noop(world);
    world.log.add([commands(`a${i}`, `b${i}`), commands(`c${i}`)]);
  }
}

for (const shape of ["json", "binary"] as const) {
  test(`${shape}: entries come in order, with gaps, and their results go back by position`, () => {
    const world = new World();
    world.app.shape = shape;
    noop(world);
    world.log.add([commands("one", "two"), commands(all256, "")]);
    noop(world);
    world.log.add([commands("five")]);
    world.caughtUp();
    expect(entriesOf(world)).toEqual(expected(world));
    for (const entry of expected(world)) {
      const index = Number(/@([0-9]+)$/s.exec(entry)![1]);
      expect(world.resultAt(index)).toBe(entry);
    }
  });
}

test("the JSON that is sent is the one of the documentation", () => {
  const world = new World();
  world.log.add([commands("hello")]);
  noop(world);
  world.log.add([commands("world")]);
  world.caughtUp();
  const update = world.app.asked.find(({ name }) => name === "UpdateEntries")!;
  expect(update.body).toBe(
    '{"Entries":[{"Index":1,"Cmd":"aGVsbG8="},{"Index":3,"Cmd":"d29ybGQ="}]}',
  );
  expect(update.contentType).toBe("application/json");
});

test("headers tell group, node and what the application should have", () => {
  const world = new World();
  fill(world, 4);
  world.caughtUp();
  world.prepared()!.release();
  const answers = new Answers();
  world.machine.read(Buffer.from("q"), answers);
  world.until(() => answers.code === 0);
  for (const { name, headers } of world.app.asked) {
    expect(headers).toMatchObject({
      "raftd-shard-id": "0",
      "raftd-replica-id": "2",
      "raftd-node-id": "2",
    });
    const isFirst = name === "Ready" || name === "LastLogIndex";
    expect([name, headers["barge-previous-index"] === undefined]).toEqual([name, isFirst]);
  }
  expect(world.app.asked.at(-1)!.headers["barge-instance"]).toBe("life-1");
});

test("each of the nine callbacks tells who calls, and what its body is", () => {
  const source = new World();
  fill(source, 4);
  source.caughtUp();
  const snapshot = source.prepared()!;
  const bytes = source.all(snapshot)!;
  const world = new World({ sync: true, log: source.log });
  world.app.storesAtOnce = false;
  world.takeOver(bytes, snapshot.index);
  fill(world, 2);
  world.caughtUp();
  const own = world.prepared()!;
  world.all(own);
  own.release();
  const answers = new Answers();
  world.machine.read(Buffer.from("q"), answers);
  world.until(() => answers.code === 0 && world.app.count("ReleaseSnapshot") > 0);
  const types = new Map<string, string | undefined>();
  for (const { name, headers, contentType } of world.app.asked) {
    types.set(name, contentType);
    const who = { "raftd-shard-id": "0", "raftd-replica-id": "2", "raftd-node-id": "2" };
    expect([name, headers]).toEqual([name, expect.objectContaining(who)]);
  }
  const [json, octets] = ["application/json", "application/octet-stream"];
  expect(Object.fromEntries(types)).toEqual({
    Ready: undefined,
    LastLogIndex: undefined,
    UpdateEntries: json,
    Read: octets,
    Sync: undefined,
    PrepareSnapshot: undefined,
    SaveSnapshot: json,
    ReleaseSnapshot: json,
    RecoverFromSnapshot: octets,
  });
});

test("several batches merge into one call, one is in flight, and the next is prepared meanwhile", () => {
  const world = new World();
  world.app.fail("UpdateEntries", "hang");
  fill(world, 3);
  world.commitAll();
  world.until(() => world.app.count("UpdateEntries") === 1);
  fill(world, 30);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.app.count("UpdateEntries")).toBeLessThan(15);
});

test("nothing is given that is not durable in this node's own log", () => {
  const world = new World();
  fill(world, 10);
  const half = world.log.batches[4]!;
  world.commitAll();
  world.durable = half.firstIndex + half.count - 1;
  for (let turns = 0; turns < 100; turns++) world.turn();
  expect(entriesOf(world)).toEqual(expected(world, world.durable));
  expect(world.app.entries.length).toBeGreaterThan(0);
  world.durable = Infinity;
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
});

const faults: Fault[] = [
  "hang",
  "mute",
  "500",
  "empty500",
  "long500",
  "reset",
  "resetAfter",
  "garbage",
];
for (const fault of faults) {
  test(`UpdateEntries, ${fault}: nothing is lost, given twice or left out`, () => {
    const world = new World();
    fill(world, 3);
    world.caughtUp();
    fill(world, 3);
    world.app.fail("UpdateEntries", fault);
    world.caughtUp();
    expect(entriesOf(world)).toEqual(expected(world));
    // What was done, and never answered, is told as such.
    const isDone = fault === "mute" || fault === "resetAfter" || fault === "garbage";
    const lost = expected(world)
      .map((entry) => Number(/@([0-9]+)$/s.exec(entry)![1]))
      .filter((index) => world.resultAt(index) === "result_forgotten");
    expect(lost.length > 0).toBe(isDone);
  });
}

test("a wrong number of results makes them empty, and is told once", () => {
  const world = new World();
  world.app.fail("UpdateEntries", "miscount", "miscount");
  world.log.add([commands("one", "two")]);
  world.caughtUp();
  world.log.add([commands("three")]);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.resultAt(1)).toBeUndefined();
  expect(world.results.refusals.size).toBe(0);
  expect(world.messages.filter((message) => message.includes("number of results")).length).toBe(1);
});

test("an application that fails for long: the node says what it waits for, and goes on at the same index", () => {
  const world = new World();
  fill(world, 2);
  world.caughtUp();
  const before = world.machine.appliedIndex;
  let isBroken = true;
  world.app.chance = (name) => (isBroken && name === "UpdateEntries" ? "500" : undefined);
  fill(world, 2);
  world.commitAll();
  for (let turns = 0; turns < 1_200; turns++) world.turn();
  expect(world.machine.appliedIndex).toBe(before);
  world.until(() => world.machine.absence !== undefined);
  expect(world.machine.absence!.reason).toBe("UpdateEntries: status 500: it is broken");
  // Though it says each time that it is ready.
  for (let turns = 0; turns < 100; turns++) {
    world.turn();
    expect(world.machine.absence?.isLong).toBe(true);
  }
  isBroken = false;
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.machine.absence).toBeUndefined();
});

test("an application that is gone: absent for long, and back", () => {
  const world = new World();
  expect(world.machine.absence).toMatchObject({ forMs: Infinity, isLong: true });
  fill(world, 1);
  world.caughtUp();
  expect(world.machine.absence).toBeUndefined();
  world.app.isUp = false;
  world.until(() => world.machine.absence?.isLong === true);
  expect(world.machine.absence!.reason).toBe("Ready: nobody answers there");
  const failures = world.machine.figures()["appFailures"]!;
  for (let turns = 0; turns < 400; turns++) world.turn();
  // With back-off, not in each turn.
  expect(world.machine.figures()["appFailures"]! - failures).toBeLessThanOrEqual(101);
  world.app.isUp = true;
  world.until(() => world.machine.absence === undefined);
});

test("the application says what it has: entries up to there are not given", () => {
  const world = new World();
  fill(world, 6);
  world.caughtUp();
  world.crash();
  const had = world.app.entries.length;
  world.app.asked.length = 0;
  world.start();
  expect(world.machine.storedIndex).toBeUndefined();
  fill(world, 2);
  world.caughtUp();
  expect(world.machine.storedIndex).toBe(world.app.entries[had - 1]!.index);
  expect(entriesOf(world)).toEqual(expected(world));
  const first = JSON.parse(world.app.asked.find(({ name }) => name === "UpdateEntries")!.body) as {
    Entries: { Index: number }[];
  };
  expect(first.Entries[0]!.Index).toBe(world.app.entries[had]!.index);
});

test("a new node's application that has entries already is refused, with the remedy, until it has none", () => {
  const app = new FakeApp();
  app.entries = [{ index: 50, command: "strange" }];
  const world = new World({ app });
  fill(world, 30);
  world.commitAll();
  for (let turns = 0; turns < 200; turns++) world.turn();
  expect(app.entries.length).toBe(1);
  expect(world.machine.absence!.reason).toContain("never gave it any beyond 0");
  app.entries = [];
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
});

for (const index of [2 ** 53, "9007199254740993", -1, 1.5, "many"]) {
  test(`LastLogIndex ${index} is refused, never rounded`, () => {
    const world = new World();
    world.app.reportsIndex = () => index;
    world.until(() => world.machine.absence?.reason.startsWith("LastLogIndex") === true);
    const isNumber = typeof index === "number" && index > 2 ** 52;
    expect(world.machine.absence!.reason.includes("2^53-1")).toBe(isNumber);
  });
}

test("with Sync: what was not synced may be lost, and is given again; Sync comes before the log below goes", () => {
  const world = new World({ sync: true });
  world.app.storesAtOnce = false;
  fill(world, 6);
  world.caughtUp();
  expect(world.machine.durableIndex).toBe(0);
  world.machine.flush();
  world.until(() => world.machine.durableIndex > 0);
  expect(world.app.count("Sync")).toBe(1);
  expect(world.app.durable.length).toBe(world.app.entries.length);
  fill(world, 4);
  world.caughtUp();
  world.app.crash(2);
  fill(world, 1);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.messages.join()).toContain("given again");
});

test("without Sync there is no such call, and what is applied is durable", () => {
  const world = new World();
  fill(world, 3);
  world.caughtUp();
  world.machine.flush();
  world.until(() => world.machine.durableIndex === world.commit);
  expect(world.app.count("Sync")).toBe(0);
});

test("with Sync an application without an instance id is refused", () => {
  const world = new World({ sync: true });
  world.app.instance = undefined;
  world.until(() => world.machine.absence?.reason.includes("barge-instance") === true);
});

test("a full disk keeps the state from being saved, and nothing else", () => {
  const world = new World();
  world.folder.isFull = true;
  fill(world, 3);
  world.caughtUp();
  world.machine.flush();
  for (let turns = 0; turns < 200; turns++) world.turn();
  expect(world.machine.durableIndex).toBe(0);
  world.folder.isFull = false;
  world.until(() => world.machine.durableIndex === world.commit);
});

test("an application that has lost what is durable needs another member's state", () => {
  const world = new World();
  fill(world, 4);
  world.caughtUp();
  world.machine.flush();
  world.until(() => world.machine.durableIndex > 0);
  const snapshot = world.prepared()!;
  const bytes = world.all(snapshot)!;
  const { index } = snapshot;
  snapshot.release();
  world.logStart = 1;
  world.app.entries = [];
  world.app.durable = [];
  world.app.crash();
  world.until(() => world.machine.lacksStateAt !== undefined);
  expect(world.machine.lacksStateAt).toBe(world.machine.durableIndex);
  const { incoming, opening } = world.receive(bytes, index);
  expect(opening).toBe("opened");
  world.machine.refill(incoming);
  fill(world, 2);
  world.caughtUp();
  world.until(() => world.machine.absence === undefined);
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.machine.lacksStateAt).toBeUndefined();
});

/** One that has applied half of a log, and the snapshot of another that has applied all of it. */
function halfway() {
  const source = new World();
  fill(source, 10);
  source.caughtUp();
  const snapshot = source.prepared()!;
  const bytes = source.all(snapshot)!;
  const world = new World({ log: source.log });
  const middle = source.log.batches[5]!;
  world.commit = middle.firstIndex + middle.count - 1;
  world.until(() => world.machine.appliedIndex === world.commit);
  return { world, snapshot, bytes };
}

test("a state that is beyond this node's own log waits for it", () => {
  const { world, snapshot, bytes } = halfway();
  world.machine.flush();
  world.until(() => world.machine.durableIndex > 0);
  world.logStart = 1;
  world.app.entries = [];
  world.app.crash();
  world.until(() => world.machine.lacksStateAt !== undefined);
  world.machine.refill(world.receive(bytes, snapshot.index).incoming);
  for (let turns = 0; turns < 50; turns++) world.turn();
  expect(world.machine.lacksStateAt).toBeUndefined();
  expect(world.machine.appliedIndex).toBe(world.commit);
  world.caughtUp();
  world.until(() => world.machine.absence === undefined);
  expect(entriesOf(world)).toEqual(expected(world));
});

test("an application that has lost what is durable gets it again from a log that holds everything", () => {
  const world = new World();
  fill(world, 4);
  world.caughtUp();
  world.machine.flush();
  world.until(() => world.machine.durableIndex > 0);
  world.app.entries = [];
  world.app.durable = [];
  world.app.crash();
  world.until(() => world.app.entries.length === expected(world).length);
  expect(entriesOf(world)).toEqual(expected(world));
});

/* ---------------------------------------------------------------- reads */

test("a read's bytes go both ways as they are", () => {
  const world = new World();
  fill(world, 1);
  world.caughtUp();
  for (const query of ["", all256, '{"a":1}']) {
    const answers = new Answers();
    world.machine.read(Buffer.from(query, "latin1"), answers);
    world.until(() => answers.code >= 0);
    expect(answers.code).toBe(0);
    expect(Buffer.from(answers.bytes).toString("latin1")).toBe(`3:${query}`);
  }
  expect(world.app.asked.at(-1)!.contentType).toBe("application/octet-stream");
});

test("a read is not answered by an application that has forgotten something since", () => {
  const world = new World({ sync: true });
  world.app.storesAtOnce = false;
  fill(world, 2);
  world.caughtUp();
  const answers = new Answers();
  world.machine.read(Buffer.from("q"), answers);
  world.app.crash();
  world.until(() => answers.code >= 0);
  expect(Buffer.from(answers.bytes).toString()).toBe(`${world.commit}:q`);
  // Though it is ready for reads, and only what it forgot does not get there: rather no answer than an old one.
  world.app.crash();
  world.app.fail("UpdateEntries", "hang");
  const others = new Answers();
  world.machine.read(Buffer.from("q"), others);
  world.until(() => others.code >= 0);
  expect(others.code).toBe(6);
});

test("a read that the application refuses, or does not answer, is told so in time", () => {
  const world = new World();
  fill(world, 1);
  world.caughtUp();
  for (const fault of ["500", "hang", "reset"] as const) {
    world.app.fail("Read", fault);
    const answers = new Answers();
    world.machine.read(Buffer.from("q"), answers);
    const beganMs = world.nowMs;
    world.until(() => answers.code >= 0);
    expect(answers.code).toBe(6);
    expect(world.nowMs - beganMs).toBeLessThan(2 * quickLimits.appTimeoutMs);
  }
  expect(world.machine.absence).toBeUndefined();
});

test("reads are bounded: so many at once, so many wait", () => {
  const limits = { ...quickLimits, appReadsMax: 2, appReadWaitersMax: 3 };
  const world = new World({ limits });
  fill(world, 1);
  world.caughtUp();
  const all = Array.from({ length: 8 }, () => new Answers());
  for (const answers of all) world.machine.read(Buffer.from("q"), answers);
  expect(all.filter(({ code }) => code === 6).length).toBe(5);
  world.until(() => all.every(({ code }) => code >= 0));
  expect(all.filter(({ code }) => code === 0).length).toBe(3);
});

/* ---------------------------------------------------------------- exactly once */

test("what was applied under a request id or a session is not given to the application again, through restarts", () => {
  const world = new World();
  world.log.raise(2);
  const keyed = layOutSection(commands("once"), {
    kind: SectionKind.keyed,
    session: 7,
    firstSeq: 8,
    doneUpTo: 9,
  });
  world.log.addSections([keyed]);
  world.caughtUp();
  world.log.addSections([keyed, keyed]);
  world.caughtUp();
  world.machine.flush();
  world.until(() => world.machine.durableIndex === world.commit);
  world.crash();
  world.start();
  world.log.addSections([keyed]);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(["once@2"]);
  expect([...world.results.repeats.values()].map(({ original }) => original)).toEqual([2, 2, 2]);
});

test("results that were lost stay unknown for whoever asks again", () => {
  const world = new World();
  world.log.raise(2);
  world.caughtUp();
  const keyed = layOutSection(commands("once"), {
    kind: SectionKind.keyed,
    session: 7,
    firstSeq: 8,
    doneUpTo: 9,
  });
  world.app.fail("UpdateEntries", "resetAfter");
  world.log.addSections([keyed]);
  world.log.addSections([keyed]);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(["once@2"]);
  expect(world.resultAt(2)).toBe("result_forgotten");
  expect(world.resultAt(3)).toBe("result_forgotten");
});

test("a section whose commands do not fit gives each of them an error, and the application gets none of it", () => {
  const world = new World();
  const section = layOutSection(commands("one", "two"), {
    kind: SectionKind.plain,
    session: 0,
    firstSeq: 0,
    doneUpTo: 0,
  });
  new DataView(section.buffer).setUint32(40, 999, true);
  world.log.addSections([section]);
  world.log.add([commands("three")]);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(["three@3"]);
  expect(world.results.all.get(1)!.code).toBe(1);
  expect(world.results.all.get(2)!.code).toBe(1);
});

/* ---------------------------------------------------------------- snapshots */

test("a snapshot that is wanted after an answer was lost waits until what the application has is applied", () => {
  const world = new World();
  fill(world, 5);
  world.caughtUp();
  world.app.fail("UpdateEntries", "resetAfter");
  world.log.add([commands("the answer is lost")]);
  world.commitAll();
  world.until(() => world.machine.absence !== undefined, "the application is taken for gone");
  const snapshot = world.prepared()!;
  expect(snapshot.index).toBe(world.log.lastIndex);
  snapshot.release();
});

test("a snapshot holds what was applied when it was prepared, while updates go on", () => {
  const world = new World();
  fill(world, 20);
  world.caughtUp();
  const snapshot = world.prepared()!;
  const then = expected(world);
  expect(snapshot.index).toBe(world.commit);
  fill(world, 5);
  world.caughtUp();
  const once = world.all(snapshot)!;
  expect(world.all(snapshot, 300)!.equals(once)).toBe(true);
  const other = new World({ log: world.log });
  other.takeOver(once, snapshot.index);
  other.caughtUp();
  expect(other.app.restores[0]!.map(({ index, command }) => `${command}@${index}`)).toEqual(then);
  expect(entriesOf(other)).toEqual(expected(world));
  expect(other.machine.stateHash).toBe(world.machine.stateHash);
  snapshot.release();
  world.until(() => world.app.released.size === 1);
  expect([...world.app.released.values()]).toEqual([1]);
});

test("two receivers at once read the same bytes, each at its own pace; each handle is released once", () => {
  const world = new World();
  world.app.saysLength = true;
  fill(world, 40);
  world.caughtUp();
  const [first, second] = [world.prepared()!, world.prepared()!];
  const parts: [Uint8Array[], Uint8Array[]] = [[], []];
  for (let offset = 0; offset < first.bytes; offset += 600) {
    const length = Math.min(600, first.bytes - offset);
    parts[0].push(world.part(first, offset, length)!);
    if (offset < 1_800) parts[1].push(world.part(second, offset, length)!);
  }
  const whole = Buffer.concat(parts[0]);
  expect(whole.subarray(0, 1_800).equals(Buffer.concat(parts[1]))).toBe(true);
  first.release();
  second.release();
  world.until(() => world.app.released.size > 0);
  for (let turns = 0; turns < 50; turns++) world.turn();
  expect(new Set(world.app.released.values())).toEqual(new Set([1]));
});

test("a snapshot that comes out otherwise the second time is given up before its end", () => {
  const world = new World();
  fill(world, 40);
  world.caughtUp();
  const snapshot = world.prepared()!;
  const entries = [...world.app.handles.values()][0]!;
  entries[3] = { index: entries[3]!.index, command: "zz" };
  expect(world.all(snapshot)).toBeUndefined();
  snapshot.release();
});

test("a snapshot is lost with the instance that gave its handle", () => {
  const world = new World();
  fill(world, 40);
  world.caughtUp();
  const snapshot = world.prepared()!;
  world.app.crash();
  world.until(() => world.messages.some((message) => message.includes("lost")));
  expect(world.part(snapshot, 0, snapshot.bytes)).toBeUndefined();
  snapshot.release();
});

test("a snapshot that is given up as the application failed at something else is released all the same", () => {
  const world = new World();
  fill(world, 40);
  world.caughtUp();
  const snapshot = world.prepared()!;
  world.app.fail("UpdateEntries", "500");
  fill(world, 1);
  world.caughtUp();
  expect(world.part(snapshot, 0, snapshot.bytes)).toBeUndefined();
  snapshot.release();
  world.until(() => world.app.released.size === 1);
  for (let turns = 0; turns < 50; turns++) world.turn();
  expect([...world.app.released.values()]).toEqual([1]);
});

for (const fault of ["hang", "500", "reset", "garbage"] as const) {
  test(`PrepareSnapshot, ${fault}: nobody gets one, and updates go on`, () => {
    const world = new World();
    fill(world, 2);
    world.caughtUp();
    world.app.fail("PrepareSnapshot", fault);
    expect(world.prepared()).toBeUndefined();
    fill(world, 2);
    world.caughtUp();
    const snapshot = world.prepared();
    expect(snapshot).toBeDefined();
    snapshot!.release();
  });
}

test("PrepareEvery: the handle is prepared after so many entries, and released at once", () => {
  const world = new World();
  world.app.prepareEvery = 10;
  for (let round = 0; round < 10; round++) {
    fill(world, 2);
    world.caughtUp();
  }
  for (let turns = 0; turns < 10; turns++) world.turn();
  const prepared = world.app.count("PrepareSnapshot");
  expect(prepared).toBeGreaterThanOrEqual(4);
  expect(prepared).toBeLessThanOrEqual(6);
  expect(world.app.released.size).toBe(prepared);
});

for (const fault of ["hang", "mute", "500", "reset", "resetAfter"] as const) {
  for (const sync of [false, true]) {
    test(`RecoverFromSnapshot, ${fault}, ${sync ? "with" : "without"} Sync: given again, whole`, () => {
      const source = new World();
      fill(source, 10);
      source.caughtUp();
      const snapshot = source.prepared()!;
      const bytes = source.all(snapshot)!;
      const world = new World({ log: source.log, sync });
      world.app.storesAtOnce = !sync;
      world.app.fail("RecoverFromSnapshot", fault);
      world.takeOver(bytes, snapshot.index);
      fill(world, 2);
      world.caughtUp();
      expect(entriesOf(world)).toEqual(expected(world));
      for (const given of world.app.restores) expect(given.length).toBe(source.app.entries.length);
      const recoveries = world.app.asked.filter(({ name }) => name === "RecoverFromSnapshot");
      expect(recoveries.length).toBe(2);
      if (!sync) return;
      const names = world.app.asked.map(({ name }) => name);
      expect(names.slice(names.lastIndexOf("RecoverFromSnapshot"))[1]).toBe("Sync");
    });
  }
}

test("a crash between a snapshot's pointer and the application's answer: it is given again", () => {
  const source = new World();
  fill(source, 10);
  source.caughtUp();
  const snapshot = source.prepared()!;
  const bytes = source.all(snapshot)!;
  const world = new World({ log: source.log });
  world.app.isUp = false;
  world.takeOver(bytes, snapshot.index);
  for (let turns = 0; turns < 10; turns++) world.turn();
  world.crash();
  world.start();
  expect(world.machine.appliedIndex).toBe(snapshot.index);
  world.app.isUp = true;
  world.caughtUp();
  world.until(() => world.machine.absence === undefined);
  expect(entriesOf(world)).toEqual(expected(source));
  expect(world.folder.snapshots.size).toBe(0);
  world.crash();
  world.start();
  fill(world, 1);
  world.caughtUp();
  expect(entriesOf(world)).toEqual(expected(world));
  expect(world.app.count("RecoverFromSnapshot")).toBe(1);
});

test("a snapshot that the log may still forget is not given to the application", () => {
  const { world, snapshot, bytes } = halfway();
  const had = entriesOf(world);
  const { incoming } = world.receive(bytes, snapshot.index);
  world.machine.recoverFromSnapshot(incoming);
  for (let turns = 0; turns < 50; turns++) world.turn();
  expect(world.machine.appliedIndex).toBe(snapshot.index);
  expect(entriesOf(world)).toEqual(had);
  world.crash();
  world.start();
  world.caughtUp();
  expect(world.app.count("RecoverFromSnapshot")).toBe(0);
  expect(entriesOf(world)).toEqual(expected(world));
});

test("a state that was being saved when another one came counts for nothing", () => {
  const { world, snapshot, bytes } = halfway();
  const { incoming } = world.receive(bytes, snapshot.index);
  world.machine.flush();
  world.machine.work(world.nowMs);
  world.machine.recoverFromSnapshot(incoming);
  for (let turns = 0; turns < 5; turns++) world.turn();
  expect(world.machine.durableIndex).toBe(snapshot.index);
});

test("an application that does not keep the index with its data is told so after a restore", () => {
  const source = new World();
  fill(source, 3);
  source.caughtUp();
  const snapshot = source.prepared()!;
  const bytes = source.all(snapshot)!;
  const world = new World({ log: source.log });
  world.app.reportsIndex = () => 0;
  world.takeOver(bytes, snapshot.index);
  world.until(() => world.machine.absence?.reason.includes("after RecoverFromSnapshot") === true);
});

test("bytes that are no snapshot, or one of another index, are not taken over", () => {
  const source = new World();
  fill(source, 3);
  source.caughtUp();
  const snapshot = source.prepared()!;
  const bytes = source.all(snapshot)!;
  const world = new World({ log: source.log });
  expect(world.receive(bytes, snapshot.index + 1).opening).toBe("unusable");
  const damaged = Buffer.from(bytes);
  damaged[20]! ^= 1;
  expect(world.receive(damaged, snapshot.index).opening).toBe("unusable");
  expect(world.receive(bytes.subarray(0, 30), snapshot.index).opening).toBe("unusable");
  expect(world.receive(Buffer.alloc(100), snapshot.index).opening).toBe("unusable");
  expect(world.receive(bytes, snapshot.index).opening).toBe("opened");
});
