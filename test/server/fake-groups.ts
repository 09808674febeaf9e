/** A `Groups` without a cluster: one group that keeps keys and values in a map, and whose answers a test can hold back or turn into errors. */
import { BargeError } from "../../src/errors.ts";
import { isAdminOperation } from "../../src/wire/admin.ts";
import type {
  AdminWaiter,
  Groups,
  NodeStatus,
  ReadSink,
  ReadWaiter,
  WatchHandle,
  WatchRequest,
  Watcher,
  WriteWaiter,
} from "../../src/server/groups.ts";
import { writeSafe } from "../../src/wire/batch.ts";
import { KvCommandReader, KvOp, readKvQuery } from "../../src/wire/kv.ts";
import type { Consistency } from "../../src/wire/messages.ts";
import type { GroupLeader } from "../../src/wire/group-leaders.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { sectionHeaderBytes, type SectionHeader } from "../../src/wire/section.ts";

interface Entry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly revision: number;
}

const code = { ok: 0, malformed: 1, notFound: 2, compareFailed: 3 } as const;

export class FakeGroups implements Groups {
  readonly entries = new Map<string, Entry>();
  lastIndex = 0;
  /** While true, requests are kept and `release` answers them. */
  hold = false;
  /** Groups besides 0, with the same content; and those whose requests are kept. */
  readonly others = new Set<number>();
  readonly stuck = new Set<number>();
  /** Answers every request with it. */
  fail: BargeError | undefined;
  missing: string[] = [];
  readonly timeouts: number[] = [];
  readonly consistencies: [Consistency, number][] = [];
  #held: (() => void)[] = [];

  get heldCount(): number {
    return this.#held.length;
  }

  release(): void {
    const held = this.#held;
    this.#held = [];
    for (const answer of held) answer();
  }

  /** By address of the binary port. */
  readonly doors = new Map<string, string>();

  httpOf(address: string): string | undefined {
    return this.doors.get(address);
  }

  /** Of group 0. */
  machine = "kv";

  machineKind(group: number): string | undefined {
    return group === 0 ? this.machine : undefined;
  }

  /** What was asked, to be answered by the test. */
  readonly admins: { operation: string; body: unknown; waiter: AdminWaiter }[] = [];

  admin(operation: string, body: unknown, waiter: AdminWaiter): void {
    if (this.fail !== undefined) waiter.failed(this.fail);
    else if (!isAdminOperation(operation)) {
      waiter.failed(new BargeError("bad_request", `There is no operation "${operation}".`));
    } else this.admins.push({ operation, body, waiter });
  }

  /** Watches that are open, to be told by the test. */
  readonly watches: { group: number; request: WatchRequest; watcher: Watcher }[] = [];
  resumed = 0;

  watch(group: number, request: WatchRequest, watcher: Watcher): WatchHandle {
    if (this.fail !== undefined) throw this.fail;
    const watch = { group, request, watcher };
    this.watches.push(watch);
    watcher.progressed(request.from === 0 ? this.lastIndex : request.from - 1);
    return {
      resume: () => this.resumed++,
      close: () => this.watches.splice(this.watches.indexOf(watch), 1),
    };
  }

  write(
    group: number,
    section: Uint8Array,
    header: SectionHeader,
    timeoutMs: number,
    waiter: WriteWaiter,
  ): void {
    this.timeouts.push(timeoutMs);
    this.#answer(group, waiter, () => this.#apply(section, header, waiter));
  }

  read(
    group: number,
    consistency: Consistency,
    maxStalenessMs: number,
    timeoutMs: number,
    waiter: ReadWaiter,
  ): void {
    this.timeouts.push(timeoutMs);
    this.consistencies.push([consistency, maxStalenessMs]);
    this.#answer(group, waiter, () => waiter.ready(this.#source, this.lastIndex));
  }

  status(): NodeStatus {
    return {
      nodeId: 7,
      clusterId: "c0ffee",
      version: "0.0.0-test",
      uptimeSeconds: 1,
      diskBytes: 2,
      health: "ok",
      groups: [
        {
          id: 0,
          role: "leader",
          leader: 7,
          term: 3,
          commitIndex: this.lastIndex,
          appliedIndex: this.lastIndex,
          durableIndex: this.lastIndex,
          machineDurableIndex: 0,
          firstIndex: 1,
          lastIndex: this.lastIndex,
          logBytes: 100,
          stateHash: "00000000",
          configurationIndex: 1,
          joint: false,
          members: [{ id: 7, address: "127.0.0.1:9091", voter: true, connected: true }],
        },
      ],
      syncs: { count: 0, p50Ms: 0, p99Ms: 0 },
      cpuSeconds: 0,
      peakRssBytes: 0,
      loopGaps: { boundsMs: [5, 20, 50, 100], counts: [90, 5, 3, 1, 1], sumMs: 900 },
    };
  }

