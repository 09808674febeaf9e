/**
 * All misuse at once, against a daemon with its real bounds, while a neighbour reads and writes: `bun test/misuse/soak.ts [--seconds=75]
 * [--connections=2000]`. With 75 s also the longest time-out, that of idle connections, has to fire. Prints one JSON object; ends with 1 when
 * a criterion is missed.
 */
import { parseArgs } from "node:util";
import { type Client, connect } from "../../src/client/index.ts";
import { defaultLimits } from "../../src/limits.ts";
import { encodeHello } from "../../src/wire/hello.ts";
import { encodeKvGet, encodeKvRange } from "../../src/wire/kv.ts";
import { Consistency, FrameType } from "../../src/wire/messages.ts";
import { type TestNode, withCluster } from "../e2e/cluster.ts";
import { clientHello, frameOf, RawClient, rawHeader, readFrame, repeated } from "./raw-client.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "75" },
    connections: { type: "string", default: "2000" },
  },
});
const seconds = Number(values.seconds);
const connections = Number(values.connections);
const { helloTimeoutMs, frameTimeoutMs, idleTimeoutMs } = defaultLimits;
const deafCount = 32;

interface Misuse {
  readonly what: string;
  readonly clients: RawClient[];
  /** When the node must have ended them. */
  readonly timeoutMs: number;
}

async function begin(node: TestNode): Promise<Misuse[]> {
  const open = async (
    what: string,
    count: number,
    timeoutMs: number,
    hello: boolean,
    bytes: Uint8Array | undefined,
    deaf = false,
  ): Promise<Misuse> => {
    const connected = async (): Promise<RawClient> => {
      const options = hello ? { deaf, hello: clientHello } : { deaf };
      const client = await RawClient.connect(node.binary, options);
      if (bytes !== undefined) client.send(bytes);
      return client;
    };
    const clients = await Promise.all(Array.from({ length: count }, connected));
    return { what, clients, timeoutMs };
  };
  const eighth = Math.floor(connections / 8);
  const get = encodeKvGet(Buffer.from("big"));
  const ranges = Array.from({ length: 5_000 }, () => encodeKvRange({ limit: 0 }));
  const hello = frameOf((out) => encodeHello(out, clientHello));
  return [
    await open("idle", 4 * eighth, idleTimeoutMs, true, undefined),
    await open("silent", eighth, helloTimeoutMs, false, undefined),
    await open("half a hello", eighth, helloTimeoutMs, false, hello.subarray(0, 20)),
    await open("half a frame", eighth, frameTimeoutMs, true, rawHeader(FrameType.write, 8_000_000)),
    await open("byte by byte", eighth, frameTimeoutMs, true, rawHeader(FrameType.write, 1_000)),
    await open(
      "takes no values",
      deafCount,
      idleTimeoutMs,
      true,
      repeated(readFrame(1, Consistency.local, [get]), 4_000),
      true,
    ),
    await open(
      "takes no ranges",
      2,
      idleTimeoutMs,
      true,
      repeated(readFrame(1, Consistency.linearizable, ranges), 20),
      true,
    ),
  ];
}

/** Milliseconds of operations, one after the other. */
async function latencies(neighbour: Client, forMs: number): Promise<number[]> {
  const found: number[] = [];
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    const beginMs = performance.now();
    await neighbour.put("neighbour", "value");
    await neighbour.get("neighbour");
    found.push(performance.now() - beginMs);
    await Bun.sleep(2);
  }
  return found.toSorted((a, b) => a - b);
}

const quantile = (sorted: readonly number[], q: number): number =>
  Math.round(sorted[Math.floor(q * (sorted.length - 1))]! * 100) / 100;

await withCluster({ nodes: 1 }, async ({ nodes: [node] }) => {
  const neighbour = connect({ endpoints: node!.binary });
  await neighbour.put("big", new Uint8Array(1024 * 1024));
  const alone = await latencies(neighbour, 5_000);
  const rssBefore = (await node!.status()).peakRssBytes;

  const beginMs = performance.now();
  const misuses = await begin(node!);
  const openedMs = Math.round(performance.now() - beginMs);
  const trickle = setInterval(() => {
    const slow = misuses.find(({ what }) => what === "byte by byte")!;
    for (const client of slow.clients) if (!client.closed) client.send(new Uint8Array(1));
  }, 1_000);
  const beside = await latencies(neighbour, seconds * 1_000);
  clearInterval(trickle);
  const rssGrowth = (await node!.status()).peakRssBytes - rssBefore;
  // A deaf socket learns of its end when it reads; then what the kernel still held comes first.
  for (const { clients } of misuses)
    for (const client of clients) if (!client.closed) client.read();
  await Bun.sleep(2_000);

  const wrong: string[] = [];
  const endings = misuses.map(({ what, clients, timeoutMs }) => {
    const lives = clients.filter(({ closed }) => closed).map(({ lifeMs }) => lifeMs);
    const due = timeoutMs + 5_000 < seconds * 1_000;
    if (due && lives.length < clients.length) wrong.push(`${what}: some are still open`);
    const sorted = lives.toSorted((a, b) => a - b);
    return {
      what,
      count: clients.length,
      closed: lives.length,
      lifeMs: lives.length === 0 ? null : [quantile(sorted, 0), quantile(sorted, 1)],
    };
  });
  const p99 = { aloneMs: quantile(alone, 0.99), besideMs: quantile(beside, 0.99) };
  if (p99.besideMs > 2 * p99.aloneMs) wrong.push("the neighbour's p99 more than doubled");
  if (rssGrowth > 512 * 1024 ** 2) wrong.push(`memory grew by ${rssGrowth} bytes`);
  const p50 = { aloneMs: quantile(alone, 0.5), besideMs: quantile(beside, 0.5) };
  const max = { aloneMs: quantile(alone, 1), besideMs: quantile(beside, 1) };
  const result = { openedMs, endings, neighbour: { p50, p99, max }, rssGrowth, missed: wrong };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  for (const { clients } of misuses) for (const client of clients) client[Symbol.dispose]();
  await neighbour.close();
  if (wrong.length > 0) process.exitCode = 1;
});
