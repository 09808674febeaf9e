/**
 * What a change costs where it is watched: on the node, from the log into the send buffers of the connections; and in the client, from a frame to the
 * program. One iteration is one batch of 1,000 puts, so microseconds read as nanoseconds for each change. Whole clusters: watch-cost.ts.
 */
import { bench, group, run as runSuite } from "mitata";
import { valueCodec } from "../src/client/value-codec.ts";
import { WatchStream } from "../src/client/watch-stream.ts";
import { defaultLimits as limits } from "../src/limits.ts";
import { KvChanges } from "../src/machine/kv-changes.ts";
import type { Connection } from "../src/net/connection.ts";
import { Watches } from "../src/node/watches.ts";
import { ClientWatches } from "../src/server/client-watches.ts";
import type { Groups, Watcher, WatchRequest } from "../src/server/groups.ts";
import {
  type Batch,
  BatchKind,
  batchHeaderBytes,
  lastIndexOf,
  sealBatch,
} from "../src/wire/batch.ts";
import { FrameReader } from "../src/wire/frame-reader.ts";
import { encodeKvPut } from "../src/wire/kv.ts";
import { plainSection } from "../src/wire/section.ts";
import { SendBuffer } from "../src/wire/send-buffer.ts";
import { decodeWatchReply, encodeWatch, encodeWatchCredit } from "../src/wire/watch-messages.ts";

const commands = 1_000;
const connections = 8;
/** As many as make a log that the processor's caches do not hold. */
const batchCount = 256;
const value = new Uint8Array(16).fill(1);
const encoder = new TextEncoder();

/** The log again and again: only indexes grow. */
class Log {
  readonly #batches: Batch[] = [];
  applied = 0;

  constructor(watches: number, batches: number) {
    for (let at = 0; at < batches; at++) {
      const puts = Array.from({ length: commands }, () =>
        encodeKvPut(encoder.encode(keyOf(Math.floor(Math.random() * watches * 100))), value),
      );
      const section = plainSection(puts);
      const bytes = new Uint8Array(batchHeaderBytes + section.byteLength);
      bytes.set(section, batchHeaderBytes);
      const head = { group: 0, kind: BatchKind.commands, firstIndex: 1, count: commands };
      this.#batches.push(sealBatch({ ...head, term: 1, timeMs: 1, prevCrc: 0 }, bytes));
    }
  }

  at(index: number): Batch {
    const number = Math.floor((index - 1) / commands);
    const batch = this.#batches[number % this.#batches.length]!;
    return { ...batch, firstIndex: number * commands + 1 };
  }
}

function keyOf(number: number): string {
  return String(number).padStart(16, "0");
}

class Door {
  readonly out = new SendBuffer();
  readonly watches: ClientWatches;
  closed = false;
  /** Unsent. */
  get sendQueueBytes(): number {
    return this.out.byteLength;
  }

  constructor(groups: Groups) {
    const connection = this as unknown as Connection;
    this.watches = new ClientWatches({ groups, limits, connection, sent: () => undefined });
  }
}

/** All that the nodes' side does for a batch; `drain` takes what it would have sent. */
class Side {
  readonly #log: Log;
  readonly #watches: Watches;
  readonly #doors: Door[];
  readonly #credit = new SendBuffer();
  readonly #count: number;
  #nowMs = 0;

  constructor(count: number, prefixOf: (number: number) => string, batches: number) {
    this.#count = count;
    this.#log = new Log(count, batches);
    this.#watches = new Watches({
      limits: { ...limits, watchProgressMs: 1e9 },
      history: new KvChanges(limits),
      read: (from) => [this.#log.at(from)],
      logStart: () => 0,
      appliedIndex: () => this.#log.applied,
      wake: () => undefined,
    });
    const groups = {
      watch: (_: number, request: WatchRequest, to: Watcher) => this.#watches.open(request, to),
    } as unknown as Groups;
    this.#doors = Array.from({ length: connections }, () => new Door(groups));
    const windowBytes = limits.watchWindowBytesMax;
    for (let watch = 0; watch < count; watch++) {
      const prefix = encoder.encode(prefixOf(watch));
      const start = { watch, group: 0, windowBytes, from: 0, exact: false, prefix };
      this.#say(watch, (out) => encodeWatch(out, start));
    }
    this.drain(() => undefined);
  }

  #say(watch: number, encode: (out: SendBuffer) => void): void {
    const door = this.#doors[watch % connections]!;
    encode(this.#credit);
    const reader = new FrameReader(limits.frameBytesMax, (type, payload, fieldsBytes) => {
      if (!door.watches.frame(type, payload, fieldsBytes)) throw new Error("malformed");
    });
    const chunk = this.#credit.chunk()!;
    reader.push(chunk.slice());
    this.#credit.consume(chunk.byteLength);
  }

  tell(): void {
    this.#log.applied = lastIndexOf(this.#log.at(this.#log.applied + 1));
    // Whatever the pace is, this batch is due.
    this.#nowMs += 1_000;
    while (this.#watches.serve(this.#nowMs, false));
  }

  credit(): void {
    const bytes = limits.watchWindowBytesMax;
    for (let watch = 0; watch < this.#count; watch++) {
      this.#say(watch, (out) => encodeWatchCredit(out, watch, bytes));
    }
  }

  drain(take: (chunk: Uint8Array) => void): void {
    for (const { out } of this.#doors) {
      for (let chunk = out.chunk(); chunk !== undefined; chunk = out.chunk()) {
        take(chunk);
        out.consume(chunk.byteLength);
      }
    }
  }
}

export async function run(small: boolean): Promise<void> {
  const batches = small ? 2 : batchCount;
  for (const count of small ? [100] : [1, 1_000]) {
    group(`${count} watches`, () => {
      const quiet = new Side(count, (number) => `quiet/${number}/`, batches);
      bench("node, keys that nobody watches", () => quiet.tell());
      const each = new Side(count, (number) => keyOf(number * 100).slice(0, -2), batches);
      let told = 0;
      bench("node, each change is watched by one", () => {
        each.tell();
        each.drain(() => undefined);
        if (++told % 1_000 === 0) each.credit();
      });
    });
    group(`${count} watches in a client`, () => addClient(count, batches));
  }
  await runSuite({ format: small ? "quiet" : "mitata" });
}

function addClient(count: number, batches: number): void {
  const side = new Side(count, (number) => keyOf(number * 100).slice(0, -2), batches);
  side.tell();
  const chunks: Uint8Array[] = [];
  side.drain((chunk) => chunks.push(chunk.slice()));
  let taken = 0;
  const streams = Array.from({ length: count }, () => {
    const stream = new WatchStream({
      group: 0,
      prefix: new Uint8Array(0),
      exact: false,
      from: 0,
      windowBytes: limits.watchWindowBytesMax,
      giveUpMs: Infinity,
      codec: valueCodec("bytes"),
      taken: () => undefined,
      closed: () => undefined,
    });
    void (async () => {
      for await (const { changes } of stream.batches()) taken += changes.length;
    })();
    return stream;
  });
  bench("client, each change is watched by one", async () => {
    for (const chunk of chunks) {
      const reader = new FrameReader(limits.frameBytesMax, (type, payload, fieldsBytes) => {
        const reply = decodeWatchReply(type, payload, fieldsBytes);
        if (reply?.type !== "watchChanges") throw new Error("malformed");
        streams[reply.watch]!.add(reply);
      });
      reader.push(chunk);
    }
    taken = 0;
    while (taken < commands) await Promise.resolve();
  });
}

if (import.meta.main) await run(process.argv.includes("--small"));
