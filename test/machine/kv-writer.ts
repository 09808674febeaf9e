/**
 * A process that applies puts to a real kv file until it is killed, and prints each durable index as soon as it is one. The log of which it
 * is a part is a function of the index, so the parent knows what must be there: see `putAt`.
 */
import { defaultLimits, checkLimits } from "../../src/limits.ts";
import { createMachine, KvFiles } from "../../src/machine/machines.ts";
import { encodeKvDelete, encodeKvPut } from "../../src/wire/kv.ts";
import { Results, TestLog } from "./log.ts";

export const keys = 5_000;
export const commandsPerBatch = 50;

export const killLimits = checkLimits({
  ...defaultLimits,
  memtableBytes: 50_000,
  memtableFlushMs: 5,
  flushLogBytesMin: 1,
  kvWalBytesMax: 300_000,
});

/** The key that index `index` writes, and whether it deletes it. */
export function writtenAt(index: number): { key: Uint8Array; value: Uint8Array | undefined } {
  const key = Buffer.from(`key-${(index * 7_919) % keys}`);
  return { key, value: index % 5 === 0 ? undefined : Buffer.from(`value of ${index}`) };
}

export function nextBatch(log: TestLog): void {
  const commands: Uint8Array[] = [];
  for (let i = 1; i <= commandsPerBatch; i++) {
    const { key, value } = writtenAt(log.lastIndex + i);
    commands.push(value === undefined ? encodeKvDelete(key) : encodeKvPut(key, value));
  }
  log.add([commands]);
}

if (import.meta.main) {
  const directory = process.argv[2]!;
  const files = new KvFiles({ limits: killLimits });
  const nowMs = (): number => performance.now();
  const machine = createMachine("kv", { directory, files, limits: killLimits, nowMs });
  const applied = machine.open();
  const log = new TestLog();
  while (log.lastIndex < applied) nextBatch(log);
  const results = new Results();
  let told = machine.durableIndex;
  process.stdout.write(`durable ${told}\n`);
  const turn = (): void => {
    nextBatch(log);
    machine.apply(log.from(machine.appliedIndex + 1), results);
    // Its log is durable as soon as it is made.
    machine.allowDurable(log.lastIndex);
    machine.work(performance.now());
    if (machine.durableIndex > told) {
      told = machine.durableIndex;
      process.stdout.write(`durable ${told} ${machine.figures()["checkpoints"]}\n`);
    }
    setImmediate(turn);
  };
  turn();
}
