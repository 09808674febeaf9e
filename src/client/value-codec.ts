/** Turns values into bytes and back, on the client alone: the server never looks inside a value. */
import { Packr } from "msgpackr";
import { BargeError } from "../errors.ts";
import type { CodecName } from "./api.ts";

export interface ValueCodec {
  /** Bytes, or a string that the caller lays out as UTF-8 itself. */
  encode(value: unknown): Uint8Array | string;
  /** `bytes` may be a received frame, of which the value is what lies from `start` to `end`: what is returned must not depend on it. */
  decode(bytes: Uint8Array, start?: number, end?: number): unknown;
  /** Stands for a value that was left out. */
  readonly leftOut: unknown;
}

const utf8 = new TextDecoder();
// Plain maps, so that other languages can read the values too.
const packr = new Packr({ useRecords: false });

const codecs: Record<CodecName, ValueCodec> = {
  bytes: {
    encode(value) {
      if (value instanceof Uint8Array || typeof value === "string") return value;
      throw new BargeError("bad_request", "a value must be a Uint8Array or a string");
    },
    decode: (bytes, start, end) => bytes.slice(start, end),
    leftOut: new Uint8Array(0),
  },
  json: {
    encode(value) {
      const text = attempt("json", () => JSON.stringify(value));
      if (text === undefined) throw new BargeError("bad_request", "this value has no JSON form");
      return text;
    },
    decode: (bytes, start, end) =>
      attempt("json", (): unknown => JSON.parse(utf8.decode(bytes.subarray(start, end)))),
    leftOut: undefined,
  },
  msgpack: {
    encode: (value) => attempt("msgpack", () => packr.pack(value)),
    // unpack returns views of its input for binary fields, so it gets a copy of its own.
    decode: (bytes, start, end) =>
      attempt("msgpack", (): unknown => packr.unpack(bytes.slice(start, end))),
    leftOut: undefined,
  },
};

export function valueCodec(name: CodecName): ValueCodec {
  return codecs[name];
}

function attempt<T>(codec: CodecName, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw new BargeError("bad_request", `the ${codec} codec cannot read or write this value`, {
      cause,
    });
  }
}
