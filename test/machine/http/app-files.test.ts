/** Files of a machine over an application: a state is there whole or not at all, the two newest are kept, and no name is used twice. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { defaultLimits } from "../../../src/limits.ts";
import { AppFiles } from "../../../src/machine/http/app-files.ts";
import {
  decodeState,
  encodeState,
  type SavedState,
  stateBytes,
} from "../../../src/machine/http/saved-state.ts";
import { SnapshotFiles } from "../../../src/storage/snapshot-files.ts";
import { nextDigest } from "../../../src/wire/snapshot-messages.ts";
import { Random } from "../../sim/random.ts";

const limits = defaultLimits;
const files = new SnapshotFiles();
let directory: string;
let room = Infinity;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "barge-app-files-"));
  room = Infinity;
});
afterEach(() => rmSync(directory, { recursive: true }));

function open(): AppFiles {
  return new AppFiles({ directory, files, limits, hasRoomFor: (bytes) => bytes <= room });
}

function state(appliedIndex: number, snapshot = 0): SavedState {
  return {
    snapshot,
    restores: false,
    appliedIndex,
    appIndex: appliedIndex - 1,
    stateHash: 0xdead_beef,
    timeMs: 7,
    applyVersion: 1,
    sessions: new Uint8Array(0),
  };
}

const saved = (folder: AppFiles, which: SavedState): Promise<boolean> =>
  new Promise((done) => folder.save(which, done));

async function received(folder: AppFiles, bytes: Uint8Array): Promise<[number, boolean]> {
  const incoming = folder.receive(bytes.byteLength)!;
  const part = new Uint8Array(bytes);
  const { byteLength } = part;
  const digest = nextDigest(0, crc32(part));
  const isWritten = await new Promise<boolean>((done) => incoming.write(0, part, done));
  const proof = { bytes: byteLength, chunkBytes: byteLength, digest };
  const isWhole = await new Promise<boolean>((done) => incoming.finish(proof, done));
  return [incoming.number, isWritten && isWhole];
}

async function names(expected: readonly string[]): Promise<void> {
  // Files go in a thread of their own.
  while (readdirSync(directory).length > expected.length) await Bun.sleep(1);
  expect(readdirSync(directory).toSorted()).toEqual([...expected]);
}

test("the two newest states are kept, and found by the next life", async () => {
  const folder = open();
  expect(folder.load()).toEqual([]);
  for (const index of [10, 20, 30]) expect(await saved(folder, state(index))).toBe(true);
  await names(["state-2", "state-3"]);
  const next = open();
  expect(next.load()).toEqual([state(30), state(20)]);
  await saved(next, state(40));
  await names(["state-3", "state-4"]);
});

test("a state that is damaged is passed over, whichever byte it is", async () => {
  const folder = open();
  await saved(folder, state(10));
  await saved(folder, state(20));
  const path = join(directory, "state-2");
  const bytes = readFileSync(path);
  for (let at = 0; at < bytes.byteLength; at++) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 0x10;
    writeFileSync(path, damaged);
    expect(open().load()).toEqual([state(10)]);
  }
  for (let length = 0; length < bytes.byteLength; length++) {
    writeFileSync(path, bytes.subarray(0, length));
    expect(open().load()).toEqual([state(10)]);
  }
});

test("a full disk changes nothing", async () => {
  const folder = open();
  await saved(folder, state(10));
  room = 10;
  expect(await saved(folder, state(20))).toBe(false);
  expect(folder.receive(11)).toBeUndefined();
  room = Infinity;
  expect(await saved(folder, state(30))).toBe(true);
  expect(open().load()).toEqual([state(30), state(10)]);
});

test("a snapshot is read back, and goes once nobody reads it", async () => {
  const folder = open();
  const app = Buffer.from("the application's own");
  const [number, ok] = await received(folder, Buffer.concat([encodeState(state(9)), app]));
  expect([number, ok]).toEqual([1, true]);
  const { offset, appBytes, state: found } = folder.open(number)!;
  expect([found, appBytes]).toEqual([state(9), app.byteLength]);
  const part = new Promise<Uint8Array>((done) => folder.read(number, offset + 4, 11, done));
  expect(Buffer.from(await part).toString()).toBe("application");
  folder.remove(number);
  await names([]);
  expect((await received(folder, Buffer.from("none")))[0]).toBe(2);
  expect(folder.open(2)).toBeUndefined();
});

test("at a start all snapshots go but the one that is live, and no number comes again", async () => {
  const folder = open();
  for (let i = 0; i < 3; i++) await received(folder, encodeState(state(9)));
  const next = open();
  next.load();
  next.keepOnly(2, 5);
  await names(["snapshot-2"]);
  expect((await received(next, encodeState(state(9))))[0]).toBe(6);
});

test("bytes that are no state are none, however they look", () => {
  const good = encodeState({ ...state(9), sessions: new Uint8Array(0) });
  expect(stateBytes(good, limits)).toBe(good.byteLength);
  for (let seed = 1; seed <= 2_000; seed++) {
    const random = new Random(seed);
    const bytes = new Uint8Array(good);
    bytes[random.below(bytes.byteLength)] = random.below(256);
    const found = decodeState(bytes, limits);
    if (found !== undefined) expect(found).toEqual(decodeState(good, limits)!);
  }
  // Whole, and yet what no state says: the last entry lies beyond what is applied.
  expect(() => encodeState({ ...state(9), appIndex: 10 })).toThrow("application that has 9");
  const beyond = encodeState(state(9));
  const view = new DataView(beyond.buffer);
  view.setBigUint64(44, 10n, true);
  view.setUint32(8, crc32(beyond.subarray(12)), true);
  expect(decodeState(beyond, limits)).toBeUndefined();
  view.setBigUint64(44, 9n, true);
  view.setUint32(8, crc32(beyond.subarray(12)), true);
  expect(decodeState(beyond, limits)).toBeDefined();
  expect(decodeState(encodeState({ ...state(9), applyVersion: 0 }), limits)).toBeUndefined();
  const sessions = new Uint8Array([1, 2, 3]);
  expect(decodeState(encodeState({ ...state(9), sessions }), limits)).toBeUndefined();
});
