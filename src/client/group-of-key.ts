/**
 * Which group a key is in, where a program spreads its keys over several: `hash(key) % n`. The hash is CRC-32 as in zlib, of the key's bytes, so that programs in other
 * languages agree with a line of their own. How many groups there are is then fixed: with another number nearly every key would be elsewhere.
 */
import { crc32 } from "node:zlib";
import { BargeError } from "../errors.ts";
import type { Key } from "./api.ts";
import { keyBytes } from "./text.ts";

/** The place of the key among `count`: 0 to `count` - 1. */
function placeOfKey(key: Key, count: number): number {
  if (Number.isSafeInteger(count) && count >= 1) return crc32(keyBytes(key)) % count;
  throw new BargeError("bad_request", "groups must be a number from 1, or a list of ids");
}

/**
 * The group of a key. `groups`: their ids, always in the same order; or how many there are, which stands for the ids from 1 on, as `barge group create --count`
 * makes them in a new cluster.
 *
 *     await client.group(groupOfKey(key, 16)).put(key, value);
 */
export function groupOfKey(key: Key, groups: number | readonly number[]): number {
  if (typeof groups === "number") return placeOfKey(key, groups) + 1;
  return groups[placeOfKey(key, groups.length)]!;
}
