/**
 * The group's members as a log record: the body of a configuration batch, and the stack of configurations along the log. A configuration is in force
 * as soon as it is appended, and taken back when its batch is truncated [37].
 *
 * The encoding is canonical: equal configurations have equal bytes, so the first batch of a group is the same on every node [36].
 *
 *     version u8 | 0 u8 ×3 | voters u32 | outgoing u32 | learners u32 | addresses u32 | ids u32 … | (id u32, bytes u16, UTF-8) …
 *
 * That is version 1: all of a cluster's first configuration. Version 2 goes on, and is used only where one of these is not empty:
 *
 *     removed u32 | incarnations u32 | promotions u32 | removed ids u32 … | (id u32, place u32) … | (id u32, bytes u16, UTF-8) …
 */
import { bodyOf } from "../wire/batch.ts";
import type { Batch } from "../wire/batch.ts";
import type { Configuration } from "./ready.ts";

const headerBytes = 20;
const moreHeaderBytes = 12;
/** Version of a configuration that has no more than a cluster's first one. */
const plainVersion = 1;
const fullVersion = 2;
/** Members of one group, over all roles; far above what makes sense, so that a count can be trusted before allocation. */
const membersMax = 1024;
/** Former members that a configuration remembers; with those of now there are no more either. */
export const removedMax = 16_384;
const u32Max = 0xffff_ffff;

export function isVoter(configuration: Configuration, nodeId: number): boolean {
  return configuration.voters.includes(nodeId) || configuration.outgoing.includes(nodeId);
}

export function isJoint(configuration: Configuration): boolean {
  return configuration.outgoing.length > 0;
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
  const removed = ascending(configuration.removed ?? []);
  const addresses = namedTexts(configuration.addresses);
  const incarnations = namedTexts(configuration.incarnations ?? {});
  const promotions = Object.entries(configuration.promotions ?? {})
    .map(([id, place]) => [Number(id), place] as const)
    .sort(([a], [b]) => a - b)
    .flat();
  const isPlain = removed.length + incarnations.length + promotions.length === 0;
  const ids = [...voters, ...outgoing, ...learners];
  const bytes =
    headerBytes +
    4 * ids.length +
    textsBytes(addresses) +
    (isPlain
      ? 0
      : moreHeaderBytes + 4 * (removed.length + promotions.length) + textsBytes(incarnations));
  const writer = new ConfigurationWriter(bytes);
  writer.u32(isPlain ? plainVersion : fullVersion);
  for (const list of [voters, outgoing, learners, addresses]) writer.u32(list.length);
  writer.ids(ids);
  writer.texts(addresses);
  if (isPlain) return writer.body;
  writer.u32(removed.length);
  writer.u32(incarnations.length);
  writer.u32(promotions.length / 2);
  writer.ids(removed);
  writer.ids(promotions);
  writer.texts(incarnations);
  return writer.body;
}

/** Undefined where the bytes are not the canonical encoding of a configuration. */
export function decodeConfiguration(body: Uint8Array): Configuration | undefined {
  const reader = new ConfigurationReader(body);
  const version = reader.u32();
  if (version !== plainVersion && version !== fullVersion) return undefined;
  const voterCount = reader.count(membersMax);
  const outgoingCount = reader.count(membersMax);
  const learnerCount = reader.count(membersMax);
  const addressCount = reader.count(membersMax);
  const plain: Configuration = {
    voters: reader.ids(voterCount),
    outgoing: reader.ids(outgoingCount),
    learners: reader.ids(learnerCount),
    addresses: reader.texts(addressCount),
  };
  const configuration = version === plainVersion ? plain : readMore(reader, plain);
  const isWhole = !reader.failed && wellFormed(configuration) && isCanonical(configuration, body);
  return isWhole ? configuration : undefined;
}

function readMore(reader: ConfigurationReader, plain: Configuration): Configuration {
  const removedCount = reader.count(removedMax);
  const incarnationCount = reader.count(membersMax);
  const promotionCount = reader.count(membersMax);
  const removed = reader.ids(removedCount);
  const promotions: Record<number, number> = {};
  for (let at = 0; at < promotionCount && !reader.failed; at++) {
    const id = reader.u32();
    promotions[id] = reader.u32();
  }
  const incarnations = reader.texts(incarnationCount);
  return {
    ...plain,
    ...(removed.length === 0 ? {} : { removed }),
    ...(Object.keys(incarnations).length === 0 ? {} : { incarnations }),
    ...(promotionCount === 0 ? {} : { promotions }),
  };
}

interface NamedText {
  readonly id: number;
  readonly bytes: Uint8Array;
}

function namedTexts(texts: Readonly<Record<number, string>>): NamedText[] {
  return Object.entries(texts)
    .map(([id, text]) => ({ id: Number(id), bytes: encoder.encode(text) }))
    .sort((a, b) => a.id - b.id);
}

