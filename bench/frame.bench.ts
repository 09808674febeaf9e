/** Frames: laying out a write, taking it off the send buffer, splitting and decoding it on the other side. Nanoseconds a section. */
import { bench, do_not_optimize, group, run as runSuite } from "mitata";
import { defaultLimits } from "../src/limits.ts";
import { decodeClientRequest, encodeWrite } from "../src/wire/client-messages.ts";
import { FrameReader } from "../src/wire/frame-reader.ts";
import { encodeKvPut } from "../src/wire/kv.ts";
import { plainSection } from "../src/wire/section.ts";
import { SendBuffer } from "../src/wire/send-buffer.ts";

const valueBytes = 256;
const framesPerChunk = 16;

export async function run(small: boolean): Promise<void> {
  for (const commands of small ? [1, 10] : [1, 100, 900]) {
    const section = sectionOf(commands);
    group(`section of ${commands} commands of ${valueBytes} B`, () => {
      const out = new SendBuffer();
      bench("lay out, take off", () => {
        encodeWrite(out, 1, 0, 1_000, section);
        drain(out);
      });

      const chunk = chunkOf(section);
      let decoded = 0;
      const reader = new FrameReader(defaultLimits.frameBytesMax, (type, payload, fieldsBytes) => {
        if (decodeClientRequest(type, payload, fieldsBytes) !== undefined) decoded++;
      });
      bench(`split and decode ${framesPerChunk} in one chunk`, () => {
        decoded = 0;
        reader.push(chunk);
        if (decoded !== framesPerChunk) throw new Error("a frame is lost");
      });
      const half = Math.floor(chunk.byteLength / 2) + 7;
      const head = chunk.slice(0, half);
      const tail = chunk.slice(half);
      bench(`the same in two chunks that cut a frame`, () => {
        decoded = 0;
        reader.push(head);
        reader.push(tail);
        if (decoded !== framesPerChunk) throw new Error("a frame is lost");
      });
    });
  }
  await runSuite({ format: small ? "quiet" : "mitata" });
}

function sectionOf(commands: number): Uint8Array {
  const key = new Uint8Array(16).fill(1);
  const value = new Uint8Array(valueBytes).fill(7);
  return plainSection(Array.from({ length: commands }, () => encodeKvPut(key, value)));
}

function drain(out: SendBuffer): void {
  let chunk = out.chunk();
  while (chunk !== undefined) {
    do_not_optimize(chunk);
    out.consume(chunk.byteLength);
    chunk = out.chunk();
  }
}

function chunkOf(section: Uint8Array): Uint8Array {
  const out = new SendBuffer(Number.MAX_SAFE_INTEGER);
  for (let i = 0; i < framesPerChunk; i++) encodeWrite(out, i, 0, 1_000, section);
  return out.chunk()!.slice();
}

if (import.meta.main) await run(process.argv.includes("--small"));
