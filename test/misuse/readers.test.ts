/** Clients that ask for much and take nothing: their replies wait until they read, or until they are cut; memory stays bounded. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { encodeKvGet, encodeKvRange } from "../../src/wire/kv.ts";
import { encodeControl } from "../../src/wire/client-messages.ts";
import { Consistency, FrameType } from "../../src/wire/messages.ts";
import { until, withCluster } from "../e2e/cluster.ts";
import { metric, withNode } from "./node.ts";
import { clientHello, frameOf, RawClient, readFrame, repeated } from "./raw-client.ts";

setDefaultTimeout(60_000);

const MiB = 1024 * 1024;
const bigGet = encodeKvGet(Buffer.from("big"));

test("thousands of reads of a large value, none of them taken: memory is bounded, others go on", () =>
  withCluster({ nodes: 1 }, async ({ nodes: [node] }) => {
    const neighbour = connect({ endpoints: node!.binary });
    await neighbour.put("big", new Uint8Array(MiB));
    const before = (await node!.status()).peakRssBytes;
    const deaf: RawClient[] = [];
    for (const consistency of [Consistency.linearizable, Consistency.local]) {
      const client = await RawClient.connect(node!.binary, { hello: clientHello, deaf: true });
      client.send(repeated(readFrame(1, consistency, [bigGet]), 4_000));
      deaf.push(client);
    }
    // One request with as many ranges as it may hold, each of all there is.
    const ranges = Array.from({ length: 10_000 }, () => encodeKvRange({ limit: 0 }));
    const client = await RawClient.connect(node!.binary, { hello: clientHello, deaf: true });
    client.send(repeated(readFrame(1, Consistency.local, ranges), 4));
    deaf.push(client);

    for (let i = 0; i < 50; i++) await neighbour.put("neighbour", String(i));
    const text = await (await node!.fetch("/metrics", {}, 10_000)).text();
    // 8 GiB were asked for. What waits is what the bounds allow: a queue and a frame each, and the garbage of a moment.
    expect(metric(text, "barge_client_bytes")).toBeLessThan(64 * MiB);
    expect((await node!.status()).peakRssBytes - before).toBeLessThan(400 * MiB);
    for (const each of deaf) each[Symbol.dispose]();
    await until("nothing of them is left", async () => {
      const now = await (await node!.fetch("/metrics")).text();
      return metric(now, "barge_client_bytes") === 0 && metric(now, "barge_requests_waiting") === 0;
    });
    await neighbour.close();
  }));

test("who pipelines reads and then reads gets every answer, in good time", () =>
  withNode({}, async ({ binary, neighbour }) => {
    await neighbour.put("big", new Uint8Array(MiB));
    let answers = 0;
    using client = await RawClient.connect(binary, {
      hello: clientHello,
      onFrame: (type, payload) => {
        if (type === FrameType.readReply && payload.byteLength > MiB) answers++;
      },
    });
    client.send(repeated(readFrame(1, Consistency.linearizable, [bigGet]), 200));
    client.send(repeated(readFrame(2, Consistency.local, [bigGet]), 100));
    await until("300 answers", () => answers === 300);
  }));

test("who does not take its replies is cut, and who holds the most when all hold too much", () =>
  withNode(
    {
      sendQueueBytesMax: MiB,
      sendQueueBytesCut: 20 * MiB,
      connectionRequestBytesMax: MiB,
      clientBytesMax: 30 * MiB,
      idleTimeoutMs: 1_000,
    },
    async ({ binary, neighbour }) => {
      await neighbour.put("big", new Uint8Array(MiB));
      const deaf: RawClient[] = [];
      for (let i = 0; i < 40; i++) {
        const client = await RawClient.connect(binary, { hello: clientHello, deaf: true });
        client.send(repeated(readFrame(1, Consistency.local, [bigGet]), 64));
        deaf.push(client);
      }
      // The rest by the time-out of those that take nothing. A deaf socket notices its end on writing or reading.
      await until("all are cut", () => {
        for (const client of deaf) if (!client.closed) client.read();
        return deaf.every(({ closed }) => closed);
      });
      await neighbour.put("still", "here");
    },
  ));

test("more queries than a request may hold are refused; status asked a thousand times is no work", () =>
  withNode({}, async ({ binary, limits }) => {
    using client = await RawClient.connect(binary, { hello: clientHello });
    const get = encodeKvGet(Buffer.from("k"));
    const many = Math.ceil(limits.sectionBytesMax / (get.byteLength + 4)) + 1;
    client.send(
      readFrame(
        5,
        Consistency.local,
        Array.from({ length: many }, () => get),
      ),
    );
    await client.waitReplies(1);
    expect(client.replies[0]).toMatchObject({ type: "errorReply", request: 5, error: 5 });
    client.send(
      repeated(
        frameOf((out) => encodeControl(out, 6, "status", {})),
        1_000,
      ),
    );
    await client.waitReplies(1_001);
    client.send(frameOf((out) => encodeControl(out, 7, "self-destruct", { now: true })));
    await client.waitReplies(1_002);
    expect(client.replies[1_001]).toMatchObject({ type: "errorReply", request: 7, error: 6 });
  }));

test("a range without end comes in pages", () =>
  withNode({ rangeItemsMax: 10 }, async ({ binary, neighbour }) => {
    for (let i = 0; i < 25; i++) await neighbour.put(`key${i}`, "value");
    using client = await RawClient.connect(binary, { hello: clientHello });
    const query = encodeKvRange({ limit: 2 ** 32 - 1 });
    client.send(readFrame(1, Consistency.local, [query]));
    await client.waitReplies(1);
    const [reply] = client.replies;
    if (reply?.type !== "readReply") throw new Error("no read reply");
    const view = new DataView(reply.answers.buffer, reply.answers.byteOffset);
    expect([view.getUint32(8, true), view.getUint8(12)]).toEqual([10, 1]);
  }));
