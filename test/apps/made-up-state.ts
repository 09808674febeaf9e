/**
 * Applications of a test, in its own process, whose state is an index and blocks that follow from it: as large as one likes, made up while it is sent, and checked when
 * it comes back. One per node, each below the node's number.
 */
import { crc32 } from "node:zlib";

export const blockBytes = 1024 * 1024;

export interface MadeUp {
  readonly megabytes: number;
  /** The stream is no faster. */
  readonly megabytesPerSecond?: number;
}

/** Of one node. */
export class MadeUpState {
  index = 0;
  saves = 0;
  recovered = 0;
  short = 0;
  broken = 0;
  wrong = 0;
  readonly #blocks: number;
  readonly #blockMs: number;

  constructor({ megabytes, megabytesPerSecond = Infinity }: MadeUp) {
    this.#blocks = megabytes;
    this.#blockMs = 1_000 / megabytesPerSecond;
  }

  async answer(name: string, request: Request): Promise<Response> {
    switch (name) {
      case "LastLogIndex":
        return Response.json({ LastLogIndex: this.index });
      case "UpdateEntries": {
        const { Entries } = (await request.json()) as { Entries: { Index: number }[] };
        this.index = Math.max(this.index, Entries.at(-1)!.Index);
        return new Response("");
      }
      case "PrepareSnapshot":
        return Response.json({ Index: this.index });
      case "SaveSnapshot": {
        // In chunks, so nobody knows beforehand how long it is: the daemon reads it once to learn that.
        this.saves++;
        const { Index } = (await request.json()) as { Index: number };
        return new Response(blocksOf(Index, this.#blocks, this.#blockMs));
      }
      case "RecoverFromSnapshot":
        return this.#recover(request);
      default:
        return new Response("");
    }
  }

  async #recover(request: Request): Promise<Response> {
    const said = Number(request.headers.get("content-length"));
    let size = 0;
    let crc = 0;
    let head = new Uint8Array(0);
    try {
      for await (const chunk of request.body ?? []) {
        if (head.byteLength < 8) head = Buffer.concat([head, chunk]).subarray(0, 8) as never;
        crc = crc32(chunk, crc);
        size += chunk.byteLength;
      }
    } catch {
      this.broken++;
      return new Response("broken", { status: 500 });
    }
    if (size !== said || size !== this.#blocks * blockBytes) {
      this.short++;
      return new Response("short", { status: 500 });
    }
    const index = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0));
    let whole = 0;
    for await (const block of blocksOf(index, this.#blocks)) whole = crc32(block, whole);
    if (whole !== crc) this.wrong++;
    this.index = index;
    this.recovered++;
    return new Response("");
  }
}

/** The first of them begins with the index; the same for the same index. */
async function* blocksOf(
  index: number,
  count: number,
  blockMs = 0,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const startMs = performance.now();
  const block = new Uint8Array(blockBytes);
  const view = new DataView(block.buffer);
  for (let at = 0; at < blockBytes; at += 4) view.setUint32(at, Math.imul(at + 1, 2_654_435_761));
  for (let number = 0; number < count; number++) {
    const aheadMs = startMs + number * blockMs - performance.now();
    if (aheadMs > 1) await Bun.sleep(aheadMs);
    view.setBigUint64(0, BigInt(number === 0 ? index : number * 1_000_003 + index));
    yield block.slice();
  }
}

/** The state of node 1 answers below `/1`, and so on. */
export function serveMadeUp(states: readonly MadeUpState[]): Bun.Server<undefined> {
  return Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 255,
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    fetch: (request) => {
      const [, node, name] = new URL(request.url).pathname.split("/");
      return states[Number(node) - 1]!.answer(name!, request);
    },
  });
}
