/** What applications answer, right and wrong: read as documented, or refused with words; whatever the bytes are, nothing else comes of them. */
import { expect, test } from "bun:test";
import {
  ContractError,
  errorText,
  readHandle,
  readInstance,
  readLastLogIndex,
  readReady,
} from "../../../src/machine/http/contract.ts";
import { readResults } from "../../../src/machine/http/update-results.ts";
import { Random } from "../../sim/random.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const json = "application/json; charset=utf-8";

function results(body: Uint8Array, count: number, shape: "json" | "binary", type = json): string[] {
  const found = readResults(shape, type, body, count);
  const all = Array.from({ length: count }, () => Buffer.from(found.next() ?? []).toString());
  return found.isMiscounted ? ["miscounted", ...all] : all;
}

test("Ready says what shape is wanted, or nothing", () => {
  const usual = { shape: "json", prepareEvery: 0 } as const;
  for (const body of ["", "ok", "[]", "null", "{}", '{"Other":1}', "{"]) {
    expect(readReady(bytes(body))).toEqual(usual);
  }
  expect(readReady(bytes('{"Shape":"binary","PrepareEvery":1000}'))).toEqual({
    shape: "binary",
    prepareEvery: 1_000,
  });
  for (const body of ['{"Shape":"xml"}', '{"PrepareEvery":-1}', '{"PrepareEvery":"10"}']) {
    expect(() => readReady(bytes(body))).toThrow(ContractError);
  }
});

test("LastLogIndex is a whole number up to 2^53-1", () => {
  expect(readLastLogIndex(bytes('{"LastLogIndex":0}'))).toBe(0);
  expect(readLastLogIndex(bytes('{"LastLogIndex":9007199254740991}'))).toBe(2 ** 53 - 1);
  for (const value of ["9007199254740992", "18446744073709551615", "1e300"]) {
    const body = bytes(`{"LastLogIndex":${value}}`);
    expect(() => readLastLogIndex(body)).toThrow("indexes end at 2^53-1");
  }
  for (const body of ["", "41", "{}", '{"LastLogIndex":"41"}', '{"LastLogIndex":1.5}', "[41]"]) {
    expect(() => readLastLogIndex(bytes(body))).toThrow(ContractError);
  }
});

test("results by position: documented names, the older one, none at all", () => {
  const two = '{"Results":[{"Result":"b25l"},{"Data":"dHdv","Value":7}]}';
  expect(results(bytes(two), 2, "json")).toEqual(["one", "two"]);
  expect(results(bytes('{"Results":[null,{}]}'), 2, "json")).toEqual(["", ""]);
  for (const none of ["", "{}", '{"Results":null}', "null"]) {
    expect(results(bytes(none), 1, "json")).toEqual([""]);
  }
  expect(results(bytes("fine"), 1, "json", "text/plain")).toEqual([""]);
  for (const wrong of ['{"Results":[]}', '{"Results":[{},{}]}', '{"Results":{}}']) {
    expect(results(bytes(wrong), 1, "json")).toEqual(["miscounted", ""]);
  }
  expect(() => results(bytes('{"Results":['), 1, "json")).toThrow(ContractError);
});

test("results in the binary shape", () => {
  const one = Buffer.from([2, 0, 0, 0, 3, 0, 0, 0, 97, 98, 99, 0, 0, 0, 0]);
  const type = "application/octet-stream";
  expect(results(one, 2, "binary", type)).toEqual(["abc", ""]);
  expect(results(one, 3, "binary", type)).toEqual(["miscounted", "", "", ""]);
  expect(results(new Uint8Array(0), 2, "binary", type)).toEqual(["", ""]);
  for (let length = 1; length < one.byteLength; length++) {
    expect(results(one.subarray(0, length), 2, "binary", type)[0]).toBe("miscounted");
  }
  const more = Buffer.concat([one, Buffer.from([0])]);
  expect(results(more, 2, "binary", type)[0]).toBe("miscounted");
  const lying = Buffer.from([1, 0, 0, 0, 255, 255, 255, 255]);
  expect(results(lying, 1, "binary", type)[0]).toBe("miscounted");
});

test("a handle is any JSON, within a bound", () => {
  for (const handle of ["{}", "7", '"since"', "null", "[1]"]) {
    expect(Buffer.from(readHandle(bytes(handle), 100)).toString()).toBe(handle);
  }
  for (const handle of ["", "since", "{"]) {
    expect(() => readHandle(bytes(handle), 100)).toThrow(ContractError);
  }
  expect(() => readHandle(bytes('"much too long"'), 10)).toThrow("up to 10 bytes");
  expect(() => readHandle(Uint8Array.of(0x22, 0xff, 0x22), 100)).toThrow(ContractError);
});

test("an instance id is a short token, or none", () => {
  expect(readInstance(undefined)).toBeUndefined();
  expect(readInstance("")).toBeUndefined();
  expect(readInstance("a-Z_0.9")).toBe("a-Z_0.9");
  for (const id of ["two words", "x".repeat(65), "né"]) {
    expect(() => readInstance(id)).toThrow(ContractError);
  }
});

test("an application's own words are told in one short line", () => {
  expect(errorText(500, bytes(""))).toBe("status 500");
  expect(errorText(500, bytes("no\r\n  disk\u0007"))).toBe("status 500: no   disk");
  expect(errorText(503, bytes("x".repeat(1_000_000))).length).toBeLessThan(250);
  expect(errorText(503, Uint8Array.of(0xff, 0xfe)).startsWith("status 503")).toBe(true);
});

test("whatever it answers, it is read or refused", () => {
  const bodies = [
    '{"Results":[{"Result":"b25l"},{"Data":"dHdv"}]}',
    '{"Shape":"binary","PrepareEvery":5}',
    '{"LastLogIndex":41}',
    "\u0002\u0000\u0000\u0000\u0001\u0000\u0000\u0000a\u0000\u0000\u0000\u0000",
  ].map(bytes);
  for (let seed = 1; seed <= 3_000; seed++) {
    const random = new Random(seed);
    const body = Buffer.from(random.pick(bodies));
    for (let changes = random.between(1, 4); changes > 0; changes--) {
      body[random.below(body.byteLength)] = random.below(256);
    }
    const part = body.subarray(0, random.between(0, body.byteLength));
    const readers = [
      () => void readReady(part),
      () => void readLastLogIndex(part),
      () => void readHandle(part, 100),
      () => void results(part, 2, "json"),
      () => void results(part, 2, "binary", "application/octet-stream"),
    ];
    for (const read of readers) {
      try {
        read();
      } catch (error) {
        if (!(error instanceof ContractError)) throw new Error(`seed ${seed}: ${String(error)}`);
      }
    }
  }
});
