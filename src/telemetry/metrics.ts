/**
 * What a node tells Prometheus. Figures that the node holds anyway are gathered when somebody asks; what happens often is counted in
 * plain fields, once per batch, section or frame and never per command; only durations are observed as they occur. Names begin
 * with `barge_`, in base units. Two tables say what there is.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { LoopGapReading } from "./loop-gaps.ts";

/** What can grow in one group; each has its bound in limits.ts, named here. */
export interface GroupQueues {
  /** inboxBytesMax. */
  readonly inboxBytes: number;
  /** waitersMax: sections in the inbox, and sections in the log that somebody waits for. */
  readonly waiters: number;
  /** readWaitersMax. */
  readonly readWaiters: number;
  /** forwardsMax. */
  readonly forwards: number;
  /** unsyncedBytesMax. */
  readonly unsyncedBytes: number;
  /** unappliedBytesMax. */
  readonly unappliedBytes: number;
  /** tailCacheBytes. */
  readonly tailCacheBytes: number;
  /** memtableBytes, of each of two. */
  readonly memtableBytes: number;
  /** kvWalBytesMax. */
  readonly kvWalBytes: number;
  /** backupsMax. */
  readonly backups: number;
}

/** Sessions and request ids of one group; their bounds are sessionsMax, requestIdsMax, sessionResultBytesMax and requestIdBytesMax. */
export interface SessionFigures {
  readonly open: number;
  readonly requestIds: number;
  readonly bytes: number;
  /** Since the start of the process: sections that were applied before and answered again, and such as were not applied. */
  readonly repeated: number;
  readonly refused: number;
}

/** Snapshots of one group since the start of the process. */
export interface SnapshotFigures {
  readonly sent: number;
  readonly installed: number;
  /** Streams that came to nothing, on either side. */
  readonly givenUp: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** Watches of one group: how many there are, and what they were told since the start of the process. */
export interface WatchFigures {
  /** watchesMax. */
  readonly watches: number;
  /** Of these, the ones that catch up, and the ones whose client does not take what it is told. */
  readonly behind: number;
  readonly waiting: number;
  readonly changes: number;
  readonly bytes: number;
  /** Ended because what they had not been told yet was gone. */
  readonly compacted: number;
  /** outcomeBytesMax. */
  readonly outcomeBytes: number;
}

/** The application that is a group's state machine; all 0 where none is. What can grow is bounded by appReadWaitersMax and by what reads it. */
export interface ApplicationFigures {
  /** 1 while it is waited for. */
  readonly absent: number;
  /** Calls of UpdateEntries, and entries in them. */
  readonly updates: number;
  readonly entries: number;
  readonly failures: number;
  readonly reads: number;
  readonly readWaiters: number;
  /** Handles of snapshots that are held. */
  readonly snapshots: number;
  readonly restores: number;
}

/** What a scrape needs of one group; `GroupStatus` of server/groups.ts has most of it. */
export interface GroupFigures {
  readonly id: number;
  readonly role: string;
  readonly leader: number;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly durableIndex: number;
  readonly machineDurableIndex: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly logBytes: number;
  readonly members: readonly { readonly voter: boolean }[];
  readonly configurationIndex: number;
  readonly joint: boolean;
  readonly applyVersion?: number;
  readonly wounded?: { readonly index: number };
  readonly queues: GroupQueues;
  readonly sessions: SessionFigures;
  readonly snapshots: SnapshotFigures;
  readonly watches: WatchFigures;
  readonly application: ApplicationFigures;
}

/** What a scrape needs of the connections to and from another node. */
export interface PeerFigures {
  readonly id: number;
  readonly connected: boolean;
  readonly dialsIn: boolean;
  /** sendQueueBytesMax, and for appends 2 inflightBytesMax + frameBytesMax. */
  readonly sendQueueBytes: number;
  readonly framesDropped: number;
}

/** Of reading the disk through in the background, since the start of the process. */
export interface ScrubFigures {
  readonly passes: number;
  readonly bytes: number;
  readonly damages: number;
  readonly passedSecondsAgo?: number;
}

/** What a scrape needs of the node; `NodeStatus` of server/groups.ts has most of it. */
export interface NodeFigures {
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly diskBytes: number;
  readonly freeBytes?: number;
  readonly health: string;
  /** connectionsMax. */
  readonly connections: number;
  /** clientBytesMax. */
  readonly clientBytes: number;
  /** kvOpenFilesMax. */
  readonly kvOpenFiles: number;
  readonly loopGaps: LoopGapReading;
  readonly scrub: ScrubFigures;
  readonly groups: readonly GroupFigures[];
  readonly peers: readonly PeerFigures[];
}

/** Counted in place by whoever does the thing; plain fields, because a metric object costs a microsecond. */
export class Tallies {
  clientConnections = 0;
  clientConnectionsTotal = 0;
  clientConnectionsCut = 0;
  framesReceived = 0;
  framesSent = 0;
  writeRequests = 0;
  writeCommands = 0;
  readRequests = 0;
  readQueries = 0;
  httpRequests = 0;
  /** As of the last HTTP request, answers that are being sent among them. */
  httpRequestsUnderWay = 0;
  /** Of these, watches; httpWatchesMax. */
  httpWatches = 0;
  /** Requests in flight over all binary connections. */
  requestsWaiting = 0;
  /** Bytes of the sections among them. */
  writeBytesWaiting = 0;
  /** Bytes of the frames of reads among them. */
  requestBytesWaiting = 0;
  /** Refused or failed requests by error code. */
  readonly refused = new Map<string, number>();

