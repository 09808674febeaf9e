/**
 * The hello that opens a connection and its reply: msgpack maps, checked field by field. Unknown keys are ignored, so that later
 * versions may add some; what is there must have the right type and be within bounds. Between peers that know `Feature.bothWays` a third frame
 * follows, without fields: the dialler has accepted the reply, and listens. Pure.
 */
import { isRecord, packControl, unpackControl } from "./control-codec.ts";
import { FrameType, type Hello, type HelloReply } from "./messages.ts";
import type { SendBuffer } from "./send-buffer.ts";

const roles: readonly Hello["role"][] = ["peer-control", "peer-bulk", "client"];
const textCharactersMax = 1_024;
const membersMax = 1_024;
const u32Max = 0xffff_ffff;

export function encodeHello(out: SendBuffer, hello: Hello): void {
  encodeMap(out, FrameType.hello, hello);
}

export function encodeHelloReply(out: SendBuffer, reply: HelloReply): void {
  encodeMap(out, FrameType.helloReply, reply);
}

/** Undefined where the payload is no hello. A peer's has its cluster, node id and incarnation. */
export function decodeHello(payload: Uint8Array, fieldsBytes: number): Hello | undefined {
  const map = decodeMap(payload, fieldsBytes);
  if (map === undefined) return undefined;
  const { versionMin, versionMax, features, software } = map;
  const role = roles.find((each) => each === map["role"]);
  if (role === undefined) return undefined;
  if (!isNumber(versionMin, 1, 255) || !isNumber(versionMax, versionMin, 255)) return undefined;
  if (!isNumber(features, 0, u32Max) || !isText(software)) return undefined;
  const base = { role, versionMin, versionMax, features, software };
  if (role === "client") return base;
  const { clusterId, nodeId, incarnation, address, http, configurationIndex, expectNodeId } = map;
  const applyVersions = applyVersionsOf(map);
  if (applyVersions === undefined) return undefined;
  if (!isText(clusterId) || !isNumber(nodeId, 1, u32Max) || !isText(incarnation)) return undefined;
  if (address !== undefined && !isText(address)) return undefined;
  if (http !== undefined && !isText(http)) return undefined;
  if (expectNodeId !== undefined && !isNumber(expectNodeId, 1, u32Max)) return undefined;
  const indexMax = Number.MAX_SAFE_INTEGER;
  if (configurationIndex !== undefined && !isNumber(configurationIndex, 0, indexMax)) {
    return undefined;
  }
  return {
    ...base,
    clusterId,
    nodeId,
    incarnation,
    ...(address === undefined ? {} : { address }),
    ...(http === undefined ? {} : { http }),
    ...(configurationIndex === undefined ? {} : { configurationIndex }),
    ...applyVersions,
    ...(expectNodeId === undefined ? {} : { expectNodeId }),
  };
}

/** Undefined where the payload is no reply to a hello. */
export function decodeHelloReply(payload: Uint8Array, fieldsBytes: number): HelloReply | undefined {
  const map = decodeMap(payload, fieldsBytes);
  if (map === undefined) return undefined;
  const { version, features, software, clusterId, nodeId, incarnation } = map;
  const { frameBytesMax, sectionBytesMax, leader, http, error } = map;
  const wellFormed =
    isNumber(version, 0, 255) &&
    isNumber(features, 0, u32Max) &&
    isText(software) &&
    isText(clusterId) &&
    isNumber(nodeId, 1, u32Max) &&
    isText(incarnation) &&
    isNumber(frameBytesMax, 1, u32Max) &&
    isNumber(sectionBytesMax, 1, u32Max) &&
    isNumber(leader, 0, u32Max);
  const members = readMembers(map["members"]);
  const applyVersions = applyVersionsOf(map);
  if (!wellFormed || members === undefined || applyVersions === undefined) return undefined;
  if (http !== undefined && !isText(http)) return undefined;
  const reply = {
    version,
    features,
    software,
    clusterId,
    nodeId,
    incarnation,
    frameBytesMax,
    sectionBytesMax,
    members,
    leader,
    ...(http === undefined ? {} : { http }),
    ...applyVersions,
  };
  if (error === undefined) return reply;
  if (!isRecord(error)) return undefined;
  const { code, message } = error;
  return isText(code) && isText(message) ? { ...reply, error: { code, message } } : undefined;
}

export function encodeAccepted(out: SendBuffer): void {
  out.begin(FrameType.accepted, 0);
  out.end();
}

/** The frame has no content, and must have none. */
export function isAccepted(type: number, payload: Uint8Array): boolean {
  return type === FrameType.accepted && payload.byteLength === 0;
}

function encodeMap(out: SendBuffer, type: FrameType, map: Hello | HelloReply): void {
  const packed = packControl(map);
  out.begin(type, packed.byteLength);
  out.setFields(0, packed);
  out.end();
}

function decodeMap(payload: Uint8Array, fieldsBytes: number): Record<string, unknown> | undefined {
  if (payload.byteLength !== fieldsBytes) return undefined;
  const map = unpackControl(payload);
  return isRecord(map) ? map : undefined;
}

/** Both are absent in a hello of the first version. */
function applyVersionsOf(
  map: Record<string, unknown>,
): Pick<Hello, "applyVersion" | "applyVersionMax"> | undefined {
  const { applyVersion, applyVersionMax } = map;
  if (applyVersion !== undefined && !isNumber(applyVersion, 1, u32Max)) return undefined;
  if (applyVersionMax !== undefined && !isNumber(applyVersionMax, 1, u32Max)) return undefined;
  return {
    ...(applyVersion === undefined ? {} : { applyVersion }),
    ...(applyVersionMax === undefined ? {} : { applyVersionMax }),
  };
}

/** Members as `host:port` by node id; undefined where they are not. */
export function readMembers(value: unknown): Record<string, string> | undefined {
  if (!isRecord(value)) return undefined;
  const entries = Object.entries(value);
  if (entries.length > membersMax) return undefined;
  const members: Record<string, string> = {};
  for (const [id, address] of entries) {
    if (!/^[1-9][0-9]{0,9}$/.test(id) || !isText(address)) return undefined;
    members[id] = address;
  }
  return members;
}

function isNumber(value: unknown, min: number, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= textCharactersMax;
}
