/** A flush at an index: the machine becomes durable at the end of just the batch that reaches it, however many are applied in one go. */
import { describe, expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import { KvMachine } from "../../src/machine/kv.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import { NullMachine } from "../../src/machine/null.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";
import { Results, TestLog } from "./log.ts";

const put = encodeKvPut(Buffer.from("key"), Buffer.from("value"));

const machines = { kv: KvMachine, null: NullMachine };

for (const [name, Machine] of Object.entries(machines)) {
  describe(`flush of ${name} at an index`, () => {
    const nowMs = (): number => 0;
    const limits = defaultLimits;
    let timers: (() => void)[] = [];
    const fresh = (): { machine: StateMachine; log: TestLog } => {
      timers = [];
      const file = new SimKvFile({ random: () => 0, schedule: (_, run) => timers.push(run) });
      const machine = new Machine({ file, limits, nowMs });
      machine.open();
      machine.allowDurable(1_000);
      return { machine, log: new TestLog() };
    };
    /** Until nothing is under way in the file. */
    const settle = (machine: StateMachine): void => {
      do {
        machine.work(0);
        timers.shift()?.();
      } while (timers.length > 0);
    };
    const batches = (log: TestLog, count: number): void => {
      for (let at = 0; at < count; at++) log.add([[put, put, put]]);
    };

    test("ends with the batch that reaches it, in the midst of a run", () => {
      const { machine, log } = fresh();
      machine.flushAt(7);
      batches(log, 10);
      machine.apply(log.batches, new Results());
      settle(machine);
      expect(machine.appliedIndex).toBe(30);
      expect(machine.durableIndex).toBe(9);
      // Said again, it is no reason for another one.
      machine.flushAt(7);
      settle(machine);
      expect(machine.durableIndex).toBe(9);
      machine.flushAt(10);
      settle(machine);
      expect(machine.durableIndex).toBe(30);
    });

    test("needs no other batch after it", () => {
      const { machine, log } = fresh();
      machine.flushAt(9);
      batches(log, 3);
      machine.apply(log.batches, new Results());
      settle(machine);
      expect(machine.durableIndex).toBe(9);
    });

    test("comes not before it is reached, and not once it is taken back", () => {
      const { machine, log } = fresh();
      machine.flushAt(10);
      batches(log, 3);
      machine.apply(log.batches, new Results());
      settle(machine);
      expect(machine.durableIndex).toBe(0);
      machine.flushAt(Infinity);
      batches(log, 3);
      machine.apply(log.from(10), new Results());
      settle(machine);
      expect(machine.durableIndex).toBe(0);
    });

    test("waits for one that is under way, and apply does not wait for it", () => {
      const { machine, log } = fresh();
      batches(log, 1);
      machine.apply(log.batches, new Results());
      machine.flush();
      machine.work(0);
      machine.flushAt(4);
      batches(log, 5);
      expect(machine.apply(log.from(4), new Results())).toBe(5);
      settle(machine);
      settle(machine);
      expect(machine.durableIndex).toBe(18);
    });
  });
}
