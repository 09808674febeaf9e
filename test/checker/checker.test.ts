/** The checkers themselves: hand-made histories, random legal ones, and a brute-force twin that tries every order of tiny ones. */
import { describe, expect, test } from "bun:test";
import { Random } from "../sim/random.ts";
import type { Operation } from "./history.ts";
import { checkOrder } from "./order.ts";
import { checkLinearizable, revisionsOf } from "./wgl.ts";

const base: Operation = {
  client: 1,
  key: "k",
  kind: "get",
  value: "",
  expected: 0,
  call: 0,
  return: 0,
  outcome: "ok",
  index: 0,
  success: true,
  seenValue: "",
  seenRevision: 0,
};

type Times = readonly [call: number, end: number];

const put = ([call, end]: Times, value: string, index: number): Operation => ({
  ...base,
  kind: "put",
  call,
  return: end,
  value,
  index,
});
const lost = (call: number, value: string): Operation => ({
  ...base,
  kind: "put",
  call,
  return: Infinity,
  outcome: "unknown",
  value,
});
const get = ([call, end]: Times, seenValue: string, seenRevision: number): Operation => ({
  ...base,
  call,
  return: end,
  success: seenRevision > 0,
  seenValue,
  seenRevision,
});
const compare = (
  [call, end]: Times,
  value: string,
  expected: number,
  index: number,
  met?: number,
): Operation => ({
  ...base,
  kind: "compareAndPut",
  call,
  return: end,
  value,
  expected,
  index,
  success: met === undefined,
  seenRevision: met ?? 0,
});
const remove = ([call, end]: Times, index: number, success: boolean): Operation => ({
  ...base,
  kind: "delete",
  call,
  return: end,
  index,
  success,
});

const cases: { name: string; legal: boolean; history: Operation[] }[] = [
  { name: "nothing", legal: true, history: [] },
  { name: "absent at first", legal: true, history: [get([1, 2], "", 0)] },
  {
    name: "read after write",
    legal: true,
    history: [put([1, 2], "a", 5), get([3, 4], "a", 5)],
  },
  {
    name: "stale read",
    legal: false,
    history: [put([1, 2], "a", 5), put([3, 4], "b", 6), get([5, 6], "a", 5)],
  },
  {
    name: "acknowledged write lost",
    legal: false,
    history: [put([1, 2], "a", 5), get([3, 4], "", 0)],
  },
  {
    name: "overlapping read sees either",
    legal: true,
    history: [put([1, 2], "a", 5), put([3, 9], "b", 6), get([4, 5], "a", 5), get([6, 7], "b", 6)],
  },
  {
    name: "new value, then the old one again",
    legal: false,
    history: [put([1, 2], "a", 5), put([3, 9], "b", 6), get([4, 5], "b", 6), get([6, 7], "a", 5)],
  },
  {
    name: "unknown write seen late",
    legal: true,
    history: [lost(1, "a"), put([2, 3], "b", 5), get([4, 5], "b", 5), get([6, 7], "a", 8)],
  },
  {
    name: "unknown write never seen",
    legal: true,
    history: [lost(1, "a"), put([2, 3], "b", 5), get([4, 5], "b", 5)],
  },
  {
    name: "unknown write seen before it was called",
    legal: false,
    history: [get([1, 2], "a", 5), lost(3, "a")],
  },
  {
    name: "unknown write undone",
    legal: false,
    history: [lost(1, "a"), get([2, 3], "a", 5), get([4, 5], "", 0)],
  },
  {
    name: "indexes against real time",
    legal: false,
    history: [put([1, 2], "a", 6), put([3, 4], "b", 5)],
  },
  {
    name: "value with the revision of another",
    legal: false,
    history: [put([1, 2], "a", 5), get([3, 4], "a", 6)],
  },
  { name: "value out of thin air", legal: false, history: [get([3, 4], "x", 6)] },
  {
    name: "compare and put",
    legal: true,
    history: [put([1, 2], "a", 5), compare([3, 4], "b", 5, 6), compare([5, 6], "c", 5, 7, 6)],
  },
  {
    name: "two compares win on one revision",
    legal: false,
    history: [put([1, 2], "a", 5), compare([3, 9], "b", 5, 6), compare([3.5, 8], "c", 5, 7)],
  },
  {
    name: "compare fails although equal",
    legal: false,
    history: [put([1, 2], "a", 5), compare([3, 4], "b", 5, 6, 5)],
  },
  {
    name: "create, delete, create",
    legal: true,
    history: [compare([1, 2], "a", 0, 5), remove([3, 4], 6, true), compare([5, 6], "b", 0, 7)],
  },
  {
    name: "delete of an absent key finds one",
    legal: false,
    history: [remove([1, 2], 6, true)],
  },
  {
    name: "failed compare met an unknown write",
    legal: true,
    history: [lost(1, "a"), compare([2, 3], "b", 0, 9, 7)],
  },
];

