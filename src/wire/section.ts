/**
 * The section: the commands of one client and one turn of its event loop, laid out once by the SDK and carried
 * verbatim to the leader's log, the followers and the state machine [9]. Immutable, never split, the unit of retry. Pure.
 *
 *     0 kind u8 | 1 version u8 | 2 reserved u16 | 4 count u32 | 8 bodyBytes u32 | 12 crc u32
 *     16 session u64 | 24 firstSeq u64 | 32 doneUpTo u64 | 40 body: count × (length u32, bytes)
 *
 * The crc covers bytes 0..12, 16..40 and the body. The count is trusted to allot indexes, bounded by bytes / 4; the inner
 * lengths are checked only at apply, where a malformed section gives each of its commands an error result.
 */
import { crc32 } from "node:zlib";
import { readSafe, writeSafe } from "./batch.ts";

export const sectionVersion = 1;
export const sectionHeaderBytes = 40;

/**
 * `plain` is applied as often as it is in the log. `session` carries the commands from `firstSeq` on of the session that log index `session`
 * opened. `keyed` is one command under a request id, whose digest lies in `session`, `firstSeq` and `doneUpTo`. `control` opens, keeps alive or
 * closes a session (session-commands.ts); nodes lay it out, never clients.
 */
export const SectionKind = { plain: 0, session: 1, keyed: 2, control: 3 } as const;
export type SectionKind = (typeof SectionKind)[keyof typeof SectionKind];

export interface SectionHeader {
  readonly kind: SectionKind;
  readonly count: number;
  readonly bodyBytes: number;
  readonly crc: number;
  /** Session id: the log index of the entry that opened it. 0 for a plain section. */
  readonly session: number;
  /** Number of the first command within its session, whose commands count from 1. */
  readonly firstSeq: number;
  /** The results of the session's commands up to this one have arrived: the node need not keep them. */
  readonly doneUpTo: number;
}

/**
 * Reads and bounds the header of the section at `offset`; undefined where it is not well formed or does not fit.
 * The whole section is `sectionHeaderBytes + bodyBytes` long.
 */
export function readSectionHeader(bytes: Uint8Array, offset: number): SectionHeader | undefined {
  const reader = new SectionReader();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!reader.read(view, offset)) return undefined;
  const { kind, count, bodyBytes, crc, session, firstSeq, doneUpTo } = reader;
  return { kind, count, bodyBytes, crc, session, firstSeq, doneUpTo };
}

/** Reads one header after the other into the same fields, so that apply allots nothing per section. */
export class SectionReader implements SectionHeader {
  kind: SectionKind = SectionKind.plain;
  count = 0;
  bodyBytes = 0;
  crc = 0;
  session = 0;
  firstSeq = 0;
  doneUpTo = 0;

  /** False where the section at `offset` is not well formed or does not fit. */
  read(view: DataView, offset: number): boolean {
    if (view.byteLength - offset < sectionHeaderBytes) return false;
    const kind = view.getUint8(offset);
    this.count = view.getUint32(offset + 4, true);
    this.bodyBytes = view.getUint32(offset + 8, true);
    this.crc = view.getUint32(offset + 12, true);
    this.session = readSafe(view, offset + 16);
    this.firstSeq = readSafe(view, offset + 24);
    this.doneUpTo = readSafe(view, offset + 32);
    this.kind = kind as SectionKind;
    return (
      kind <= SectionKind.control &&
      view.getUint8(offset + 1) === sectionVersion &&
      view.getUint16(offset + 2, true) === 0 &&
      this.count >= 1 &&
      this.count <= this.bodyBytes / 4 &&
      this.bodyBytes <= view.byteLength - offset - sectionHeaderBytes &&
      this.session >= 0 &&
      this.firstSeq >= 0 &&
      this.doneUpTo >= 0
    );
  }
}

/** True when the section at `offset` has the crc that its header claims. The header must be well formed. */
export function sectionIntact(bytes: Uint8Array, offset: number, header: SectionHeader): boolean {
  return sectionCrc(bytes, offset, header.bodyBytes) === header.crc;
}

function sectionCrc(bytes: Uint8Array, offset: number, bodyBytes: number): number {
  const first = crc32(bytes.subarray(offset, offset + 12));
  return crc32(bytes.subarray(offset + 16, offset + sectionHeaderBytes + bodyBytes), first);
}

/**
 * Writes the header of a section whose body of `bodyBytes` already lies at `offset + sectionHeaderBytes`, crc included.
 */
export function sealSection(
  bytes: Uint8Array,
  offset: number,
  section: Omit<SectionHeader, "crc">,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, sectionHeaderBytes);
  view.setUint8(0, section.kind);
  view.setUint8(1, sectionVersion);
  view.setUint16(2, 0, true);
  view.setUint32(4, section.count, true);
  view.setUint32(8, section.bodyBytes, true);
  writeSafe(view, 16, section.session);
  writeSafe(view, 24, section.firstSeq);
  writeSafe(view, 32, section.doneUpTo);
  view.setUint32(12, sectionCrc(bytes, offset, section.bodyBytes), true);
}

/** Lays out whole commands as one plain section. For tests, the HTTP door and single writes; the SDK fills a pooled buffer itself. */
export function plainSection(commands: readonly Uint8Array[]): Uint8Array {
  return layOutSection(commands, plainIdentity);
}

export type SectionIdentity = Pick<SectionHeader, "kind" | "session" | "firstSeq" | "doneUpTo">;

const plainIdentity: SectionIdentity = {
  kind: SectionKind.plain,
  session: 0,
  firstSeq: 0,
  doneUpTo: 0,
};

export function layOutSection(
  commands: readonly Uint8Array[],
  identity: SectionIdentity,
): Uint8Array {
  let bodyBytes = 0;
  for (const command of commands) bodyBytes += 4 + command.byteLength;
  const bytes = new Uint8Array(sectionHeaderBytes + bodyBytes);
  const view = new DataView(bytes.buffer);
  let at = sectionHeaderBytes;
  for (const command of commands) {
    view.setUint32(at, command.byteLength, true);
    bytes.set(command, at + 4);
    at += 4 + command.byteLength;
  }
  sealSection(bytes, 0, { ...identity, count: commands.length, bodyBytes });
  return bytes;
}

/** True when `bytes` are exactly one section, well formed and intact: what every section must be on arrival. */
export function wholeSection(bytes: Uint8Array): boolean {
  const header = readSectionHeader(bytes, 0);
  if (header === undefined) return false;
  const exact = sectionHeaderBytes + header.bodyBytes === bytes.byteLength;
  return exact && sectionIntact(bytes, 0, header);
}
