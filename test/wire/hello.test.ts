/** Hello and msgpack: what is refused. */
import { expect, test } from "bun:test";
import { packControl, unpackControl } from "../../src/wire/control-codec.ts";
import { decodeHello, decodeHelloReply } from "../../src/wire/hello.ts";

const peer = {
  role: "peer-bulk",
  versionMin: 1,
  versionMax: 2,
  features: 0,
  software: "barge 0.1.0",
  clusterId: "c",
  nodeId: 2,
  incarnation: "i",
  applyVersion: 1,
  applyVersionMax: 2,
};
const reply = {
  version: 1,
  features: 0,
  software: "s",
  clusterId: "c",
  nodeId: 1,
  incarnation: "i",
  frameBytesMax: 100,
  sectionBytesMax: 10,
  members: { "1": "h:1", "2": "h:2" },
  leader: 0,
};

function helloOf(value: unknown) {
  const bytes = packControl(value);
  return decodeHello(bytes, bytes.byteLength);
}

function replyOf(value: unknown) {
  const bytes = packControl(value);
  return decodeHelloReply(bytes, bytes.byteLength);
}

test("each field of a hello is checked", () => {
  expect(helloOf(peer)).toEqual(peer as never);
  expect(helloOf({ ...peer, later: [1, 2] })).toEqual(peer as never);
  const wrong: Record<string, unknown[]> = {
    role: ["peer", "toString", 1, null, undefined],
    versionMin: [0, 3, 1.5, "1", null, undefined],
    versionMax: [0, 256, -1, null, undefined],
    features: [-1, 2 ** 32, 0.5, null, undefined],
    software: [1, null, undefined, "x".repeat(1_025)],
    clusterId: [1, null, undefined, "x".repeat(1_025)],
    nodeId: [0, -1, 2 ** 32, 1.5, "1", null, undefined],
    incarnation: [1, null, undefined],
    expectNodeId: [0, "1", null],
    applyVersion: [0, -1, 1.5, "1", 2 ** 32, null],
    applyVersionMax: [0, -1, 1.5, "1", 2 ** 32, null],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) expect(helloOf({ ...peer, [field]: value })).toBeUndefined();
  }
  for (const value of [null, 1, "x", [], [peer]]) expect(helloOf(value)).toBeUndefined();
});

test("each field of the reply is checked", () => {
  expect(replyOf(reply)).toEqual(reply);
  const error = { code: "unauthorised", message: "m" };
  expect(replyOf({ ...reply, error })).toEqual({ ...reply, error });
  const wrong: Record<string, unknown[]> = {
    version: [-1, 256, null],
    nodeId: [0, null],
    frameBytesMax: [0, 2 ** 32, null],
    sectionBytesMax: [0, null],
    leader: [-1, null],
    applyVersion: [0, "1", 2 ** 32, null],
    applyVersionMax: [0, "1", 2 ** 32, null],
    members: [null, [], { a: "h:1" }, { "0": "h:1" }, { "1": 1 }, manyMembers(1_025)],
    error: [1, {}, { code: 1, message: "m" }, { code: "c" }],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) expect(replyOf({ ...reply, [field]: value })).toBeUndefined();
  }
  expect(replyOf({ ...reply, members: manyMembers(1_024) })).toBeDefined();
});

function manyMembers(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [String(i + 1), "h:1"]));
}

test("msgpack that would allot more than it carries, nests deeply or is an extension is refused", () => {
  const refused: [string, number[]][] = [
    ["nothing", []],
    ["array of 4 billion", [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ["array of 99,999 and one", [0xdd, 0, 1, 0x86, 0x9f, 1]],
    ["map of 4 billion", [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ["text of 4 billion", [0xdb, 0xff, 0xff, 0xff, 0xff]],
    ["bytes of 4 billion", [0xc6, 0xff, 0xff, 0xff, 0xff]],
    ["text cut off", [0xa5, 0x61]],
    ["head cut off", [0xda, 0]],
    ["two values", [1, 2]],
    ["never used", [0xc1]],
    ["fixext record", [0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61]],
    ["timestamp", [0xd6, 0xff, 0, 0, 0, 0]],
    ["ext 8", [0xc7, 1, 0x65, 0]],
    ["number as key", [0x81, 1, 1]],
    ["array as key", [0x81, 0x90, 1]],
    ["u64 above what a number holds", [0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0]],
    ["i64 below what a number holds", [0xd3, 0xff, 0xe0, 0, 0, 0, 0, 0, 0]],
    ["u64 cut off", [0xcf, 0, 0, 0, 0, 0, 0, 1]],
    ["deep arrays", [...Array.from({ length: 10_000 }, () => 0x91), 1]],
    ["deep maps", [...Array.from({ length: 5_000 }, () => [0x81, 0xa1, 0x61]).flat(), 1]],
  ];
  for (const [what, bytes] of refused) {
    const got = unpackControl(Uint8Array.from(bytes));
    expect(`${what}: ${got}`).toBe(`${what}: undefined`);
  }
  const sixteen = [...Array.from({ length: 16 }, () => 0x91), 1];
  expect(unpackControl(Uint8Array.from(sixteen))).toBeDefined();
});

test("integers of eight bytes are numbers", () => {
  const largest = [0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
  expect(unpackControl(Uint8Array.from([0xcf, ...largest]))).toBe(Number.MAX_SAFE_INTEGER);
  expect(unpackControl(Uint8Array.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 7]))).toBe(7);
  expect(unpackControl(Uint8Array.from([0xd3, ...Array.from({ length: 8 }, () => 0xff)]))).toBe(-1);
});

test("a key that reaches for the prototype stays a key", () => {
  const bytes = Uint8Array.from([
    0x81,
    0xa9,
    ...new TextEncoder().encode("__proto__"),
    0x81,
    0xa1,
    0x61,
    1,
  ]);
  const map = unpackControl(bytes) as Record<string, unknown>;
  expect(map["a"]).toBeUndefined();
  expect(Object.getPrototypeOf(map)).toBe(Object.prototype);
});
