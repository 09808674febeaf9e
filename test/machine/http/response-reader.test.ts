/** Responses in every split, and bytes that are none: an answer or an error, never more, and never more memory than they carry. */
import { expect, test } from "bun:test";
import { BadResponseError, ResponseReader } from "../../../src/machine/http/response-reader.ts";
import { Random } from "../../sim/random.ts";

interface Seen {
  status: number;
  headers: Record<string, string>;
  body: string;
  ended: boolean;
  keepsAlive: boolean;
  error: string | undefined;
}

/** `sizes` of the parts in which it comes, over and over. */
function read(bytes: Uint8Array, sizes: readonly number[], closes = true): Seen {
  const seen: Seen = {
    status: 0,
    headers: {},
    body: "",
    ended: false,
    keepsAlive: false,
    error: undefined,
  };
  const reader = new ResponseReader({
    head: ({ status, headers }) => {
      seen.status = status;
      seen.headers = Object.fromEntries(headers);
    },
    data: (part) => (seen.body += Buffer.from(part).toString("latin1")),
    end: () => {
      if (seen.ended) throw new Error("it ends twice");
      seen.ended = true;
    },
  });
  try {
    let turn = 0;
    for (let at = 0; at < bytes.byteLength;) {
      const size = sizes[turn++ % sizes.length]!;
      reader.push(bytes.subarray(at, at + size));
      at += size;
    }
    if (closes) reader.close();
  } catch (error) {
    if (!(error instanceof BadResponseError)) throw error;
    seen.error = error.message;
  }
  seen.keepsAlive = reader.keepsAlive;
  return seen;
}

function text(...lines: string[]): Uint8Array {
  return Buffer.from(lines.join("\r\n"), "latin1");
}

const chunked = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", ""];

const good: readonly [what: string, bytes: Uint8Array, body: string, keepsAlive: boolean][] = [
  ["a length", text("HTTP/1.1 200 OK", "Content-Length: 5", "", "hello"), "hello", true],
  ["no body", text("HTTP/1.1 204 No Content", "", ""), "", true],
  ["an empty one", text("HTTP/1.1 200 OK", "content-length: 0", "", ""), "", true],
  [
    "chunks",
    text(...chunked, "3", "abc", "A;x=y", "0123456789", "0", "", ""),
    "abc0123456789",
    true,
  ],
  ["trailers", text(...chunked, "1", "a", "0", "later: yes", "", ""), "a", true],
  ["until it closes", text("HTTP/1.0 200 OK", "", "all of it"), "all of it", false],
  [
    "kept open though old",
    text("HTTP/1.0 200 OK", "connection: keep-alive", "content-length: 1", "", "x"),
    "x",
    true,
  ],
  [
    "closed though new",
    text("HTTP/1.1 200 OK", "Connection: close", "content-length: 1", "", "x"),
    "x",
    false,
  ],
  [
    "one that goes before",
    text("HTTP/1.1 100 Continue", "", "HTTP/1.1 200 OK", "content-length: 1", "", "x"),
    "x",
    true,
  ],
  ["bare line feeds", Buffer.from("HTTP/1.1 200 OK\ncontent-length: 2\n\nhi"), "hi", true],
];

for (const [what, bytes, body, keepsAlive] of good) {
  test(`a response with ${what}, however it is split`, () => {
    for (const sizes of [[bytes.byteLength], [1], [2, 3], [7, 1], [50]]) {
      const seen = read(bytes, sizes);
      expect([sizes, seen.error, seen.ended, seen.body]).toEqual([sizes, undefined, true, body]);
      expect([sizes, seen.keepsAlive]).toEqual([sizes, keepsAlive]);
    }
  });

  test(`a response with ${what}, cut off, is an error`, () => {
    if (what === "until it closes") return;
    for (let length = 1; length < bytes.byteLength; length++) {
      const seen = read(bytes.subarray(0, length), [length]);
      expect([length, seen.ended]).toEqual([length, false]);
      expect([length, seen.error]).toEqual([length, "the connection broke off"]);
    }
  });
}

const bad: readonly [what: string, bytes: Uint8Array][] = [
  ["another protocol", text("SSH-2.0-OpenSSH", "", "")],
  ["a strange status", text("HTTP/1.1 999 What", "", "")],
  ["a negative length", text("HTTP/1.1 200 OK", "content-length: -1", "", "")],
  [
    "a length beyond numbers",
    text("HTTP/1.1 200 OK", "content-length: 99999999999999999999", "", ""),
  ],
  ["an unknown coding", text("HTTP/1.1 200 OK", "transfer-encoding: gzip", "", "")],
  ["a chunk without a length", text(...chunked, "xyz", "abc", "0", "", "")],
  ["a chunk that is longer than it says", text(...chunked, "1", "abc", "0", "", "")],
  ["more than it says", text("HTTP/1.1 200 OK", "content-length: 1", "", "xy")],
  ["a head without an end", Buffer.alloc(100_000, "HTTP/1.1 200 OK\r\na: b\r\n")],
  ["a line between chunks without an end", text(...chunked, "1".repeat(10_000))],
  [
    "trailers without an end",
    text(...chunked, "0", ...Array.from({ length: 9_999 }, () => "a: b")),
  ],
  ["an upgrade", text("HTTP/1.1 101 Switching", "", "")],
];

for (const [what, bytes] of bad) {
  test(`${what} is an error`, () => {
    expect(read(bytes, [bytes.byteLength], false).error).toBeDefined();
    expect(read(bytes, [3], false).error).toBeDefined();
  });
}

test("whatever the bytes are, they are read or refused", () => {
  for (let seed = 1; seed <= 2_000; seed++) {
    const random = new Random(seed);
    const bytes = Buffer.from(random.pick(good)[1]);
    for (let changes = random.between(1, 4); changes > 0; changes--) {
      bytes[random.below(bytes.byteLength)] = random.below(256);
    }
    const sizes = [random.between(1, 20), random.between(1, 20)];
    const seen = read(bytes, sizes);
    if (seen.ended === (seen.error === undefined)) continue;
    // More than the response came behind it.
    if (seen.ended && seen.error === "there is more than the response") continue;
    throw new Error(`seed ${seed}: ${JSON.stringify(seen)}`);
  }
});
