/**
 * Who leads which group: a client says which groups it uses, the node answers with all that it knows of them, and from then on tells what changes.
 * To those whose hello has `Feature.groups`. Pure.
 *
 *     followGroups  0 group u32 | 4 all u8 | 5 zero u8 × 3: this group, or all; in place of what was said before
 *     groupLeaders  0 version u64 | 8 count u32 | 12 flags u32 | 16 count × entry
 *
 *     entry         0 group u32 | 4 leader u32 | 8 term u64 | 16 kind u16 | 18 members u16 | 20 members × u32
 *
 * `version` is the log index in `system` up to which the node knows the registry: who hears of several nodes believes the newest, and of leaders
 * the highest term. With the flag `whole` there are no other groups of those that were asked for; without it, these are what changed.
 */
import { readSafe, writeSafe } from "./batch.ts";
import { FrameType } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

export interface FollowGroups {
  readonly type: "followGroups";
  readonly all: boolean;
  /** The one, where it is not all. */
  readonly group: number;
}

export interface GroupLeader {
  readonly group: number;
  /** Node id; 0 = unknown. */
  readonly leader: number;
  readonly term: number;
  /** Nodes that have a copy of it; empty = not known. */
  readonly members: readonly number[];
  /** There is no such group any more. */
  readonly gone: boolean;
}

export interface GroupLeaders {
  readonly type: "groupLeaders";
  readonly version: number;
  readonly whole: boolean;
  readonly groups: readonly GroupLeader[];
}

const followFieldsBytes = 8;
const fixedBytes = 16;
const entryFixedBytes = 20;
const wholeFlag = 1;
const kinds = { there: 0, gone: 1 } as const;
/** Of one group. More are not told. */
export const toldMembersMax = 64;

export function encodeFollowGroups(
  out: SendBuffer,
  { all, group }: Omit<FollowGroups, "type">,
): void {
  const at = out.begin(FrameType.followGroups, followFieldsBytes);
  const { view } = out;
  view.setUint32(at, all ? 0 : group, true);
  view.setUint32(at + 4, all ? 1 : 0, true);
  out.end();
}

/** Undefined where the payload is malformed. */
export function decodeFollowGroups(
  payload: Uint8Array,
  fieldsBytes: number,
): FollowGroups | undefined {
  if (fieldsBytes !== followFieldsBytes || payload.byteLength !== fieldsBytes) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const group = view.getUint32(0, true);
  const all = view.getUint32(4, true);
  if (all > 1 || (all === 1 && group !== 0)) return undefined;
  return { type: "followGroups", all: all === 1, group };
}

export function encodeGroupLeaders(out: SendBuffer, leaders: Omit<GroupLeaders, "type">): void {
  const { version, whole, groups } = leaders;
  let length = fixedBytes;
  for (const { members } of groups) {
    length += entryFixedBytes + 4 * Math.min(members.length, toldMembersMax);
  }
  let at = out.begin(FrameType.groupLeaders, length);
  const { view } = out;
  writeSafe(view, at, version);
  view.setUint32(at + 8, groups.length, true);
  view.setUint32(at + 12, whole ? wholeFlag : 0, true);
  at += fixedBytes;
  for (const { group, leader, term, members, gone } of groups) {
    const told = Math.min(members.length, toldMembersMax);
    view.setUint32(at, group, true);
    view.setUint32(at + 4, leader, true);
    writeSafe(view, at + 8, term);
    view.setUint16(at + 16, gone ? kinds.gone : kinds.there, true);
    view.setUint16(at + 18, told, true);
    at += entryFixedBytes;
    for (let i = 0; i < told; i++, at += 4) view.setUint32(at, members[i]!, true);
  }
  out.end();
}

/** Undefined where the payload is malformed. Nothing is made for more entries than there are bytes for. */
export function decodeGroupLeaders(
  payload: Uint8Array,
  fieldsBytes: number,
): GroupLeaders | undefined {
  if (fieldsBytes < fixedBytes || payload.byteLength !== fieldsBytes) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const version = readSafe(view, 0);
  const count = view.getUint32(8, true);
  const flags = view.getUint32(12, true);
  if (!(version >= 0) || flags > wholeFlag) return undefined;
  if (count * entryFixedBytes > fieldsBytes - fixedBytes) return undefined;
  const groups: GroupLeader[] = [];
  let at = fixedBytes;
  for (let i = 0; i < count; i++) {
    if (fieldsBytes - at < entryFixedBytes) return undefined;
    const term = readSafe(view, at + 8);
    const kind = view.getUint16(at + 16, true);
    const memberCount = view.getUint16(at + 18, true);
    const end = at + entryFixedBytes + 4 * memberCount;
    if (!(term >= 0) || kind > kinds.gone || memberCount > toldMembersMax) return undefined;
    if (end > fieldsBytes) return undefined;
    const members: number[] = [];
    for (let j = at + entryFixedBytes; j < end; j += 4) members.push(view.getUint32(j, true));
    const group = view.getUint32(at, true);
    const leader = view.getUint32(at + 4, true);
    groups.push({ group, leader, term, members, gone: kind === kinds.gone });
    at = end;
  }
  if (at !== fieldsBytes) return undefined;
  return { type: "groupLeaders", version, whole: flags === wholeFlag, groups };
}
