/** Checks the options of a watch and makes it. */
import { BargeError } from "../errors.ts";
import { defaultLimits } from "../limits.ts";
import type { CodecName, Key } from "./api.ts";
import { keyBytes } from "./text.ts";
import type { ValueCodec } from "./value-codec.ts";
import type { WatchOptions } from "./watch-api.ts";
import { WatchStream } from "./watch-stream.ts";
import type { Watches } from "./watches.ts";

const windowBytesDefault = 1_048_576;

/** Throws `bad_request` or `too_large`. */
export function openWatch<C extends CodecName>(
  watches: Watches,
  group: number,
  codec: ValueCodec,
  options: WatchOptions = {},
): WatchStream<C> {
  const { prefix, key, signal } = options;
  if (prefix !== undefined && key !== undefined) {
    throw new BargeError("bad_request", "give either prefix or key");
  }
  if (signal?.aborted === true) throw abortedError(signal.reason);
  const giveUpMs = options.giveUpMs ?? Infinity;
  if (!(giveUpMs > 0)) throw new BargeError("bad_request", "giveUpMs must be above 0");
  const stream = new WatchStream<C>({
    group,
    prefix: watchedBytes(key ?? prefix ?? ""),
    exact: key !== undefined,
    from: integer("from", options.from ?? 0, 0, Number.MAX_SAFE_INTEGER),
    windowBytes: integer(
      "windowBytes",
      options.windowBytes ?? windowBytesDefault,
      1,
      defaultLimits.watchWindowBytesMax,
    ),
    giveUpMs,
    codec,
    taken: (taker, bytes) => watches.taken(taker, bytes),
    closed: (closed) => {
      signal?.removeEventListener("abort", abort);
      watches.remove(closed);
    },
  });
  if (key !== undefined && stream.options.prefix.byteLength === 0) {
    throw new BargeError("bad_request", "key must not be empty");
  }
  const abort = (): void => stream.fail(abortedError(signal?.reason));
  signal?.addEventListener("abort", abort);
  watches.add(stream as WatchStream<CodecName>);
  return stream;
}

function watchedBytes(key: Key): Uint8Array {
  const bytes = keyBytes(key);
  const { keyBytesMax } = defaultLimits;
  if (bytes.byteLength <= keyBytesMax) return bytes.slice();
  throw new BargeError("too_large", `a key has at most ${keyBytesMax} bytes`);
}

function integer(name: string, value: number, min: number, max: number): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new BargeError("bad_request", `${name} must be an integer from ${min} to ${max}`);
}

function abortedError(cause: unknown): BargeError {
  return new BargeError("aborted", "the watch was given up", { outcome: "not-applied", cause });
}
