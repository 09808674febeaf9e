/** When real nodes cut their logs: exactly where an interval ends, each node by its own policy, never where it is off; and how little a restart replays. */
import { describe, expect, test } from "bun:test";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { plainSection } from "../../src/wire/section.ts";
import { clientHello, RawClient, writeFrame } from "../misuse/raw-client.ts";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

const testMsMax = 60_000;
const off = ["--compact-entries=0", "--compact-bytes=0", "--compact-tail-bytes=0"];

interface Policy {
  readonly entries?: number;
  readonly bytes?: number;
  readonly tailBytes?: number;
}

async function ask(node: TestNode, method: string, path: string, body?: Policy): Promise<unknown> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
  const response = await node.fetch(path, init, 10_000);
  const answer: unknown = await response.json();
  expect({ path, status: response.status, answer }).toMatchObject({ status: 200 });
  return answer;
}

/** Of the last index that is gone from the node's log. */
async function startOf(node: TestNode): Promise<number> {
  return (await node.group()).firstIndex - 1;
}

/** Writes sections of puts, each a batch of its own where nothing else is written, and returns the index of its last command. */
class Writer implements Disposable {
  readonly #raw: RawClient;
  #written = 0;

  constructor(raw: RawClient) {
    this.#raw = raw;
  }

  async write(commands: number, valueBytes = 10, key = "key", sections = 1): Promise<number> {
    const put = encodeKvPut(Buffer.from(key), new Uint8Array(valueBytes));
    const section = plainSection(Array.from({ length: commands }, () => put));
    for (let left = sections; ;) {
      for (let at = 0; at < left; at++) this.#raw.send(writeFrame(++this.#written, section));
      await this.#raw.waitReplies(this.#written);
      const replies = this.#raw.replies.slice(-left);
      const last = replies.at(-1)!;
      left = replies.filter(({ type }) => type !== "writeReply").length;
      if (left === 0 && last.type === "writeReply") return last.firstIndex + commands - 1;
      // On a crowded machine a leader may be voted out: once more, whatever became of it.
      await Bun.sleep(20);
    }
  }

  [Symbol.dispose](): void {
    this.#raw[Symbol.dispose]();
  }
}

async function writerOf(node: TestNode): Promise<Writer> {
  return new Writer(await RawClient.connect(node.binary, { hello: clientHello }));
}

describe("the log is cut", () => {
  test(
    "at the end of the batch that completes an interval, and not before",
    () =>
      withCluster({ nodes: 1, flags: off }, async (cluster) => {
        const [node] = cluster.nodes as [TestNode];
        await until(
          "nothing else is written",
          async () => (await node.group()).applyVersion === applyVersionMax,
        );
        using writer = await writerOf(node);
        await ask(node, "PATCH", "/v1/compaction", { entries: 100 });
        let start = await startOf(node);
        for (const commands of [1, 7, 30, 250]) {
          const { lastIndex } = await node.group();
          const short = await writer.write(start + 99 - lastIndex);
          expect(short - start).toBe(99);
          expect(await startOf(node)).toBe(start);
          const last = await writer.write(commands);
          await until(`the log is cut at ${last}`, async () => (await startOf(node)) > start);
          expect(await startOf(node)).toBe(last);
          start = last;
        }
        // After a start too, even where the cut itself was not durable yet.
        await node.kill();
        node.start(["--compact-entries=100"]);
        await node.ready();
        await until("the log begins there", async () => (await startOf(node)) === start);
      }),
    testMsMax,
  );

  test(
    "by each node's own policy; by hand where that is off, and never by itself",
    () =>
      withCluster({ flags: off }, async (cluster) => {
        const leader = await cluster.leader();
        const [tight, loose] = (await cluster.followers()) as [TestNode, TestNode];
        using writer = await writerOf(leader);
        await ask(tight, "PATCH", "/v1/compaction", { entries: 50 });
        // More than half a segment, at which a log that is bounded by bytes would lose what all nodes have.
        for (let at = 0; at < 40; at++) await writer.write(1, 1_000_000, `large-${at}`);
        const last = await writer.write(100);
        await until("one node has cut", async () => last - (await startOf(tight)) < 50);
        await cluster.converged();
        for (const node of [leader, loose]) expect(await startOf(node)).toBe(0);
        const { lastIndex } = await loose.group();
        await ask(loose, "POST", "/v1/snapshot", { tailBytes: 0 });
        expect(await startOf(loose)).toBe(lastIndex);
        expect(await startOf(leader)).toBe(0);
      }),
    testMsMax,
  );

  test(
    "all along under 50,000 updates: the log stays short, and a restart replays an interval and what came while the machine was written",
    () =>
      withCluster(
        { flags: [`--compact-entries=${interval}`, ...off.slice(1)] },
        async (cluster) => {
          const leader = await cluster.leader();
          const [follower] = (await cluster.followers()) as [TestNode];
          const lengths = new Lengths(cluster.nodes);
          await Promise.all(
            [0, 1, 2, 3].map(async (number) => {
              using writer = await writerOf(leader);
              for (let at = 0; at < 100; at++) {
                await writer.write(25, 100, `register-${number}`, 5);
                if (number > 0) continue;
                // Afterwards it is kept for the one that was away.
                if (at < 50) await lengths.look();
                if (at !== 50) continue;
                await follower.kill();
                follower.start();
                await follower.ready();
                expect(replayed(follower)).toBeLessThanOrEqual(interval + whileWrittenMax);
              }
            }),
          );
          const { lastIndex } = await cluster.converged();
          expect(lastIndex).toBeGreaterThan(50_000);
          expect(lengths.longest).toBeGreaterThanOrEqual(interval);
          expect(lengths.longest).toBeLessThanOrEqual(interval + whileWrittenMax);

          await until("the machines are written", async () => {
            const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
            return groups.every((group) => lastIndex - group.machineDurableIndex < interval);
          });
          await Promise.all(cluster.nodes.map((node) => node.kill()));
          await cluster.start();
          for (const node of cluster.nodes) expect(replayed(node)).toBeLessThan(interval);
        },
      ),
    testMsMax,
  );
});

const interval = 1_000;
/** Commands. Usual are some hundreds; on a crowded machine it is more. */
const whileWrittenMax = 15_000;

/** What its log says of the last start. */
function replayed(node: TestNode): number {
  const said = [...node.log().matchAll(/"commands":(\d+),.*"replaying the log"/g)];
  return Number(said.at(-1)![1]);
}

/** The longest logs that were seen, in commands. */
class Lengths {
  readonly #nodes: readonly TestNode[];
  longest = 0;

  constructor(nodes: readonly TestNode[]) {
    this.#nodes = nodes;
  }

  async look(): Promise<void> {
    for (const node of this.#nodes) {
      if (!node.running) continue;
      const { firstIndex, lastIndex } = await node.group();
      this.longest = Math.max(this.longest, lastIndex - firstIndex + 1);
    }
  }
}
