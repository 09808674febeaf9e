/**
 * Just below and just above every bound of a request, on three nodes: what is accepted is replicated and applied, or refused by the state machine
 * alike on all; what is over is refused at the door; and the cluster goes on with equal states.
 */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { defaultLimits, frameOverheadBytes } from "../../src/limits.ts";
import { encodeKvDelete, encodeKvGet, encodeKvPut } from "../../src/wire/kv.ts";
import { Consistency } from "../../src/wire/messages.ts";
import { readSectionResults } from "../../src/wire/section-results.ts";
import { plainSection, sectionHeaderBytes } from "../../src/wire/section.ts";
import { withCluster } from "../e2e/cluster.ts";
import { clientHello, RawClient, readFrame, writeFrame } from "./raw-client.ts";

const testMsMax = 60_000;
const { frameBytesMax, sectionBytesMax, sectionCommandsMax, keyBytesMax, valueBytesMax } =
  defaultLimits;
const ok = 0;
const malformed = 1;
const notFound = 2;
const tooLarge = 4;

/** A section of one opaque command, so many bytes long. */
function sectionOf(bytes: number): Uint8Array {
  return plainSection([new Uint8Array(bytes - sectionHeaderBytes - 4).fill(0xee)]);
}

/** A section of `count` commands that together fill it. */
function fullSection(bytes: number, count: number): Uint8Array {
  const commands: Uint8Array[] = Array.from({ length: count }, () => new Uint8Array(0));
  const rest = bytes - sectionHeaderBytes - 4 * count;
  commands[0] = encodeKvPut(Buffer.from("full"), new Uint8Array(rest - 12));
  return plainSection(commands);
}

const key = (bytes: number) => new Uint8Array(bytes).fill(0x6b);
const put = (keyBytes: number, valueBytes: number): Uint8Array =>
  plainSection([encodeKvPut(key(keyBytes), new Uint8Array(valueBytes))]);

interface Ending {
  readonly code?: number;
  readonly error?: number;
}

/** Section, and the code of its first command, or the error of the whole. */
const cases: Record<string, readonly [Uint8Array, Ending]> = {
  "the longest key": [put(keyBytesMax, 10), { code: ok }],
  "a longer key": [put(keyBytesMax + 1, 10), { code: tooLarge }],
  "the largest value": [put(5, valueBytesMax), { code: ok }],
  "a larger value": [put(5, valueBytesMax + 1), { code: tooLarge }],
  "the longest key and the largest value": [put(keyBytesMax, valueBytesMax), { code: ok }],
  "a value of four mebibytes": [put(5, 4 * valueBytesMax), { code: tooLarge }],
  "the empty key": [plainSection([encodeKvDelete(new Uint8Array(0))]), { code: malformed }],
  "a delete of nothing": [plainSection([encodeKvDelete(Buffer.from("no"))]), { code: notFound }],
  "the largest section of several": [fullSection(sectionBytesMax, 2), { code: ok }],
  "a larger section of several": [fullSection(sectionBytesMax + 1, 2), { error: 5 }],
  "more commands than a section holds": [
    plainSection(Array.from({ length: sectionCommandsMax + 1 }, () => new Uint8Array(0))),
    { error: 5 },
  ],
  "as many empty commands as fit": [
    plainSection(Array.from({ length: 65_000 }, () => new Uint8Array(0))),
    { code: malformed },
  ],
  "the largest section that an append can carry": [
    sectionOf(frameBytesMax - frameOverheadBytes),
    { code: malformed },
  ],
  "a section that a frame can carry and an append cannot": [
    sectionOf(frameBytesMax - frameOverheadBytes + 1),
    { error: 5 },
  ],
  "the largest section that a frame can carry": [sectionOf(frameBytesMax - 32), { error: 5 }],
};

test(
  "just below and just above every bound, through the leader and through a follower",
  () =>
    withCluster({ nodes: 3 }, async (cluster) => {
      const leader = await cluster.leader();
      const [follower] = await cluster.followers();
      for (const node of [leader, follower!]) {
        using client = await RawClient.connect(node.binary, { hello: clientHello });
        for (const [what, [section, wanted]] of Object.entries(cases)) {
          client.send(writeFrame(client.replies.length, section));
          await client.waitReplies(client.replies.length + 1);
          const reply = client.replies.at(-1)!;
          if (reply.type === "errorReply") {
            const ending: Ending = { error: reply.error };
            expect([what, ending]).toEqual([what, wanted]);
            expect([what, reply.outcome]).toEqual([what, "not-applied"]);
          } else if (reply.type === "writeReply") {
            const count = new DataView(section.buffer, section.byteOffset).getUint32(4, true);
            const code = readSectionResults(reply.results, count)?.[0]?.code ?? ok;
            // The second command of a full section is empty on purpose.
            const first = what.startsWith("the largest section of several") ? ok : code;
            const ending: Ending = { code: first };
            expect([what, ending]).toEqual([what, wanted]);
          } else throw new Error(`${what}: ${reply.type}`);
        }
        // A frame over its bound is none: the connection ends.
        client.send(writeFrame(99, sectionOf(frameBytesMax)));
        await client.waitClosed("a frame over its bound");

        using reader = await RawClient.connect(node.binary, { hello: clientHello });
        const queries = [encodeKvGet(key(keyBytesMax)), encodeKvGet(key(keyBytesMax + 1))];
        reader.send(readFrame(1, Consistency.linearizable, queries));
        await reader.waitReplies(1);
        const [reply] = reader.replies;
        if (reply?.type !== "readReply") throw new Error("no read reply");
        const view = new DataView(reply.answers.buffer, reply.answers.byteOffset);
        expect(view.getUint32(0, true)).toBe(ok);
        expect(view.getUint32(8 + view.getUint32(4, true), true)).toBe(tooLarge);
      }
      const neighbour = connect({ endpoints: cluster.endpoints });
      await neighbour.put("still", "here");
      await neighbour.close();
      await cluster.converged();
    }),
  testMsMax,
);
