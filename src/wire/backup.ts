/**
 * A backup as a file: the state of one group at one index, in a form that tells damage and where it ends. Pure.
 *
 *     header  0 magic 8 bytes | 8 version u32 | 12 bytes of JSON u32 | 16 crc of the JSON u32 | 20 JSON
 *     chunk   0 bytes u32 | 4 crc u32 | 8 the next part of the state …
 *     end     0 zero u32 | 4 digest of all chunks u32 (snapshot-messages.ts) | 8 bytes of all chunks u64
 *
 * Little-endian. The state is the main file of the state machine, which is a SQLite database.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe } from "./batch.ts";
import { nextDigest } from "./snapshot-messages.ts";

export interface BackupHeader {
  /** The cluster that it was taken from, and the node. */
  readonly clusterId: string;
  readonly nodeId: number;
  readonly group: number;
  /** Kind of the state machine. */
  readonly machine: string;
  /** All commands up to here are in it, and none after. */
  readonly index: number;
  /** A term that the cluster had come to. */
  readonly term: number;
  readonly applyVersion: number;
  /** Of the state. */
  readonly bytes: number;
  /** When it was begun, for people. */
  readonly created: string;
  /** What made it, for people. */
  readonly software: string;
}

const magic = new TextEncoder().encode("BARGEBAK");
const version = 1;
const fixedBytes = 20;
const headerBytesMax = 65_536;
const chunkHeadBytes = 8;
export const backupEndBytes = 16;
/** More than a node ever puts into one. */
const chunkBytesMax = 16 * 1024 * 1024;

/** The bytes are no whole backup; the message says where. */
export class BackupError extends Error {
  override readonly name: string = "BackupError";
}

/** Writes a backup, part by part: first the header, then each chunk, then the end. */
export class BackupWriter {
  #digest = 0;
  #bytes = 0;

  header(header: BackupHeader): Uint8Array<ArrayBuffer> {
    const json = new TextEncoder().encode(`${JSON.stringify(header)}\n`);
    const bytes = new Uint8Array(fixedBytes + json.byteLength);
    const view = new DataView(bytes.buffer);
    bytes.set(magic);
    view.setUint32(8, version, true);
    view.setUint32(12, json.byteLength, true);
    view.setUint32(16, crc32(json), true);
    bytes.set(json, fixedBytes);
    return bytes;
  }

  chunk(body: Uint8Array): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(chunkHeadBytes + body.byteLength);
    const view = new DataView(bytes.buffer);
    const crc = crc32(body);
    view.setUint32(0, body.byteLength, true);
    view.setUint32(4, crc, true);
    bytes.set(body, chunkHeadBytes);
    this.#digest = nextDigest(this.#digest, crc);
    this.#bytes += body.byteLength;
    return bytes;
  }

  end(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(backupEndBytes);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, this.#digest, true);
    writeSafe(view, 8, this.#bytes);
    return bytes;
  }
}

/** Gives so many bytes of the file from `offset` on; fewer only where it ends. */
export type ReadBytes = (offset: number, length: number) => Uint8Array;

/**
 * Reads a whole backup, in parts of bounded size; `chunk` gets the state's in order, before the end is known to be right. Throws BackupError where
 * it is damaged, cut off, or goes on behind its end.
 */
export function readBackup(
  read: ReadBytes,
  chunk: (body: Uint8Array, header: BackupHeader) => void,
): BackupHeader {
  const { header, headerBytes } = readHeader(read);
  let at = headerBytes;
  let digest = 0;
  let bytes = 0;
  for (;;) {
    const head = exactly(read, at, chunkHeadBytes);
    const length = viewOf(head).getUint32(0, true);
    if (length === 0) break;
    const isFitting = length <= chunkBytesMax && bytes + length <= header.bytes;
    if (!isFitting) throw new BackupError(`it is damaged at byte ${at}`);
    const body = exactly(read, at + chunkHeadBytes, length);
    const crc = crc32(body);
    if (crc !== viewOf(head).getUint32(4, true)) {
      throw new BackupError(
        `it is damaged between the bytes ${at} and ${at + chunkHeadBytes + length}`,
      );
    }
    digest = nextDigest(digest, crc);
    bytes += length;
    at += chunkHeadBytes + length;
    chunk(body, header);
  }
  const end = viewOf(exactly(read, at, backupEndBytes));
  const isWhole =
    end.getUint32(4, true) === digest && readSafe(end, 8) === bytes && bytes === header.bytes;
  if (!isWhole) throw new BackupError("its end does not fit what comes before");
  if (read(at + backupEndBytes, 1).byteLength > 0)
    throw new BackupError("it goes on behind its end");
  return header;
}

function readHeader(read: ReadBytes): { header: BackupHeader; headerBytes: number } {
  const fixed = read(0, fixedBytes);
  const isBackup = fixed.byteLength === fixedBytes && magic.every((byte, at) => fixed[at] === byte);
  if (!isBackup) throw new BackupError("it is no backup of Barge");
  const view = viewOf(fixed);
  const found = view.getUint32(8, true);
  if (found !== version) {
    throw new BackupError(
      `its format is ${found}, and this build knows ${version}: use a newer one`,
    );
  }
  const jsonBytes = view.getUint32(12, true);
  if (jsonBytes > headerBytesMax) throw new BackupError("its header is damaged");
  const json = exactly(read, fixedBytes, jsonBytes);
  if (crc32(json) !== view.getUint32(16, true)) throw new BackupError("its header is damaged");
  const header = parseHeader(json);
  if (header === undefined) throw new BackupError("its header lacks what a restore needs");
  return { header, headerBytes: fixedBytes + jsonBytes };
}

function parseHeader(json: Uint8Array): BackupHeader | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(json));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { clusterId, nodeId, group, machine, index, term, applyVersion, bytes, created, software } =
    value as Record<keyof BackupHeader, unknown>;
  const isWhole =
    isCount(nodeId) &&
    isCount(group) &&
    isCount(index) &&
    isCount(term) &&
    isCount(applyVersion) &&
    isCount(bytes) &&
    typeof clusterId === "string" &&
    typeof machine === "string" &&
    typeof created === "string" &&
    typeof software === "string";
  if (!isWhole || index < 1 || bytes < 1) return undefined;
  return { clusterId, nodeId, group, machine, index, term, applyVersion, bytes, created, software };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function exactly(read: ReadBytes, offset: number, length: number): Uint8Array {
  const bytes = read(offset, length);
  if (bytes.byteLength !== length)
    throw new BackupError(`it is cut off at byte ${offset + bytes.byteLength}`);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
