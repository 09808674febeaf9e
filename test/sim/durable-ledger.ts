/**
 * What a node's disk holds for sure of one group, by an observer of its own (disk-watch.ts) between log-store and disk: each record as it is
 * appended, and as durable only once a sync that was begun afterwards has ended. It knows records and batches, and nothing of how the
 * log-store thinks.
 */
import { RecordKind, type LogRecord } from "../../src/storage/disk.ts";
import {
  readHardState,
  readLogStart,
  readReplica,
  readWound,
  recordIntact,
  type LogStartRecord,
  type ReplicaRecord,
} from "../../src/storage/records.ts";
import { batchIntact, readBatch, type Batch, type LogStart } from "../../src/wire/batch.ts";

/** One batch of a shadow log. */
export interface Entry {
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly term: number;
  readonly crc: number;
}

/** A replica as far as a row of records tells it. */
export class Shadow {
  term = 0;
  votedFor = 0;
  /** The log on disk begins after this index. */
  start = 0;
  /** The registry has taken it away, at that index of its own log; and the index at which the replica that there is was made. */
  removedAt = 0;
  madeAt = 0;
  /** Ascending and contiguous; what was retired from the disk stays, as it was known to be committed. */
  readonly log: Entry[] = [];

  /** A batch supersedes everything from its first index on. */
  take(batch: Batch): void {
    const { log } = this;
    const { firstIndex, count, term, crc } = batch;
    const from = Math.max(firstIndex, this.start + 1);
    while (log.length > 0 && log[log.length - 1]!.lastIndex >= from) log.pop();
    // A misdirected one, from before the log's start.
    if (firstIndex < from) return;
    log.push({ firstIndex, lastIndex: firstIndex + count - 1, term, crc });
  }

  /** A copy of a batch supersedes nothing; where something else lies in a batch's place, it is what the log goes on with. */
  goOnWith({ firstIndex, count, term, crc }: Batch): void {
    if (firstIndex !== this.lastIndex + 1) return;
    this.log.push({ firstIndex, lastIndex: firstIndex + count - 1, term, crc });
  }

  /** A snapshot stands for everything up to where it was taken, which is committed, and makes void what was here. */
  restore(start: LogStart, committed: readonly Entry[]): void {
    this.log.length = 0;
    this.start = start.index;
    if (start.index === 0) return;
    for (const entry of committed) if (entry.lastIndex <= start.index) this.log.push(entry);
    const last = this.log.at(-1);
    if (last?.lastIndex !== start.index || last.crc !== start.crc) {
      throw new Error(`a log begins anew at ${start.index}, where nothing like that is committed`);
    }
  }

  /** Up to here the log may go. A misdirected batch may have taken the place of what it was compacted to; what lies above stays. */
  compact(start: LogStart, committed: readonly Entry[]): void {
    if (this.endsAt(start)) {
      this.start = start.index;
      return;
    }
    const later = this.log.filter(({ firstIndex }) => firstIndex > start.index);
    this.restore(start, committed);
    this.log.push(...later);
  }

  /** What the registry says of it; each segment repeats it. */
  become({ removed, registryIndex }: ReplicaRecord): void {
    if (!removed) {
      this.madeAt = registryIndex;
      return;
    }
    this.removedAt = Math.max(this.removedAt, registryIndex);
    if (this.madeAt > registryIndex) return;
    this.term = 0;
    this.votedFor = 0;
    this.start = 0;
    this.log.length = 0;
  }

  /** There is no replica, as it was taken away. */
  get isGone(): boolean {
    return this.removedAt > 0 && this.removedAt >= this.madeAt;
  }

  endsAt({ index, crc }: LogStart): boolean {
    if (index === 0) return true;
    const entry = this.at(index);
    return entry?.lastIndex === index && entry.crc === crc;
  }

  /** A damaged batch ends the log before its first index. */
  cut(firstIndex: number): void {
    const { log } = this;
    while (log.length > 0 && log[log.length - 1]!.lastIndex >= firstIndex) log.pop();
  }

  get lastIndex(): number {
    return this.log[this.log.length - 1]?.lastIndex ?? 0;
  }

  get lastTerm(): number {
    return this.log[this.log.length - 1]?.term ?? 0;
  }