describe("linearizability", () => {
  for (const { name, legal, history } of cases) {
    test(name, () => {
      const verdict = checkLinearizable(history);
      expect(verdict.kind).toBe(legal ? "legal" : "illegal");
    });
  }

  test("keys are independent", () => {
    const other = { ...put([1, 2], "b", 6), key: "other" };
    expect(checkLinearizable([put([1, 2], "a", 5), other, get([3, 4], "a", 5)]).kind).toBe("legal");
  });

  test("a budget that runs out is no verdict", () => {
    const history = Array.from({ length: 12 }, (_, at) => put([at / 100, 100 + at], `v${at}`, 0));
    const wrong = [...history, get([200, 201], "", 0)];
    expect(checkLinearizable(wrong, 100).kind).toBe("undecided");
  });

  test("random runs of a real register are legal, long ones too", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const history = randomHistory(new Random(seed), { operations: 200, clients: 6, wrong: 0 });
      const verdict = checkLinearizable(history);
      if (verdict.kind !== "legal") throw new Error(`seed ${seed}: ${JSON.stringify(verdict)}`);
      expect(checkOrder(history)).toBeUndefined();
    }
  });

  test("agrees with a brute-force twin on tiny histories", () => {
    let illegal = 0;
    for (let seed = 1; seed <= 3_000; seed++) {
      const random = new Random(seed, 7);
      const history = randomHistory(random, { operations: 6, clients: 3, wrong: 0.3 });
      const verdict = checkLinearizable(history);
      const expected = bruteForce(history);
      if ((verdict.kind === "legal") !== expected) {
        throw new Error(`seed ${seed}: ${verdict.kind}, twin says ${expected}`);
      }
      if (!expected) illegal++;
    }
    expect(illegal).toBeGreaterThan(300);
    expect(illegal).toBeLessThan(2_700);
  });
});

describe("order by index", () => {
  const at = (operation: Operation, index: number): Operation => ({ ...operation, index });

  test("a read behind a returned write", () => {
    const history = [put([1, 2], "a", 5), at({ ...get([3, 4], "", 0), key: "other" }, 4)];
    expect(checkOrder(history)).toContain("index 4");
  });
  test("a read that goes back", () => {
    const history = [at(get([1, 2], "", 0), 9), at(get([3, 4], "", 0), 8)];
    expect(checkOrder(history)).toContain("index 8");
  });
  test("two writes at one index", () => {
    expect(checkOrder([put([1, 9], "a", 5), put([1, 9], "b", 5)])).toContain("two acknowledged");
  });
  test("a value that was overwritten below the read", () => {
    const history = [put([1, 9], "a", 5), put([1, 9], "b", 6), at(get([1, 9], "a", 5), 6)];
    expect(checkOrder(history)).toContain("had overwritten it");
  });
  test("a value from beyond the applied index", () => {
    expect(checkOrder([put([1, 9], "a", 5), at(get([1, 9], "a", 5), 4)])).toContain("not yet");
  });
  test("a write that was reported as not applied", () => {
    const refused: Operation = { ...lost(1, "a"), outcome: "refused", return: 2 };
    expect(checkOrder([refused, at(get([3, 4], "a", 5), 5)])).toContain("not applied");
  });
  test("legal", () => {
    const history = [put([1, 2], "a", 5), put([3, 4], "b", 6), at(get([5, 6], "b", 6), 6)];
    expect(checkOrder(history)).toBeUndefined();
  });
});

interface Shape {
  readonly operations: number;
  readonly clients: number;
  /** Chance that an operation reports something else than what happened. */
  readonly wrong: number;
}

