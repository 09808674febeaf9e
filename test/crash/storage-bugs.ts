/**
 * Bugs that crash images must find: each leaves out, or does too early, one thing that keeps data over a power cut. Planted in a copy of src/, since
 * most lie in the Workers' files too. The text to change must be there exactly once.
 */
export interface StorageBug {
  readonly what: string;
  readonly changes: readonly Change[];
  /** Whose images find it, where that is not the storage alone. */
  readonly of?: "node";
  /** The test that finds it, where crash images do not. */
  readonly foundBy?: string;
  /** Of that file this test alone. */
  readonly named?: string;
  /** That test needs a small file system of its own. */
  readonly onSmallDisk?: true;
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
const diskSpace = "storage/disk-space.ts";
const fullDiskTest = "test/e2e/full-disk.test.ts";

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
        from: "  close(path);\n  fsyncDirectory(dirname(path));\n  return isWhole",
        to: "  close(path);\n  return isWhole",
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
    // Images see it too, with some seeds and after long.
    foundBy: "test/machine/kv-snapshots.test.ts",
    named: "what was there before goes once nobody can come back to it",
  },
  snapshotOverLiveFile: {
    what: "a snapshot is received under the name of the file that is live",
    changes: [
      {
        file: "machine/sqlite-kv-folder.ts",
        from: "    const generation = ++this.#generation;\n",
        to: "    const generation = 1;\n",
      },
      { file: snapshotWorker, from: '"wx+"', to: '"w+"' },
      {
        file: logStore,
        from: "      restore.machineGeneration > log.machineGeneration,\n",
        to: "      restore.machineGeneration >= log.machineGeneration,\n",
      },
    ],
  },
  logCutAboveMachine: {
    what: "the log goes before what it holds is durable in the machine",
    changes: [
      {
        file: "node/group.ts",
        from: "    const { durableIndex } = this.machine;\n    this.#compaction.step",
        to: "    const durableIndex = this.machine.appliedIndex;\n    this.#compaction.step",
      },
      {
        file: "node/group.ts",
        from: "      Math.min(this.machine.durableIndex, this.raft.minMatch()),",
        to: "      Math.min(this.machine.appliedIndex, this.raft.minMatch()),",
      },
    ],
    of: "node",
  },
  newSegmentNotListed: {
    what: "the directory is not synced after a segment was made; SQLite does so as well, at the first write",
    changes: [
      {
        file: segmentFiles,
        from: "    closeSync(descriptor);\n  }\n  fsyncDirectory(directory);\n}\n\n/**\n * Overwriting",
        to: "    closeSync(descriptor);\n  }\n}\n\n/**\n * Overwriting",
      },
    ],
    foundBy: "test/storage/segments.test.ts",
  },
  recycledSegmentNotListed: {
    what: "the directory is not synced after a write-ahead log was renamed for its new segment; SQLite does so as well",
    changes: [
      {
        file: segmentFiles,
        from: '  renameSync(retiredWal, segmentPath(directory, number, "-wal"));\n  fsyncDirectory(directory);',
        to: '  renameSync(retiredWal, segmentPath(directory, number, "-wal"));',
      },
    ],
    foundBy: "test/storage/segments.test.ts",
  },
  zeroedHeaderNotSynced: {
    what: "a write-ahead log is renamed before its zeroed header is durable; the stamp tells the old from the new",
    changes: [
      {
        file: segmentFiles,
        from: "walHeaderBytes, 0);\n    fdatasyncFile(descriptor);",
        to: "walHeaderBytes, 0);",
      },
    ],
    foundBy: "test/storage/segments.test.ts",
  },
  failedSyncRetried: {
    what: "a sync that failed is tried once more, and its success believed",
    changes: [
      {
        file: "storage/sync-latch.ts",
        from: "    fdatasyncSync(descriptor);\n  } catch (error) {\n",
        to: "    fdatasyncSync(descriptor);\n  } catch (error) {\n    try {\n      return fdatasyncSync(descriptor);\n    } catch {}\n",
      },
    ],
    foundBy: "test/storage/file-syncer.test.ts",
  },
  exitSyncs: {
    what: "the process ends without leaving its databases first, so that the exit checkpoints and syncs them",
    changes: [
      {
        file: "storage/sqlite.ts",
        from: "      closeAll();\n    } catch {",
        to: "    } catch {",
      },
    ],
    foundBy: "test/storage/sqlite.test.ts",
  },
  sessionsNotChecked: {
    what: "the checksum of the saved sessions is not looked at",
    changes: [
      {
        file: "machine/sessions.ts",
        from: "    if (broken !== undefined) throw new SavedBytesError(broken);\n",
        to: "",
      },
    ],
    foundBy: "test/machine/verify-kv.test.ts",
    named: "every bit of the sessions",
  },
  stampOfStrangerFatal: {
    what: "a segment that was prepared and never used, with a damaged main file, ends every start",
    changes: [
      {
        file: "storage/sqlite-disk.ts",
        from: "    if (!isUnusable(error)) throw error;\n",
        to: "    throw error;\n",
      },
    ],
    foundBy: "test/storage/read-only-disk.test.ts",
  },
  layoutNotChecked: {
    what: "a state file is used whatever its header says of the room in its pages",
    changes: [
      {
        file: "storage/sqlite.ts",
        from: "      checkLayout(guard);\n",
        to: "",
      },
    ],
    foundBy: "test/machine/verify-kv.test.ts",
    named: "every bit of the header",
  },
  ballastNotMadeAgain: {
    what: "the ballast is not put back once there is space",
    changes: [
      {
        file: diskSpace,
        from: "    if (!this.#fillBallast()) return void this.release();\n",
        to: "",
      },
    ],
    foundBy: "test/storage/disk-space.test.ts",
    onSmallDisk: true,
  },
  fullNodeVotesNot: {
    what: "a node without space gives no vote",
    changes: [
      {
        file: "node/group.ts",
        from: "    if (!this.mayElect && (message",
        to: '    if ((this.#space === "out" || !this.mayElect) && (message',
      },
    ],
    foundBy: fullDiskTest,
    named: "the disk of a follower runs full",
    onSmallDisk: true,
  },
  ballastKept: {
    what: "the ballast is not given up where the disk is full",
    changes: [{ file: diskSpace, from: "      unlinkSync(this.#path);\n", to: "" }],
    foundBy: "test/storage/disk-space.test.ts",
    onSmallDisk: true,
  },
  softLimitIgnored: {
    what: "a leader with little space goes on taking writes",
    changes: [
      {
        file: "node/group.ts",
        from: '(this.#space === "low" && this.raft.role === "leader");',
        to: "false;",
      },
    ],
    foundBy: fullDiskTest,
    named: "where all have little space",
    onSmallDisk: true,
  },
  refusedAsUnknown: {
    what: "a write that a full disk refuses is told as one that may have happened",
    changes: [
      {
        file: "errors.ts",
        from: '"not-applied",\n    "The disk of the leader,',
        to: '"unknown",\n    "The disk of the leader,',
      },
    ],
    foundBy: fullDiskTest,
    named: "where all have little space",
    onSmallDisk: true,
  },
} as const satisfies Record<string, StorageBug>;

export type StorageBugName = keyof typeof storageBugs;

export function isStorageBugName(name: string): name is StorageBugName {
  return Object.hasOwn(storageBugs, name);
}