  readonly known = {
    version: 0,
    leaderOf: (group: number): GroupLeader | undefined => this.leaders.get(group),
    all: (): readonly GroupLeader[] => [...this.leaders.values()],
  };
  /** What it says of groups. */
  readonly leaders = new Map<number, GroupLeader>();
  isLeaving = false;

  notReady(group?: number): string[] {
    return this.missing.filter((text) => group === undefined || text.includes(`group ${group} `));
  }

  members(): { readonly addresses: Record<string, string>; readonly leader: number } {
    return { addresses: { 7: "127.0.0.1:9091" }, leader: 7 };
  }

  #answer(group: number, waiter: WriteWaiter | ReadWaiter, answer: () => void): void {
    if (this.fail !== undefined) return waiter.failed(this.fail);
    if (group !== 0 && !this.others.has(group)) {
      return waiter.failed(new BargeError("unknown_group", `No group ${group}.`));
    }
    if (this.hold || this.stuck.has(group)) this.#held.push(answer);
    else answer();
  }

  #apply(section: Uint8Array, header: SectionHeader, waiter: WriteWaiter): void {
    const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
    const results = new SectionResults();
    const firstIndex = this.lastIndex + 1;
    let at = sectionHeaderBytes;
    for (let position = 0; position < header.count; position++) {
      const length = view.getUint32(at, true);
      this.lastIndex++;
      this.#command(section, view, at + 4, length, position, results);
      at += 4 + length;
    }
    waiter.applied(firstIndex, results.view());
  }

  #command(
    section: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    position: number,
    results: SectionResults,
  ): void {
    const command = new KvCommandReader();
    if (!command.read(view, offset, length)) {
      results.add(position, code.malformed, undefined);
      return;
    }
    const key = section.slice(command.keyAt, command.keyAt + command.keyLength);
    const name = Buffer.from(key).toString("latin1");
    const found = this.entries.get(name);
    const compares = command.op === KvOp.compareAndPut || command.op === KvOp.compareAndDelete;
    if (compares && (found?.revision ?? 0) !== command.prevRevision) {
      results.add(position, code.compareFailed, safe(found?.revision ?? 0));
    } else if (command.op === KvOp.put || command.op === KvOp.compareAndPut) {
      const value = section.slice(command.valueAt, command.valueAt + command.valueLength);
      this.entries.set(name, { key, value, revision: this.lastIndex });
    } else if (!this.entries.delete(name)) {
      results.add(position, code.notFound, undefined);
    }
  }

  readonly #source = {
    read: (query: Uint8Array, sink: ReadSink): void => {
      const read = readKvQuery(query);
      if (read === undefined) return sink.answer(code.malformed, undefined);
      if ("key" in read) {
        const entry = this.entries.get(Buffer.from(read.key).toString("latin1"));
        if (entry === undefined) return sink.answer(code.notFound, undefined);
        return sink.answer(code.ok, Buffer.concat([safe(entry.revision), entry.value]));
      }
      const { prefix, after, limit } = read.range;
      const all = [...this.entries.values()]
        .filter(({ key }) =>
          Buffer.from(key.subarray(0, prefix?.length ?? 0)).equals(prefix ?? key.subarray(0, 0)),
        )
        .filter(({ key }) => after === undefined || Buffer.compare(key, after) > 0)
        .sort((a, b) => Buffer.compare(a.key, b.key));
      const items = limit === 0 ? all : all.slice(0, limit);
      sink.answer(code.ok, this.#page(items, items.length < all.length));
    },
  };

  #page(items: readonly Entry[], more: boolean): Uint8Array {
    const head = new Uint8Array(16);
    const view = new DataView(head.buffer);
    view.setUint32(0, items.length, true);
    view.setUint8(4, more ? 1 : 0);
    writeSafe(view, 8, this.lastIndex);
    const parts: Uint8Array[] = [head];
    for (const { key, value, revision } of items) {
      const itemHead = new Uint8Array(14);
      const itemView = new DataView(itemHead.buffer);
      writeSafe(itemView, 0, revision);
      itemView.setUint16(8, key.byteLength, true);
      itemView.setUint32(10, value.byteLength, true);
      parts.push(itemHead, key, value);
    }
    return Buffer.concat(parts);
  }
}

function safe(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeSafe(new DataView(bytes.buffer), 0, value);
  return bytes;
}
