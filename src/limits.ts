/**
 * Every bound of a node, in one place, with the relations between them asserted. Components take a
 * `Limits` value and never import a constant, so that the simulator can set strange bounds.
 * Sizes are in bytes, times in milliseconds unless the name says ticks.
 */

export interface Limits {
  /** One clock tick of every group. */
  readonly tickMs: number;
  readonly heartbeatTicks: number;
  /** Where a shard has more groups, those that rest have their ticks some at a time, a heartbeat's worth at the most. */
  readonly everyTickGroups: number;
  /** From so many led groups on a node sends their heartbeats together, as beats; and for at most so many to one node [34]. */
  readonly beatGroupsMin: number;
  readonly beatGroupsMax: number;
  /** An election time-out is drawn uniformly from [min, max), anew for each wait. */
  readonly electionTicksMin: number;
  readonly electionTicksMax: number;
  /** A leader that heard no quorum for this long steps down (check-quorum). */
  readonly checkQuorumTicks: number;

  /** A sync that runs this long makes a leader hand over, to a member that has on its disk what the leader has not. */
  readonly syncStallMs: number;
  /** The event loop standing still so long is a stall; so many within the window make a leader hand over. */
  readonly loopStallMs: number;
  readonly loopStallsMax: number;
  /** Having handed over because of a stall, a node does not do so again for this long. */
  readonly stallWindowMs: number;
  /** A preferred member could lead for this long before the leader hands over to it. */
  readonly preferredDelayMs: number;
  /** A node that leads so many groups more than another hands some over: 1 and this is left as it is. */
  readonly balanceTolerance: number;
  /** Handed over so in half a second; and how long a group stays where it is before. */
  readonly balanceAtOnceMax: number;
  readonly balanceRestMs: number;

  /** Longest frame accepted once a connection is known. */
  readonly frameBytesMax: number;
  /** Longest frame accepted before the hello. */
  readonly helloBytesMax: number;
  /** A section of several commands; one larger command travels alone. */
  readonly sectionBytesMax: number;
  /** A batch is sealed at or below this body size, unless one section alone is larger. */
  readonly batchBytesMax: number;
  /** While a sync runs, a batch is sealed once the inbox holds this much [7]. */
  readonly sealBytes: number;
  /** Bodies of appends in one frame; a single larger batch travels alone. */
  readonly appendBytesMax: number;

  /** In flight to one peer, unacknowledged. */
  readonly inflightBytesMax: number;
  readonly inflightFramesMax: number;
  /** Appended on the leader and not yet known durable there. */
  readonly unsyncedBytesMax: number;
  /** The same of all groups of a shard together; where more waits, each has its share. */
  readonly shardUnsyncedBytesMax: number;
  /** Proposed on the leader and not yet applied there. */
  readonly unappliedBytesMax: number;
  /** Batches applied in one go; groups that have more each have their share, but at least a batch. */
  readonly applyBytesPerTurn: number;
  /** Sections that wait to be sealed, per group; and all sections of binary clients that await their reply. */
  readonly inboxBytesMax: number;
  /** Bodies of the log's tail kept in memory per group, so that sending rarely reads the store. */
  readonly tailCacheBytes: number;
  /** The same of all groups of a shard together: beyond it those with the most give up some. */
  readonly shardTailCacheBytes: number;
  /** Requests that wait for their index, per group. */
  readonly waitersMax: number;
  readonly readWaitersMax: number;
  /** Sections passed on to the leader and not yet answered, per group. */
  readonly forwardsMax: number;

  /** Unsent bytes of one connection: above it, reading from that socket stops. */
  readonly sendQueueBytesMax: number;
  /** Unsent bytes of one connection at which a client that does not read is cut off. */
  readonly sendQueueBytesCut: number;
  readonly connectionsMax: number;
  readonly helloTimeoutMs: number;
  readonly frameTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** A peer that answers no ping for so long is dialled anew, so that TCP's own patience delays nobody after a partition. */
  readonly peerSilenceMs: number;
  /** Requests of one connection that await their reply. */
  readonly connectionRequestsMax: number;
  /** Bytes of queries of one connection that await their reply: above it, reading from that socket stops. */
  readonly connectionRequestBytesMax: number;
  /**
   * What all client connections together hold: incomplete frames, queries that wait, unsent replies. Above it the connection that holds
   * the most is cut.
   */
  readonly clientBytesMax: number;
  /** HTTP requests under way, answers that are being sent among them. */
  readonly httpRequestsMax: number;

