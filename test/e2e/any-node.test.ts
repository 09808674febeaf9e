/**
 * Any node takes any request: what is written through it, what is refused, and what fails as it is applied is the same as through the leader, and on
 * all nodes.
 */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { raisedTo } from "./upgrade-round.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";

const testMsMax = 60_000;
const writes = 1_000;
const lanes = 8;
const malformed = 1;

const base64 = (text: string): string => Buffer.from(text).toString("base64");

test(
  "a thousand writes through each of the nodes in turn: each is there at once where it was asked for, and on all in the end",
  () =>
    withCluster({}, async (cluster) => {
      const lane = async (first: number): Promise<void> => {
        for (let count = first; count < writes; count += lanes) {
          const node = cluster.nodes[count % cluster.nodes.length]!;
          const path = `/v1/kv/key${count}`;
          const put = await node.fetch(path, { method: "PUT", body: `value ${count}` });
          const { revision } = (await put.json()) as { readonly revision: number };
          const got = await node.fetch(`${path}?consistency=local`);
          expect([put.status, await got.text()]).toEqual([200, `value ${count}`]);
          expect(got.headers.get("barge-revision")).toBe(String(revision));
        }
      };
      await Promise.all(Array.from({ length: lanes }, (_, first) => lane(first)));
      const { appliedIndex } = await cluster.converged();
      expect(appliedIndex).toBeGreaterThan(writes);
      for (const node of cluster.nodes) {
        const page = await node.fetch(`/v1/kv?prefix=key&limit=1000&consistency=local`);
        const { items, more } = (await page.json()) as { items: unknown[]; more: boolean };
        expect([items.length, more]).toEqual([writes, false]);
      }
    }),
  testMsMax,
);

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body?: string;
}

const txn = (body: unknown): Asked => ({
  method: "POST",
  path: "/v1/txn",
  body: JSON.stringify(body),
});

/** Refused as it is applied: the log holds it. */
const failing: Record<string, Asked> = {
  "a revision that is another": {
    method: "PUT",
    path: "/v1/kv/taken?prevRevision=0",
    body: "mine",
  },
  "a delete of what is not there": { method: "DELETE", path: "/v1/kv/absent" },
  "a transaction whose compares do not hold": txn({
    compare: [{ key: base64("taken"), exists: false }],
    success: [{ op: "put", key: base64("taken"), value: base64("mine") }],
    failure: [{ op: "get", key: base64("taken") }],
  }),
};

/** Wrong whatever the state is: it never gets into the log. */
const wrong: Record<string, Asked> = {
  "a key that is too long": { method: "PUT", path: `/v1/kv/${"k".repeat(4_097)}`, body: "x" },
  "a value that is too large": {
    method: "PUT",
    path: "/v1/kv/large",
    body: "x".repeat(1024 * 1024 + 1),
  },
  "a revision that is no number": { method: "PUT", path: "/v1/kv/a?prevRevision=x", body: "x" },
  "a group that is not there": { method: "PUT", path: "/v1/kv/a?group=7", body: "x" },
  "a parameter that is unknown": { method: "PUT", path: "/v1/kv/a?sync=no", body: "x" },
  "a transaction of no such operation": txn({ success: [{ op: "push", key: base64("a") }] }),
  "a transaction on the empty key": txn({ success: [{ op: "delete", key: "" }] }),
  "a transaction that is none": { method: "POST", path: "/v1/txn", body: "[" },
};

async function ask(node: TestNode, { path, ...init }: Asked): Promise<[number, unknown]> {
  const response = await node.fetch(path, init);
  return [response.status, await response.json()];
}

/** Without the revision that every command has of its own. */
function same(answer: [number, unknown]): [number, unknown] {
  const [status, body] = answer;
  const { revision: _, ...rest } = body as Record<string, unknown>;
  return [status, rest];
}

async function answersOfAll(
  cluster: TestCluster,
  cases: Record<string, Asked>,
): Promise<Map<string, [number, unknown]>> {
  const answers = new Map<string, [number, unknown]>();
  for (const [what, asked] of Object.entries(cases)) {
    for (const node of cluster.nodes) {
      const answer = same(await ask(node, asked));
      expect([what, answer]).toEqual([what, answers.get(what) ?? answer]);
      answers.set(what, answer);
    }
  }
  return answers;
}

