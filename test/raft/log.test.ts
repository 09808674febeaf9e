/** The log's positions against a plain array, over random appends, truncations and compactions. */
import { describe, expect, test } from "bun:test";
import { Log } from "../../src/raft/log.ts";
import type { BatchInfo, LogStart } from "../../src/wire/batch.ts";
import { randomFrom } from "./harness.ts";

/** The same answers, by walking. */
class PlainLog {
  batches: BatchInfo[] = [];
  start: LogStart = { index: 0, term: 0, crc: 1, timeMs: 0 };

  ends(): LogStart[] {
    const held = this.batches.map(({ firstIndex, count, term, crc, timeMs }) => ({
      index: firstIndex + count - 1,
      term,
      crc,
      timeMs,
    }));
    return [this.start, ...held];
  }

  floorToEnd(index: number): number {
    return this.ends().findLast((end) => end.index <= index)?.index ?? this.start.index;
  }

  floorToTerm(index: number, term: number): number {
    const end = this.ends().findLast((one) => one.index <= index && one.term <= term);
    return end?.index ?? this.start.index;
  }
}

describe("log", () => {
  for (let seed = 1; seed <= 5; seed++) {
    test(`agrees with a plain array, seed ${seed}`, () => {
      const random = randomFrom(seed);
      const plain = new PlainLog();
      const log = new Log(plain.start);
      let term = 1;
      for (let step = 0; step < 2_000; step++) {
        const action = random();
        if (action < 0.85) {
          if (random() < 0.1) term++;
          const last = plain.ends().at(-1)!;
          const batch: BatchInfo = {
            firstIndex: last.index + 1,
            count: 1 + Math.floor(random() * 3),
            term: Math.max(term, last.term),
            bytes: 48 + Math.floor(random() * 100),
            timeMs: step,
            crc: Math.floor(random() * 2 ** 32),
          };
          plain.batches.push(batch);
          log.append(batch);
        } else if (action < 0.95) {
          const from = plain.batches[Math.floor(plain.batches.length * (1 - random() * 0.2))];
          if (from === undefined) continue;
          plain.batches = plain.batches.filter(({ firstIndex }) => firstIndex < from.firstIndex);
          log.truncateFrom(from.firstIndex);
        } else {
          const start = plain.ends()[Math.floor(plain.batches.length * random() * 0.3)]!;
          plain.batches = plain.batches.filter(({ firstIndex }) => firstIndex > start.index);
          plain.start = start;
          log.compactTo(start);
        }
        const last = plain.ends().at(-1)!;
        expect(log.lastIndex).toBe(last.index);
        expect(log.lastTerm).toBe(last.term);
        expect(log.lastCrc).toBe(last.crc);
        expect(log.lastTimeMs).toBe(last.timeMs);
        expect(log.length).toBe(plain.batches.length);
        const index = plain.start.index - 2 + Math.floor(random() * (last.index + 4));
        const held = plain.batches.findIndex(
          ({ firstIndex, count }) => firstIndex <= index && index < firstIndex + count,
        );
        const end = plain.ends().find((one) => one.index === index);
        expect(log.find(index)).toBe(held);
        expect(log.termOfEnd(index)).toBe(end?.term ?? -1);
        expect(log.crcOfEnd(index)).toBe(end?.crc ?? -1);
        expect(log.floorToEnd(index)).toBe(plain.floorToEnd(index));
        const someTerm = Math.floor(random() * (term + 1));
        expect(log.floorToTerm(index, someTerm)).toBe(plain.floorToTerm(index, someTerm));
      }
      expect(log.bytes).toBe(plain.batches.reduce((sum, { bytes }) => sum + bytes, 0));
    });
  }
});
