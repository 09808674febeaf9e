/**
 * What a node tells Prometheus. Figures that the node holds anyway are gathered when somebody asks; what happens often is counted in
 * plain fields, once per batch, section or frame and never per command; only durations are observed as they occur. Names begin
 * with `barge_`, in base units. Tables say what there is; that of groups is group-metrics.ts.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { defaultLimits } from "../limits.ts";
import { groupsText, type MeasuredGroup } from "./group-metrics.ts";
import type { LoopGapReading } from "./loop-gaps.ts";

/** What a scrape needs of the connections to and from another node. */
export interface PeerFigures {
  readonly id: number;
  readonly connected: boolean;
  readonly dialsIn: boolean;
  /** sendQueueBytesMax, and for appends 2 inflightBytesMax + frameBytesMax. */
  readonly sendQueueBytes: number;
  readonly framesDropped: number;
  readonly framesSent: number;
  readonly framesReceived: number;
  /** beatGroupsMax: groups led here whose heartbeats to it go together. */
  readonly beatGroups: number;
}

/** Of reading the disk through in the background, since the start of the process. */
export interface ScrubFigures {
  readonly passes: number;
  readonly bytes: number;
  readonly damages: number;
  readonly passedSecondsAgo?: number;
}

/** How many groups a node has, and of what kind; `GroupsSummary` of wire/status.ts has more. */
export interface GroupCounts {
  readonly total: number;
  readonly leads: number;
  readonly leaderless: number;
  readonly stopped: number;
  readonly wounded: number;
  readonly large: number;
}

/** What a scrape needs of the node; `NodeStatus` of wire/status.ts has most of it. */
/** What all groups of a node have in common. */
export interface SharedFigures {
  /** Groups that take part in its turns. */
  readonly activeGroups: number;
  /** shardTailCacheBytes. */
  readonly tailCacheBytes: number;
  /** shardMemtableBytes. */
  readonly memtableBytes: number;
  /** shardLogBytesMax. */
  readonly logBytes: number;
  /** As many as groups were removed since the registry was last made durable. */
  readonly tombstones: number;
}

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
  readonly shared: SharedFigures;
  readonly loopGaps: LoopGapReading;
  readonly scrub: ScrubFigures;
  /** By rising id. */
  readonly groups: readonly MeasuredGroup[];
  readonly summary: GroupCounts;
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
  /** Clients that are told who leads which group. */
  groupFollowers = 0;
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
    name: "barge_groups_active",
    help: "Groups that have something to do; the others cost next to nothing.",
    value: (node) => node.shared.activeGroups,
  },
  {
    name: "barge_log_live_bytes",
    help: "Log of all groups that is kept.",
    value: (node) => node.shared.logBytes,
  },
  {
    name: "barge_log_tombstones",
    help: "Removed groups that the log remembers, until the registry itself is durable.",
    value: (node) => node.shared.tombstones,
  },
  {
    name: "barge_tail_cache_bytes",
    help: "Ends of the logs of all groups in memory.",
    value: (node) => node.shared.tailCacheBytes,
  },
  {
    name: "barge_memtable_bytes",
    help: "Keys and values of all groups in memory that no flush has begun on.",
    value: (node) => node.shared.memtableBytes,
  },
  {
    name: "barge_groups",
    help: "Groups that this node has a copy of, but for `system`.",
    value: (node) => node.summary.total,
  },
  {
    name: "barge_groups_led",
    help: "Of these, the ones that it leads.",
    value: (node) => node.summary.leads,
  },
  {
    name: "barge_groups_without_leader",
    help: "Groups of this node that have no leader as far as it knows, `system` among them.",
    value: (node) => node.summary.leaderless,
  },
  {
    name: "barge_groups_stopped",
    help: "Groups that stopped here because something was found that must never be; the log says what.",
    value: (node) => node.summary.stopped,
  },
  {
    name: "barge_groups_wounded",
    help: "Groups whose log or state this disk has lost a part of: they do not vote until it has come back.",
    value: (node) => node.summary.wounded,
  },
  {
    name: "barge_groups_large",
    help: "Groups with more state than --group-warn-bytes: they are better split.",
    value: (node) => node.summary.large,
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
  {
    name: "barge_peer_frames_sent",
    help: "Frames that were sent to the other node since the start, without those that only keep a connection alive.",
    value: (peer) => peer.framesSent,
  },
  {
    name: "barge_peer_frames_received",
    help: "The same of those that came from it.",
    value: (peer) => peer.framesReceived,
  },
  {
    name: "barge_peer_beat_groups",
    help: "Groups led here whose heartbeats to the other node go together, one frame for all.",
    value: (peer) => peer.beatGroups,
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
    name: "barge_client_group_followers",
    help: "Connections of clients that are told who leads which group; of group 0 all are.",
    type: "gauge",
    value: (tallies) => tallies.groupFollowers,
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
  /** That are told in detail. */
  readonly #groupsMax: number;

  constructor(groupsMax: number = defaultLimits.metricsGroupsMax) {
    this.#groupsMax = groupsMax;
    const registers = [this.#registry];
    this.#syncSeconds = new Histogram({
      name: "barge_log_sync_duration_seconds",
      help: "Duration of one sync of the log, which covers everything appended before it.",
      buckets: durationBuckets,
      registers,
    });
    this.#registry.registerMetric(loopGapHistogram(() => this.#node?.loopGaps));
    this.#addNode();
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
  async text(): Promise<string> {
    const node = this.#figures?.();
    this.#node = node;
    const groups = groupsText(node?.groups ?? [], this.#groupsMax);
    return `${await this.#registry.metrics()}\n${groups}`;
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