test(
  "what fails, fails in the same words through any node, alike on all of them, and the log goes on behind it; what is wrong never gets there",
  () =>
    withCluster({}, async (cluster) => {
      // From then on nothing is in the log that nobody asked for.
      await raisedTo(cluster, applyVersionMax);
      const [first] = cluster.nodes as [TestNode];
      await ask(first, { method: "PUT", path: "/v1/kv/taken", body: "yours" });
      const before = await cluster.converged();
      const failed = await answersOfAll(cluster, failing);
      expect([...failed.values()].map(([status]) => status)).toEqual([409, 200, 200]);
      const after = await cluster.converged();
      const commands = Object.keys(failing).length * cluster.nodes.length;
      expect(after.lastIndex).toBe(before.lastIndex + commands);

      const refused = await answersOfAll(cluster, wrong);
      expect([...refused.values()].map(([status]) => status)).toEqual([
        413, 413, 400, 404, 400, 400, 400, 400,
      ]);
      for (const [, answer] of refused) {
        expect(answer[1]).toMatchObject({ error: { outcome: "not-applied", retryable: false } });
      }
      expect((await cluster.converged()).lastIndex).toBe(after.lastIndex);
    }),
  testMsMax,
);

test(
  "a command that nobody can read is an error to its caller, the same on all nodes, and those beside it are applied",
  () =>
    withCluster({}, async (cluster) => {
      await using client = connect({ endpoints: cluster.endpoints });
      const { revision } = await client.put("before", "1");
      const unreadable = [
        new Uint8Array(0),
        Uint8Array.of(250, 1, 0, 0, 0, 0, 0, 0),
        Uint8Array.of(1, 250, 0, 0, 0, 0, 0, 0),
        new TextEncoder().encode("no command at all"),
      ];
      const results = await Promise.all(unreadable.map((command) => client.write(command)));
      const { revision: last } = await client.put("after", "1");
      expect(results.map(({ index, code }) => [index, code])).toEqual(
        unreadable.map((_, at) => [revision + 1 + at, malformed]),
      );
      expect(last).toBe(revision + 1 + unreadable.length);
      await cluster.converged();
    }),
  testMsMax,
);

test(
  "a client that was told of one node knows all of them, and goes on when that one is gone",
  () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      await using client = connect({ endpoints: leader.binary, timeoutMs: 20_000 });
      await client.put("key", "1");
      expect(client.endpoints().toSorted()).toEqual(cluster.endpoints.split(",").toSorted());
      await leader.kill();
      await client.put("key", "2");
      const next = await cluster.leader(cluster.nodes.filter((node) => node !== leader));
      await until("writes go to the new leader", async () => {
        await client.get("key");
        return client.leader() === next.binary;
      });
      const got = await client.get("key");
      expect(new TextDecoder().decode(got?.value)).toBe("2");
    }),
  testMsMax,
);

test(
  "over HTTP, where a majority is missing: 503 while nobody leads, 504 where a leader was asked, and what is known of the write",
  () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const others = await cluster.followers();
      await Promise.all(others.map((node) => node.kill()));
      const asked: Asked = { method: "PUT", path: "/v1/kv/a?timeoutMs=300", body: "1" };
      const [status, body] = await ask(leader, asked);
      const { error } = body as { readonly error: { code: string; outcome: string } };
      expect(
        {
          no_leader: [503, "not-applied"],
          timeout: [504, "unknown"],
          outcome_unknown: [503, "unknown"],
        }[error.code],
      ).toEqual([status, error.outcome]);
      await until("it knows that it leads nobody", async () => {
        const answer = await ask(leader, asked);
        return (
          answer[0] === 503 &&
          Bun.deepMatch(
            { error: { code: "no_leader", outcome: "not-applied", retryable: true } },
            answer[1],
          )
        );
      });
    }),
  testMsMax,
);
