/** Bodies of UpdateEntries as an application reads them, and its results as it answers them, in both shapes; commands and results as latin1. */

export interface Entry {
  readonly index: number;
  readonly command: string;
}

export interface UpdateReply {
  readonly body: string | Uint8Array;
}

const jsonStart = 0x7b;

/** A garbled answer to Ready says nothing of a shape, so the body tells. */
export function readUpdate(body: Buffer): { entries: Entry[]; isJson: boolean } {
  const isJson = body[0] === jsonStart;
  return { entries: isJson ? readJson(body) : readBinary(body), isJson };
}

export function updateReply(
  isJson: boolean,
  results: readonly (string | Uint8Array)[],
): UpdateReply {
  const all = results.map((result) =>
    typeof result === "string" ? Buffer.from(result, "latin1") : Buffer.from(result),
  );
  return { body: isJson ? jsonResults(all) : binary(all) };
}

function readJson(body: Buffer): Entry[] {
  const { Entries } = JSON.parse(body.toString()) as { Entries: { Index: number; Cmd: string }[] };
  return Entries.map(({ Index: index, Cmd }) => ({
    index,
    command: Buffer.from(Cmd, "base64").toString("latin1"),
  }));
}

function readBinary(body: Buffer): Entry[] {
  const entries: Entry[] = [];
  let at = 4;
  for (let runs = body.readUInt32LE(0); runs > 0; runs--) {
    let index = Number(body.readBigUInt64LE(at));
    const end = at + 16 + body.readUInt32LE(at + 12);
    let count = body.readUInt32LE(at + 8);
    at += 16;
    while (at < end) {
      const length = body.readUInt32LE(at);
      entries.push({ index, command: body.toString("latin1", at + 4, at + 4 + length) });
      index++;
      count--;
      at += 4 + length;
    }
    if (count !== 0) throw new Error("a run has another count than it says");
  }
  if (at !== body.byteLength) throw new Error("there is more than the runs");
  return entries;
}

function jsonResults(results: readonly Buffer[]): string {
  return JSON.stringify({
    Results: results.map((result) => ({ Result: result.toString("base64") })),
  });
}

function binary(results: readonly Buffer[]): Uint8Array {
  const count = Buffer.alloc(4);
  count.writeUInt32LE(results.length);
  const parts: Buffer[] = [count];
  for (const result of results) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(result.byteLength);
    parts.push(length, result);
  }
  return Buffer.concat(parts);
}