  /** Requests of clients that are taken in one turn of the loop, and their bytes; the rest waits in its connection for the next. */
  readonly requestsPerTurn: number;
  readonly requestBytesPerTurn: number;
  /** Reads of clients are answered for so long in one turn of the loop, or until so much is copied; the rest waits for the next. */
  readonly readMsPerTurn: number;
  readonly readBytesPerTurn: number;
  /** Queries of one request that come later than this are left unanswered: asked again, they have the time for themselves. */
  readonly readRequestMsMax: number;

  /** WAL bytes of one segment before the log rotates. */
  readonly segmentBytes: number;
  /** Records of one segment before the log rotates; for strange simulated bounds. */
  readonly segmentRecordsMax: number;
  /** Live log of one group; above it the leader refuses writes. */
  readonly groupLogBytesMax: number;
  /** Live log of all groups of a shard together: beyond it those with the most flush their machines and cut what they can. */
  readonly shardLogBytesMax: number;
  /** State of one group above which it is told to be too large: it is sent whole to who needs it. An option of `serve` sets it. */
  readonly groupWarnBytes: number;
  /** Less free space than this is little: a leader takes no more writes and hands over. An option of `serve` sets it. */
  readonly minFreeBytes: number;
  /** Taken while there is space, given to the log once there is none: room for votes [20]. */
  readonly ballastBytes: number;
  /** Between two looks at the free space. */
  readonly freeSpaceLookMs: number;
  /** The disk is read through once in so long, for the first time so long after a start, or up to twice that. */
  readonly scrubEveryMs: number;
  readonly scrubDelayMs: number;
  /** Read per second while it is. */
  readonly scrubBytesPerSecond: number;
  /** The watermark file is made durable at least this often. */
  readonly watermarkSyncMs: number;

  /** One chunk of a snapshot; of one stream, so much is sent beyond what the receiver has written. */
  readonly snapshotChunkBytes: number;
  readonly snapshotWindowBytes: number;
  /** Of a snapshot, received and not yet written: above it the sender does not keep to any window. */
  readonly snapshotReceiveBytesMax: number;
  /** A stream that does not move for so long is given up, on both sides. */
  readonly snapshotStallMs: number;
  /** Write-ahead log of a kv file from which a snapshot is being sent: above it the streams are given up, so that it can be checkpointed [29]. */
  readonly snapshotWalBytesMax: number;
  /** Backups of one group that are read at once. */
  readonly backupsMax: number;
  /**
   * Log kept for live members that lag, and for those that receive a snapshot, beyond what the compaction policy keeps; twice as much each time that
   * a snapshot was outrun by the log, up to half of `groupLogBytesMax`.
   */
  readonly retainedLogBytesMax: number;

  readonly keyBytesMax: number;
  readonly valueBytesMax: number;
  readonly rangeItemsMax: number;
  readonly rangeBytesMax: number;
  /** One transaction: its compares and the operations of both lists together, and the whole command. */
  readonly txnOperationsMax: number;
  readonly txnBytesMax: number;
  /** Commands of one section; results of one section are bounded too. */
  readonly sectionCommandsMax: number;
  readonly resultBytesMax: number;
  /** kv memtable: keys and values not yet flushed, per group. */
  readonly memtableBytes: number;
  /** The same of all groups of a shard together, but for what is being flushed: beyond it those with the most flush. */
  readonly shardMemtableBytes: number;
  readonly memtableFlushMs: number;
  /** How long to wait for space on a full disk before the next attempt to flush or to checkpoint. */
  readonly diskFullRetryMs: number;
  /** Work of one flush slice within its transaction. */
  readonly flushSliceMs: number;
  /** With less log applied since the last flush none is due by time: a group that is hardly written has no file, and a restart replays that much at once. */
  readonly flushLogBytesMin: number;
  /** Log applied since the last flush that makes one due, however few keys it wrote: what is flushed the log can drop. */
  readonly flushLogBytes: number;
  /** Write-ahead log of one kv file; above it a checkpoint is due [29]. */
  readonly kvWalBytesMax: number;
  /** kv files that are open at once [28]. */
  readonly kvOpenFilesMax: number;

