/** Many writes on their way at once share what one alone pays for, and keep the order in which they were asked for [Z-76]. */
import { expect, test } from "bun:test";
import { type Client, connect } from "../../src/client/index.ts";
import { withCluster } from "./cluster.ts";

const testMsMax = 60_000;
const sliceMs = 300;
const slices = 5;
const writers = 64;
const timesMin = 10;

/** Writes per second of so many writers, each of which awaits its own. */
async function rateOf(client: Client, count: number): Promise<number> {
  const untilMs = performance.now() + sliceMs;
  let written = 0;
  const writer = async (name: number): Promise<void> => {
    let last = 0;
    while (performance.now() < untilMs) {
      const { revision } = await client.put(`key${name}`, "value");
      expect(revision).toBeGreaterThan(last);
      last = revision;
      written++;
    }
  };
  const beganMs = performance.now();
  await Promise.all(Array.from({ length: count }, (_, name) => writer(name)));
  return (written * 1_000) / (performance.now() - beganMs);
}

const median = (rates: number[]): number => rates.toSorted((a, b) => a - b)[rates.length >> 1]!;

test(
  `${writers} writers write ${timesMin} times as much as one, and more`,
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      await client.put("first", "value");
      const alone: number[] = [];
      const together: number[] = [];
      // By turns, as the machine has other things to do as well.
      for (let slice = 0; slice < slices; slice++) {
        alone.push(await rateOf(client, 1));
        together.push(await rateOf(client, writers));
      }
      expect(median(together) / median(alone)).toBeGreaterThan(timesMin);
    }),
  testMsMax,
);

test(
  "what one client asks for in a row lies in the log in that order, whoever waits for what",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
      const revisions: Promise<number>[] = [];
      for (let turn = 0; turn < 100; turn++) {
        for (let i = 0; i < 1 + (turn % 7); i++) {
          const put = client.put(`key${i}`, `${turn}`, turn % 3 === 0 ? { timeoutMs: 19_000 } : {});
          revisions.push(put.then(({ revision }) => revision));
        }
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      const told = await Promise.all(revisions);
      expect(told).toEqual(told.toSorted((a, b) => a - b));
      expect(new Set(told).size).toBe(told.length);
    }),
  testMsMax,
);