function textsBytes(texts: readonly NamedText[]): number {
  return texts.reduce((sum, { bytes }) => sum + 6 + bytes.byteLength, 0);
}

class ConfigurationWriter {
  readonly body: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(bytes: number) {
    this.body = new Uint8Array(bytes);
    this.#view = new DataView(this.body.buffer);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#offset, value, true);
    this.#offset += 4;
  }

  ids(ids: readonly number[]): void {
    for (const id of ids) this.u32(id);
  }

  texts(texts: readonly NamedText[]): void {
    for (const { id, bytes } of texts) {
      this.u32(id);
      this.#view.setUint16(this.#offset, bytes.byteLength, true);
      this.body.set(bytes, this.#offset + 2);
      this.#offset += 2 + bytes.byteLength;
    }
  }
}

/** Made once: a new one for each address would be kilobytes outside the heap until they are collected. */
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Reads in order; what goes beyond the bytes, or over a bound, reads as nothing and is remembered in `failed`. */
class ConfigurationReader {
  readonly #body: Uint8Array;
  readonly #view: DataView;
  #offset = 0;
  failed = false;

  constructor(body: Uint8Array) {
    this.#body = body;
    this.#view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  }

  u32(): number {
    if (!this.#has(4)) return 0;
    this.#offset += 4;
    return this.#view.getUint32(this.#offset - 4, true);
  }

  count(max: number): number {
    const count = this.u32();
    if (count <= max) return count;
    this.failed = true;
    return 0;
  }

  ids(count: number): number[] {
    if (!this.#has(4 * count)) return [];
    return Array.from({ length: count }, () => this.u32());
  }

  texts(count: number): Record<number, string> {
    const texts: Record<number, string> = {};
    for (let at = 0; at < count && this.#has(6); at++) {
      const id = this.u32();
      const bytes = this.#view.getUint16(this.#offset, true);
      this.#offset += 2;
      if (!this.#has(bytes)) break;
      texts[id] = decoder.decode(this.#body.subarray(this.#offset, this.#offset + bytes));
      this.#offset += bytes;
    }
    return texts;
  }

  #has(bytes: number): boolean {
    if (this.failed || this.#offset + bytes > this.#body.byteLength) this.failed = true;
    return !this.failed;
  }
}

/** Ids ascending and not 0, at least one voter, no learner among the voters, no member among the removed, promotions of learners only. */
function wellFormed(configuration: Configuration): boolean {
  const { voters, outgoing, learners, removed = [], promotions = {} } = configuration;
  if (voters.length === 0) return false;
  for (const ids of [voters, outgoing, learners, removed]) {
    for (let at = 0; at < ids.length; at++) {
      const id = ids[at]!;
      if (id === 0 || id === u32Max || (at > 0 && id <= ids[at - 1]!)) return false;
    }
  }
  const members = new Set(membersOf(configuration));
  if (removed.some((id) => members.has(id))) return false;
  if (learners.some((id) => voters.includes(id))) return false;
  return Object.entries(promotions).every(
    ([id, place]) =>
      learners.includes(Number(id)) &&
      !outgoing.includes(Number(id)) &&
      (place === 0 || members.has(place)),
  );
}

/** Equal members in equal roles, at equal addresses. */
export function sameConfiguration(a: Configuration, b: Configuration): boolean {
  const [some, others] = [encodeConfiguration(a), encodeConfiguration(b)];
  return some.byteLength === others.byteLength && some.every((byte, at) => byte === others[at]);
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
  /** The last one of them: it is asked for at each tick. */
  #current: Configuration;

  constructor(startIndex: number, startConfiguration: Configuration) {
    this.#entries = [{ index: startIndex, configuration: startConfiguration }];
    this.#current = startConfiguration;
  }

  get current(): Configuration {
    return this.#current;
  }

  /** Index of the batch that the current one came with. */
  get currentIndex(): number {
    return this.#entries.at(-1)!.index;
  }

  /** The log begins anew: whatever was known of it is void. */
  reset(startIndex: number, configuration: Configuration): void {
    this.#entries = [{ index: startIndex, configuration }];
    this.#current = configuration;
  }

  static accepts(batch: Batch): boolean {
    return decodeConfiguration(bodyOf(batch)) !== undefined;
  }

  /** False where the batch's body is malformed. */
  push(batch: Batch): boolean {
    const configuration = decodeConfiguration(bodyOf(batch));
    if (configuration === undefined) return false;
    this.#entries.push({ index: batch.firstIndex, configuration });
    this.#current = configuration;
    return true;
  }

  /** True when the configuration in force changed. */
  truncateFrom(firstIndex: number): boolean {
    const before = this.#entries.length;
    while (this.#entries.length > 1 && this.currentIndex >= firstIndex) this.#entries.pop();
    this.#current = this.#entries.at(-1)!.configuration;
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
