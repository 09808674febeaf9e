/**
 * What opens, keeps alive and closes a session: the one command of a `control` section, laid out by the node that a client asked, and so a part of
 * the log that all members read alike. Pure.
 *
 *     open       0 op u8 | 1 version u8 | 2 principal length u16 | 4 ttlMs u32 | 8 principal, who may use it (empty until there are identities)
 *     keepAlive  0 op u8 | 1 version u8 | 2 zero u16 | 4 zero u32 | 8 session u64
 *     close      as keepAlive
 */
import { readSafe, writeSafe } from "./batch.ts";
import { layOutSection, SectionKind } from "./section.ts";

const commandVersion = 1;
const headBytes = 8;
const openOp = 1;
const ops = { keepAlive: 2, close: 3 } as const;
export const principalBytesMax = 1_024;

export type SessionCommand =
  | { readonly op: "open"; readonly ttlMs: number; readonly principal: Uint8Array }
  | { readonly op: "keepAlive" | "close"; readonly session: number };

/** A whole `control` section. */
export function sessionCommandSection(command: SessionCommand): Uint8Array {
  const identity = { kind: SectionKind.control, session: 0, firstSeq: 0, doneUpTo: 0 };
  return layOutSection([encode(command)], identity);
}

function encode(command: SessionCommand): Uint8Array {
  if (command.op === "open") {
    const { principal, ttlMs } = command;
    if (principal.byteLength > principalBytesMax) throw new RangeError("the principal is too long");
    const { bytes, view } = begin(openOp, principal.byteLength);
    view.setUint16(2, principal.byteLength, true);
    view.setUint32(4, ttlMs, true);
    bytes.set(principal, headBytes);
    return bytes;
  }
  const { bytes, view } = begin(ops[command.op], 8);
  writeSafe(view, headBytes, command.session);
  return bytes;
}

function begin(op: number, bodyBytes: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(headBytes + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, op);
  view.setUint8(1, commandVersion);
  return { bytes, view };
}

/** The command of `length` bytes at `at`; undefined where it is not well formed. */
export function readSessionCommand(
  view: DataView,
  at: number,
  length: number,
): SessionCommand | undefined {
  if (length < headBytes || at + length > view.byteLength) return undefined;
  if (view.getUint8(at + 1) !== commandVersion) return undefined;
  const op = view.getUint8(at);
  const small = view.getUint16(at + 2, true);
  const large = view.getUint32(at + 4, true);
  if (op === openOp) {
    if (small > principalBytesMax || length !== headBytes + small) return undefined;
    const principal = new Uint8Array(view.buffer, view.byteOffset + at + headBytes, small).slice();
    return { op: "open", ttlMs: large, principal };
  }
  if ((op !== ops.keepAlive && op !== ops.close) || length !== headBytes + 8) return undefined;
  const session = readSafe(view, at + headBytes);
  if (small !== 0 || large !== 0 || !(session >= 0)) return undefined;
  return { op: op === ops.close ? "close" : "keepAlive", session };
}
