/**
 * What a node tells its clients unasked: who the members are and who leads, as soon as it knows of a change. To those whose hello has
 * `Feature.notice`. A msgpack map, as the hello is; a client that missed one learns the same from the next hello. Pure.
 */
import { isRecord, packControl, unpackControl } from "./control-codec.ts";
import { readMembers } from "./hello.ts";
import { FrameType, type Notice } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

const noticeBytesMax = 1024 * 1024;
const u32Max = 0xffff_ffff;

export function encodeNotice(out: SendBuffer, notice: Notice): void {
  const { group, term, leader, configurationIndex, members } = notice;
  const packed = packControl({ group, term, leader, configurationIndex, members });
  out.begin(FrameType.notice, packed.byteLength);
  out.setFields(0, packed);
  out.end();
}

/** Undefined where the payload is no notice. */
export function decodeNotice(payload: Uint8Array, fieldsBytes: number): Notice | undefined {
  if (payload.byteLength !== fieldsBytes || fieldsBytes > noticeBytesMax) return undefined;
  const map = unpackControl(payload);
  if (!isRecord(map)) return undefined;
  const { group, term, leader, configurationIndex } = map;
  const members = readMembers(map["members"]);
  const wellFormed =
    isBelow(group, u32Max) &&
    isBelow(term, Number.MAX_SAFE_INTEGER) &&
    isBelow(leader, u32Max) &&
    isBelow(configurationIndex, Number.MAX_SAFE_INTEGER);
  if (!wellFormed || members === undefined) return undefined;
  return { type: "notice", group, term, leader, configurationIndex, members };
}

function isBelow(value: unknown, max: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max;
}
