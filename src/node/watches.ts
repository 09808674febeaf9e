/**
 * The watches of one group. The log is what they are told from, decoded again: nothing is copied or queued on the way of a write, and a watch that
 * takes its time costs nothing meanwhile. What it has missed is told from the log once it has room again, as long as it is there.
 *
 *     live      up to date: all of them stand at one position and are told each slice of the log together
 *     behind    catch up, from positions of their own: one pass over the log serves all that it comes by; at the live position they join the others.
 *               Also those that are ahead of this node, until it has come there
 *     waiting   have no room; they keep their position
 *
 * Writes come first. While there are some, watches are told at a pace: what that costs this loop, and those who wake up at the other end, stays a small
 * part of the whole, and the more there is to tell the more of it goes in one piece. Without other work they are told at once.
 *
 * A watch is told only a slice that begins where it stands, so that none can skip anything. Where what follows its position is gone, cut off the log
 * or replaced by a snapshot, it ends as `compacted`.
 */
import { BargeError, errorTable, type ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { ChangeHistory } from "../machine/machine.ts";
import type { WatchHandle, WatchRequest, Watcher } from "../server/groups.ts";
import type { WatchFigures } from "../telemetry/group-metrics.ts";
import { type Batch, lastIndexOf } from "../wire/batch.ts";
import { ChangeSlice, SliceTarget, type Target } from "./change-slice.ts";
import { PrefixIndex } from "./prefix-index.ts";

export interface WatchesOptions {
  readonly limits: Limits;
  readonly history: ChangeHistory;
  /** Whole batches of the log from the one that spans `from` on, up to `to`; none where the log does not have it. */
  readonly read: (from: number, to: number, bytesMax: number) => readonly Batch[];
  /** The log begins after this index. */
  readonly logStart: () => number;
  readonly appliedIndex: () => number;
  /** Asks for a turn soon. */
  readonly wake: () => void;
}

type Place = "live" | "behind" | "waiting" | "ended";

class Watch implements Target, WatchHandle {
  readonly prefix: Uint8Array;
  readonly exact: boolean;
  readonly watcher: Watcher;
  readonly slice = new SliceTarget();
  readonly #watches: Watches;
  place: Place = "waiting";
  /** Everything up to here is told or concerns it not; of a live one `Watches` knows. */
  ownPosition: number;
  /** The position that its watcher knows of. */
  told = -1;

  constructor(watches: Watches, { prefix, exact }: WatchRequest, position: number, to: Watcher) {
    this.#watches = watches;
    this.prefix = prefix;
    this.exact = exact;
    this.ownPosition = position;
    this.watcher = to;
  }

  get position(): number {
    return this.place === "live" ? this.#watches.livePosition : this.ownPosition;
  }

  resume(): void {
    this.#watches.resume(this);
  }

  close(): void {
    this.#watches.close(this);
  }
}

/**
 * Until the next time, while there is other work: for each watch that was told something, up to a bound, since it wakes up somebody; and for each
 * change about three times what it costs here.
 */
const frameMs = 0.06;
const framesMsMax = 20;
const changeMs = 0.001;
/** What a change costs besides its bytes, as bytes of what a turn has room for. */
const changeCostBytes = 64;
/** Between two looks at those that wait for room. */
const roomEveryMs = 20;

export class Watches {
  readonly #limits: Limits;
  readonly #history: ChangeHistory;
  readonly #options: WatchesOptions;
  readonly #all = new Set<Watch>();
  readonly #live = new PrefixIndex<Watch>();
  readonly #behind = new PrefixIndex<Watch>();
  readonly #behindSet = new Set<Watch>();
  readonly #waiting = new Set<Watch>();
  readonly #slice: ChangeSlice<Watch>;
  livePosition = 0;
  /** Not before, while there is other work. */
  #nextMs = -Infinity;
  /** How far the pass over the log has come that serves those that are behind; Infinity = there is none. */
  #passPosition = Infinity;
  #roomCheckedMs = -Infinity;
  /** Who is next to hear how far it has come, and when that was last looked at. */
  #progressNext: SetIterator<Watch> | undefined;
  #progressMs = Number.NaN;
  #progressDue = 0;

  #frames = 0;
  #changes = 0;
  #bytes = 0;
  #compacted = 0;

  constructor(options: WatchesOptions) {
    this.#limits = options.limits;
    this.#history = options.history;
    this.#options = options;
    this.#slice = new ChangeSlice(options.limits.watchSliceChanges);
  }

  get size(): number {
    return this.#all.size;
  }

  /** All that there is to tell is told: to serve them some times a second is enough, until more is applied. */
  get resting(): boolean {
    if (this.#behindSet.size > 0 || this.#waiting.size > 0) return false;
    return this.#live.size === 0 || this.livePosition === this.#options.appliedIndex();
  }

  open(request: WatchRequest, watcher: Watcher): WatchHandle {
    const applied = this.#options.appliedIndex();
    const position = request.from === 0 ? applied : request.from - 1;
    if (this.#all.size >= this.#limits.watchesMax) {
      throw new BargeError("overloaded", "This node has as many watches as it takes; ask another.");
    }
    if (position < this.#oldest) throw compactedError(this.#oldest, request.from);
    const watch = new Watch(this, request, position, watcher);
    this.#all.add(watch);
    this.#tell(watch, position);
    this.#join(watch);
    this.#options.wake();
    return watch;
  }

  close(watch: Watch): void {
    this.#leave(watch);
    watch.place = "ended";
    this.#all.delete(watch);
  }

  resume(watch: Watch): void {
    if (watch.place !== "waiting" || !watch.watcher.hasRoom) return;
    this.#join(watch);
    this.#options.wake();
  }

  /** Every watch ends: it may go on elsewhere. */
  endAll(code: ErrorCode): void {
    for (const watch of this.#all) this.#end(watch, new BargeError(code, errorTable[code].help));
  }

  figures(): WatchFigures {
    return {
      watches: this.#all.size,
      behind: this.#behindSet.size,
      waiting: this.#waiting.size,
      changes: this.#changes,
      bytes: this.#bytes,
      compacted: this.#compacted,
      outcomeBytes: this.#history.bytes,
    };
  }

  /* ---------------------------------------------------------------- once a turn */

  /** Tells what was applied, as much as the turn has room for; true when there is more at once. `busy`: this loop has other work. */
  serve(nowMs: number, busy: boolean): boolean {
    if (this.#all.size === 0 || (busy && nowMs < this.#nextMs)) return false;
    const framesBefore = this.#frames;
    const changesBefore = this.#changes;
    const applied = this.#options.appliedIndex();
    if (this.#live.size === 0) this.livePosition = applied;
    if (this.#waiting.size > 0) this.#checkRoom(nowMs);
    const behind = this.#serveBehind();
    this.#serveLive(applied);
    this.#progress(nowMs);
    const more = behind || (this.#live.size > 0 && this.livePosition < applied);
    this.#pace(nowMs, this.#frames - framesBefore, this.#changes - changesBefore, more);
    return more;
  }

  /** Where there is more that is due already, it waits for half as long: who lags must be able to catch up. */
  #pace(nowMs: number, frames: number, changes: number, more: boolean): void {
    const framesMs = Math.min(more ? framesMsMax / 2 : framesMsMax, frames * frameMs);
    this.#nextMs = nowMs + Math.max(framesMs, changes * changeMs);
  }

  /** Up to here at least the past is gone. */
  get #oldest(): number {
    return Math.max(this.#history.floor, this.#options.logStart());
  }

  #serveLive(applied: number): void {
    let room = this.#limits.watchBytesPerTurn;
    while (room > 0 && this.#live.size > 0 && this.livePosition < applied) {
      if (this.livePosition < this.#oldest) {
        for (const watch of this.#all) if (watch.place === "live") this.#endCompacted(watch);
        return;
      }
      const batches = this.#read(this.livePosition, applied, room);
      // Damage took it, and it will come again from the leader.
      if (batches.length === 0) return;
      const { through, bytes } = this.#tellSlice(this.#live, this.livePosition, batches);
      room -= bytes;
      this.livePosition = through;
      this.#endSlice();
    }
  }

  /** True when there is more of that at once. */
  #serveBehind(): boolean {
    if (this.#behindSet.size === 0) return false;
    let room = this.#limits.watchCatchUpBytesPerTurn;
    while (room > 0 && this.#findPass()) {
      const position = this.#passPosition;
      const batches = this.#read(position, this.livePosition, room);
      if (batches.length === 0) return false;
      const { through, bytes } = this.#tellSlice(this.#behind, position, batches);
      room -= bytes;
      this.#passPosition = through;
      for (const watch of this.#behindSet) {
        const { ownPosition } = watch;
        if (ownPosition >= position && ownPosition < through) watch.ownPosition = through;
      }
      this.#endSlice();
    }
    for (const watch of this.#behindSet) {
      if (watch.ownPosition !== this.livePosition) continue;
      this.#leave(watch);
      this.#join(watch);
    }
    return room <= 0 && this.#behindSet.size > 0;
  }

  /** Where the pass goes on, or begins anew at the lowest position; false where nobody is behind what the live ones know. */
  #findPass(): boolean {
    const oldest = this.#oldest;
    let lowest = Infinity;
    let next = Infinity;
    for (const watch of this.#behindSet) {
      const { ownPosition } = watch;
      if (ownPosition < oldest) this.#endCompacted(watch);
      else if (ownPosition < this.livePosition) {
        lowest = Math.min(lowest, ownPosition);
        if (ownPosition >= this.#passPosition) next = Math.min(next, ownPosition);
      }
    }
    // Whoever stands before the pass is served by the next one.
    this.#passPosition = next === Infinity ? lowest : next;
    return this.#passPosition !== Infinity;
  }

  #read(position: number, to: number, room: number): readonly Batch[] {
    const bytesMax = Math.min(room, this.#limits.watchSliceBytes);
    return this.#options.read(position + 1, to, bytesMax);
  }

  /** Tells those of `index` that stand at `position` or beyond what these batches changed after it. The slice is ended by the caller. */
  #tellSlice(
    index: PrefixIndex<Watch>,
    position: number,
    batches: readonly Batch[],
  ): { readonly through: number; readonly bytes: number } {
    this.#slice.begin(index, position);
    let through = position;
    let bytes = 0;
    for (const batch of batches) {
      through = this.#history.tell(batch, position + 1, this.#slice);
      bytes += batch.bytes.byteLength;
      if (through < lastIndexOf(batch) || this.#slice.isFull) break;
    }
    for (const watch of this.#slice.targets) {
      // One that others have just filled the connection of: it stays where it stood before the slice.
      if (!watch.watcher.hasRoom) {
        this.#makeWait(watch);
        continue;
      }
      this.#frames++;
      const changes = this.#slice.of(watch);
      this.#changes += changes.count;
      this.#bytes += changes.byteLength;
      bytes += changes.byteLength + changes.count * changeCostBytes;
      watch.told = through;
      watch.watcher.changed(through, changes);
    }
    return { through, bytes };
  }

  /** The slice is told: those of its watches that can take no more wait. */
  #endSlice(): void {
    for (const watch of this.#slice.targets) {
      const isServed = watch.place === "live" || watch.place === "behind";
      if (isServed && !watch.watcher.hasRoom) this.#makeWait(watch);
    }
    this.#slice.end();
  }

  #makeWait(watch: Watch): void {
    this.#leave(watch);
    this.#waiting.add(watch);
  }

  #checkRoom(nowMs: number): void {
    if (nowMs - this.#roomCheckedMs < roomEveryMs) return;
    this.#roomCheckedMs = nowMs;
    for (const watch of this.#waiting) {
      if (watch.watcher.hasRoom) this.#join(watch);
      else if (watch.ownPosition < this.#oldest) this.#endCompacted(watch);
    }
  }

  /* ---------------------------------------------------------------- how far it has come */

  /** In each stretch of time every watch has its turn once. */
  #progress(nowMs: number): void {
    const elapsedMs = nowMs - this.#progressMs;
    this.#progressMs = nowMs;
    if (!(elapsedMs > 0)) return;
    const share = Math.min(1, elapsedMs / this.#limits.watchProgressMs);
    this.#progressDue = Math.min(this.#all.size, this.#progressDue + this.#all.size * share);
    for (; this.#progressDue >= 1; this.#progressDue--) {
      const watch = this.#nextInTurn();
      if (watch === undefined) return;
      if (watch.place === "waiting" || watch.told >= watch.position) continue;
      this.#tell(watch, watch.position);
    }
  }

  #nextInTurn(): Watch | undefined {
    let next = this.#progressNext?.next();
    if (next === undefined || next.done === true) {
      this.#progressNext = this.#all.values();
      next = this.#progressNext.next();
    }
    return next.value;
  }

  #tell(watch: Watch, position: number): void {
    watch.told = position;
    watch.watcher.progressed(position);
  }

  /* ---------------------------------------------------------------- from place to place */

  /** To where its position is. */
  #join(watch: Watch): void {
    if (watch.place === "ended") return;
    this.#waiting.delete(watch);
    if (this.#live.size === 0) this.livePosition = this.#options.appliedIndex();
    if (watch.ownPosition === this.livePosition) {
      watch.place = "live";
      this.#live.add(watch);
    } else {
      watch.place = "behind";
      this.#behind.add(watch);
      this.#behindSet.add(watch);
    }
  }

  /** It keeps the position that it has. */
  #leave(watch: Watch): void {
    watch.ownPosition = watch.position;
    if (watch.place === "live") this.#live.remove(watch);
    if (watch.place === "behind") {
      this.#behind.remove(watch);
      this.#behindSet.delete(watch);
    }
    this.#waiting.delete(watch);
    if (watch.place !== "ended") watch.place = "waiting";
  }

  #endCompacted(watch: Watch): void {
    this.#compacted++;
    this.#end(watch, compactedError(this.#oldest, watch.position + 1));
  }

  #end(watch: Watch, error: BargeError): void {
    const { position } = watch;
    this.close(watch);
    watch.watcher.ended(position, error);
  }
}

function compactedError(oldest: number, from: number): BargeError {
  return new BargeError(
    "compacted",
    `This node can tell changes from revision ${oldest + 1} on, and ${from} was asked for. Another may reach further back; else read the keys anew, and watch from the revision after the one they were read at.`,
  );
}