  /** Outcomes of commands that are not plain ok, kept so that the log can be told as changes of keys; per group. */
  readonly outcomeBytesMax: number;
  /** An application that is the state machine: how long a callback may take; of a snapshot's stream, how long without a byte. */
  readonly appTimeoutMs: number;
  readonly appSnapshotStallMs: number;
  /** Between a failure and the next attempt: doubling from one to the other. */
  readonly appRetryMsMin: number;
  readonly appRetryMsMax: number;
  /** It is asked so often whether it is ready, where nothing else is asked of it. */
  readonly appPollMs: number;
  /** Groups of a node that are asked so within that time: of more each is asked seldomer. And that are being opened at once: asked whether they are ready, and what they have. */
  readonly appPollsMax: number;
  readonly appOpeningsMax: number;
  /** Not answering for so long it is out: leadership is handed over, and writes are refused. */
  readonly appParkMs: number;
  /** Commands in one UpdateEntries; a single larger batch travels alone. */
  readonly appUpdateBytesMax: number;
  readonly appUpdateEntriesMax: number;
  /** Reply to one callback, but for a snapshot. */
  readonly appReplyBytesMax: number;
  /** Reads that the application is asked at once; and those that wait for their turn, with the bytes of their queries. */
  readonly appReadsMax: number;
  /** Besides the first of each group, all groups of a node together. */
  readonly appReadsOfAllMax: number;
  readonly appReadWaitersMax: number;
  readonly appReadWaiterBytesMax: number;
  /** Streams of a snapshot that are read from the application at once. */
  readonly appSnapshotStreamsMax: number;
  /** Log given to the application since the daemon last noted how far that was: what lies below the note the log can drop. */
  readonly appFlushLogBytes: number;

  /** Watches of one node, and of one of its connections; and those that HTTP clients may have. */
  readonly watchesMax: number;
  readonly connectionWatchesMax: number;
  readonly httpWatchesMax: number;
  /** Log that is told to watches in one turn of the loop: to those that are up to date, and to those that catch up. */
  readonly watchBytesPerTurn: number;
  readonly watchCatchUpBytesPerTurn: number;
  /** Log that is told in one go; the changes of one watch in it make one frame. */
  readonly watchSliceBytes: number;
  /** Changes that are told in one go, each counted once for every watch of it, where they are of several revisions. */
  readonly watchSliceChanges: number;
  /** Unsent bytes of one connection above which its watches wait: the log keeps their changes. */
  readonly watchQueueBytesMax: number;
  /** Bytes of changes that a client lets a node send ahead of what it has taken; per watch. */
  readonly watchWindowBytesMax: number;
  /** A watch hears this often how far it has come, where that moves without a change of its keys. */
  readonly watchProgressMs: number;
  /** A node that has heard nothing of a leader with a quorum for so long tells watches nothing new, and ends them: another may know more. */
  readonly watchStaleMs: number;

  /**
   * Sessions and request ids of one group. What apply does depends on them, so they are the same on all nodes: another value takes another
   * apply version [16].
   */
  readonly sessionsMax: number;
  /** Of one connection, opened and not closed: one client must not take the room of all. */
  readonly connectionSessionsMax: number;
  /** Cluster time that a session may be idle for; a client may ask for less or more, within bounds. */
  readonly sessionTtlMs: number;
  readonly sessionTtlMsMin: number;
  readonly sessionTtlMsMax: number;
  /** Idle sessions are looked for no oftener than that. */
  readonly sessionSweepMs: number;
  /** Sections of one session whose results the client has not confirmed, and the bytes of those; what is older is forgotten. */
  readonly sessionWindowSections: number;
  readonly sessionWindowBytes: number;
  /** Results kept over all sessions; each has its share of it for sure. */
  readonly sessionResultBytesMax: number;
  readonly requestIdsMax: number;
  readonly requestIdTtlMs: number;
  /** Request ids with their results. */
  readonly requestIdBytesMax: number;

