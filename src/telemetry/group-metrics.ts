/**
 * What a node tells Prometheus of its groups. Bounded however many there are: all of it of the first ones, and of group 0 and `system`; of the others a few rows each, and
 * the rest added up under `group="other"`, so that sums over all groups are right. Written as text at once: a metric object for each would take longer than
 * the loop may stand still.
 */

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
  /** Callbacks: appOpeningsMax, appPollsMax and appReadsOfAllMax, and one update and one read of each group. */
  readonly underWay: number;
  readonly reads: number;
  readonly readWaiters: number;
  /** Handles of snapshots that are held. */
  readonly snapshots: number;
  readonly restores: number;
}

/** What a scrape needs of one group. */
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
  /** Of the state machine. */
  readonly stateBytes: number;
  readonly voters: number;
  readonly learners: number;
  readonly configurationIndex: number;
  readonly joint: boolean;
  readonly applyVersion: number;
  /** 0 = its log is whole. */
  readonly woundedTo: number;
  readonly queues: GroupQueues;
  readonly sessions: SessionFigures;
  readonly snapshots: SnapshotFigures;
  readonly watches: WatchFigures;
  readonly application: ApplicationFigures;
}

interface GroupRow {
  readonly name: string;
  readonly help: string;
  /** Of groups that are not told in detail: told of each, or added up; else not at all. */
  readonly others?: "each" | "sum";
  readonly value: (group: GroupFigures) => number;
}

const groupRows: readonly GroupRow[] = [
  {
    name: "barge_group_is_leader",
    others: "each",
    help: "1 where this node leads the group.",
    value: (group) => (group.role === "leader" ? 1 : 0),
  },
  {
    name: "barge_group_leader",
    others: "each",
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
    others: "each",
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
    value: (group) => group.voters,
  },
  {
    name: "barge_group_learners",
    help: "Members that get all data and have no vote.",
    value: (group) => group.learners,
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
    others: "each",
    help: "Size of the group's live log.",
    value: (group) => group.logBytes,
  },
  {
    name: "barge_group_state_bytes",
    others: "each",
    help: "Size of the group's state: the file, its write-ahead log, and what is in memory. A group is best kept small, as it is sent whole to who needs it.",
    value: (group) => group.stateBytes,
  },
  {
    name: "barge_group_snapshots_sent",
    others: "sum",
    help: "Snapshots that another node has taken over from this one.",
    value: (group) => group.snapshots.sent,
  },
  {
    name: "barge_group_snapshots_installed",
    others: "sum",
    help: "Snapshots that took the place of this node's state and log.",
    value: (group) => group.snapshots.installed,
  },
  {
    name: "barge_group_snapshots_given_up",
    others: "sum",
    help: "Snapshots sent or received that came to nothing: the other side was gone, or a newer one was needed.",
    value: (group) => group.snapshots.givenUp,
  },
  {
    name: "barge_group_snapshot_bytes_sent",
    others: "sum",
    help: "Bytes of snapshots sent.",
    value: (group) => group.snapshots.bytesSent,
  },
  {
    name: "barge_group_snapshot_bytes_received",
    others: "sum",
    help: "Bytes of snapshots received.",
    value: (group) => group.snapshots.bytesReceived,
  },
  {
    name: "barge_group_apply_version",
    help: "How commands take effect: 1, or from 2 on with sessions. Raised once all members can; equal on all of them at equal applied index.",
    value: (group) => group.applyVersion,
  },
  {
    name: "barge_group_wounded_to_index",
    help: "0 while this node's log is whole; else the index that it must come to again before this node votes.",
    value: (group) => group.woundedTo,
  },
  {
    name: "barge_group_sessions",
    others: "sum",
    help: "Sessions of clients that are open.",
    value: (group) => group.sessions.open,
  },
  {
    name: "barge_group_request_ids",
    others: "sum",
    help: "Request ids of HTTP that are remembered.",
    value: (group) => group.sessions.requestIds,
  },
  {
    name: "barge_group_session_bytes",
    others: "sum",
    help: "Results that are kept for clients that may ask for them again.",
    value: (group) => group.sessions.bytes,
  },
  {
    name: "barge_group_sections_repeated",
    others: "sum",
    help: "Sections that came again and were answered with the results of the first time, since the start.",
    value: (group) => group.sessions.repeated,
  },
  {
    name: "barge_group_sections_refused",
    others: "sum",
    help: "Sections in the log that were not applied since the start: their session was gone, or an earlier one was missing.",
    value: (group) => group.sessions.refused,
  },
  {
    name: "barge_group_inbox_bytes",
    others: "sum",
    help: "Sections of commands that wait to be sealed into a batch.",
    value: (group) => group.queues.inboxBytes,
  },
  {
    name: "barge_group_waiters",
    others: "sum",
    help: "Sections whose sender waits for their result.",
    value: (group) => group.queues.waiters,
  },
  {
    name: "barge_group_read_waiters",
    others: "sum",
    help: "Reads that wait for their index.",
    value: (group) => group.queues.readWaiters,
  },
  {
    name: "barge_group_forwards",
    others: "sum",
    help: "Sections passed on to the leader that have no place in the log yet.",
    value: (group) => group.queues.forwards,
  },
  {
    name: "barge_group_unsynced_bytes",
    others: "sum",
    help: "Log that is written and not yet known to be durable here.",
    value: (group) => group.queues.unsyncedBytes,
  },
  {
    name: "barge_group_unapplied_bytes",
    others: "sum",
    help: "Log that is not applied yet.",
    value: (group) => group.queues.unappliedBytes,
  },
  {
    name: "barge_group_tail_cache_bytes",
    others: "sum",
    help: "Newest part of the log that is kept in memory.",
    value: (group) => group.queues.tailCacheBytes,
  },
  {
    name: "barge_group_memtable_bytes",
    others: "sum",
    help: "Keys and values in memory that are not in the kv file yet.",
    value: (group) => group.queues.memtableBytes,
  },
  {
    name: "barge_group_kv_wal_bytes",
    others: "sum",
    help: "Write-ahead log of the kv file.",
    value: (group) => group.queues.kvWalBytes,
  },
  {
    name: "barge_group_backups",
    others: "sum",
    help: "Backups that are being read from this node.",
    value: (group) => group.queues.backups,
  },
  {
    name: "barge_group_watches",
    others: "sum",
    help: "Watches on this node.",
    value: (group) => group.watches.watches,
  },
  {
    name: "barge_group_watches_behind",
    others: "sum",
    help: "Watches that are being told from further back in the log.",
    value: (group) => group.watches.behind,
  },
  {
    name: "barge_group_watches_waiting",
    others: "sum",
    help: "Watches whose client does not take what it is told; the log keeps it for them.",
    value: (group) => group.watches.waiting,
  },
  {
    name: "barge_group_watch_changes",
    others: "sum",
    help: "Changes of keys that watches were told.",
    value: (group) => group.watches.changes,
  },
  {
    name: "barge_group_watch_bytes",
    others: "sum",
    help: "Bytes of the keys and values of these.",
    value: (group) => group.watches.bytes,
  },
  {
    name: "barge_group_watches_compacted",
    others: "sum",
    help: "Watches that ended because what they had not been told yet was gone.",
    value: (group) => group.watches.compacted,
  },
  {
    name: "barge_group_outcome_bytes",
    others: "sum",
    help: "Memory for the outcomes of commands, from which watches are told the past.",
    value: (group) => group.watches.outcomeBytes,
  },
  {
    name: "barge_group_application_absent",
    others: "each",
    help: "1 while the application does not answer, or is not ready.",
    value: (group) => group.application.absent,
  },
  {
    name: "barge_group_application_updates",
    others: "sum",
    help: "Calls of UpdateEntries.",
    value: (group) => group.application.updates,
  },
  {
    name: "barge_group_application_entries",
    others: "sum",
    help: "Entries that were in them: over the calls, the mean batch.",
    value: (group) => group.application.entries,
  },
  {
    name: "barge_group_application_failures",
    others: "sum",
    help: "Times that the application was lost: no answer, an error, another instance.",
    value: (group) => group.application.failures,
  },
  {
    name: "barge_group_application_under_way",
    others: "sum",
    help: "Callbacks that the application has not answered yet.",
    value: (group) => group.application.underWay,
  },
  {
    name: "barge_group_application_reads",
    others: "sum",
    help: "Reads that the application answered.",
    value: (group) => group.application.reads,
  },
  {
    name: "barge_group_application_read_waiters",
    others: "sum",
    help: "Reads that the application has not answered yet.",
    value: (group) => group.application.readWaiters,
  },
  {
    name: "barge_group_application_snapshots",
    others: "sum",
    help: "Snapshots of the application that are held.",
    value: (group) => group.application.snapshots,
  },
  {
    name: "barge_group_application_restores",
    others: "sum",
    help: "Snapshots that the application has taken over.",
    value: (group) => group.application.restores,
  },
];