/** Clients on one real register; each operation takes effect at one moment between its call and its return. */
function randomHistory(random: Random, { operations, clients, wrong }: Shape): Operation[] {
  const history: Operation[] = [];
  const freeAt = Array.from({ length: clients }, () => 0);
  const effects: { time: number; run: () => void }[] = [];
  let there = "";
  let revision = 0;
  /** Clients compare only with revisions that somebody was told. */
  let told = true;
  let index = 0;
  for (let number = 0; number < operations; number++) {
    const client = random.below(clients);
    const call = freeAt[client]! + random.float();
    const effect = call + random.float();
    const end = effect + random.float();
    freeAt[client] = end;
    const draft = { ...base, client, call, return: end } as {
      -readonly [K in keyof Operation]: Operation[K];
    };
    draft.kind = random.pick(["put", "get", "compareAndPut", "delete"] as const);
    if (draft.kind === "put" || draft.kind === "compareAndPut") draft.value = `v${number}`;
    const unknown = random.chance(0.15);
    const never = unknown && random.chance(0.5);
    if (unknown) {
      draft.outcome = "unknown";
      draft.return = Infinity;
      draft.success = false;
    }
    history.push(draft);
    const run = (): void => {
      if (never) return;
      const own = draft.kind === "get" ? index : ++index;
      let success = revision > 0;
      const met = revision;
      const metValue = there;
      if (draft.kind === "compareAndPut") {
        draft.expected = told && random.chance(0.6) ? revision : 0;
        success = revision === draft.expected;
      }
      if (draft.kind === "put" || (draft.kind === "compareAndPut" && success)) {
        there = draft.value;
        revision = own;
        told = !unknown;
      }
      if (draft.kind === "delete") {
        there = "";
        revision = 0;
        told = true;
      }
      if (unknown) return;
      draft.index = own;
      draft.success = draft.kind === "put" ? true : success;
      if (random.chance(wrong)) return;
      if (draft.kind === "get" && success) {
        draft.seenValue = metValue;
        draft.seenRevision = met;
      }
      if (draft.kind === "compareAndPut" && !success) draft.seenRevision = met;
      if (draft.kind === "get" && !success) draft.success = false;
    };
    effects.push({ time: effect, run });
  }
  effects.sort((a, b) => a.time - b.time);
  for (const { run } of effects) run();
  return wrong > 0 ? shuffleReads(history, random) : history;
}

/** Lets some reads report what another read saw. */
function shuffleReads(history: Operation[], random: Random): Operation[] {
  const reads = history.filter(({ kind, outcome }) => kind === "get" && outcome === "ok");
  return history.map((operation) => {
    if (operation.kind !== "get" || operation.outcome !== "ok" || !random.chance(0.3))
      return operation;
    const { seenValue, seenRevision, success } = random.pick(reads);
    return { ...operation, seenValue, seenRevision, success };
  });
}

/** Tries every order of every choice of the unknown operations, with a model of its own. */
function bruteForce(history: readonly Operation[]): boolean {
  const counted = history.filter(({ outcome, kind }) => outcome === "ok" || kind !== "get");
  const revisions = revisionsOf(counted);
  if (typeof revisions === "string") return false;
  const place = (
    left: readonly number[],
    value: string,
    revision: number,
    last: number,
  ): boolean => {
    if (left.every((at) => counted[at]!.outcome === "unknown")) return true;
    return left.some((at) => {
      const operation = counted[at]!;
      const tooEarly = left.some((other) => counted[other]!.return < operation.call);
      if (tooEarly) return false;
      const rest = left.filter((other) => other !== at);
      const ok = operation.outcome === "ok";
      // A write of which nobody knows the revision gets one of its own, below zero.
      const own = revisions[at] === 0 ? -1 - at : revisions[at]!;
      if (operation.kind !== "get" && own > 0 && own <= last) return false;
      const next = operation.kind !== "get" && own > 0 ? own : last;
      if (operation.kind === "get") {
        const same = operation.success
          ? value === operation.seenValue && revision === operation.seenRevision
          : revision === 0;
        return same && place(rest, value, revision, last);
      }
      if (operation.kind === "put") return place(rest, operation.value, own, next);
      if (operation.kind === "delete") {
        return (!ok || operation.success === (revision !== 0)) && place(rest, "", 0, next);
      }
      const equal = operation.expected === revision;
      if (!ok && !equal) return own < 0 && place(rest, value, revision, next);
      if (ok && operation.success !== equal) return false;
      if (ok && !equal && revision >= 0 && operation.seenRevision !== revision) return false;
      if (ok && !equal && revision < 0 && operation.seenRevision === 0) return false;
      return equal ? place(rest, operation.value, own, next) : place(rest, value, revision, next);
    });
  };
  const all = counted.map((_, at) => at);
  return place(all, "", 0, 0);
}
