/**
 * Writes in a session, or under an id each, with all that can befall them (faulty-cluster.ts): each at most once, in a session in the order of the
 * calls, and every answer true.
 * Each failure prints its seed; `SESSION_SEEDS=200 bun test …` runs more.
 */
import { expect, test } from "bun:test";
import { BargeError, type Client, connect, type WriteResult } from "../../src/client/index.ts";
import { FaultyCluster, type Weights } from "./faulty-cluster.ts";

const seeds = Number(process.env["SESSION_SEEDS"] ?? 8);
const firstSeed = Number(process.env["SESSION_SEED"] ?? 1);
const turns = 60;

interface Call {
  readonly text: string;
  result?: WriteResult;
  error?: BargeError;
}

for (const session of ["required", "request-ids"] as const) {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    test(`${session}, seed ${seed}`, async () => {
      const random = randomOf(seed);
      const weights = weightsOf(random);
      // What expires are sessions: ids live longer than any call.
      if (session === "request-ids") weights.expire = 0;
      using cluster = new FaultyCluster(random, weights);
      const calls = await load(cluster, session, random);
      cluster.deliverLate();
      judge(cluster, calls, seed);
      if (session === "required") judgeOrder(cluster, calls);
    });
  }
}

async function load(
  cluster: FaultyCluster,
  session: "required" | "request-ids",
  random: () => number,
): Promise<Call[]> {
  const client = connect({
    endpoints: cluster.endpoints,
    attemptTimeoutMs: 50,
    timeoutMs: 400,
    session,
  });
  const calls: Call[] = [];
  const done: Promise<void>[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const count = 1 + Math.floor(random() * 3);
    for (let i = 0; i < count; i++) done.push(call(client, calls, random));
    if (random() < 0.2) await Bun.sleep(random() * 40);
    else await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await Promise.all(done);
  // Whatever was given up and is on its way yet may still be sent again, up to here.
  cluster.healthy = true;
  const last: Call = { text: "last" };
  calls.push(last);
  last.result = await client.write(new TextEncoder().encode(last.text), { timeoutMs: 5_000 });
  await client.drain();
  return calls;
}

async function call(client: Client, calls: Call[], random: () => number): Promise<void> {
  const made: Call = { text: `${calls.length}` };
  calls.push(made);
  const options = {
    ...(random() < 0.3 ? { timeoutMs: Math.ceil(20 + random() * 200) } : {}),
    ...(random() < 0.2 ? { signal: AbortSignal.timeout(Math.ceil(random() * 100)) } : {}),
  };
  try {
    made.result = await client.write(new TextEncoder().encode(made.text), options);
  } catch (error) {
    made.error = error as BargeError;
  }
}

function judge({ ran }: FaultyCluster, calls: readonly Call[], seed: number): void {
  const where = new Map<string, number>();
  for (const { text, index } of ran) {
    if (where.has(text)) throw new Error(`seed ${seed}: ${text} was applied twice`);
    where.set(text, index);
  }
  for (const { text, result, error } of calls) {
    const index = where.get(text);
    const told = `seed ${seed}: ${text} at ${index}, told ${result?.index ?? error?.message}`;
    if (result !== undefined) {
      if (result.index !== index) throw new Error(told);
      const own = index % 3 === 0 ? `of ${text}` : "";
      if (new TextDecoder().decode(result.bytes) !== own) throw new Error(`${told}: result`);
    } else if (error === undefined || !(error instanceof BargeError)) {
      throw new Error(`seed ${seed}: ${text} ended with neither: ${String(error)}`);
    } else if (error.outcome === "not-applied" && index !== undefined) throw new Error(told);
    else if (error.outcome === "applied" && index === undefined) throw new Error(told);
  }
}

function judgeOrder({ ran }: FaultyCluster, calls: readonly Call[]): void {
  const applied = new Set(ran.map(({ text }) => text));
  const order = calls.filter(({ text }) => applied.has(text)).map(({ text }) => text);
  expect(ran.map(({ text }) => text)).toEqual(order);
}

/** Each seed has its own mix, in which many things never happen. */
function weightsOf(random: () => number): Weights {
  const some = (most: number): number => (random() < 0.5 ? 0 : random() * most);
  return {
    refuse: some(0.4),
    swallow: some(0.1),
    loseAnswer: some(0.1),
    late: some(0.1),
    cut: some(0.2),
    unknown: some(0.2),
    delay: some(0.4),
    expire: some(0.05),
  };
}

/** Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