  /** The batch that spans an index. */
  at(index: number): Entry | undefined {
    const { log } = this;
    let low = 0;
    let high = log.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const entry = log[middle]!;
      if (index < entry.firstIndex) high = middle - 1;
      else if (index > entry.lastIndex) low = middle + 1;
      else return entry;
    }
    return undefined;
  }
}

/** One record of interest and the segment that holds it. */
interface Change {
  readonly seq: number;
  readonly segment: number;
  /** Of a batch: segments that it was copied to before it was durable. */
  copies?: number[];
  synced: boolean;
  readonly batch?: Batch;
  readonly copy?: Batch;
  readonly hardState?: { readonly term: number; readonly votedFor: number };
  /** Of a wound: where the log ends; 0 = nowhere. */
  readonly cut?: number;
  /** Of a wound: it is one, or it is over. */
  readonly wounded?: boolean;
  /** Of a snapshot that was taken over. */
  readonly restore?: LogStart;
  /** The log begins there by compaction, whatever else it holds. */
  readonly compacts?: boolean;
  /** The registry has made the replica, or taken it away. */
  readonly replica?: ReplicaRecord;
}

/** A record as a start of the node finds it. */
export interface Found {
  readonly segment: number;
  readonly record: LogRecord;
}

/** Told about each batch that is appended anew (not by recovery). */
export type OnAppend = (batch: Batch, shadow: Shadow) => void;

export class DurableLedger {
  /** What would be read back now if nothing went wrong. */
  visible = new Shadow();
  /** What no crash can take away. */
  durable = new Shadow();
  /**
   * What the node knew to be durable when its disk was damaged, until it has come as far again: it is bound by all of this, and others may count
   * on it.
   */
  promised: Shadow | undefined;
  /** It starts wounded again, whatever a crash takes: that it has healed is not durable. */
  wounded = false;
  /** How often it was durable that it has healed: a heal that a crash takes back comes again. */
  heals = 0;
  /** Appended, oldest first, and not known durable. */
  #changes: Change[] = [];
  /** All that ever became durable and was not lost to damage. */
  #history: Change[] = [];
  /** What it voted in each term, durably. */
  readonly #votes = new Map<number, number>();
  #damaged = false;
  /** The shard's sequence number up to which `durable` goes. */
  #durableSeq = 0;
  /** What the disk had at the start of this life, until recovery has decided how much of it counts. */
  #found: Found[] | undefined;
  readonly #group: number;
  readonly #onAppend: OnAppend;
  /** All that was ever committed, as it is now. */
  readonly #committed: () => readonly Entry[];

  readonly #onRestore: (at: LogStartRecord) => void;
  readonly #onReplica: (replica: ReplicaRecord) => void;

  constructor(
    group: number,
    onAppend: OnAppend,
    committed: () => readonly Entry[],
    onRestore: (at: LogStartRecord) => void,
    onReplica: (replica: ReplicaRecord) => void,
  ) {
    this.#onReplica = onReplica;
    this.#onRestore = onRestore;
    this.#group = group;
    this.#onAppend = onAppend;
    this.#committed = committed;
  }

  /** The disk is damaged at rest. Of what became durable the node knew up to this record. */
  damage(knownSeq: number): void {
    this.#damaged = true;
    this.#promise(this.#replay(this.#history.filter(({ seq }) => seq <= knownSeq)));
  }