  refuse(code: string): void {
    this.refused.set(code, (this.refused.get(code) ?? 0) + 1);
  }
}

interface NodeRow {
  readonly name: string;
  readonly help: string;
  readonly value: (node: NodeFigures) => number;
}

interface GroupRow {
  readonly name: string;
  readonly help: string;
  readonly value: (group: GroupFigures) => number;
}

interface PeerRow {
  readonly name: string;
  readonly help: string;
  readonly value: (peer: PeerFigures) => number;
}

interface TallyRow {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly value: (tallies: Tallies) => number;
}

const nodeRows: readonly NodeRow[] = [
  {
    name: "barge_uptime_seconds",
    help: "Time since the node began to serve.",
    value: (node) => node.uptimeSeconds,
  },
  {
    name: "barge_disk_bytes",
    help: "Size of the data folder.",
    value: (node) => node.diskBytes,
  },
  {
    name: "barge_disk_free_bytes",
    help: "Left on the disk of the data folder; below --min-free-bytes this node does not lead, if another can.",
    value: (node) => node.freeBytes ?? NaN,
  },
  {
    name: "barge_healthy",
    help: "1 while the node is well, 0 while it has no leader, little space or none, is wounded or stops.",
    value: (node) => (node.health === "ok" ? 1 : 0),
  },
  {
    name: "barge_connections",
    help: "Open binary connections that others dialled: clients, peers, and those without a hello.",
    value: (node) => node.connections,
  },
  {
    name: "barge_client_bytes",
    help: "Memory held for connections of clients: incomplete frames, reads that wait, unsent replies.",
    value: (node) => node.clientBytes,
  },
  {
    name: "barge_kv_open_files",
    help: "Open files of key-value machines.",
    value: (node) => node.kvOpenFiles,
  },
  {
    name: "barge_scrub_bytes",
    help: "Bytes of the disk that were read in the background to find damage, since the start.",
    value: (node) => node.scrub.bytes,
  },
  {
    name: "barge_scrub_passes",
    help: "How often all of it was read, since the start.",
    value: (node) => node.scrub.passes,
  },
  {
    name: "barge_scrub_damages",
    help: "Damage that was found so, since the start; the log and the status say where.",
    value: (node) => node.scrub.damages,
  },
  {
    name: "barge_scrub_age_seconds",
    help: "Time since all of it was read for the last time; -1 = not since the start.",
    value: (node) => node.scrub.passedSecondsAgo ?? -1,
  },
  {
    name: "barge_resident_memory_bytes",
    help: "Resident memory of the process.",
    value: () => process.memoryUsage.rss(),
  },
];

const groupRows: readonly GroupRow[] = [
  {
    name: "barge_group_is_leader",
    help: "1 where this node leads the group.",
    value: (group) => (group.role === "leader" ? 1 : 0),
  },
  {
    name: "barge_group_leader",
    help: "Node id of the leader that this node knows; 0 = none.",
    value: (group) => group.leader,
  },
  { name: "barge_group_term", help: "Raft term.", value: (group) => group.term },
  {
    name: "barge_group_commit_index",
    help: "Last index known to be committed.",
    value: (group) => group.commitIndex,
  },
  {
    name: "barge_group_applied_index",
    help: "Last index applied to the state machine.",
    value: (group) => group.appliedIndex,
  },
  {
    name: "barge_group_durable_index",
    help: "Last index of the log that is durable on this node.",
    value: (group) => group.durableIndex,
  },
  {
    name: "barge_group_machine_durable_index",
    help: "Last index that the state machine has made durable.",
    value: (group) => group.machineDurableIndex,
  },
  {
    name: "barge_group_voters",
    help: "Members whose votes count, by the configuration that this node has; those that are about to leave among them.",
    value: (group) => group.members.filter(({ voter }) => voter).length,
  },
  {
    name: "barge_group_learners",
    help: "Members that get all data and have no vote.",
    value: (group) => group.members.filter(({ voter }) => !voter).length,
  },
  {
    name: "barge_group_configuration_index",
    help: "Index that the configuration of the members came with; it moves with each change of them.",
    value: (group) => group.configurationIndex,
  },
  {
    name: "barge_group_members_joint",
    help: "1 while a change of the voters is under way: 1 for long means that too few of the old or the new voters answer.",
    value: (group) => (group.joint ? 1 : 0),
  },
  {
    name: "barge_group_first_index",
    help: "First index that the log still holds.",
    value: (group) => group.firstIndex,
  },
  {
    name: "barge_group_last_index",
    help: "Last index of the log.",
    value: (group) => group.lastIndex,
  },
  {
    name: "barge_group_log_bytes",
    help: "Size of the group's live log.",
    value: (group) => group.logBytes,
  },
  {
    name: "barge_group_snapshots_sent",
    help: "Snapshots that another node has taken over from this one.",
    value: (group) => group.snapshots.sent,
  },
  {
    name: "barge_group_snapshots_installed",
    help: "Snapshots that took the place of this node's state and log.",
    value: (group) => group.snapshots.installed,
  },
  {
    name: "barge_group_snapshots_given_up",
    help: "Snapshots sent or received that came to nothing: the other side was gone, or a newer one was needed.",
    value: (group) => group.snapshots.givenUp,
  },
  {
    name: "barge_group_snapshot_bytes_sent",
    help: "Bytes of snapshots sent.",
    value: (group) => group.snapshots.bytesSent,
  },
  {
    name: "barge_group_snapshot_bytes_received",
    help: "Bytes of snapshots received.",
    value: (group) => group.snapshots.bytesReceived,
  },
  {
    name: "barge_group_apply_version",
    help: "How commands take effect: 1, or from 2 on with sessions. Raised once all members can; equal on all of them at equal applied index.",
    value: (group) => group.applyVersion ?? 1,
  },
  {
    name: "barge_group_wounded_to_index",
    help: "0 while this node's log is whole; else the index that it must come to again before this node votes.",
    value: (group) => group.wounded?.index ?? 0,
  },
  {
    name: "barge_group_sessions",
    help: "Sessions of clients that are open.",
    value: (group) => group.sessions.open,
  },
  {
    name: "barge_group_request_ids",
    help: "Request ids of HTTP that are remembered.",
    value: (group) => group.sessions.requestIds,
  },
  {
    name: "barge_group_session_bytes",
    help: "Results that are kept for clients that may ask for them again.",
    value: (group) => group.sessions.bytes,
  },
  {
    name: "barge_group_sections_repeated",
    help: "Sections that came again and were answered with the results of the first time, since the start.",
    value: (group) => group.sessions.repeated,
  },
  {
    name: "barge_group_sections_refused",
    help: "Sections in the log that were not applied since the start: their session was gone, or an earlier one was missing.",
    value: (group) => group.sessions.refused,
  },
  {
    name: "barge_group_inbox_bytes",
    help: "Sections of commands that wait to be sealed into a batch.",
    value: (group) => group.queues.inboxBytes,
  },
  {
    name: "barge_group_waiters",
    help: "Sections whose sender waits for their result.",
    value: (group) => group.queues.waiters,
  },
  {
    name: "barge_group_read_waiters",
    help: "Reads that wait for their index.",
    value: (group) => group.queues.readWaiters,
  },
  {
    name: "barge_group_forwards",
    help: "Sections passed on to the leader that have no place in the log yet.",
    value: (group) => group.queues.forwards,
  },
  {
    name: "barge_group_unsynced_bytes",
    help: "Log that is written and not yet known to be durable here.",
    value: (group) => group.queues.unsyncedBytes,
  },
  {
    name: "barge_group_unapplied_bytes",
    help: "Log that is not applied yet.",
    value: (group) => group.queues.unappliedBytes,
  },
  {
    name: "barge_group_tail_cache_bytes",
    help: "Newest part of the log that is kept in memory.",
    value: (group) => group.queues.tailCacheBytes,
  },
  {
    name: "barge_group_memtable_bytes",
    help: "Keys and values in memory that are not in the kv file yet.",
    value: (group) => group.queues.memtableBytes,
  },
  {
    name: "barge_group_kv_wal_bytes",
    help: "Write-ahead log of the kv file.",
    value: (group) => group.queues.kvWalBytes,
  },
  {
    name: "barge_group_backups",
    help: "Backups that are being read from this node.",
    value: (group) => group.queues.backups,
  },
  {
    name: "barge_group_watches",
    help: "Watches on this node.",
    value: (group) => group.watches.watches,
  },
  {
    name: "barge_group_watches_behind",
    help: "Watches that are being told from further back in the log.",
    value: (group) => group.watches.behind,
  },
  {
    name: "barge_group_watches_waiting",
    help: "Watches whose client does not take what it is told; the log keeps it for them.",
    value: (group) => group.watches.waiting,
  },
  {
    name: "barge_group_watch_changes",
    help: "Changes of keys that watches were told.",
    value: (group) => group.watches.changes,
  },
  {
    name: "barge_group_watch_bytes",
    help: "Bytes of the keys and values of these.",
    value: (group) => group.watches.bytes,
  },
  {
    name: "barge_group_watches_compacted",
    help: "Watches that ended because what they had not been told yet was gone.",
    value: (group) => group.watches.compacted,
  },
  {
    name: "barge_group_outcome_bytes",
    help: "Memory for the outcomes of commands, from which watches are told the past.",
    value: (group) => group.watches.outcomeBytes,
  },
  {
    name: "barge_group_application_absent",
    help: "1 while the application does not answer, or is not ready.",
    value: (group) => group.application.absent,
  },
  {
    name: "barge_group_application_updates",
    help: "Calls of UpdateEntries.",
    value: (group) => group.application.updates,
  },
  {
    name: "barge_group_application_entries",
    help: "Entries that were in them: over the calls, the mean batch.",
    value: (group) => group.application.entries,
  },
  {
    name: "barge_group_application_failures",
    help: "Times that the application was lost: no answer, an error, another instance.",
    value: (group) => group.application.failures,
  },
  {
    name: "barge_group_application_reads",
    help: "Reads that the application answered.",
    value: (group) => group.application.reads,
  },
  {
    name: "barge_group_application_read_waiters",
    help: "Reads that the application has not answered yet.",
    value: (group) => group.application.readWaiters,
  },
  {
    name: "barge_group_application_snapshots",
    help: "Snapshots of the application that are held.",
    value: (group) => group.application.snapshots,
  },
  {
    name: "barge_group_application_restores",
    help: "Snapshots that the application has taken over.",
    value: (group) => group.application.restores,
  },
];

const peerRows: readonly PeerRow[] = [
  {
    name: "barge_peer_connected",
    help: "1 while both connections to the other node are up.",
    value: (peer) => (peer.connected ? 1 : 0),
  },
  {
    name: "barge_peer_dials_in",
    help: "1 while the other node is only reached over connections that it made itself, as it cannot be dialled.",
    value: (peer) => (peer.dialsIn ? 1 : 0),
  },
  {
    name: "barge_peer_send_queue_bytes",
    help: "Unsent bytes of the connections to and from the other node.",
    value: (peer) => peer.sendQueueBytes,
  },
  {
    name: "barge_peer_frames_dropped",
    help: "Frames for the other node that were dropped since the start: it was away, or its queue was full.",
    value: (peer) => peer.framesDropped,
  },
];

const tallyRows: readonly TallyRow[] = [
  {
    name: "barge_client_connections",
    help: "Open connections of clients.",
    type: "gauge",
    value: (tallies) => tallies.clientConnections,
  },
  {
    name: "barge_client_connections_total",
    help: "Connections of clients accepted.",
    type: "counter",
    value: (tallies) => tallies.clientConnectionsTotal,
  },
  {
    name: "barge_client_connections_cut_total",
    help: "Connections of clients cut for breaking the protocol or not reading.",
    type: "counter",
    value: (tallies) => tallies.clientConnectionsCut,
  },
  {
    name: "barge_client_frames_received_total",
    help: "Frames received from clients.",
    type: "counter",
    value: (tallies) => tallies.framesReceived,
  },
  {
    name: "barge_client_frames_sent_total",
    help: "Frames sent to clients.",
    type: "counter",
    value: (tallies) => tallies.framesSent,
  },
  {
    name: "barge_write_requests_total",
    help: "Sections of commands received.",
    type: "counter",
    value: (tallies) => tallies.writeRequests,
  },
  {
    name: "barge_write_commands_total",
    help: "Commands received, in all sections.",
    type: "counter",
    value: (tallies) => tallies.writeCommands,
  },
  {
    name: "barge_read_requests_total",
    help: "Read requests received.",
    type: "counter",
    value: (tallies) => tallies.readRequests,
  },
  {
    name: "barge_read_queries_total",
    help: "Queries received, in all read requests.",
    type: "counter",
    value: (tallies) => tallies.readQueries,
  },
  {
    name: "barge_http_requests_total",
    help: "HTTP requests received.",
    type: "counter",
    value: (tallies) => tallies.httpRequests,
  },
  {
    name: "barge_http_requests_under_way",
    help: "HTTP requests under way, answers that are being sent among them.",
    type: "gauge",
    value: (tallies) => tallies.httpRequestsUnderWay,
  },
  {
    name: "barge_http_watches",
    help: "Watches of HTTP clients; they count as requests under way too.",
    type: "gauge",
    value: (tallies) => tallies.httpWatches,
  },
  {
    name: "barge_request_bytes_waiting",
    help: "Bytes of reads of binary connections that await their reply.",
    type: "gauge",
    value: (tallies) => tallies.requestBytesWaiting,
  },
  {
    name: "barge_write_bytes_waiting",
    help: "Bytes of sections of binary connections that await their reply.",
    type: "gauge",
    value: (tallies) => tallies.writeBytesWaiting,
  },
  {
    name: "barge_requests_waiting",
    help: "Requests of binary connections that await their reply.",
    type: "gauge",
    value: (tallies) => tallies.requestsWaiting,
  },
];

/** From a tenth of a millisecond, doubling: what syncs and stalls of the loop take. */
const durationBuckets = Array.from({ length: 15 }, (_, i) => 0.0001 * 2 ** i);

export class Metrics {
  readonly tallies = new Tallies();
  readonly #registry = new Registry();
  readonly #syncSeconds: Histogram;
  #figures: (() => NodeFigures) | undefined;
  /** Gathered once per scrape. */
  #node: NodeFigures | undefined;

