/**
 * The target of an HTTP request as bytes: keys are decoded from the raw percent escapes, because a key is bytes and `%FF` is no text.
 * Pure. Bun hands on the escapes untouched but folds the segments `.` and `..`, so a key of that kind travels as `?key=`.
 */

export interface RequestTarget {
  /** Still escaped; begins with a slash. */
  readonly path: string;
  /** Values still escaped. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Splits `http://host/path?query`; undefined where a parameter is there twice, which has no one meaning. */
export function splitTarget(url: string): RequestTarget | undefined {
  const hostAt = url.indexOf("://") + 3;
  const pathAt = url.indexOf("/", hostAt);
  const hashAt = url.indexOf("#", hostAt);
  const end = hashAt < 0 ? url.length : hashAt;
  const target = pathAt < 0 ? "/" : url.slice(pathAt, end);
  const queryAt = target.indexOf("?");
  const parameters = new Map<string, string>();
  if (queryAt < 0) return { path: target, parameters };
  for (const part of target.slice(queryAt + 1).split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    if (parameters.has(name)) return undefined;
    parameters.set(name, equals < 0 ? "" : part.slice(equals + 1));
  }
  return { path: target.slice(0, queryAt), parameters };
}

const percent = 0x25;
const plus = 0x2b;
const space = 0x20;

/** The bytes behind an escaped text; undefined where an escape is broken. In a query a plus sign is a space. */
export function decodeEscapes(text: string, plusIsSpace: boolean): Uint8Array | undefined {
  const bytes = Buffer.from(text, "utf8");
  let length = 0;
  for (let at = 0; at < bytes.byteLength; at++) {
    let byte = bytes[at]!;
    if (byte === percent) {
      const high = hexDigit(bytes[at + 1]);
      const low = hexDigit(bytes[at + 2]);
      if (high < 0 || low < 0) return undefined;
      byte = high * 16 + low;
      at += 2;
    } else if (byte === plus && plusIsSpace) {
      byte = space;
    }
    bytes[length++] = byte;
  }
  return new Uint8Array(bytes.buffer, bytes.byteOffset, length);
}

function hexDigit(code: number | undefined): number {
  if (code === undefined) return -1;
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** Escapes bytes so that they can stand anywhere in a target. */
export function encodeEscapes(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    const char = String.fromCharCode(byte);
    text += /[A-Za-z0-9_~-]/.test(char)
      ? char
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}
