/** Who says nothing, or not enough, or nonsense: the connection ends, in time, and nobody else notices. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { crc32 } from "node:zlib";
import { encodeHello } from "../../src/wire/hello.ts";
import { FrameType, type Hello } from "../../src/wire/messages.ts";
import { encodePing } from "../../src/wire/client-messages.ts";
import { until } from "../e2e/cluster.ts";
import { metric, withNode } from "./node.ts";
import { clientHello, frameOf, RawClient, rawFrame, rawHeader } from "./raw-client.ts";

setDefaultTimeout(60_000);

const helloFrame = frameOf((out) => encodeHello(out, clientHello));
const pingFrame = frameOf((out) => encodePing(out, 7));
const peerHello: Hello = {
  ...clientHello,
  role: "peer-control",
  clusterId: "another",
  nodeId: 2,
  incarnation: "x",
  expectNodeId: 1,
};
/** Time-outs are checked each tenth of a second; and the machine may be busy. */
const slackMs = 3_000;

function withCrc(frame: Uint8Array, crc: number): Uint8Array {
  const bytes = frame.slice();
  new DataView(bytes.buffer).setUint32(12, crc, true);
  return bytes;
}

test("what ends a connection at once, before and after the hello", () =>
  withNode({}, async ({ binary }) => {
    const before: Record<string, Uint8Array> = {
      "random bytes": new Uint8Array(64).fill(0x5a),
      "an HTTP request": Buffer.from("GET / HTTP/1.1\r\nHost: barge\r\n\r\n"),
      "a hello over its bound": rawHeader(FrameType.hello, 64 * 1024),
      "four gibibytes announced": rawHeader(FrameType.hello, 2 ** 32 - 1),
      "a wrong crc": withCrc(helloFrame, crc32("wrong")),
      "a request before the hello": rawFrame(FrameType.write, new Uint8Array(64), 16),
      "a ping before the hello": pingFrame,
      "a hello that is no map": rawFrame(FrameType.hello, new Uint8Array([0xc0])),
      "a hello of nothing": rawFrame(FrameType.hello, new Uint8Array(0)),
      "a hello that nests without end": rawFrame(
        FrameType.hello,
        new Uint8Array(60_000).fill(0x91),
      ),
      "a hello with a huge map": rawFrame(
        FrameType.hello,
        new Uint8Array([0xdf, 0xff, 0xff, 0xff, 0xff]),
      ),
    };
    const after: Record<string, Uint8Array> = {
      "a second hello": helloFrame,
      "four gibibytes announced": rawHeader(FrameType.write, 2 ** 32 - 1),
      "more fields than payload": (() => {
        const bytes = rawFrame(FrameType.write, new Uint8Array(32), 16);
        new DataView(bytes.buffer).setUint32(4, 33, true);
        return bytes;
      })(),
      "an unknown type": rawFrame(127, new Uint8Array(16)),
      "a type out of all ranges": rawFrame(255, new Uint8Array(16)),
      "a vote of a peer": rawFrame(FrameType.vote, new Uint8Array(40)),
      "an append of a peer": rawFrame(FrameType.append, new Uint8Array(56)),
      "a wrong crc": withCrc(pingFrame, 1),
      "an answer": rawFrame(FrameType.writeReply, new Uint8Array(20)),
      "a malformed ping": rawFrame(FrameType.ping, new Uint8Array(9)),
    };
    const misuse = async (what: string, bytes: Uint8Array, hello?: Hello): Promise<void> => {
      using client = await RawClient.connect(binary, hello === undefined ? {} : { hello });
      const sentMs = performance.now();
      client.send(bytes);
      await client.waitClosed(what);
      // At once means that no time-out had to come to pass.
      expect(client.closedMs - sentMs).toBeLessThan(4_000);
    };
    await Promise.all([
      ...Object.entries(before).map(([what, bytes]) => misuse(`${what}, first`, bytes)),
      ...Object.entries(after).map(([what, bytes]) => misuse(what, bytes, clientHello)),
    ]);
  }));

