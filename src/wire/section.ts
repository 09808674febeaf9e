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

export const SectionKind = { plain: 0, session: 1, keyed: 2 } as const;
export type SectionKind = (typeof SectionKind)[keyof typeof SectionKind];

export interface SectionHeader {
  readonly kind: SectionKind;
  readonly count: number;
  readonly bodyBytes: number;
  readonly crc: number;
  /** Session id, 0 for a plain section. */
  readonly session: number;
  readonly firstSeq: number;
  readonly doneUpTo: number;
}

/**
 * Reads and bounds the header of the section at `offset`; undefined where it is not well formed or does not fit.
 * The whole section is `sectionHeaderBytes + bodyBytes` long.
 */
export function readSectionHeader(bytes: Uint8Array, offset: number): SectionHeader | undefined {
  if (bytes.byteLength - offset < sectionHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, sectionHeaderBytes);
  const kind = view.getUint8(0);
  const count = view.getUint32(4, true);
  const bodyBytes = view.getUint32(8, true);
  const session = readSafe(view, 16);
  const firstSeq = readSafe(view, 24);
  const doneUpTo = readSafe(view, 32);
  const wellFormed =
    kind <= SectionKind.keyed &&
    view.getUint8(1) === sectionVersion &&
    view.getUint16(2, true) === 0 &&
    count >= 1 &&
    count <= bodyBytes / 4 &&
    bodyBytes <= bytes.byteLength - offset - sectionHeaderBytes &&
    session >= 0 &&
    firstSeq >= 0 &&
    doneUpTo >= 0;
  if (!wellFormed) return undefined;
  return {
    kind: kind as SectionKind,
    count,
    bodyBytes,
    crc: view.getUint32(12, true),
    session,
    firstSeq,
    doneUpTo,
  };
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
  sealSection(bytes, 0, {
    kind: SectionKind.plain,
    count: commands.length,
    bodyBytes,
    session: 0,
    firstSeq: 0,
    doneUpTo: 0,
  });
  return bytes;
}

/** True when `bytes` are exactly one section, well formed and intact: what every section must be on arrival. */
export function wholeSection(bytes: Uint8Array): boolean {
  const header = readSectionHeader(bytes, 0);
  if (header === undefined) return false;
  const exact = sectionHeaderBytes + header.bodyBytes === bytes.byteLength;
  return exact && sectionIntact(bytes, 0, header);
}
