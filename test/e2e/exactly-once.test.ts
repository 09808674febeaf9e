/**
 * Real nodes are killed and stopped, one and all, while clients count: no call fails, nothing is counted twice or lost, and what a client wrote in its
 * session lies in the log in the order of its calls.
 */
import { expect, test } from "bun:test";
import { type Client, connect } from "../../src/client/index.ts";
import { type TestCluster, until, withCluster } from "./cluster.ts";

const testMsMax = 90_000;
const clients = 2;
const stepsBetween = 20;

class Counting {
  readonly #client: Client<"json">;
  readonly #name: string;
  #stopped = false;
  increments = 0;
  readonly revisions: Promise<number>[] = [];

  constructor(cluster: TestCluster, name: string, session: "required" | "request-ids") {
    const { endpoints } = cluster;
    this.#client = connect({ endpoints, codec: "json", timeoutMs: 60_000, session });
    this.#name = name;
  }

  async run(): Promise<void> {
    while (!this.#stopped) {
      // Two that nobody waits for, so that several are on their way in order; their answers are looked at in the end.
      for (let i = 0; i < 2; i++) {
        const put = this.#client.put(`own/${this.#name}/${this.revisions.length}`, i);
        this.revisions.push(put.then(({ revision }) => revision));
      }
      const entry = await this.#client.get("count");
      const count = (entry?.value as number | undefined) ?? 0;
      const result = await this.#client.compareAndSet("count", count + 1, entry?.revision ?? 0);
      if (result.swapped) this.increments++;
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.drain();
  }
}

test(
  "no write is lost, applied twice or out of order, and none is unknown",
  () =>
    withCluster({}, async (cluster) => {
      const kept = Array.from(
        { length: clients },
        (_, i) => new Counting(cluster, `${i}`, "required"),
      );
      const all = [...kept, new Counting(cluster, "ids", "request-ids")];
      const runs = all.map((each) => each.run());
      const total = (): number => all.reduce((sum, { increments }) => sum + increments, 0);
      const goOn = async (): Promise<void> => {
        const goal = total() + stepsBetween;
        await Promise.race([until("they count on", () => total() >= goal), ...runs]);
      };
      await goOn();
      const leader = await cluster.leader();
      await leader.kill();
      await goOn();
      leader.start();
      await leader.ready();
      const next = await cluster.leader();
      next.pause();
      await goOn();
      next.resume();
      await goOn();
      await Promise.all(cluster.nodes.map((node) => node.kill()));
      for (const node of cluster.nodes) node.start();
      await goOn();
      for (const each of all) each.stop();
      await Promise.all(runs);

      await using reader = connect({ endpoints: cluster.endpoints, codec: "json" });
      expect((await reader.get("count"))?.value).toBe(total());
      const seen = new Set<number>();
      for (const each of all) {
        const { revisions } = each;
        const told = await Promise.all(revisions);
        if (kept.includes(each)) expect(told).toEqual(told.toSorted((a, b) => a - b));
        for (const revision of told) seen.add(revision);
      }
      expect(seen.size).toBe(all.reduce((sum, { revisions }) => sum + revisions.length, 0));
      await Promise.all(all.map((each) => each[Symbol.asyncDispose]()));
    }),
  testMsMax,
);
