/**
 * Writes over HTTP under a request id, each sent again and again to any node while leaders are killed: every answer to one id is the same, and
 * it was done once.
 */
import { expect, test } from "bun:test";
import { type TestCluster, until, withCluster } from "./cluster.ts";

const writers = 4;
const kills = 3;
const writesPerKill = 30;
const testMsMax = 60_000;
const retryMs = 20;

interface Answer {
  readonly revision: number;
}

/** Until a node says what came of it. */
async function write(cluster: TestCluster, key: string, id: string, turn: number): Promise<Answer> {
  for (let attempt = turn; ; attempt++) {
    const node = cluster.nodes[attempt % cluster.nodes.length]!;
    try {
      const response = await node.fetch(`/v1/kv/${key}?timeoutMs=1000`, {
        method: "PUT",
        body: id,
        headers: { "barge-request-id": id },
      });
      const body = (await response.json()) as { error?: { retryable: boolean; outcome: string } };
      if (response.ok) return body as unknown as Answer;
      const { error } = body;
      if (error?.retryable !== true) throw new Error(`refused: ${JSON.stringify(body)}`);
    } catch (error) {
      // The node is down, or did not answer.
      if (error instanceof Error && error.message.startsWith("refused")) throw error;
    }
    await Bun.sleep(retryMs);
  }
}

test(
  "each is done once, and both of its senders get the same answer",
  () =>
    withCluster({}, async (cluster) => {
      const answers = new Map<string, Answer>();
      let written = 0;
      let ends = false;
      const writer = async (number: number): Promise<void> => {
        for (let count = 0; !ends; count++) {
          const id = `writer ${number}, request ${count}`;
          const key = `k${number}.${count}`;
          // Twice at once, over different nodes.
          const both = await Promise.all([
            write(cluster, key, id, count),
            write(cluster, key, id, count + 1),
          ]);
          expect(both[1]).toEqual(both[0]);
          answers.set(key, both[0]);
          written++;
        }
      };
      const running = Promise.all(Array.from({ length: writers }, (_, number) => writer(number)));
      for (let kill = 0; kill < kills; kill++) {
        const due = written + writesPerKill;
        while (written < due) await Bun.sleep(5);
        const leader = await cluster.leader();
        await leader.kill();
        const later = written + writesPerKill;
        while (written < later) await Bun.sleep(5);
        leader.start();
        await leader.ready();
      }
      ends = true;
      await running;
      await cluster.converged();
      // Done twice, a key would have a later revision than its first answer said.
      for (const [key, { revision }] of answers) {
        const response = await cluster.nodes[0]!.fetch(`/v1/kv/${key}`);
        expect(Number(response.headers.get("barge-revision"))).toBe(revision);
      }
      expect(answers.size).toBeGreaterThan(kills * writesPerKill);
    }),
  testMsMax,
);

test(
  "a write whose answer never came, as the leader died between its commit and its answer: asked again elsewhere, it has the answer of then",
  () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const [follower] = await cluster.followers();
      const id = "asked again";
      const body = "once";
      // Nobody reads what comes back.
      const host = leader.http.split(":")[0]!;
      const port = Number(leader.http.split(":")[1]);
      const socket = await Bun.connect({ hostname: host, port, socket: { data(): void {} } });
      socket.write(
        `PUT /v1/kv/key?prevRevision=0 HTTP/1.1\r\nHost: ${host}\r\nbarge-request-id: ${id}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      let revision = 0;
      await until("a follower has applied it", async () => {
        const found = await follower!.fetch("/v1/kv/key?consistency=local");
        revision = Number(found.headers.get("barge-revision"));
        return found.ok;
      });
      await leader.kill();
      socket.end();
      for (const node of cluster.nodes.filter((each) => each !== leader)) {
        const headers = { "barge-request-id": id };
        const again = await node.fetch(
          "/v1/kv/key?prevRevision=0",
          { method: "PUT", body, headers },
          10_000,
        );
        expect([again.status, await again.json()]).toEqual([200, { revision }]);
      }
    }),
  testMsMax,
);

test(
  "an id is for one request, of 1 to 256 characters, and outlives all nodes",
  () =>
    withCluster({ nodes: 1 }, async (cluster) => {
      const node = cluster.nodes[0]!;
      const put = async (value: string, id: string): Promise<[number, unknown]> => {
        const headers = { "barge-request-id": id };
        const response = await node.fetch("/v1/kv/key", { method: "PUT", body: value, headers });
        return [response.status, await response.json()];
      };
      const first = await put("one", "id");
      expect(first[0]).toBe(200);
      expect(await put("one", "id")).toEqual(first);
      const outcome = { outcome: "not-applied", code: "session_mismatch" };
      expect(await put("two", "id")).toEqual([409, { error: expect.objectContaining(outcome) }]);
      expect((await put("one", "i".repeat(257)))[0]).toBe(400);
      const txn = JSON.stringify({ success: [{ op: "put", key: "a2V5", value: "dHdv" }] });
      const twice = async (): Promise<unknown> =>
        (
          await node.fetch("/v1/txn", {
            method: "POST",
            body: txn,
            headers: { "barge-request-id": "txn" },
          })
        ).json();
      const done = await twice();
      expect(await twice()).toEqual(done);
      const deletion = async (): Promise<unknown> =>
        (
          await node.fetch("/v1/kv/key", {
            method: "DELETE",
            headers: { "barge-request-id": "delete" },
          })
        ).json();
      const deleted = await deletion();
      expect(deleted).toMatchObject({ deleted: true });
      await node.kill();
      node.start();
      await node.ready();
      expect(await put("one", "id")).toEqual(first);
      expect(await deletion()).toEqual(deleted);
      const { sessions } = await node.group();
      expect(sessions).toMatchObject({ open: 0, requestIds: 3 });
    }),
  testMsMax,
);
