/**
 * The simulated kv file: a visible and a durable layer, deterministic from the source of chance and the scheduler handed in. It keeps
 * exactly the contract of src/machine/kv-file.ts and uses all the freedom that it leaves: after a crash it holds some prefix of its
 * transactions that covers what was synced.
 */
import type { KvFile, KvMeta, KvRow, KvWriteEvents } from "../../src/machine/kv-file.ts";
import type { Memtable } from "../../src/machine/memtable.ts";
import type { CrashMode } from "./sim-disk.ts";

export interface SimKvFileOptions {
  /** In [0, 1). */
  readonly random: () => number;
  readonly schedule: (delayMs: number, run: () => void) => void;
  /** Time that each step of a write takes, its sync, and a checkpoint; each one draws from the range. */
  readonly syncMsMin?: number;
  readonly syncMsMax?: number;
  /** Multiplies that time. */
  readonly slowness?: () => number;
  /** Bytes of keys and values written beyond which writes are refused. */
  readonly bytesMax?: number;
  /** Asked when a sync or checkpoint ends: one that fails never reports back, as the process ends before. */
  readonly syncFails?: () => boolean;
}

export interface Entry {
  readonly revision: number;
  readonly value: Uint8Array;
}

/** Key as latin-1 text, whose order is that of the bytes; undefined = removed. */
type Changes = Map<string, Entry | undefined>;

interface Transaction {
  readonly changes: Changes;
  readonly meta: KvMeta;
}

/** What a file holds. */
export interface KvState {
  readonly entries: Map<string, Entry>;
  readonly meta: KvMeta | undefined;
}

export class SimKvFile implements KvFile {
  readonly #options: SimKvFileOptions;
  /** What a power cut cannot take, the transactions on top of it that it can, and the sum of both. */
  readonly #durable: Map<string, Entry>;
  #durableMeta: KvMeta | undefined;
  #pending: Transaction[] = [];
  readonly #visible: Map<string, Entry>;
  #meta: KvMeta | undefined;
  /** A write or a checkpoint is under way. */
  #busy = false;
  #dead = false;
  /** The main file, as the last checkpoint left it; and by how many it is held. */
  #main: Uint8Array | undefined;
  #holds = 0;
  #walBytes = 0;
  /** Written so far, however often a key was. */
  #bytes = 0;
  bytesMax: number;
  /** Completed. */
  syncs = 0;
  checkpoints = 0;

