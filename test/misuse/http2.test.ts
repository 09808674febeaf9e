/** HTTP/2 in clear text on the same port: frames that make no sense, streams that are given up at once, bodies over the bound; and what lasts, lasts there too. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect, constants } from "node:http2";
import { Random } from "../sim/random.ts";
import { until } from "../e2e/cluster.ts";
import { metric, withNode } from "./node.ts";

setDefaultTimeout(60_000);

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.byteLength, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Sends, and resolves once the other side has closed, or `openMs` later. */
async function raw(http: string, bytes: Uint8Array, openMs = 500): Promise<boolean> {
  const { hostname, port } = new URL(http);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      open: (opened) => void opened.write(bytes),
      data: () => {},
      close: () => resolve(true),
      error: () => resolve(true),
    },
  });
  const timer = setTimeout(() => resolve(false), openMs);
  const closed = await promise;
  clearTimeout(timer);
  socket.terminate();
  return closed;
}

test("frames that make no sense harm nobody else", () =>
  withNode({}, async ({ http }) => {
    const seed = Date.now() % 1_000_000;
    const random = new Random(seed);
    const noise = (size: number): Uint8Array =>
      Uint8Array.from({ length: size }, () => random.below(256));
    const settings = frame(4, 0, 0, new Uint8Array(0));
    const cases: Uint8Array[] = [
      noise(2_000),
      // A length of 16 MB that never comes.
      Buffer.concat([settings, Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])]),
      frame(4, 0, 0, noise(5)),
      Buffer.concat([settings, frame(1, 5, 1, noise(200))]),
      Buffer.concat([settings, frame(1, 5, 2, noise(20))]),
      Buffer.concat([settings, frame(0, 1, 9, noise(100))]),
      Buffer.concat([settings, frame(8, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))]),
      // Headers that never end.
      Buffer.concat([
        settings,
        frame(1, 1, 1, new Uint8Array(0)),
        ...Array.from({ length: 2_000 }, () => frame(9, 0, 1, noise(100))),
      ]),
      Buffer.concat(Array.from({ length: 20_000 }, () => settings)),
      Buffer.concat([settings, ...Array.from({ length: 20_000 }, () => frame(6, 0, 0, noise(8)))]),
    ];
    for (const [at, bytes] of cases.entries()) {
      await raw(http, Buffer.concat([Buffer.from(preface), bytes]));
      const { status } = await fetch(`${http}/livez`);
      expect({ seed, at, status }).toEqual({ seed, at, status: 200 });
    }
  }));

test("streams that are given up at once cost no room", () =>
  withNode({}, async ({ http }) => {
    for (let round = 0; round < 4; round++) {
      const session = connect(http);
      session.on("error", () => {});
      for (let i = 0; i < 1_000; i++) {
        const stream = session.request({ ":method": "PUT", ":path": `/v1/kv/k${i}` });
        stream.on("error", () => {});
        stream.write("x");
        stream.close(constants.NGHTTP2_CANCEL);
      }
      await Bun.sleep(20);
      session.destroy();
    }
    await until("none is under way but that of the metrics", async () => {
      const text = await (await fetch(`${http}/metrics`)).text();
      return metric(text, "barge_http_requests_under_way") <= 1;
    });
    expect((await fetch(`${http}/v1/kv/a`, { method: "PUT", body: "1" })).status).toBe(200);
  }));

test("bodies over the bound are refused, and a thousand requests at once are answered", () =>
  withNode({}, async ({ http }) => {
    const session = connect(http);
    const ask = (path: string, body: Uint8Array): Promise<[number, string]> =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ":method": "PUT", ":path": path });
        let status = 0;
        let text = "";
        stream.setEncoding("utf8");
        stream.on("response", (heads) => (status = Number(heads[":status"])));
        stream.on("data", (chunk: string) => (text += chunk));
        stream.on("end", () => resolve([status, text]));
        stream.on("error", reject);
        stream.end(body);
      });
    const [status, text] = await ask("/v1/kv/large", new Uint8Array(1024 * 1024 + 1));
    expect([status, text]).toEqual([413, expect.stringContaining("too_large")]);
    const small = new Uint8Array([1]);
    const all = await Promise.all(
      Array.from({ length: 1_000 }, (_, i) => ask(`/v1/kv/k${i}`, small)),
    );
    // Some may find too many before them: told in words.
    for (const [each, words] of all)
      expect([each, words]).toEqual(
        each === 200 ? [200, expect.any(String)] : [429, expect.stringContaining("overloaded")],
      );
    expect(all.filter(([each]) => each === 200).length).toBeGreaterThan(50);
    session.close();
  }));

test("a watch over HTTP/2 is told changes as they happen", () =>
  withNode({}, async ({ http }) => {
    const session = connect(http);
    const stream = session.request({ ":path": "/v1/watch?prefix=w" });
    let text = "";
    stream.setEncoding("utf8");
    stream.on("data", (chunk: string) => (text += chunk));
    await new Promise((resolve) => stream.once("response", resolve));
    for (let i = 0; i < 3; i++) await fetch(`${http}/v1/kv/w${i}`, { method: "PUT", body: "v" });
    const keys = ["w0", "w1", "w2"].map((key) => btoa(key));
    await until("it was told", () => keys.every((key) => text.includes(key)));
    session.destroy();
  }));