  /** A wounded node promises nothing anew but its term. */
  #promise(known: Shadow): void {
    if (this.promised === undefined) this.promised = known;
    else this.promised.term = Math.max(this.promised.term, known.term);
  }

  /** It has lost what others may count on, and not got it again. */
  get lacks(): boolean {
    const { promised, durable } = this;
    if (promised === undefined) return false;
    if (durable.term < promised.term || durable.lastTerm < promised.lastTerm) return true;
    return durable.lastTerm === promised.lastTerm && durable.lastIndex < promised.lastIndex;
  }

  #comeAgain(): void {
    const isLess = ({ cut = 0, restore, compacts }: Change): boolean =>
      cut > 0 || (restore?.index === 0 && compacts !== true);
    if (this.promised === undefined || this.#changes.some(isLess)) return;
    if (!this.lacks) this.promised = undefined;
  }

  /** It has this batch durably, or is bound to get it again. */
  holds(index: number, crc: number | undefined): boolean {
    if (crc === undefined) return false;
    return this.durable.at(index)?.crc === crc || this.promised?.at(index)?.crc === crc;
  }

  /** Its durable state does not stand against this leader, or did not when he was elected. */
  backs(nodeId: number, term: number): boolean {
    if (this.#votes.get(term) === nodeId) return true;
    return [this.durable, this.promised].some(
      (state) =>
        state !== undefined &&
        (state.term > term || (state.term === term && state.votedFor === nodeId)),
    );
  }

  /** The node starts again from what its disk has left. What was durable must be among that; the rest counts only after a sync of this life. */
  begins(found: readonly Found[]): void {
    this.#found = found.filter(
      ({ record }) => record.group === this.#group || record.kind === RecordKind.segmentStart,
    );
  }

  /**
   * The first record of this life is a segment's start: its sequence number says where the log that it continues ends, and so
   * does that of each earlier one for its predecessor. What was found beyond is void.
   */
  #adopt(found: readonly Found[], nextSeq: number): void {
    this.#found = undefined;
    this.#changes = [];
    if (this.#damaged && nextSeq <= this.#durableSeq) {
      this.#durableSeq = nextSeq - 1;
    }
    const valid: Found[] = [];
    let started = 0;
    for (const one of found) {
      const { kind, seq } = one.record;
      // One that has rotted says nothing.
      if (kind === RecordKind.segmentStart && (!this.#damaged || recordIntact(one.record))) {
        dropFrom(valid, seq);
        started = one.segment;
      }
      // What rot has beheaded is nowhere in the log.
      if (one.segment === started || !this.#damaged) valid.push(one);
    }
    dropFrom(valid, nextSeq);
    if (this.#damaged) {
      this.#history = historyAsFound(this.#history, valid, this.#durableSeq);
      this.durable = this.#replay(this.#history);
    }
    this.visible = copyOf(this.durable);
    // What was durable is known, and may have rotted since.
    const kept = valid.filter(({ record }) => record.seq > this.#durableSeq);
    if (nextSeq <= this.#durableSeq) {
      throw new Error(`recovery goes on at record ${nextSeq}, ${this.#durableSeq} was durable`);
    }
    for (const { segment, record } of kept) this.#record(segment, record, false);
  }

  /** Recovery has decided how much counts: this life's first record will have this sequence number. */
  goesOnAt(nextSeq: number): void {
    if (this.#found !== undefined) this.#adopt(this.#found, nextSeq);
  }

  appended(segment: number, record: LogRecord): void {
    this.#record(segment, record, true);
  }

  /** A sync of these segments begins. What is returned is to be called when it has ended. */
  syncBegins(segments: ReadonlySet<number>): () => void {
    const covered = this.#changes.filter(
      ({ segment, copies }) =>
        segments.has(segment) || copies?.some((copy) => segments.has(copy)) === true,
    );
    return () => {
      for (const change of covered) change.synced = true;
      this.#synced();
    };
  }

  #record(segment: number, record: LogRecord, fresh: boolean): void {
    if (record.group !== this.#group) return;
    const about = { seq: record.seq, segment, synced: false };
    // Rot has struck it, and the node goes on: a later segment repeats what counts.
    const isBatch = record.kind === RecordKind.batch || record.kind === RecordKind.rewrite;
    const mayBeRotten = this.#damaged && !fresh && !isBatch;
    if (mayBeRotten && !recordIntact(record)) return;
    if (record.kind === RecordKind.replica) return this.#become(about, record, fresh);
    if (fresh && this.visible.isGone) {
      throw new Error(
        `group ${this.#group} is written to, which the registry took away at ${this.visible.removedAt}`,
      );
    }
    if (record.kind === RecordKind.rewrite) this.#copied(about, record, fresh);
    else if (record.kind === RecordKind.batch) {
      // The data belongs to whoever appended it, so only numbers are kept.
      const batch = readBatch(record.data, 0);
      if (batch === undefined) throw new Error("appended bytes are not a batch");
      this.visible.take(batch);
      this.#changes.push({ ...about, batch });
      if (fresh) this.#onAppend(batch, this.visible);
    } else if (record.kind === RecordKind.hardState) {
      const hardState = readHardState(record.data);
      if (hardState === undefined) throw new Error("appended bytes are no hard state");
      const { term, votedFor } = hardState;
      if (fresh) checkHardState(this.visible, term, votedFor);
      this.visible.term = term;
      this.visible.votedFor = votedFor;
      this.#changes.push({ ...about, hardState: { term, votedFor } });
    } else if (record.kind === RecordKind.logStart) {
      const logStart = readLogStart(record.data);
      if (logStart === undefined) throw new Error("appended bytes are no log start");
      const { start: restore, resets } = logStart;
      // The segment where a snapshot took the log's place was lost before it was durable, and a later one that repeats the new start was not.
      const isFirstSeen = !fresh && !this.#damaged && !this.visible.endsAt(restore);
      if (!resets && !isFirstSeen) {
        if (!this.#damaged && !this.visible.endsAt(restore)) {
          throw new Error(`a log is cut at ${restore.index}, which is not in it`);
        }
        this.visible.compact(restore, this.#committed());
        this.#changes.push({ ...about, restore, compacts: true });
        return;
      }
      // Damage has taken what the log stood on: nothing of it is of use.
      if (restore.index === 0 && !this.#damaged) throw new Error("a log is given up for nothing");
      if (restore.index === 0 && fresh) this.#promise(copyOf(this.durable));
      this.visible.restore(restore, this.#committed());
      if (restore.index > 0 && fresh) this.#onRestore(logStart);
      this.#changes.push({ ...about, restore });
    } else if (record.kind === RecordKind.wound) {
      const wound = readWound(record.data);
      if (wound === undefined) throw new Error("appended bytes are no wound");
      const { cut } = wound;
      if (wound.wound !== undefined && !this.#damaged) throw new Error("a wound without damage");
      if (cut > 0 && fresh) this.#promise(copyOf(this.durable));
      if (cut > 0) this.visible.cut(cut);
      this.#changes.push({ ...about, cut, wounded: wound.wound !== undefined });
    }
  }

  /** The first of its copies that is durable makes it so, and its own segment may be gone before. */
  #copied(about: Change, { data }: LogRecord, fresh: boolean): void {
    const copy = readBatch(data, 0);
    if (copy === undefined || !batchIntact(copy)) return;
    // What it was copied from may have been lost before it was durable.
    if (!fresh && copy.firstIndex === this.visible.lastIndex + 1) {
      this.visible.goOnWith(copy);
      this.#changes.push({ ...about, copy });
      return;
    }
    const change = this.#changes.findLast(({ batch }) => batch?.crc === copy.crc);
    if (change?.batch === undefined) return;
    change.copies = [...(change.copies ?? []), about.segment];
  }

  /** A replica that was taken away comes back by a later word of the registry alone. */
  #become(
    about: Pick<Change, "seq" | "segment" | "synced">,
    record: LogRecord,
    fresh: boolean,
  ): void {
    const replica = readReplica(record.data);
    if (replica === undefined) throw new Error("appended bytes are no replica");
    const { removed, registryIndex } = replica;
    const { madeAt, removedAt } = this.visible;
    const isNew = registryIndex > Math.max(madeAt, removedAt);
    if (fresh && !isNew && registryIndex !== (removed ? removedAt : madeAt)) {
      throw new Error(
        `group ${this.#group} is ${removed ? "taken away" : "made"} by what the registry said at ${registryIndex}; it was made at ${madeAt} and taken away at ${removedAt}`,
      );
    }
    if (fresh && !removed && this.visible.isGone && !isNew) {
      throw new Error(`group ${this.#group} comes back, which was taken away at ${removedAt}`);
    }
    if (fresh && isNew) this.#onReplica(replica);
    this.visible.become(replica);
    this.#changes.push({ ...about, replica });
  }

  /**
   * Each segment begins with hard state and log start, so an older one that nobody synced is not missed once a newer one is; nor is a batch that lies
   * before such a start.
   */
  #isRepeated(at: number): boolean {
    const isState = ({ batch, copy, cut = 0 }: Change): boolean =>
      batch === undefined && copy === undefined && cut === 0;
    const { batch, ...change } = this.#changes[at]!;
    const last = batch === undefined ? Infinity : batch.firstIndex + batch.count - 1;
    return this.#changes.some((later, l) => {
      if (l <= at || !later.synced || !isState(later)) return false;
      return batch === undefined ? isState(change) : (later.restore?.index ?? 0) >= last;
    });
  }

  #synced(): void {
    let done = 0;
    for (const change of this.#changes) {
      if (!change.synced && !this.#isRepeated(done)) break;
      done++;
      this.#durableSeq = change.seq;
      if (change.hardState !== undefined) this.#noteVote(change.hardState);
      if (change.wounded !== undefined) {
        if (this.wounded && !change.wounded) this.heals++;
        this.wounded = change.wounded;
      }
      this.#perform(this.durable, change);
      if (change.replica !== undefined && this.durable.isGone) {
        this.promised = undefined;
        this.wounded = false;
      }
    }
    this.#history.push(...this.#changes.splice(0, done));
    this.#comeAgain();
  }

  /** Damage may make a node forget a vote, and take it for given to nobody that it can name: it was given all the same. */
  #noteVote({ term, votedFor }: NonNullable<Change["hardState"]>): void {
    if (votedFor > 0 && !this.#votes.has(term)) this.#votes.set(term, votedFor);
  }

  #replay(changes: readonly Change[]): Shadow {
    const shadow = new Shadow();
    for (const change of changes) this.#perform(shadow, change);
    return shadow;
  }

  #perform(
    shadow: Shadow,
    { batch, copy, hardState, cut = 0, restore, compacts, replica }: Change,
  ): void {
    if (replica !== undefined) return shadow.become(replica);
    if (copy !== undefined) return shadow.goOnWith(copy);
    if (batch !== undefined) return shadow.take(batch);
    if (compacts === true) return shadow.compact(restore!, this.#committed());
    if (restore !== undefined) return shadow.restore(restore, this.#committed());
    if (cut > 0) return shadow.cut(cut);
    // A wound says nothing of the term, which may be lost too.
    if (hardState === undefined) return;
    shadow.term = hardState.term;
    shadow.votedFor = hardState.votedFor;
  }
}

function dropFrom(found: Found[], seq: number): void {
  while (found.length > 0 && found[found.length - 1]!.record.seq >= seq) found.pop();
}

/**
 * A record may lie in the place of another one, and be read as if it had been written there. Batches whose segments are gone are known to be
 * committed; a hard state counts only where it still is.
 */
function historyAsFound(
  history: readonly Change[],
  found: readonly Found[],
  lastSeq: number,
): Change[] {
  const changes = new Map<number, Change>();
  /** What was written in each place, but for copies, which change nothing. */
  const written = new Set<number>();
  let hasMisplaced = false;
  for (const change of history) {
    if (change.copy === undefined) written.add(change.seq);
    if (change.hardState === undefined) changes.set(change.seq, change);
  }
  for (const { segment, record } of found) {
    const { seq, kind, data } = record;
    const known = changes.get(seq);
    const about = { seq, segment, synced: true };
    if (kind === RecordKind.hardState) {
      const hardState = readHardState(data);
      if (hardState !== undefined && recordIntact(record)) {
        changes.set(seq, { ...about, hardState });
      }
      continue;
    }
    if (kind === RecordKind.rewrite && known?.batch !== undefined) changes.delete(seq);
    // A copy in the place of something else is read as one that was written there.
    if (kind === RecordKind.rewrite && written.has(seq)) hasMisplaced = true;
    const isCopy = kind === RecordKind.rewrite && hasMisplaced;
    const batch = kind === RecordKind.batch || isCopy ? readBatch(data, 0) : undefined;
    // One that has rotted since is not missed until it is read.
    if (batch === undefined || !batchIntact(batch) || known?.batch?.crc === batch.crc) continue;
    changes.set(seq, isCopy ? { ...about, copy: batch } : { ...about, batch });
    hasMisplaced = true;
  }
  return [...changes.values()].filter(({ seq }) => seq <= lastSeq).sort((a, b) => a.seq - b.seq);
}

function copyOf({ term, votedFor, start, log, removedAt, madeAt }: Shadow): Shadow {
  const copy = new Shadow();
  copy.removedAt = removedAt;
  copy.madeAt = madeAt;
  copy.term = term;
  copy.votedFor = votedFor;
  copy.start = start;
  copy.log.push(...log);
  return copy;
}

/** Terms only rise, and within one a vote is given once. */
function checkHardState(before: Shadow, term: number, votedFor: number): void {
  if (term < before.term)
    throw new Error(`hard state goes back from term ${before.term} to ${term}`);
  if (term === before.term && before.votedFor !== 0 && votedFor !== before.votedFor) {
    throw new Error(`vote in term ${term} changes from ${before.votedFor} to ${votedFor}`);
  }
}