  constructor(options: SimKvFileOptions, state: KvState = { entries: new Map(), meta: undefined }) {
    this.#options = options;
    this.bytesMax = options.bytesMax ?? Number.POSITIVE_INFINITY;
    this.#durable = state.entries;
    this.#durableMeta = state.meta;
    this.#visible = new Map(state.entries);
    this.#meta = state.meta;
    for (const [key, { value }] of this.#visible) this.#bytes += key.length + value.byteLength;
  }

  open(): KvMeta | undefined {
    this.#mustLive();
    this.#settle(this.#pending.length);
    return this.#meta;
  }

  /** The memtable is read when the transaction commits, so that what changed meanwhile would be seen in the file. */
  write(table: Memtable, meta: KvMeta, events: KvWriteEvents): void {
    this.#begin();
    this.#later(() => {
      const changes = changesOf(table);
      let bytes = 0;
      for (const [key, entry] of changes) bytes += key.length + (entry?.value.byteLength ?? 0);
      if (this.#bytes + bytes > this.bytesMax) {
        this.#busy = false;
        return events.diskFull();
      }
      this.#bytes += bytes;
      enact(this.#visible, changes);
      this.#meta = meta;
      const transaction = { changes, meta };
      this.#pending.push(transaction);
      this.#walBytes += 64 * (changes.size + 1);
      this.#later(() => {
        events.committed();
        this.#synced(() => {
          this.#settle(this.#pending.indexOf(transaction) + 1);
          this.#busy = false;
          this.syncs += 1;
          events.durable();
        });
      });
    });
  }

  revision(key: Uint8Array): number {
    return this.get(key)?.revision ?? 0;
  }

  get(key: Uint8Array): Omit<KvRow, "key"> | undefined {
    this.#mustLive();
    const entry = this.#visible.get(text(key));
    return entry && { revision: entry.revision, value: entry.value.slice() };
  }

  scan(from: Uint8Array | undefined, visit: (row: KvRow) => boolean): void {
    this.#mustLive();
    const first = from === undefined ? "" : text(from);
    const keys = [...this.#visible.keys()].filter((key) => key >= first).sort(byUnits);
    for (const key of keys) {
      const { revision, value } = this.#visible.get(key)!;
      if (!visit({ key: Buffer.from(key, "latin1"), revision, value: value.slice() })) return;
    }
  }

  get walBytes(): number {
    return this.#walBytes;
  }

  checkpoint(done: (moved: boolean) => void): void {
    if (this.#holds > 0) throw new Error("sim-kv-file: a checkpoint while the main file is held");
    this.#begin();
    this.#synced(() => {
      this.#settle(this.#pending.length);
      this.#main = encodeState({ entries: this.#durable, meta: this.#durableMeta });
      this.#walBytes = 0;
      this.#busy = false;
      this.checkpoints += 1;
      done(true);
    });
  }

  hold(): number {
    this.#mustLive();
    if (this.#main === undefined) throw new Error("sim-kv-file: held without a checkpoint");
    this.#holds += 1;
    return this.#main.byteLength;
  }

  readMain(
    offset: number,
    length: number,
    done: (bytes: Uint8Array<ArrayBuffer>) => void,
    memory?: Uint8Array<ArrayBuffer>,
  ): void {
    if (this.#holds === 0) throw new Error("sim-kv-file: the main file is read and not held");
    // What is handed over is spoilt for whoever still looks at it.
    memory?.fill(0xff);
    this.#later(() => done(this.#main!.slice(offset, offset + length)));
  }

  letGo(): void {
    this.#holds -= 1;
  }

  close(): void {
    this.#dead = true;
  }

  /** Ends this file, whose callbacks never run again, and returns the one that the next start finds. */
  crash(mode: CrashMode): SimKvFile {
    this.#dead = true;
    let kept = mode === "all" ? this.#pending.length : 0;
    if (mode === "prefix") kept = Math.floor(this.#options.random() * (this.#pending.length + 1));
    const entries = new Map(this.#durable);
    let meta = this.#durableMeta;
    for (const transaction of this.#pending.slice(0, kept)) {
      enact(entries, transaction.changes);
      meta = transaction.meta;
    }
    const next = new SimKvFile(this.#options, { entries, meta });
    next.bytesMax = this.bytesMax;
    return next;
  }

  #settle(transactions: number): void {
    for (const { changes, meta } of this.#pending.splice(0, transactions)) {
      enact(this.#durable, changes);
      this.#durableMeta = meta;
    }
  }

  #begin(): void {
    this.#mustLive();
    if (this.#busy) throw new Error("sim-kv-file: two jobs at once");
    this.#busy = true;
  }

  #later(run: () => void): void {
    this.#options.schedule(stepMs(this.#options), () => {
      if (!this.#dead) run();
    });
  }

  #synced(run: () => void): void {
    this.#later(() => {
      if (this.#options.syncFails?.() !== true) run();
    });
  }

  #mustLive(): void {
    if (this.#dead) throw new Error("sim-kv-file: used after its end");
  }
}

/** How long a step takes, be it of a file or of the folder. */
export function stepMs({
  random,
  syncMsMin = 0.1,
  syncMsMax = 2,
  slowness = () => 1,
}: SimKvFileOptions): number {
  return (syncMsMin + random() * (syncMsMax - syncMsMin)) * slowness();
}

export function encodeState({ entries, meta }: KvState): Uint8Array {
  const rows = [...entries].map(([key, { revision, value }]) => [key, revision, [...value]]);
  const sessions = meta && [...meta.sessions];
  return new TextEncoder().encode(JSON.stringify({ meta: meta && { ...meta, sessions }, rows }));
}

/** Undefined where the bytes are no whole file. */
export function decodeState(bytes: Uint8Array): KvState | undefined {
  try {
    const { meta, rows } = JSON.parse(new TextDecoder().decode(bytes)) as {
      meta: (Omit<KvMeta, "sessions"> & { sessions: number[] }) | undefined;
      rows: [string, number, number[]][];
    };
    const entries = new Map<string, Entry>();
    for (const [key, revision, value] of rows) {
      entries.set(key, { revision, value: Uint8Array.from(value) });
    }
    const sessions = Uint8Array.from(meta?.sessions ?? []);
    return { entries, meta: meta && { ...meta, sessions } };
  } catch {
    return undefined;
  }
}

function changesOf(table: Memtable): Changes {
  const changes: Changes = new Map();
  for (const cursor = table.runs.cursor(); cursor.entry !== 0; cursor.advance()) {
    const { entry } = cursor;
    const keyAt = table.keyOffset(entry);
    const key = table.keyBytes(entry).subarray(keyAt, keyAt + table.keyLength(entry));
    const valueAt = table.valueOffset(entry);
    const value = table.valueBytes(entry).slice(valueAt, valueAt + table.valueLength(entry));
    const isDeleted = table.isDeleted(entry);
    changes.set(text(key), isDeleted ? undefined : { revision: table.revision(entry), value });
  }
  return changes;
}

function text(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
}

function byUnits(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function enact(entries: Map<string, Entry>, changes: Changes): void {
  for (const [key, entry] of changes) {
    if (entry === undefined) entries.delete(key);
    else entries.set(key, entry);
  }
}