  /** Groups that the registry takes. */
  readonly groupsMax: number;

  readonly requestTimeoutMs: number;
  readonly requestTimeoutMsMax: number;
  /** Groups that metrics tell of in detail; of the others a few figures each, and sums. */
  readonly metricsGroupsMax: number;
}

const KiB = 1024;
const MiB = 1024 * KiB;

/** More than the headers of frame, message and batch around a section together take; see wire/. */
export const frameOverheadBytes: number = 1 * KiB;

export const defaultLimits: Limits = checkLimits({
  tickMs: 25,
  heartbeatTicks: 4,
  everyTickGroups: 16,
  beatGroupsMin: 3,
  beatGroupsMax: 16_384,
  electionTicksMin: 16,
  electionTicksMax: 32,
  checkQuorumTicks: 32,

  syncStallMs: 500,
  loopStallMs: 200,
  loopStallsMax: 3,
  stallWindowMs: 10_000,
  preferredDelayMs: 10_000,
  balanceTolerance: 1,
  balanceAtOnceMax: 64,
  balanceRestMs: 5_000,

  frameBytesMax: 8 * MiB,
  helloBytesMax: 64 * KiB,
  sectionBytesMax: 256 * KiB,
  batchBytesMax: 256 * KiB,
  sealBytes: 64 * KiB,
  appendBytesMax: 512 * KiB,

  inflightBytesMax: 1 * MiB,
  inflightFramesMax: 8,
  unsyncedBytesMax: 8 * MiB,
  shardUnsyncedBytesMax: 16 * MiB,
  unappliedBytesMax: 64 * MiB,
  applyBytesPerTurn: 1 * MiB,
  inboxBytesMax: 16 * MiB,
  tailCacheBytes: 16 * MiB,
  shardTailCacheBytes: 64 * MiB,
  waitersMax: 65_536,
  readWaitersMax: 65_536,
  forwardsMax: 65_536,

  sendQueueBytesMax: 4 * MiB,
  sendQueueBytesCut: 64 * MiB,
  connectionsMax: 4_096,
  helloTimeoutMs: 5_000,
  frameTimeoutMs: 10_000,
  idleTimeoutMs: 60_000,
  peerSilenceMs: 3_000,
  connectionRequestsMax: 65_536,
  connectionRequestBytesMax: 16 * MiB,
  clientBytesMax: 256 * MiB,
  httpRequestsMax: 512,

  requestsPerTurn: 4_096,
  requestBytesPerTurn: 8 * MiB,
  readMsPerTurn: 2,
  readBytesPerTurn: 2 * MiB,
  readRequestMsMax: 20,

  segmentBytes: 64 * MiB,
  segmentRecordsMax: 1_000_000,
  groupLogBytesMax: 8 * 1024 * MiB,
  shardLogBytesMax: 4 * 1024 * MiB,
  groupWarnBytes: 4 * 1024 * MiB,
  minFreeBytes: 256 * MiB,
  ballastBytes: 16 * MiB,
  freeSpaceLookMs: 500,
  watermarkSyncMs: 100,
  scrubEveryMs: 86_400_000,
  scrubDelayMs: 600_000,
  scrubBytesPerSecond: 4 * MiB,

  snapshotChunkBytes: 256 * KiB,
  snapshotWindowBytes: 1 * MiB,
  snapshotReceiveBytesMax: 16 * MiB,
  snapshotStallMs: 30_000,
  snapshotWalBytesMax: 1024 * MiB,
  backupsMax: 4,
  retainedLogBytesMax: 1024 * MiB,

  keyBytesMax: 4_096,
  valueBytesMax: 1 * MiB,
  rangeItemsMax: 1_000,
  rangeBytesMax: 1 * MiB,
  txnOperationsMax: 128,
  txnBytesMax: 4 * MiB,
  sectionCommandsMax: 65_536,
  resultBytesMax: 1 * MiB,
  memtableBytes: 128 * MiB,
  shardMemtableBytes: 256 * MiB,
  memtableFlushMs: 30_000,
  diskFullRetryMs: 1_000,
  flushSliceMs: 2,
  flushLogBytesMin: 64 * KiB,
  flushLogBytes: 512 * MiB,
  kvWalBytesMax: 256 * MiB,
  kvOpenFilesMax: 256,
  outcomeBytesMax: 6 * MiB,

  appTimeoutMs: 10_000,
  appSnapshotStallMs: 60_000,
  appRetryMsMin: 50,
  appRetryMsMax: 2_000,
  appPollMs: 2_000,
  appPollsMax: 16,
  appOpeningsMax: 64,
  appParkMs: 1_000,
  appUpdateBytesMax: 256 * KiB,
  appUpdateEntriesMax: 4_096,
  appReplyBytesMax: 16 * MiB,
  appReadsMax: 16,
  appReadsOfAllMax: 256,
  appReadWaitersMax: 4_096,
  appReadWaiterBytesMax: 16 * MiB,
  appSnapshotStreamsMax: 4,
  appFlushLogBytes: 64 * MiB,

  watchesMax: 65_536,
  connectionWatchesMax: 4_096,
  httpWatchesMax: 256,
  watchBytesPerTurn: 1 * MiB,
  watchCatchUpBytesPerTurn: 512 * KiB,
  watchSliceBytes: 256 * KiB,
  watchSliceChanges: 4_096,
  watchQueueBytesMax: 1 * MiB,
  watchWindowBytesMax: 16 * MiB,
  watchProgressMs: 1_000,
  watchStaleMs: 5_000,

  sessionsMax: 4_096,
  connectionSessionsMax: 64,
  sessionTtlMs: 600_000,
  sessionTtlMsMin: 1_000,
  sessionTtlMsMax: 3_600_000,
  sessionSweepMs: 1_000,
  sessionWindowSections: 64,
  sessionWindowBytes: 1 * MiB,
  sessionResultBytesMax: 16 * MiB,
  requestIdsMax: 100_000,
  requestIdTtlMs: 600_000,
  requestIdBytesMax: 16 * MiB,

  groupsMax: 4_096,
  requestTimeoutMs: 5_000,
  requestTimeoutMsMax: 60_000,
  metricsGroupsMax: 64,
});

