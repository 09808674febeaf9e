/**
 * The observer between a node's log-store and its disk: it tells the ledger of each group what is appended, and what a sync has covered once it
 * has ended. Each record belongs to one group, each sync to all of them.
 */
import { RecordKind, type Disk, type LogRecord, type SegmentFile } from "../../src/storage/disk.ts";
import type { DurableLedger, Found } from "./durable-ledger.ts";

/** One life of a node as its disk sees it. */
export interface DiskUser {
  /** Hands over a completion, now or once the node is no longer paused. */
  readonly deliver: (event: () => void) => void;
  /** Called after each effect on the disk; may throw to end the process there. */
  readonly effect: () => void;
}

/** The ledgers of one node, by group. */
export interface Ledgers {
  /** Throws where this node must have nothing of that group. */
  of(group: number): DurableLedger;
  all(): Iterable<DurableLedger>;
}

export class DiskWatch {
  readonly #ledgers: Ledgers;
  #life = 0;
  /** Nothing was appended yet in this life. */
  #begins = false;

  readonly #rewritten: () => void;

  /** `rewritten`: a batch was copied forward. */
  constructor(ledgers: Ledgers, rewritten: () => void) {
    this.#ledgers = ledgers;
    this.#rewritten = rewritten;
  }

  /** The node starts again from what its disk has left. */
  watch(disk: Disk, user: DiskUser): Disk {
    const found: Found[] = [];
    for (const segment of disk.segments) {
      const { number } = segment;
      segment.scan((record) => found.push({ segment: number, record }));
    }
    for (const ledger of this.#ledgers.all()) ledger.begins(found);
    this.#begins = true;
    return this.#wrap(disk, user);
  }

  #appended(segment: number, record: LogRecord): void {
    if (this.#begins) {
      this.#begins = false;
      for (const ledger of this.#ledgers.all()) ledger.goesOnAt(record.seq);
    }
    if (record.kind === RecordKind.rewrite) this.#rewritten();
    this.#ledgers.of(record.group).appended(segment, record);
  }

  #wrap(disk: Disk, { deliver, effect }: DiskUser): Disk {
    const inner = new Map<SegmentFile, SegmentFile>();
    const outer = new Map<SegmentFile, SegmentFile>();
    const wrap = (segment: SegmentFile): SegmentFile => {
      const known = outer.get(segment);
      if (known !== undefined) return known;
      const appended = (record: LogRecord): void => this.#appended(segment.number, record);
      const wrapped: SegmentFile = {
        number: segment.number,
        growing: segment.growing,
        get bytes() {
          return segment.bytes;
        },
        append: (records) => {
          segment.append(records);
          for (const record of records) appended(record);
          effect();
        },
        read: (seq) => segment.read(seq),
        scan: (visit, headBytes) => segment.scan(visit, headBytes),
      };
      inner.set(wrapped, segment);
      outer.set(segment, wrapped);
      return wrapped;
    };
    const unwrap = (segment: SegmentFile): SegmentFile => {
      const known = inner.get(segment);
      if (known === undefined) throw new Error(`segment ${segment.number} is not of this life`);
      return known;
    };
    const wrapMaybe = (segment: SegmentFile | undefined): SegmentFile | undefined =>
      segment === undefined ? undefined : wrap(segment);
    const segments = disk.segments.map(wrap);
    const life = ++this.#life;
    return {
      segments,
      create: (number) => {
        const segment = wrap(disk.create(number));
        effect();
        return segment;
      },
      prepare: (number) => disk.prepare(number),
      takePrepared: (number) => wrapMaybe(disk.takePrepared(number)),
      retire: (segment) => {
        disk.retire(unwrap(segment));
        effect();
      },
      sync: (dirty, done) => {
        const numbers = new Set(dirty.map(({ number }) => number));
        const ended = [...this.#ledgers.all()].map((ledger) => ledger.syncBegins(numbers));
        disk.sync(dirty.map(unwrap), () => {
          if (this.#life !== life) return;
          for (const end of ended) end();
          deliver(done);
        });
        effect();
      },
      get syncing() {
        return disk.syncing;
      },
      readWatermark: () => disk.readWatermark(),
      writeWatermark: (bytes) => {
        disk.writeWatermark(bytes);
        effect();
      },
      syncWatermark: (done) => disk.syncWatermark(() => deliver(done)),
      close: () => disk.close(),
    };
  }
}
