/**
 * Bugs that crash images must find: each leaves out, or does too early, one thing that keeps data over a power cut. Planted in a copy of src/, since
 * most lie in the Workers' files too. The text to change must be there exactly once.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface StorageBug {
  readonly what: string;
  readonly changes: readonly Change[];
}

interface Change {
  /** Below src/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const segmentFiles = "storage/segment-files.ts";
const durableFile = "storage/durable-file.ts";
const logStore = "storage/log-store.ts";
const segmentChain = "storage/segment-chain.ts";
const snapshotWorker = "storage/snapshot-worker.ts";
const kvWorker = "machine/kv-worker.ts";

export const storageBugs = {
  mainFileNotSynced: {
    what: "the main file of a segment is not synced",
    changes: [
      {
        file: segmentFiles,
        from: "    }\n    fsyncFile(descriptor);\n  } finally {",
        to: "    }\n  } finally {",
      },
    ],
  },
  headerNotZeroed: {
    what: "a retired write-ahead log is recycled with its old header",
    changes: [
      {
        file: segmentFiles,
        from: "    writeSync(descriptor, new Uint8Array(walHeaderBytes), 0, walHeaderBytes, 0);\n",
        to: "",
      },
    ],
  },
  acknowledgedBeforeSync: {
    what: "the Worker answers before it has synced",
    changes: [
      {
        file: "storage/sync-worker.ts",
        from: "  parentPort?.postMessage(syncAll());",
        to: "  parentPort?.postMessage(1);\n  Atomics.wait(words, SyncWord.answered, request - 1, 20);\n  syncAll();",
      },
    ],
  },
  syncCoversWhatCameLater: {
    what: "a sync counts for what was appended while it ran",
    changes: [
      {
        file: logStore,
        from: "      done(seq);\n",
        to: "      done(this.#appendSeq);\n",
      },
    ],
  },
  onlyNewestSegmentSynced: {
    what: "a sync leaves out the segment before, where it has records that are not durable",
    changes: [
      {
        file: segmentChain,
        from: "    this.#dirty = [];\n    return files;",
        to: "    this.#dirty = [];\n    return files.slice(-1);",
      },
    ],
  },
  mainFileSyncedForLog: {
    what: "what is synced is the main file, not the write-ahead log",
    changes: [
      {
        file: "storage/sqlite.ts",
        from: 'this.walDescriptor = openSync(`${path}-wal`, "r");',
        to: 'this.walDescriptor = openSync(path, "r");',
      },
    ],
  },
  foundLogNotSynced: {
    what: "what a killed process left behind counts without being synced",
    changes: [
      {
        file: "storage/sqlite-disk.ts",
        from: "  for (const number of whole) syncFoundWal(directory, number);\n",
        to: "",
      },
      {
        file: segmentChain,
        from: "    this.#dirty = [...this.#segments];\n",
        to: "    for (const segment of this.#segments) segment.dirty = false;\n",
      },
    ],
  },
  retiredTooEarly: {
    what: "old segments go before the newest one is durable",
    changes: [
      {
        file: segmentChain,
        from: "    if (this.current!.firstSeq > syncedSeq) return;\n",
        to: "",
      },
    ],
  },
  checkpointOnExit: {
    what: "a database is closed with its writer last, which moves the log into the main file",
    changes: [
      {
        file: "storage/sqlite.ts",
        from: "    this.db.close(true);\n    this.#guard.close(true);\n    closeSync",
        to: "    this.#guard.close(true);\n    this.db.close(true);\n    closeSync",
      },
    ],
  },
  watermarkNotWritten: {
    what: "nobody writes down how far the log was durable",
    changes: [
      {
        file: logStore,
        from: "      this.#disk.writeWatermark(this.#watermark.bytes(seq, streamCrc));\n",
        to: "",
      },
    ],
  },
  watermarkAhead: {
    what: "the watermark is written before the sync has ended",
    changes: [
      {
        file: logStore,
        from: "    this.#syncing = true;\n    this.#disk.sync(",
        to: "    this.#syncing = true;\n    for (const group of groups) {\n      this.#watermark.set(group.group, { term: group.roundTerm, index: group.roundIndex, hardTerm: group.roundHardTerm });\n    }\n    this.#disk.writeWatermark(this.#watermark.bytes(seq, streamCrc));\n    this.#disk.sync(",
      },
    ],
  },
  noteWrittenInPlace: {
    what: "identity and peers are written over the file that is there",
    changes: [
      {
        file: durableFile,
        from: "const temporary = `${path}.new`;",
        to: "const temporary = path;",
      },
    ],
  },
  noteNotSynced: {
    what: "identity and peers are renamed before their bytes are durable",
    changes: [
      {
        file: durableFile,
        from: "    fsyncFile(descriptor);\n",
        to: "",
      },
    ],
  },
  noteNotListed: {
    what: "the directory is not synced after identity and peers were renamed",
    changes: [
      {
        file: durableFile,
        from: "  fsyncDirectory(dirname(path));\n",
        to: "",
      },
    ],
  },
  flushCountsBeforeSync: {
    what: "a flush of the machine counts as durable once it is committed",
    changes: [
      {
        file: kvWorker,
        from: "        fdatasyncFile(database.walDescriptor);\n      }",
        to: "      }",
      },
    ],
  },
  machineFileNotListed: {
    what: "the name of the machine's file is not made durable",
    changes: [
      {
        file: kvWorker,
        from: "        if (isNew) syncNames(job.path);\n",
        to: "",
      },
    ],
  },
  machineAheadOfLog: {
    what: "the machine makes durable what the node's own log has not",
    changes: [
      {
        file: "machine/kv.ts",
        from: "this.#flush.work(nowMs, this.#allowedIndex)",
        to: "this.#flush.work(nowMs, Infinity)",
      },
    ],
  },
  snapshotNotSynced: {
    what: "a received snapshot is taken over before its bytes are durable",
    changes: [
      {
        file: snapshotWorker,
        from: "  fsyncFile(descriptor);\n  const isWhole",
        to: "  const isWhole",
      },
    ],
  },
  snapshotNotListed: {
    what: "a received snapshot is taken over before its name is durable",
    changes: [
      {
        file: snapshotWorker,
        from: "  close(path);\n  fsyncDirectory(dirname(path));\n  if (!isWhole",
        to: "  close(path);\n  if (!isWhole",
      },
      {
        file: "machine/sqlite-kv-file.ts",
        from: "    syncNames(this.path);\n",
        to: "",
      },
    ],
  },
  formerFileGoesEarly: {
    what: "the machine's file goes before the pointer to the snapshot is durable",
    changes: [
      {
        file: "machine/kv-live.ts",
        from: "    if (meta === undefined) throw new Error(`kv: snapshot ${generation} is not there`);\n",
        to: "    if (meta === undefined) throw new Error(`kv: snapshot ${generation} is not there`);\n    this.settle();\n",
      },
    ],
  },
  snapshotOverLiveFile: {
    what: "a received snapshot is renamed over the machine's live file, beside whose old write-ahead log it comes to lie",
    changes: [
      {
        file: "machine/sqlite-kv-folder.ts",
        from: '    const number = generation === 0 ? "" : `-${generation}`;',
        to: '    const [live, next] = [join(this.#directory, `${this.#name}.db`), join(this.#directory, `${this.#name}-${generation}.db`)];\n    if (generation > 0 && this.#opened.has(generation)) renameSync(next, live);\n    const number = generation === 0 || this.#opened.has(generation) ? "" : `-${generation}`;',
      },
    ],
  },
} as const satisfies Record<string, StorageBug>;

export type StorageBugName = keyof typeof storageBugs;

const root = join(import.meta.dir, "../..");

/** A copy of the code in which the bug is; removed when disposed of. */
export class BuggyTree implements Disposable {
  readonly path: string;

  constructor(bug: StorageBug) {
    this.path = mkdtempSync(join(tmpdir(), "barge-bug-"));
    cpSync(join(root, "src"), join(this.path, "src"), { recursive: true });
    for (const folder of ["crash", "sim", "machine"]) {
      mkdirSync(join(this.path, "test"), { recursive: true });
      cpSync(join(root, "test", folder), join(this.path, "test", folder), { recursive: true });
    }
    for (const file of ["package.json", "tsconfig.json"]) {
      cpSync(join(root, file), join(this.path, file));
    }
    symlinkSync(join(root, "node_modules"), join(this.path, "node_modules"));
    for (const { file, from, to } of bug.changes) {
      const path = join(this.path, "src", file);
      const text = readFileSync(path, "utf8");
      const times = text.split(from).length - 1;
      if (times !== 1) {
        throw new Error(`the text to change is ${times} times in src/${file}: ${from}`);
      }
      writeFileSync(
        path,
        text.replace(from, () => to),
      );
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
