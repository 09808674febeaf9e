/**
 * A snapshot on its way from a leader to a peer, as frames [29]. It travels in chunks, each with the crc of its bytes and the digest of
 * all chunks so far, so a chunk that is lost, doubled or of another snapshot is noticed at once, and the whole is verified by its last digest.
 *
 *     all            0 group u32 | 4 from u32 | 8 to u32 | 12 (see below) u32 | 16 term u64 | 24 snapshot u64
 *     snapshotOffer  12 crc of the log's chain | 32 index u64 | 40 term there u64 | 48 timeMs u64 | 56 bytes u64 | 64 configuration
 *     snapshotChunk  12 digest | 32 offset u64 | 40 body crc u32 | body
 *     snapshotReply  12 state | 32 offset u64
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe } from "./batch.ts";
import {
  FrameType,
  type SnapshotChunkMessage,
  type SnapshotOfferMessage,
  type SnapshotReplyMessage,
} from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

export type SnapshotMessage = SnapshotOfferMessage | SnapshotChunkMessage | SnapshotReplyMessage;

const offerBytes = 64;
const chunkFieldsBytes = 44;
const replyBytes = 40;
/** A configuration as raft/configuration.ts bounds it is far below. */
const configurationBytesMax = 1_048_576;
const states: readonly SnapshotReplyMessage["state"][] = ["receiving", "done", "failed"];

const digestInput = new Uint8Array(4);
const digestView = new DataView(digestInput.buffer);

/** The digest of a row of chunks, of which `chunkCrc` is the crc of the next; 0 before the first. */
export function nextDigest(digest: number, chunkCrc: number): number {
  digestView.setUint32(0, chunkCrc, true);
  return crc32(digestInput, digest);
}

/** The bytes of a chunk are sent from where they lie. */
export function encodeSnapshotMessage(out: SendBuffer, message: SnapshotMessage): void {
  const { type } = message;
  switch (type) {
    case "snapshotOffer": {
      const { start, configuration } = message;
      const at = begin(out, message, offerBytes + configuration.byteLength, start.crc);
      writeSafe(out.view, at + 32, start.index);
      writeSafe(out.view, at + 40, start.term);
      writeSafe(out.view, at + 48, start.timeMs);
      writeSafe(out.view, at + 56, message.bytes);
      out.setFields(offerBytes, configuration);
      break;
    }
    case "snapshotChunk": {
      const at = begin(out, message, chunkFieldsBytes, message.digest);
      writeSafe(out.view, at + 32, message.offset);
      out.view.setUint32(at + 40, message.crc, true);
      out.attach(message.body);
      break;
    }
    case "snapshotReply": {
      const at = begin(out, message, replyBytes, states.indexOf(message.state));
      writeSafe(out.view, at + 32, message.offset);
      break;
    }
  }
  out.end();
}

function begin(out: SendBuffer, message: SnapshotMessage, bytes: number, fourth: number): number {
  const at = out.begin(FrameType[message.type], bytes);
  const { view } = out;
  view.setUint32(at, message.group, true);
  view.setUint32(at + 4, message.from, true);
  view.setUint32(at + 8, message.to, true);
  view.setUint32(at + 12, fourth, true);
  writeSafe(view, at + 16, message.term);
  writeSafe(view, at + 24, message.snapshot);
  return at;
}

/**
 * The memory of a chunk that was put together and has nothing else in it; undefined where it is a view into what a socket brought: there the header of its
 * frame lies before it.
 */
export function memoryOf(body: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const { buffer, byteOffset, byteLength } = body;
  const isOwn = byteOffset === chunkFieldsBytes && buffer.byteLength === byteOffset + byteLength;
  return isOwn && buffer instanceof ArrayBuffer ? new Uint8Array(buffer) : undefined;
}

/** Undefined where the payload is malformed. A chunk's body is a view, its crc checked. */
export function decodeSnapshotMessage(
  type: SnapshotMessage["type"],
  payload: Uint8Array,
  fieldsBytes: number,
): SnapshotMessage | undefined {
  if (fieldsBytes < replyBytes || payload.byteLength < fieldsBytes) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, fieldsBytes);
  const head = {
    group: view.getUint32(0, true),
    from: view.getUint32(4, true),
    to: view.getUint32(8, true),
    term: readSafe(view, 16),
    snapshot: readSafe(view, 24),
  };
  const { from, to, term, snapshot } = head;
  if (from === 0 || to === 0 || !(term >= 0 && snapshot >= 0)) return undefined;
  const fourth = view.getUint32(12, true);
  const hasBody = type === "snapshotChunk";
  if (!hasBody && payload.byteLength !== fieldsBytes) return undefined;
  switch (type) {
    case "snapshotOffer": {
      const bytes = fieldsBytes - offerBytes;
      if (bytes < 0 || bytes > configurationBytesMax) return undefined;
      const start = {
        index: readSafe(view, 32),
        term: readSafe(view, 40),
        timeMs: readSafe(view, 48),
        crc: fourth,
      };
      const total = readSafe(view, 56);
      const isSafe = start.index >= 0 && start.term >= 0 && start.timeMs >= 0 && total >= 0;
      if (!isSafe) return undefined;
      const configuration = payload.slice(offerBytes, fieldsBytes);
      return { type, ...head, start, bytes: total, configuration };
    }
    case "snapshotChunk": {
      if (fieldsBytes !== chunkFieldsBytes) return undefined;
      const offset = readSafe(view, 32);
      const crc = view.getUint32(40, true);
      const body = payload.subarray(fieldsBytes);
      if (!(offset >= 0) || body.byteLength === 0 || crc32(body) !== crc) return undefined;
      return { type, ...head, digest: fourth, offset, crc, body };
    }
    case "snapshotReply": {
      const state = states[fourth];
      const offset = readSafe(view, 32);
      if (fieldsBytes !== replyBytes || state === undefined || !(offset >= 0)) return undefined;
      return { type, ...head, state, offset };
    }
  }
}
