/** Receives the body of an HTTP request within bounds: of its own size, of all bodies together, and of time. */
import { BargeError } from "../errors.ts";

/** Bytes that may be held at once, over all requests. */
export class ByteBudget {
  readonly #bytesMax: number;
  #taken = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  take(byteCount: number): void {
    if (this.#taken + byteCount > this.#bytesMax) {
      throw new BargeError("overloaded", "Too many request bodies at once; try again.");
    }
    this.#taken += byteCount;
  }

  give(byteCount: number): void {
    this.#taken -= byteCount;
  }
}

export interface BodyBounds {
  readonly bytesMax: number;
  readonly durationMsMax: number;
}

/** Receives the body and lets `use` have it; its bytes count towards the budget until `use` is done. */
export async function withBody<T>(
  request: Request,
  bounds: BodyBounds,
  budget: ByteBudget,
  use: (body: Uint8Array) => Promise<T>,
): Promise<T> {
  // What the client declares is refused before it is received.
  if (Number(request.headers.get("content-length") ?? 0) > bounds.bytesMax) throw tooLarge(bounds);
  const chunks: Uint8Array[] = [];
  let size = 0;
  let held = 0;
  const startMs = performance.now();
  try {
    for await (const chunk of arriving(request)) {
      size += chunk.byteLength;
      if (size > bounds.bytesMax) throw tooLarge(bounds);
      budget.take(chunk.byteLength);
      held = size;
      chunks.push(chunk);
      if (performance.now() - startMs > bounds.durationMsMax) throw tooSlow();
    }
    return await use(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
  } finally {
    budget.give(held);
  }
}

/** The body as it comes; a client that goes away on the way is no fault of ours. */
async function* arriving(request: Request): AsyncGenerator<Uint8Array> {
  try {
    yield* request.body ?? [];
  } catch (error) {
    throw new BargeError("aborted", "The connection ended before the body did.", {
      outcome: "not-applied",
      cause: error,
    });
  }
}

function tooLarge({ bytesMax }: BodyBounds): BargeError {
  return new BargeError("too_large", `The body may be at most ${bytesMax} bytes.`);
}

function tooSlow(): BargeError {
  return new BargeError("timeout", "The body did not arrive in time; nothing was written.", {
    outcome: "not-applied",
  });
}