/** Throws when the relations that the code relies on do not hold. Returns its argument. */
export function checkLimits(limits: Limits): Limits {
  const must = (ok: boolean, what: string): void => {
    if (!ok) throw new Error(`limits: ${what}`);
  };
  for (const [name, value] of Object.entries(limits)) {
    must(Number.isSafeInteger(value) && value > 0, `${name} must be a positive integer`);
  }
  const l = limits;
  must(l.heartbeatTicks * 2 <= l.electionTicksMin, "heartbeatTicks * 2 <= electionTicksMin");
  must(l.electionTicksMin < l.electionTicksMax, "electionTicksMin < electionTicksMax");
  // A node that leads too many must be one that hears what the others lead.
  must(l.beatGroupsMin <= l.balanceTolerance + 2, "beatGroupsMin <= balanceTolerance + 2");
  // A turn of the loop comes with each tick, a little late at times.
  must(l.loopStallMs >= 2 * l.tickMs, "loopStallMs >= 2 tickMs");
  must(l.checkQuorumTicks >= l.electionTicksMin, "checkQuorumTicks >= electionTicksMin");
  // A section may hold one largest command; a batch one such section; an append frame one such batch.
  const largest = l.keyBytesMax + l.valueBytesMax + frameOverheadBytes;
  must(largest + frameOverheadBytes <= l.frameBytesMax, "key + value + overhead <= frameBytesMax");
  must(l.txnBytesMax + frameOverheadBytes <= l.frameBytesMax, "txnBytesMax <= frameBytesMax");
  // Positions in a transaction are u16 on the wire.
  must(l.txnOperationsMax <= 0xffff, "txnOperationsMax <= 65535");
  must(
    l.sectionBytesMax + frameOverheadBytes <= l.frameBytesMax,
    "sectionBytesMax <= frameBytesMax",
  );
  must(l.batchBytesMax + frameOverheadBytes <= l.frameBytesMax, "batchBytesMax <= frameBytesMax");
  must(l.appendBytesMax + frameOverheadBytes <= l.frameBytesMax, "appendBytesMax <= frameBytesMax");
  must(
    l.rangeBytesMax + largest + frameOverheadBytes <= l.frameBytesMax,
    "rangeBytesMax <= frameBytesMax",
  );
  must(l.resultBytesMax + frameOverheadBytes <= l.frameBytesMax, "resultBytesMax <= frameBytesMax");
  // What a slice of the log changed is one frame, and no longer than the slice was.
  must(
    l.watchSliceBytes + frameOverheadBytes <= l.frameBytesMax,
    "watchSliceBytes <= frameBytesMax",
  );
  must(
    l.watchStaleMs >= 2 * l.electionTicksMax * l.tickMs,
    "watchStaleMs >= 2 electionTicksMax tickMs",
  );
  must(l.watchQueueBytesMax <= l.sendQueueBytesMax, "watchQueueBytesMax <= sendQueueBytesMax");
  must(l.httpWatchesMax < l.httpRequestsMax, "httpWatchesMax < httpRequestsMax");
  must(l.helloBytesMax <= l.frameBytesMax, "helloBytesMax <= frameBytesMax");
  must(l.sendQueueBytesMax < l.sendQueueBytesCut, "sendQueueBytesMax < sendQueueBytesCut");
  must(l.frameBytesMax < l.sendQueueBytesCut, "frameBytesMax < sendQueueBytesCut");
  // A peer's bulk queue takes appends up to two windows and a frame; the frame on top may be as long again.
  const bulkQueue = 2 * (l.inflightBytesMax + l.frameBytesMax);
  must(
    bulkQueue <= l.sendQueueBytesCut,
    "2 (inflightBytesMax + frameBytesMax) <= sendQueueBytesCut",
  );
  // One connection alone never reaches the bound of all: its own come first.
  must(
    l.sendQueueBytesCut + l.connectionRequestBytesMax + l.frameBytesMax <= l.clientBytesMax,
    "sendQueueBytesCut + connectionRequestBytesMax + frameBytesMax <= clientBytesMax",
  );
  must(l.unsyncedBytesMax <= l.shardUnsyncedBytesMax, "unsyncedBytesMax <= shardUnsyncedBytesMax");
  must(l.segmentBytes <= l.groupLogBytesMax, "segmentBytes <= groupLogBytesMax");
  must(
    l.snapshotChunkBytes + frameOverheadBytes <= l.frameBytesMax,
    "snapshotChunkBytes <= frameBytesMax",
  );
  must(
    l.snapshotWindowBytes + l.snapshotChunkBytes <= l.snapshotReceiveBytesMax,
    "snapshotWindowBytes + snapshotChunkBytes <= snapshotReceiveBytesMax",
  );
  must(l.flushLogBytesMin <= l.flushLogBytes, "flushLogBytesMin <= flushLogBytes");
  must(l.kvWalBytesMax <= l.snapshotWalBytesMax, "kvWalBytesMax <= snapshotWalBytesMax");
  must(l.retainedLogBytesMax <= l.groupLogBytesMax, "retainedLogBytesMax <= groupLogBytesMax");
  must(l.appRetryMsMin <= l.appRetryMsMax, "appRetryMsMin <= appRetryMsMax");
  must(l.sessionTtlMsMin <= l.sessionTtlMs, "sessionTtlMsMin <= sessionTtlMs");
  must(l.sessionTtlMs <= l.sessionTtlMsMax, "sessionTtlMs <= sessionTtlMsMax");
  must(l.sessionTtlMsMax <= 0xffff_ffff, "sessionTtlMsMax is a u32 on the wire");
  must(l.requestTimeoutMs <= l.requestTimeoutMsMax, "requestTimeoutMs <= requestTimeoutMsMax");
  return limits;
}
