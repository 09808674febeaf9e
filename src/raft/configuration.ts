/**
 * The group's members as a log record: the body of a configuration batch, and the stack of configurations along the log. A configuration is in force
 * as soon as it is appended, and taken back when its batch is truncated [37].
 *
 * The encoding is canonical: equal configurations have equal bytes, so the first batch of a group is the same on every node [36].
 *
 *     version u8 | 0 u8 ×3 | voters u32 | outgoing u32 | learners u32 | addresses u32 | ids u32 … | (id u32, bytes u16, UTF-8) …
 */
import { bodyOf } from "../wire/batch.ts";
import type { Batch } from "../wire/batch.ts";
import type { Configuration } from "./ready.ts";

const version = 1;
const headerBytes = 20;
/** Members of one group, over all roles; far above what makes sense, so that a count can be trusted before allocation. */
const membersMax = 1024;
const u32Max = 0xffff_ffff;

export function isVoter(configuration: Configuration, nodeId: number): boolean {
  return configuration.voters.includes(nodeId) || configuration.outgoing.includes(nodeId);
}

/** All members, each once, ascending. */
export function membersOf(configuration: Configuration): number[] {
  const { voters, outgoing, learners } = configuration;
  return [...new Set([...voters, ...outgoing, ...learners])].sort((a, b) => a - b);
}

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  const voters = ascending(configuration.voters);
  const outgoing = ascending(configuration.outgoing);
  const learners = ascending(configuration.learners);
  const addresses = Object.entries(configuration.addresses)
    .map(([id, address]) => ({ id: Number(id), bytes: new TextEncoder().encode(address) }))
    .sort((a, b) => a.id - b.id);
  const idCount = voters.length + outgoing.length + learners.length;
  const addressBytes = addresses.reduce((sum, { bytes }) => sum + 6 + bytes.byteLength, 0);
  const body = new Uint8Array(headerBytes + 4 * idCount + addressBytes);
  const view = new DataView(body.buffer);
  view.setUint8(0, version);
  view.setUint32(4, voters.length, true);
  view.setUint32(8, outgoing.length, true);
  view.setUint32(12, learners.length, true);
  view.setUint32(16, addresses.length, true);
  let offset = headerBytes;
  for (const id of [...voters, ...outgoing, ...learners]) {
    view.setUint32(offset, id, true);
    offset += 4;
  }
  for (const { id, bytes } of addresses) {
    view.setUint32(offset, id, true);
    view.setUint16(offset + 4, bytes.byteLength, true);
    body.set(bytes, offset + 6);
    offset += 6 + bytes.byteLength;
  }
  return body;
}

/** Undefined where the bytes are not the canonical encoding of a configuration. */
export function decodeConfiguration(body: Uint8Array): Configuration | undefined {
  if (body.byteLength < headerBytes) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  if (view.getUint32(0, true) !== version) return undefined;
  const counts = [4, 8, 12, 16].map((offset) => view.getUint32(offset, true));
  if (counts.some((count) => count > membersMax)) return undefined;
  const [voterCount, outgoingCount, learnerCount, addressCount] = counts as [
    number,
    number,
    number,
    number,
  ];
  let offset = headerBytes;
  if (offset + 4 * (voterCount + outgoingCount + learnerCount) > body.byteLength) return undefined;
  const ids = (count: number): number[] => {
    const list: number[] = [];
    for (; list.length < count; offset += 4) list.push(view.getUint32(offset, true));
    return list;
  };
  const voters = ids(voterCount);
  const outgoing = ids(outgoingCount);
  const learners = ids(learnerCount);
  const addresses: Record<number, string> = {};
  for (let at = 0; at < addressCount; at++) {
    if (offset + 6 > body.byteLength) return undefined;
    const id = view.getUint32(offset, true);
    const end = offset + 6 + view.getUint16(offset + 4, true);
    if (end > body.byteLength) return undefined;
    addresses[id] = new TextDecoder().decode(body.subarray(offset + 6, end));
    offset = end;
  }
  const configuration: Configuration = { voters, outgoing, learners, addresses };
  return wellFormed(configuration) && isCanonical(configuration, body) ? configuration : undefined;
}

/** Ids ascending and not 0, at least one voter, and no learner among the voters. */
function wellFormed({ voters, outgoing, learners }: Configuration): boolean {
  if (voters.length === 0) return false;
  for (const ids of [voters, outgoing, learners]) {
    for (let at = 0; at < ids.length; at++) {
      const id = ids[at]!;
      if (id === 0 || id === u32Max || (at > 0 && id <= ids[at - 1]!)) return false;
    }
  }
  return !learners.some((id) => voters.includes(id) || outgoing.includes(id));
}

/** No other bytes mean the same: nothing follows, addresses are in order and valid UTF-8, reserved bytes are 0. */
function isCanonical(configuration: Configuration, body: Uint8Array): boolean {
  const canonical = encodeConfiguration(configuration);
  return (
    canonical.byteLength === body.byteLength && canonical.every((byte, at) => byte === body[at])
  );
}

function ascending(ids: readonly number[]): number[] {
  return [...ids].sort((a, b) => a - b);
}

interface Entry {
  /** 0 or the log's start for the one that the log began with. */
  readonly index: number;
  readonly configuration: Configuration;
}

/** The configurations along the log, from its start to its end; the last one is in force. */
export class ConfigurationStack {
  #entries: Entry[];

  constructor(startIndex: number, startConfiguration: Configuration) {
    this.#entries = [{ index: startIndex, configuration: startConfiguration }];
  }

  get current(): Configuration {
    return this.#entries.at(-1)!.configuration;
  }

  /** Index of the batch that the current one came with. */
  get currentIndex(): number {
    return this.#entries.at(-1)!.index;
  }

  static accepts(batch: Batch): boolean {
    return decodeConfiguration(bodyOf(batch)) !== undefined;
  }

  /** False where the batch's body is malformed. */
  push(batch: Batch): boolean {
    const configuration = decodeConfiguration(bodyOf(batch));
    if (configuration === undefined) return false;
    this.#entries.push({ index: batch.firstIndex, configuration });
    return true;
  }

  /** True when the configuration in force changed. */
  truncateFrom(firstIndex: number): boolean {
    const before = this.#entries.length;
    while (this.#entries.length > 1 && this.currentIndex >= firstIndex) this.#entries.pop();
    return this.#entries.length < before;
  }

  /** Configurations at or below the log's new start collapse into one. */
  compactTo(startIndex: number): void {
    while (this.#entries.length > 1 && this.#entries[1]!.index <= startIndex) this.#entries.shift();
  }

  /** The configuration as of `index`: what a snapshot or log start there must carry. */
  at(index: number): Configuration {
    const entry = this.#entries.findLast((candidate) => candidate.index <= index);
    return (entry ?? this.#entries[0]!).configuration;
  }
}
