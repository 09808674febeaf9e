/**
 * Random bytes, damaged frames, and frames whose crc is right and whose content is nonsense, while a neighbour writes. Whatever comes, the node
 * answers with a typed error or ends that connection. `BARGE_TEST_SEED=N` repeats or varies a run.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { crc32 } from "node:zlib";
import { encodeControl, encodePing } from "../../src/wire/client-messages.ts";
import { frameHeaderBytes } from "../../src/wire/frame.ts";
import { encodeHello } from "../../src/wire/hello.ts";
import { encodeKvGet, encodeKvPut, encodeKvRange } from "../../src/wire/kv.ts";
import { Consistency } from "../../src/wire/messages.ts";
import {
  plainSection,
  SectionKind,
  sealSection,
  sectionHeaderBytes,
} from "../../src/wire/section.ts";
import { until } from "../e2e/cluster.ts";
import { withNode } from "./node.ts";
import { clientHello, frameOf, RawClient, rawFrame, readFrame, writeFrame } from "./raw-client.ts";

setDefaultTimeout(60_000);

const seed = Number(process.env["BARGE_TEST_SEED"] ?? 20_260_401);
const rounds = 400;
const atOnce = 100;

class Chance {
  #state: number;
  constructor(of: number) {
    // Neighbouring seeds must not begin alike.
    const mixed = Math.imul(of ^ (of >>> 16), 0x45d9f3b);
    this.#state = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b) >>> 0;
  }
  /** In [0, below). */
  below(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * below);
  }
  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

const put = encodeKvPut(Buffer.from("key"), Buffer.from("value"));
const valid: readonly Uint8Array[] = [
  frameOf((out) => encodeHello(out, clientHello)),
  frameOf((out) => encodePing(out, 1)),
  frameOf((out) => encodeControl(out, 1, "status", {})),
  writeFrame(2, plainSection([put])),
  writeFrame(3, plainSection(Array.from({ length: 20 }, () => put))),
  writeFrame(4, plainSection([new Uint8Array(0)])),
  readFrame(5, Consistency.linearizable, [encodeKvGet(Buffer.from("key"))]),
  readFrame(6, Consistency.local, [encodeKvRange({ limit: 3 }), encodeKvGet(Buffer.from("k"))]),
];

/** Every crc is made right again, so that the damage is seen by whoever reads the content. */
function reseal(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const payload = frame.slice(frameHeaderBytes);
  const fieldsBytes = Math.min(view.getUint32(4, true), payload.byteLength);
  const body = payload.subarray(fieldsBytes);
  if (frame[3] === 64 && body.byteLength >= sectionHeaderBytes) {
    const section = new DataView(body.buffer, body.byteOffset, body.byteLength);
    const covered = body.subarray(16, Math.min(body.byteLength, 40 + section.getUint32(8, true)));
    section.setUint32(12, crc32(covered, crc32(body.subarray(0, 12))), true);
  }
  if (frame[3] === 66 && fieldsBytes === 32) {
    new DataView(payload.buffer).setUint32(28, crc32(body), true);
  }
  return rawFrame(frame[3]!, payload, fieldsBytes);
}

function damaged(chance: Chance): Uint8Array {
  const frame = chance.pick(valid).slice();
  const kind = chance.below(6);
  if (kind === 0) return chance.bytes(1 + chance.below(200));
  if (kind === 1) return frame.subarray(0, chance.below(frame.byteLength));
  if (kind === 2) return Buffer.concat([frame, chance.pick(valid).subarray(chance.below(16))]);
  for (let i = 0; i <= chance.below(4); i++) {
    // Mostly the content; also the header's type and lengths, but not magic and version: what those do is told elsewhere.
    const from = chance.below(4) === 0 ? 3 : frameHeaderBytes;
    const at = from + chance.below(frame.byteLength - from);
    frame[at] = chance.pick([0, 1, 0x7f, 0x80, 0xff, chance.below(256)]);
  }
  return kind === 3 ? frame : reseal(frame);
}