/** A group that a scrape may ask. */
export interface MeasuredGroup {
  /** The label of its lines. */
  readonly name: string;
  /** Told in detail, however many there are. */
  readonly always: boolean;
  figures(): GroupFigures;
}

/** The first ones, at most `detailMax`, in detail. */
export function groupsText(groups: readonly MeasuredGroup[], detailMax: number): string {
  const detailed: GroupFigures[] = [];
  const detailedLabels: string[] = [];
  const others: GroupFigures[] = [];
  const otherLabels: string[] = [];
  for (const group of groups) {
    const inDetail = group.always || detailed.length < detailMax;
    (inDetail ? detailed : others).push(group.figures());
    (inDetail ? detailedLabels : otherLabels).push(`{group="${group.name}"}`);
  }
  let text = "";
  for (const { name, help, others: kind, value } of groupRows) {
    text += `# HELP ${name} ${help}\n# TYPE ${name} gauge\n`;
    for (let i = 0; i < detailed.length; i++) {
      text += `${name}${detailedLabels[i]!} ${value(detailed[i]!)}\n`;
    }
    if (others.length === 0 || kind === undefined) continue;
    if (kind === "each") {
      for (let i = 0; i < others.length; i++) {
        text += `${name}${otherLabels[i]!} ${value(others[i]!)}\n`;
      }
      continue;
    }
    let sum = 0;
    for (const group of others) sum += value(group);
    text += `${name}{group="other"} ${sum}\n`;
  }
  return text;
}