  constructor() {
    const registers = [this.#registry];
    this.#syncSeconds = new Histogram({
      name: "barge_log_sync_duration_seconds",
      help: "Duration of one sync of the log, which covers everything appended before it.",
      buckets: durationBuckets,
      registers,
    });
    this.#registry.registerMetric(loopGapHistogram(() => this.#node?.loopGaps));
    this.#addNode();
    this.#addGroups();
    this.#addPeers();
    this.#addTallies();
  }

  /** From where the figures of the node come; before that a scrape has none of them. */
  observe(figures: () => NodeFigures): void {
    this.#figures = figures;
  }

  syncTook(seconds: number): void {
    this.#syncSeconds.observe(seconds);
  }

  /** All of it in the text format of Prometheus. */
  text(): Promise<string> {
    this.#node = this.#figures?.();
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #addNode(): void {
    const registers = [this.#registry];
    const current = (): NodeFigures | undefined => this.#node;
    for (const { name, help, value } of nodeRows) {
      new Gauge({
        name,
        help,
        registers,
        collect(): void {
          const node = current();
          if (node !== undefined) this.set(value(node));
        },
      });
    }
    new Counter({
      name: "barge_cpu_seconds_total",
      help: "Processor time of the process, user and system.",
      registers,
      collect(): void {
        const { user, system } = process.cpuUsage();
        this.reset();
        this.inc((user + system) / 1e6);
      },
    });
    new Gauge({
      name: "barge_build_info",
      help: "Always 1; the labels say what runs.",
      labelNames: ["version", "bun"],
      registers,
      collect(): void {
        const node = current();
        if (node !== undefined) this.set({ version: node.version, bun: Bun.version }, 1);
      },
    });
  }

  #addGroups(): void {
    const current = (): NodeFigures | undefined => this.#node;
    for (const { name, help, value } of groupRows) {
      new Gauge({
        name,
        help,
        labelNames: ["group"],
        registers: [this.#registry],
        collect(): void {
          this.reset();
          for (const group of current()?.groups ?? []) this.set({ group: group.id }, value(group));
        },
      });
    }
  }

  #addPeers(): void {
    const current = (): NodeFigures | undefined => this.#node;
    for (const { name, help, value } of peerRows) {
      new Gauge({
        name,
        help,
        labelNames: ["peer"],
        registers: [this.#registry],
        collect(): void {
          this.reset();
          for (const peer of current()?.peers ?? []) this.set({ peer: peer.id }, value(peer));
        },
      });
    }
  }

  #addTallies(): void {
    const registers = [this.#registry];
    const tallies = this.tallies;
    for (const { name, help, type, value } of tallyRows) {
      if (type === "gauge") {
        new Gauge({
          name,
          help,
          registers,
          collect(): void {
            this.set(value(tallies));
          },
        });
      } else {
        new Counter({
          name,
          help,
          registers,
          collect(): void {
            this.reset();
            this.inc(value(tallies));
          },
        });
      }
    }
    new Counter({
      name: "barge_requests_refused_total",
      help: "Requests that were refused or failed, by error code.",
      labelNames: ["code"],
      registers,
      collect(): void {
        this.reset();
        for (const [code, count] of tallies.refused) this.inc({ code }, count);
      },
    });
  }
}

/** The metrics as a Markdown table, for the documents. */
export async function metricsMarkdown(metrics: Metrics): Promise<string> {
  const lines = ["| metric | type | meaning |", "| --- | --- | --- |"];
  const text = await metrics.text();
  for (const [, name, help] of text.matchAll(/^# HELP (\S+) (.*)$/gm)) {
    const type = new RegExp(`^# TYPE ${name} (\\S+)$`, "m").exec(text)?.[1] ?? "";
    lines.push(`| \`${name}\` | ${type} | ${help} |`);
  }
  return lines.join("\n");
}

/** What loop-gaps.ts has counted, which benchmarks read too: the histogram counts nothing of its own. */
function loopGapHistogram(read: () => LoopGapReading | undefined): Histogram {
  const name = "barge_loop_gap_seconds";
  const about = {
    name,
    help: "How long the event loop was held, at most, between two ticks of its clock.",
    type: "histogram",
    aggregator: "sum",
  };
  const get = (): Promise<object> => Promise.resolve({ ...about, values: valuesOf(read(), name) });
  // As much of one as a registry asks for.
  return { ...about, get, reset: () => {} } as unknown as Histogram;
}

function valuesOf(gaps: LoopGapReading | undefined, name: string): object[] {
  if (gaps === undefined) return [];
  let below = 0;
  const buckets = gaps.counts.map((count, at) => {
    below += count;
    const bound = gaps.boundsMs[at];
    const le = bound === undefined ? "+Inf" : bound / 1_000;
    return { metricName: `${name}_bucket`, labels: { le }, value: below };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels: {}, value: gaps.sumMs / 1_000 },
    { metricName: `${name}_count`, labels: {}, value: below },
  ];
}