test("every silence has its time-out, and a byte now and then does not stretch it", () =>
  withNode(
    { helloTimeoutMs: 300, frameTimeoutMs: 400, idleTimeoutMs: 600 },
    async ({ binary, http }) => {
      const cases: readonly [string, Uint8Array, Hello | undefined, number, boolean][] = [
        ["says nothing", new Uint8Array(0), undefined, 300, false],
        ["half a hello", helloFrame.subarray(0, 20), undefined, 300, false],
        ["a hello byte by byte", helloFrame.subarray(0, 1), undefined, 300, true],
        [
          "half a header",
          rawHeader(FrameType.write, 1_000).subarray(0, 7),
          clientHello,
          400,
          false,
        ],
        ["half a frame", rawHeader(FrameType.write, 8_000_000), clientHello, 400, false],
        ["a frame byte by byte", rawHeader(FrameType.write, 1_000), clientHello, 400, true],
        ["idle", new Uint8Array(0), clientHello, 600, false],
      ];
      await Promise.all(
        cases.map(async ([what, bytes, hello, timeoutMs, trickles]) => {
          using client = await RawClient.connect(binary, hello === undefined ? {} : { hello });
          client.send(bytes);
          const trickle = setInterval(() => {
            if (trickles && !client.closed) client.send(new Uint8Array(1));
          }, 20);
          try {
            await client.waitClosed(what);
          } finally {
            clearInterval(trickle);
          }
          expect([what, client.lifeMs >= timeoutMs * 0.6]).toEqual([what, true]);
          expect([what, client.lifeMs <= timeoutMs + slackMs]).toEqual([what, true]);
        }),
      );
      const text = await (await fetch(`${http}/metrics`)).text();
      // Those that had said hello.
      expect(metric(text, "barge_client_connections_cut_total")).toBeGreaterThanOrEqual(4);
    },
  ));

test("too many clients are refused with words; silent ones keep nobody out", () =>
  withNode({ connectionsMax: 12 }, async ({ binary, node, neighbour }) => {
    // Nine for clients, the neighbour's among them.
    const clients = await Promise.all(
      Array.from({ length: 8 }, () => RawClient.connect(binary, { hello: clientHello })),
    );
    for (const client of clients) expect(client.helloReply?.error).toBeUndefined();
    using refused = await RawClient.connect(binary, { hello: clientHello });
    expect(refused.helloReply?.error).toEqual({
      code: "overloaded",
      message: "This node serves at most 9 client connections.",
    });
    await refused.waitClosed("refused");

    const silent: RawClient[] = [];
    for (let i = 0; i < 40; i++) silent.push(await RawClient.connect(binary));
    using peer = await RawClient.connect(binary, { hello: peerHello });
    expect(peer.helloReply?.error?.code).toBe("unauthorised");
    expect(peer.helloReply?.error?.message).toMatch(/belongs to cluster/);
    await until(
      "the oldest silent ones made room",
      () => silent.filter((c) => c.closed).length > 30,
    );
    for (const client of clients) expect(client.closed).toBe(false);
    await neighbour.put("still", "here");

    clients[0]![Symbol.dispose]();
    await until("room again", async () => {
      using next = await RawClient.connect(binary, { hello: clientHello });
      return next.helloReply?.error === undefined;
    });
    expect(node.status().health).toBe("ok");
    for (const client of [...clients, ...silent]) client[Symbol.dispose]();
  }));

test("a peer that is none is refused with words", () =>
  withNode({}, async ({ binary, node }) => {
    const { clusterId } = node.status();
    const wrong: readonly [Partial<Hello>, RegExp][] = [
      [{}, /belongs to cluster .* not another/],
      [{ clusterId, expectNodeId: 9 }, /This is node 1, not 9/],
      [{ clusterId }, /Node 2 is not a member of this cluster/],
      [{ clusterId, nodeId: 1 }, /This is node 1 itself/],
    ];
    for (const [change, words] of wrong) {
      using peer = await RawClient.connect(binary, { hello: { ...peerHello, ...change } });
      expect(peer.helloReply?.error?.message).toMatch(words);
      await peer.waitClosed("refused");
    }
    using old = await RawClient.connect(binary, {
      hello: { ...clientHello, versionMin: 9, versionMax: 9 },
    });
    expect(old.helloReply?.error?.code).toBe("version_mismatch");
  }));