test(`bytes of all kinds, seed ${seed}`, () =>
  withNode(
    { helloTimeoutMs: 200, frameTimeoutMs: 200, idleTimeoutMs: 300 },
    async ({ binary, neighbour, node }) => {
      const slowest = { ms: 0 };
      let writing = true;
      const writes = (async () => {
        while (writing) {
          const beginMs = performance.now();
          await neighbour.put("neighbour", "writes");
          slowest.ms = Math.max(slowest.ms, performance.now() - beginMs);
          await Bun.sleep(1);
        }
      })();
      const endings = { closed: 0, answered: 0 };
      for (let round = 0; round < rounds; round += atOnce) {
        await Promise.all(
          Array.from({ length: atOnce }, async (_, i) => {
            const chance = new Chance(seed + round + i);
            const hello = chance.below(4) === 0 ? {} : { hello: clientHello };
            using client = await RawClient.connect(binary, hello);
            for (let n = 0; n <= chance.below(4); n++) client.send(damaged(chance));
            await until(`seed ${seed}, round ${round + i} ends`, () => {
              return client.closed || client.replies.length + client.pongs > 0;
            });
            if (client.closed) endings.closed++;
            else endings.answered++;
          }),
        );
      }
      writing = false;
      await writes;
      // Both happen, or the damage is of one kind only.
      expect(endings.closed).toBeGreaterThan(rounds / 10);
      expect(endings.answered).toBeGreaterThan(rounds / 20);
      expect(slowest.ms).toBeLessThan(2_000);
      expect(node.status().groups[0]!.role).toBe("leader");
    },
  ));

test("sections that lie are refused one by one, and change nothing", () =>
  withNode({}, async ({ binary, neighbour }) => {
    const lie = (count: number, body: Uint8Array, kind: number = SectionKind.plain): Uint8Array => {
      const bytes = new Uint8Array(sectionHeaderBytes + body.byteLength);
      bytes.set(body, sectionHeaderBytes);
      sealSection(bytes, 0, {
        kind: kind as SectionKind,
        count,
        bodyBytes: body.byteLength,
        session: 0,
        firstSeq: 0,
        doneUpTo: 0,
      });
      return bytes;
    };
    const one = plainSection([put]).subarray(sectionHeaderBytes);
    using client = await RawClient.connect(binary, { hello: clientHello });
    const malformed = 1;
    // The count says two, and there is one; a length beyond the end; a command of another machine.
    client.send(writeFrame(1, lie(2, one)));
    client.send(writeFrame(2, lie(1, new Uint8Array(16).fill(0xff))));
    client.send(writeFrame(3, plainSection([new Uint8Array(8).fill(9)])));
    client.send(writeFrame(4, lie(1, one, SectionKind.session)));
    client.send(writeFrame(5, plainSection([put]), 77));
    client.send(writeFrame(6, lie(70_000, new Uint8Array(280_000))));
    await client.waitReplies(6);
    const byRequest = client.replies.toSorted((a, b) => a.request - b.request);
    for (const reply of byRequest.slice(0, 3)) {
      if (reply.type !== "writeReply") throw new Error(`request ${reply.request}: ${reply.type}`);
      const { buffer, byteOffset } = reply.results;
      expect(new DataView(buffer, byteOffset).getUint32(4, true)).toBe(malformed);
    }
    expect(byRequest.slice(3)).toMatchObject([
      // There is no session 0, and whether there was one nobody knows.
      { type: "errorReply", error: 12, outcome: "unknown" },
      { type: "errorReply", error: 7, outcome: "not-applied" },
      { type: "errorReply", error: 5, outcome: "not-applied" },
    ]);
    // A count over the bytes that there are is no section at all.
    client.send(writeFrame(7, lie(1_000, one)));
    await client.waitClosed("a count that cannot be");
    expect(await neighbour.get("key")).toBeUndefined();
  }));
