/** The kv machine: apply of batches of puts in memory, then their flush into SQLite, on the disk under the temp folder. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bench, group, run as runSuite } from "mitata";
import { checkLimits, defaultLimits } from "../src/limits.ts";
import { createMachine, KvFiles } from "../src/machine/machines.ts";
import type { StateMachine } from "../src/machine/machine.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../src/wire/batch.ts";
import { encodeKvPut } from "../src/wire/kv.ts";
import { plainSection } from "../src/wire/section.ts";

const commandsPerBatch = 1_000;
const sink = { result: () => undefined, repeated: () => undefined, refused: () => undefined };

export async function run(small: boolean): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "barge-bench-"));
  const limits = checkLimits({
    ...defaultLimits,
    memtableBytes: 2 ** 31,
    memtableFlushMs: 2 ** 31,
  });
  const files = new KvFiles({ limits });
  let machines = 0;
  const open = (): StateMachine => {
    const options = {
      directory: mkdtempSync(join(directory, `${++machines}-`)),
      files,
      limits,
      nowMs: () => performance.now(),
    };
    const machine = createMachine("kv", options);
    machine.open();
    return machine;
  };
  for (const keys of small ? [2_000] : [100_000, 1_000_000]) {
    for (const valueBytes of [16, 256]) {
      group(`apply ${keys} keys, values of ${valueBytes} B`, () => {
        const bodies = putBodies(keys, valueBytes);
        const fresh = sealer(bodies);
        bench(`apply ${keys} puts of new keys`, function* () {
          yield {
            [0]: () => ({ machine: open(), batches: fresh(1) }),
            bench: ({ machine, batches }: Work) => machine.apply(batches, sink),
          };
        });
        const machine = open();
        machine.apply(fresh(1), sink);
        bench(`apply ${keys} puts of known keys`, function* () {
          yield {
            [0]: () => fresh(machine.appliedIndex + 1),
            bench: (batches: Batch[]) => machine.apply(batches, sink),
          };
        });
      });
    }
  }
  await runSuite({ format: small ? "quiet" : "mitata" });
  for (const keys of small ? [2_000] : [100_000, 1_000_000]) {
    for (const valueBytes of [16, 256]) await flush(keys, valueBytes, open, small);
  }
  files.close();
  rmSync(directory, { recursive: true, force: true });
}

interface Work {
  readonly machine: StateMachine;
  readonly batches: Batch[];
}

/** One flush into an empty file, and one of the same keys again: the whole of it, and the longest time the loop was held. */
async function flush(
  keys: number,
  valueBytes: number,
  open: () => StateMachine,
  small: boolean,
): Promise<void> {
  const machine = open();
  const fresh = sealer(putBodies(keys, valueBytes));
  for (const round of ["into an empty file", "of the same keys again"]) {
    machine.apply(fresh(machine.appliedIndex + 1), sink);
    machine.allowDurable(machine.appliedIndex);
    const startedMs = performance.now();
    let busyMs = 0;
    let longestMs = 0;
    // The machine's clock says that the memtable is old.
    machine.work(0);
    for (let nowMs = 2 ** 32; machine.durableIndex < machine.appliedIndex; nowMs += 1) {
      const beganMs = performance.now();
      machine.work(nowMs);
      const tookMs = performance.now() - beganMs;
      busyMs += tookMs;
      longestMs = Math.max(longestMs, tookMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const line =
      `flush ${keys} keys, values of ${valueBytes} B, ${round}: ${((busyMs * 1_000) / keys).toFixed(2)} µs/key, ` +
      `longest hold ${longestMs.toFixed(1)} ms, durable after ${(performance.now() - startedMs).toFixed(0)} ms\n`;
    if (!small) process.stdout.write(line);
  }
  machine.close();
}

function putBodies(keys: number, valueBytes: number): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  for (let first = 0; first < keys; first += commandsPerBatch) {
    const commands = Array.from({ length: commandsPerBatch }, (_, i) => {
      const key = new Uint8Array(8);
      const number = Math.imul(first + i, 0x9e37_79b1) >>> 0;
      new DataView(key.buffer).setUint32(0, number, true);
      new DataView(key.buffer).setUint32(4, number ^ 0x5bd1_e995, true);
      return encodeKvPut(key, new Uint8Array(valueBytes).fill(7));
    });
    bodies.push(plainSection(commands));
  }
  return bodies;
}

/** Seals the bodies anew as batches from an index on; their memory is used again. */
function sealer(bodies: readonly Uint8Array[]): (firstIndex: number) => Batch[] {
  const memory = bodies.map((body) => {
    const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
    bytes.set(body, batchHeaderBytes);
    return bytes;
  });
  return (firstIndex) =>
    memory.map((bytes, i) =>
      sealBatch(
        {
          group: 0,
          kind: BatchKind.commands,
          firstIndex: firstIndex + i * commandsPerBatch,
          count: commandsPerBatch,
          term: 1,
          timeMs: i,
          prevCrc: 0,
        },
        bytes,
      ),
    );
}

if (import.meta.main) await run(process.argv.includes("--small"));
