/**
 * How far the application was at one index of the log, and all that is needed to go on from there: sessions and request ids, the chain of hashes, the cluster's
 * time. As bytes, under a crc: in a file of its own, and at the front of each snapshot. Pure.
 *
 *     0 magic u32 | 4 bytes u32 (all of it) | 8 crc u32 (of what follows) | 12 format u32
 *     16 snapshot u64 | 24 restores u32 | 28 stateHash u32 | 32 applyVersion u32 | 36 appliedIndex u64 | 44 appIndex u64 | 52 timeMs u64 | 60 sessions
 */
import { crc32 } from "node:zlib";
import type { Limits } from "../../limits.ts";
import { BytesReader, BytesWriter, SavedBytesError } from "../saved-bytes.ts";
import { areSessions, sessionsBytesMax } from "../sessions.ts";

export interface SavedState {
  /** The received snapshot that it goes on from; 0 = none. */
  readonly snapshot: number;
  /** The application has not been given that snapshot yet. */
  readonly restores: boolean;
  readonly appliedIndex: number;
  /** Of the last entry that the application had then; above it all up to `appliedIndex` was not for it. */
  readonly appIndex: number;
  readonly stateHash: number;
  readonly timeMs: number;
  readonly applyVersion: number;
  /** As sessions.ts saves them. */
  readonly sessions: Uint8Array;
}

const magic = 0x5341_4742;
const format = 1;
const headBytes = 12;
const fieldsBytes = 48;

export function encodeState(state: SavedState): Uint8Array<ArrayBuffer> {
  const { appIndex, appliedIndex } = state;
  // Nobody could read it again.
  if (appIndex > appliedIndex) {
    throw new Error(`http: entries up to ${appIndex} of an application that has ${appliedIndex}`);
  }
  const out = new BytesWriter();
  out.u32(magic);
  out.u32(headBytes + fieldsBytes + state.sessions.byteLength);
  out.u32(0);
  out.u32(format);
  out.safe(state.snapshot);
  out.u32(state.restores ? 1 : 0);
  out.u32(state.stateHash);
  out.u32(state.applyVersion);
  out.safe(state.appliedIndex);
  out.safe(state.appIndex);
  out.safe(state.timeMs);
  out.bytes(state.sessions);
  const bytes = new Uint8Array(out.end());
  new DataView(bytes.buffer).setUint32(8, crc32(bytes.subarray(headBytes)), true);
  return bytes;
}

/** How long the state at the front of `head` is, by what it says; undefined where there is none, or one that can be no state. */
export function stateBytes(head: Uint8Array, limits: Limits): number | undefined {
  if (head.byteLength < headBytes) return undefined;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const bytes = view.getUint32(4, true);
  const max = headBytes + fieldsBytes + sessionsBytesMax(limits);
  const isState = view.getUint32(0, true) === magic && bytes >= headBytes + fieldsBytes;
  return isState && bytes <= max ? bytes : undefined;
}

/** Undefined where it is damaged, or says what no state can say: a snapshot comes from another node, and nothing of it may fail once it is live. */
export function decodeState(bytes: Uint8Array, limits: Limits): SavedState | undefined {
  if (stateBytes(bytes, limits) !== bytes.byteLength) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (crc32(bytes.subarray(headBytes)) !== view.getUint32(8, true)) return undefined;
  try {
    const state = read(new BytesReader(bytes.subarray(headBytes)), bytes.byteLength);
    return state !== undefined && isSound(state, limits) ? state : undefined;
  } catch (error) {
    if (error instanceof SavedBytesError) return undefined;
    throw error;
  }
}

function read(reader: BytesReader, byteLength: number): SavedState | undefined {
  if (reader.u32() !== format) return undefined;
  const snapshot = reader.safe();
  const restores = reader.u32() === 1;
  const stateHash = reader.u32();
  const applyVersion = reader.u32();
  const appliedIndex = reader.safe();
  const appIndex = reader.safe();
  const timeMs = reader.safe();
  const sessions = reader.bytes(byteLength - headBytes - fieldsBytes);
  const indexes = { appliedIndex, appIndex, timeMs };
  return { snapshot, restores, stateHash, applyVersion, ...indexes, sessions };
}

function isSound({ appliedIndex, appIndex, applyVersion, sessions }: SavedState, limits: Limits) {
  return (
    appIndex <= appliedIndex && applyVersion >= 1 && areSessions(applyVersion, sessions, limits)
  );
}
