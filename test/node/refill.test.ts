/** A state that is fetched from another member: part by part, checked, and from the next one where something goes wrong. */
import { expect, test } from "bun:test";
import { BargeError } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import type { IncomingSnapshot, StateMachine } from "../../src/machine/machine.ts";
import { Refill } from "../../src/node/refill.ts";
import type { AdminWaiter } from "../../src/server/groups.ts";

const state = Buffer.from("the state of another member, in some parts");
const chunkBytes = 10;

interface Asked {
  readonly to: number;
  readonly operation: string;
  readonly body: Record<string, unknown>;
  readonly waiter: AdminWaiter;
}

class Scene {
  lacksStateAt: number | undefined = 50;
  members: number[] = [1, 3];
  hasRoom = true;
  writes = true;
  isSound = true;
  readonly received: Buffer[] = [];
  discarded = 0;
  refilled = 0;
  readonly asked: Asked[] = [];
  readonly messages: string[] = [];
  #ids = 100;
  readonly refill: Refill;

  constructor() {
    const lacksStateAt = (): number | undefined => this.lacksStateAt;
    const machine = {
      get lacksStateAt() {
        return lacksStateAt();
      },
      receiveSnapshot: () => (this.hasRoom ? this.#incoming() : undefined),
      refill: () => {
        this.refilled++;
        this.lacksStateAt = undefined;
      },
    };
    this.refill = new Refill({
      group: 7,
      machine: machine as unknown as StateMachine,
      limits: defaultLimits,
      applyVersionMax: 2,
      members: () => this.members,
      ask: (to, operation, body, waiter) =>
        void this.asked.push({ to, operation, body: body as Record<string, unknown>, waiter }),
      newId: () => ++this.#ids,
      wake: () => {},
      info: (_, message) => void this.messages.push(message),
    });
  }

  #incoming(): IncomingSnapshot {
    return {
      generation: 1,
      write: (_, bytes, done) => {
        this.received.push(Buffer.from(bytes));
        done(this.writes);
      },
      finish: (_, done) => done(true),
      open: () => (this.isSound ? "opened" : "unusable"),
      discard: () => void this.discarded++,
    };
  }

  /** Answers the oldest request; returns what it was. */
  answer(change: (answer: Record<string, unknown>) => void = () => {}): Asked {
    const asked = this.asked.shift()!;
    const answers: Record<string, Record<string, unknown>> = {
      backupOpen: {
        index: 60,
        bytes: state.byteLength,
        chunkBytes,
        machine: "http",
        applyVersion: 2,
      },
      backupRead: {
        bytes: state.subarray(
          Number(asked.body["offset"]),
          Number(asked.body["offset"]) + chunkBytes,
        ),
      },
      backupClose: {},
    };
    const answer = { ...answers[asked.operation] };
    change(answer);
    asked.waiter.answered(answer);
    return asked;
  }

  fail(): Asked {
    const asked = this.asked.shift()!;
    asked.waiter.failed(new BargeError("no_leader", "It is gone."));
    return asked;
  }

  /** Whom it asks next, after having closed what it had open. */
  asksNext(): number | undefined {
    expect(this.asked.map(({ operation }) => operation)).toEqual(["backupClose"]);
    this.answer();
    this.refill.work(500);
    expect(this.asked.length).toBe(0);
    this.refill.work(1_500);
    expect(this.asked[0]?.operation).toBe("backupOpen");
    return this.asked[0]?.to;
  }
}

function begun(): Scene {
  const scene = new Scene();
  scene.refill.work(0);
  return scene;
}

test("part by part, one at a time, and closed at the end", () => {
  const scene = begun();
  const { to, body } = scene.answer();
  // A member that waits for something itself must not be waited for.
  expect([to, body["group"], body["backup"], body["local"]]).toEqual([1, 7, 101, true]);
  while (scene.asked[0]?.operation === "backupRead") {
    expect(scene.asked.length).toBe(1);
    scene.answer();
  }
  expect(Buffer.concat(scene.received).equals(state)).toBe(true);
  expect(scene.asked.map(({ operation, body: { backup } }) => [operation, backup])).toEqual([
    ["backupClose", 101],
  ]);
  expect([scene.refilled, scene.discarded]).toEqual([1, 0]);
  scene.answer();
  scene.refill.work(10_000);
  expect(scene.asked).toEqual([]);
});

test("nothing is asked for where nothing is lacking, nor where nobody is there", () => {
  const scene = new Scene();
  scene.lacksStateAt = undefined;
  scene.refill.work(0);
  scene.lacksStateAt = 50;
  scene.members = [];
  scene.refill.work(0);
  expect(scene.asked).toEqual([]);
});

const strange: readonly [what: string, change: (answer: Record<string, unknown>) => void][] = [
  ["an older state than is needed", (answer) => (answer["index"] = 49)],
  ["a state of a newer build", (answer) => (answer["applyVersion"] = 3)],
  ["a state of another machine", (answer) => (answer["machine"] = "kv")],
  ["no length", (answer) => delete answer["bytes"]],
  ["chunks beyond all bounds", (answer) => (answer["chunkBytes"] = 2 ** 40)],
  ["a text in place of a number", (answer) => (answer["index"] = "60")],
];
for (const [what, change] of strange) {
  test(`${what}: the next one is asked`, () => {
    const scene = begun();
    scene.answer(change);
    expect(scene.asksNext()).toBe(3);
    expect(scene.received).toEqual([]);
  });
}

test("a member that goes meanwhile, or does not open it: the next one is asked", () => {
  const scene = begun();
  scene.answer();
  scene.answer();
  scene.fail();
  expect(scene.discarded).toBe(1);
  expect(scene.asksNext()).toBe(3);
  scene.fail();
  expect(scene.messages.at(-1)).toContain("It is gone.");
});

test("a part of another length, a full disk, an unsound state: given up, and asked for again", () => {
  for (const spoil of [
    (scene: Scene) => void scene.answer((answer) => (answer["bytes"] = new Uint8Array(3))),
    (scene: Scene) => {
      scene.writes = false;
      scene.answer();
    },
    (scene: Scene) => {
      scene.isSound = false;
      while (scene.asked[0]?.operation === "backupRead") scene.answer();
    },
  ]) {
    const scene = begun();
    scene.answer();
    spoil(scene);
    expect([scene.refilled, scene.discarded]).toEqual([0, 1]);
    expect(scene.asksNext()).toBe(3);
  }
});

test("no room for it: asked again later", () => {
  const scene = begun();
  scene.hasRoom = false;
  scene.answer();
  expect(scene.asksNext()).toBe(3);
});

test("the application is back by itself: what has come so far goes", () => {
  const scene = begun();
  scene.answer();
  scene.answer();
  scene.lacksStateAt = undefined;
  scene.refill.work(100);
  expect([scene.refilled, scene.discarded]).toEqual([0, 1]);
  const late = scene.asked.shift()!;
  expect(late.operation).toBe("backupRead");
  late.waiter.answered({ bytes: state.subarray(10, 20) });
  expect(scene.asked.map(({ operation }) => operation)).toEqual(["backupClose"]);
});
