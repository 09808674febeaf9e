/*
 * ENGINEER A, PLEASE READ: these files (kv-file, kv-flush, kv-files, sqlite-kv-file, kv-checkpoint-worker, test/sim/sim-kv-file) are being rewritten on `main`, and
 * will be merged into `five` at about 19:05. Flushes stall the loop for up to 350 ms, so the whole flush moves into one Worker (kv-worker.ts), which also
 * checkpoints; jobs of all groups run there one after the other. The new seam replaces begin/upsert/remove/commit/sync:
 *     write(table: Memtable | undefined, meta: KvMeta, events: { committed(): void; durable(): void; diskFull(): void }): void   (one at a time; committed = visible)
 *     checkpoint(done: (moved: boolean) => void)                                                                               (never while a write is under way)
 * open, revision, get, scan, walBytes, close stay. Do the core, store and transport parts of snapshots first; touch these files after that merge (this note is gone then).
 */
/**
 * The simulated kv file: a visible and a durable layer, deterministic from the source of chance and the scheduler handed in. It keeps
 * exactly the contract of src/machine/kv-file.ts and uses all the freedom that it leaves: after a crash it holds some prefix of its
 * transactions that covers what was synced.
 */
import type { KvFile, KvMeta, KvRow } from "../../src/machine/kv-file.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import type { CrashMode } from "./sim-disk.ts";

export interface SimKvFileOptions {
  /** In [0, 1). */
  readonly random: () => number;
  readonly schedule: (delayMs: number, run: () => void) => void;
  /** Time that a sync or a checkpoint takes; each one draws from the range. */
  readonly syncMsMin?: number;
  readonly syncMsMax?: number;
  /** Bytes of keys and values written beyond which writes are refused. */
  readonly bytesMax?: number;
  /** Asked when a sync or checkpoint ends: one that fails never reports back, as the process ends before. */
  readonly syncFails?: () => boolean;
  /** Called after each effect on the file; may throw to end the process there. */
  readonly effect?: () => void;
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
  #open: Changes | undefined;
  #syncing = false;
  #checkpointing = false;
  #dead = false;
  /** The main file, as the last checkpoint left it; and by how many it is held. */
  #main: Uint8Array | undefined;
  #holds = 0;
  #walBytes = 0;
  /** Written so far, however often a key was; and of that in the open transaction. */
  #bytes = 0;
  #openBytes = 0;
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

  begin(): void {
    this.#mustLive();
    if (this.#open !== undefined) throw new Error("sim-kv-file: two transactions at once");
    if (this.#checkpointing) throw new Error("sim-kv-file: a transaction during a checkpoint");
    this.#open = new Map();
    this.#openBytes = 0;
  }

  upsert(key: Uint8Array, revision: number, value: Uint8Array): void {
    this.#takeRoom(key.byteLength + value.byteLength);
    this.#transaction().set(text(key), { revision, value: value.slice() });
  }

  remove(key: Uint8Array): void {
    this.#takeRoom(key.byteLength);
    this.#transaction().set(text(key), undefined);
  }

  commit(meta: KvMeta): void {
    const changes = this.#transaction();
    this.#open = undefined;
    enact(this.#visible, changes);
    this.#meta = meta;
    this.#pending.push({ changes, meta });
    this.#walBytes += 64 * (changes.size + 1);
    this.#options.effect?.();
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

  sync(done: () => void): void {
    this.#mustLive();
    if (this.#syncing) throw new Error("sim-kv-file: two syncs at once");
    this.#syncing = true;
    const { meta } = this.#pending.at(-1) ?? {};
    this.#later(() => {
      this.#settle(this.#pending.findLastIndex((transaction) => transaction.meta === meta) + 1);
      this.#syncing = false;
      this.syncs += 1;
      done();
    });
  }

  get walBytes(): number {
    return this.#walBytes;
  }

  checkpoint(done: (moved: boolean) => void): void {
    this.#mustLive();
    if (this.#open !== undefined) throw new Error("sim-kv-file: a checkpoint in a transaction");
    if (this.#checkpointing) throw new Error("sim-kv-file: two checkpoints at once");
    if (this.#holds > 0) throw new Error("sim-kv-file: a checkpoint while the main file is held");
    this.#checkpointing = true;
    this.#later(() => {
      this.#settle(this.#pending.length);
      this.#main = encodeState({ entries: this.#durable, meta: this.#durableMeta });
      this.#walBytes = 0;
      this.#checkpointing = false;
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

  readMain(offset: number, length: number, done: (bytes: Uint8Array) => void): void {
    if (this.#holds === 0) throw new Error("sim-kv-file: the main file is read and not held");
    const { syncMsMin = 0.1, syncMsMax = 2, random, schedule } = this.#options;
    schedule(syncMsMin + random() * (syncMsMax - syncMsMin), () => {
      if (!this.#dead) done(this.#main!.slice(offset, offset + length));
    });
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

  #transaction(): Changes {
    this.#mustLive();
    if (this.#open === undefined) throw new Error("sim-kv-file: no transaction is open");
    return this.#open;
  }

  #takeRoom(bytes: number): void {
    if (this.#bytes + bytes > this.bytesMax) {
      this.#open = undefined;
      this.#bytes -= this.#openBytes;
      throw new DiskFullError("the simulated disk is full");
    }
    this.#bytes += bytes;
    this.#openBytes += bytes;
  }

  #later(run: () => void): void {
    const { syncMsMin = 0.1, syncMsMax = 2, random, schedule } = this.#options;
    schedule(syncMsMin + random() * (syncMsMax - syncMsMin), () => {
      if (!this.#dead && this.#options.syncFails?.() !== true) run();
    });
  }

  #mustLive(): void {
    if (this.#dead) throw new Error("sim-kv-file: used after its end");
  }
}

export function encodeState({ entries, meta }: KvState): Uint8Array {
  const rows = [...entries].map(([key, { revision, value }]) => [key, revision, [...value]]);
  return new TextEncoder().encode(JSON.stringify({ meta, rows }));
}

/** Undefined where the bytes are no whole file. */
export function decodeState(bytes: Uint8Array): KvState | undefined {
  try {
    const { meta, rows } = JSON.parse(new TextDecoder().decode(bytes)) as {
      meta: KvMeta | undefined;
      rows: [string, number, number[]][];
    };
    const entries = new Map<string, Entry>();
    for (const [key, revision, value] of rows) {
      entries.set(key, { revision, value: Uint8Array.from(value) });
    }
    return { entries, meta };
  } catch {
    return undefined;
  }
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
