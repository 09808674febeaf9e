/** Commands of sessions: what is written is read, and whatever bytes come, reading neither throws nor takes what is not there. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { readSectionHeader, sectionHeaderBytes, wholeSection } from "../../src/wire/section.ts";
import {
  principalBytesMax,
  readSessionCommand,
  type SessionCommand,
  sessionCommandSection,
} from "../../src/wire/session-commands.ts";
import { safeInteger, u32 } from "./messages.ts";
import { holds } from "./property.ts";

const command: fc.Arbitrary<SessionCommand> = fc.oneof(
  fc.record({
    op: fc.constant("open" as const),
    ttlMs: u32,
    principal: fc.uint8Array({ maxLength: 40 }),
  }),
  fc.record({ op: fc.constantFrom("keepAlive" as const, "close" as const), session: safeInteger }),
);

function read(section: Uint8Array): SessionCommand | undefined {
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
  const length = view.getUint32(sectionHeaderBytes, true);
  return readSessionCommand(view, sectionHeaderBytes + 4, length);
}

test("a command comes back as it was, in a whole section of one command", () => {
  holds(300, command, (given) => {
    const section = sessionCommandSection(given);
    expect(wholeSection(section)).toBe(true);
    expect(readSectionHeader(section, 0)).toMatchObject({ kind: 3, count: 1, session: 0 });
    expect(read(section)).toEqual(given);
  });
});

test("layouts are fixed", () => {
  const hex = (given: SessionCommand): string =>
    Buffer.from(sessionCommandSection(given).subarray(sectionHeaderBytes)).toString("hex");
  expect(hex({ op: "open", ttlMs: 0x01020304, principal: Uint8Array.of(9) })).toBe(
    "09000000" + "0101010004030201" + "09",
  );
  expect(hex({ op: "keepAlive", session: 0x0102 })).toBe(
    "10000000" + "0201000000000000" + "0201000000000000",
  );
  expect(hex({ op: "close", session: 1 })).toBe(
    "10000000" + "0301000000000000" + "0100000000000000",
  );
});

test("any other bytes are no command: a changed byte, a cut, something behind", () => {
  const change = fc.record({ command, at: u32, to: fc.integer({ min: 0, max: 255 }), cut: u32 });
  holds(2_000, change, ({ command: given, at, to, cut }) => {
    const section = sessionCommandSection(given);
    const bytes = section.slice(sectionHeaderBytes + 4);
    const view = new DataView(bytes.buffer);
    const shorter = cut % (bytes.byteLength + 1);
    const isWhole = shorter === bytes.byteLength;
    // A shorter principal is none that was announced; a shorter number none at all.
    if (!isWhole) expect(readSessionCommand(view, 0, shorter)).toBeUndefined();
    expect(readSessionCommand(view, 0, bytes.byteLength + 1)).toBeUndefined();
    bytes[at % bytes.byteLength] = to;
    const found = readSessionCommand(view, 0, bytes.byteLength);
    if (found === undefined) return;
    // What is read for a command is one: it is written back as the same bytes.
    expect(sessionCommandSection(found).slice(sectionHeaderBytes + 4)).toEqual(bytes);
  });
});

test("a principal over the bound is refused on both sides", () => {
  const principal = new Uint8Array(principalBytesMax + 1);
  expect(() => sessionCommandSection({ op: "open", ttlMs: 1, principal })).toThrow(RangeError);
  const bytes = new Uint8Array(8 + principal.byteLength);
  bytes.set([1, 1, principal.byteLength & 0xff, principal.byteLength >> 8]);
  const view = new DataView(bytes.buffer);
  expect(readSessionCommand(view, 0, bytes.byteLength)).toBeUndefined();
});
