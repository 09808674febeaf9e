/** Backups of one group: when they begin, who shares one, and that none is held for ever. */
import { expect, test } from "bun:test";
import type { BargeError } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import type { MachineSnapshot, StateMachine } from "../../src/machine/machine.ts";
import { Backups } from "../../src/node/backups.ts";

/** As much of a machine as a backup needs; what it prepares is handed over when the test says so. */
class FakeMachine {
  durableIndex = 0;
  flushes = 0;
  held = 0;
  readonly preparing: ((snapshot: MachineSnapshot | undefined) => void)[] = [];

  flush(): void {
    this.flushes++;
  }

  prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.preparing.push(done);
  }

  prepared(index: number, bytes = 10): void {
    this.held++;
    const release = (): void => void this.held--;
    const read: MachineSnapshot["read"] = (offset, length, done) =>
      queueMicrotask(() => done(new Uint8Array(length).fill(offset)));
    this.preparing.shift()!({ index, bytes, read, release });
  }
}

function make(): {
  machine: FakeMachine;
  backups: Backups;
  open: (id: number, index: number) => Opened;
} {
  const machine = new FakeMachine();
  const limits = { ...defaultLimits, snapshotChunkBytes: 4, backupsMax: 2 };
  const backups = new Backups(limits, machine as unknown as StateMachine, () => {});
  const open = (id: number, index: number): Opened => {
    const result: Opened = { index: undefined, code: undefined };
    backups.open(id, index, 5_000, {
      opened: (snapshot) => void (result.index = snapshot.index),
      failed: ({ code }) => void (result.code = code),
    });
    return result;
  };
  return { machine, backups, open };
}

interface Opened {
  index: number | undefined;
  code: string | undefined;
}

function read(backups: Backups, id: number, offset: number): Promise<Uint8Array | string> {
  return new Promise((resolve) => {
    backups.read(id, offset, {
      read: resolve,
      failed: (error: BargeError) => resolve(error.code),
    });
  });
}

test("one begins once what was acknowledged is durable, and never with less", async () => {
  const { machine, backups, open } = make();
  const first = open(1, 7);
  machine.durableIndex = 6;
  backups.work(100);
  expect(machine.flushes).toBeGreaterThan(1);
  expect(machine.preparing).toHaveLength(0);
  machine.durableIndex = 7;
  backups.work(200);
  backups.work(300);
  expect(machine.preparing).toHaveLength(1);
  // The machine shares an older handle with who is sending that.
  machine.prepared(5);
  expect(first.index).toBeUndefined();
  expect(machine.held).toBe(0);
  backups.work(400);
  machine.prepared(7);
  expect(first.index).toBe(7);

  // Asked again, as the answer was lost: the same one.
  expect(open(1, 9).index).toBe(7);
  expect(await read(backups, 1, 4)).toEqual(new Uint8Array(4).fill(4));
  expect(await read(backups, 1, 8)).toEqual(new Uint8Array(2).fill(8));
  expect(await read(backups, 1, 10)).toBe("bad_request");
  expect(await read(backups, 2, 0)).toBe("backup_gone");
  backups.close(1);
  backups.close(1);
  expect(machine.held).toBe(0);
  expect(await read(backups, 1, 0)).toBe("backup_gone");
});

test("there are so many at most; who does not read, waits too long, or is in the way, loses it", async () => {
  const { machine, backups, open } = make();
  machine.durableIndex = 3;
  const [first, second, third] = [open(1, 3), open(2, 3), open(3, 3)];
  expect(third.code).toBe("overloaded");
  backups.work(0);
  machine.prepared(3);
  machine.prepared(3);
  expect([first.index, second.index]).toEqual([3, 3]);
  expect(machine.held).toBe(2);

  backups.work(defaultLimits.snapshotStallMs - 1);
  await read(backups, 2, 0);
  backups.work(defaultLimits.snapshotStallMs);
  expect(await read(backups, 1, 0)).toBe("backup_gone");
  expect(await read(backups, 2, 0)).toHaveLength(4);
  expect(machine.held).toBe(1);

  const late = open(4, 8);
  backups.work(6_000);
  expect(late.code).toBe("timeout");
  backups.giveUp();
  expect(machine.held).toBe(0);
  expect(backups.size).toBe(0);
});

test("what is prepared for nobody is let go of", () => {
  const { machine, backups, open } = make();
  machine.durableIndex = 3;
  const opened = open(1, 3);
  backups.work(0);
  backups.close(1);
  expect(opened.code).toBe("backup_gone");
  machine.prepared(3);
  expect(machine.held).toBe(0);
});
