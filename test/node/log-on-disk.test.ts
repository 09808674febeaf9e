/** What the log takes on the disk of a real node, with small segments: bounded, however much is written. */
import { expect, test } from "bun:test";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { checkLimits, defaultLimits } from "../../src/limits.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { plainSection } from "../../src/wire/section.ts";
import { clientHello, RawClient, writeFrame } from "../misuse/raw-client.ts";
import { oneNode } from "./one-node.ts";

const segmentBytes = 256 * 1_024;
/** Beside the current one, which may be twice its size: the next, and two that are to be used again; and some while the machine is being written. */
const segmentsMax = 9;
const updates = 50_000;
const perSection = 25;
const atOnce = 20;
const valueBytes = 100;
/** A command with its key and its part of the frames of the segment's log. */
const commandBytesMax = 150;
/** The last transaction of a segment goes beyond its size: at most all that is sent at once. Beside its log it has an empty database and an index in memory. */
const segmentFilesBytesMax =
  segmentBytes + atOnce * perSection * commandBytesMax + 12 * 1_024 + 32 * 1_024;
const bytesMax = segmentsMax * segmentFilesBytesMax;

test("50,000 updates with an interval of 1,000 fill some segments, not all that they would without", async () => {
  const limits = checkLimits({ ...defaultLimits, segmentBytes });
  await using node = await oneNode(limits, { entries: 1_000, bytes: 0, tailBytes: 0 });
  using raw = await RawClient.connect(node.endpoint, { hello: clientHello });
  const put = encodeKvPut(Buffer.from("register"), new Uint8Array(valueBytes));
  const frame = (request: number): Uint8Array =>
    writeFrame(request, plainSection(Array.from({ length: perSection }, () => put)));
  let largest = 0;
  for (let sent = 0; sent < updates / perSection;) {
    for (let at = 0; at < atOnce; at++) raw.send(frame(++sent));
    await raw.waitReplies(sent);
    largest = Math.max(largest, segmentsBytes(node.dataDir));
  }
  expect(largest).toBeLessThanOrEqual(bytesMax);
  expect(updates * commandBytesMax).toBeGreaterThan(2 * bytesMax);
});

function segmentsBytes(dataDir: string): number {
  let bytes = 0;
  const folder = join(dataDir, "segments");
  for (const name of readdirSync(folder)) {
    // One may be retired meanwhile.
    bytes += statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}
