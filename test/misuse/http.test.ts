/** The HTTP door: broken targets, giant and slow bodies, many at once. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { Socket } from "bun";
import { until } from "../e2e/cluster.ts";
import { metric, withNode } from "./node.ts";

setDefaultTimeout(60_000);

/** Bytes in, bytes out, as they are. */
class RawHttp implements Disposable {
  text = "";
  closed = false;
  #socket!: Socket<undefined>;

  static async connect(http: string): Promise<RawHttp> {
    const raw = new RawHttp();
    const { hostname, port } = new URL(http);
    raw.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_socket, chunk) => void (raw.text += chunk.toString()),
        close: () => void (raw.closed = true),
        error: () => {},
      },
    });
    return raw;
  }

  send(text: string): this {
    this.#socket.write(text);
    return this;
  }

  [Symbol.dispose](): void {
    if (!this.closed) this.#socket.terminate();
  }
}

interface Refusal {
  readonly error: { readonly code: string; readonly outcome: string };
}

test("broken targets and parameters are refused by name", () =>
  withNode({}, async ({ http }) => {
    const cases: readonly [string, string, number, string][] = [
      ["GET", "/v1/kv/%ZZ", 400, "bad_request"],
      ["GET", "/v1/kv/%F", 400, "bad_request"],
      ["PUT", "/v1/kv/", 400, "bad_request"],
      ["GET", `/v1/kv/${"k".repeat(4_097)}`, 413, "too_large"],
      ["GET", "/v1/kv?prefix=%", 400, "bad_request"],
      ["GET", "/v1/kv?limit=4294967295", 400, "bad_request"],
      ["GET", "/v1/kv?limit=-1", 400, "bad_request"],
      ["GET", "/v1/kv?limit=1&limit=2", 400, "bad_request"],
      ["GET", "/v1/kv/a?timeoutMs=0", 400, "bad_request"],
      ["GET", "/v1/kv/a?timeoutMs=99999999999999999999", 400, "bad_request"],
      ["GET", "/v1/kv/a?group=1e9", 400, "bad_request"],
      ["GET", "/v1/kv/a?group=4294967296", 404, "unknown_group"],
      ["GET", "/v1/kv/a?consistency=maybe", 400, "bad_request"],
      ["GET", "/v1/kv/a?__proto__=1", 400, "bad_request"],
      ["PATCH", "/v1/kv/a", 405, "method_not_allowed"],
      ["GET", "/../../etc/passwd", 404, "no_such_path"],
    ];
    for (const [method, target, status, code] of cases) {
      const response = await fetch(`${http}${target}`, { method });
      const { error } = (await response.json()) as Refusal;
      expect([target.slice(0, 40), response.status, error.code, error.outcome]).toEqual([
        target.slice(0, 40),
        status,
        code,
        "not-applied",
      ]);
    }
    for (const text of [
      `GET /${"a".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      `GET / HTTP/1.1\r\nHost: x\r\nX: ${"a".repeat(100_000)}\r\n\r\n`,
      "\0\0\0\0\0\0\0\0\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
      "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZZ\r\n",
    ]) {
      using raw = await RawHttp.connect(http);
      raw.send(text);
      await until(
        `an end of ${text.slice(0, 30)}`,
        () => raw.closed || /^HTTP\/1.1 [45]/.test(raw.text),
      );
    }
  }));

test("giant bodies are refused unread, slow ones in time, and nothing of them is kept", () =>
  withNode(
    { requestTimeoutMs: 300, requestTimeoutMsMax: 300, inboxBytesMax: 4 * 1024 * 1024 },
    async ({ http, neighbour, limits }) => {
      const { valueBytesMax } = limits;
      const put = (key: string, bytes: number): Promise<Response> =>
        fetch(`${http}/v1/kv/${key}`, { method: "PUT", body: new Uint8Array(bytes) });
      expect((await put("just", valueBytesMax)).status).toBe(200);
      expect((await put("over", valueBytesMax + 1)).status).toBe(413);
      expect((await put("giant", 64 * 1024 * 1024)).status).toBe(413);
      using declared = await RawHttp.connect(http);
      declared.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
      await until("refused by its header", () => declared.text.startsWith("HTTP/1.1 413"));

      using slow = await RawHttp.connect(http);
      slow.send("PUT /v1/kv/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
      const trickle = setInterval(() => slow.send("x"), 20);
      await until("the slow body is refused", () => slow.text.startsWith("HTTP/1.1 504"));
      clearInterval(trickle);
      expect(slow.text).toContain('"outcome":"not-applied"');

      // Half a body each, and gone: what they held of the budget comes back.
      for (let i = 0; i < 8; i++) {
        using gone = await RawHttp.connect(http);
        gone.send("PUT /v1/kv/gone HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        gone.send("x".repeat(900_000));
      }
      await until(
        "room for bodies again",
        async () => (await put("next", valueBytesMax)).status === 200,
      );
      expect(await neighbour.get("gone")).toBeUndefined();
      expect(await neighbour.get("slow")).toBeUndefined();
    },
  ));

test("more requests than may be under way are refused; probes are always answered", () =>
  withNode({ httpRequestsMax: 16, httpWatchesMax: 8 }, async ({ http, neighbour }) => {
    const unfinished: RawHttp[] = [];
    for (let i = 0; i < 17; i++) {
      const raw = await RawHttp.connect(http);
      raw.send(`PUT /v1/kv/${i} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf`);
      unfinished.push(raw);
    }
    await until("the door is full", async () => {
      const response = await fetch(`${http}/v1/kv/absent`);
      if (response.status !== 429) return false;
      expect(((await response.json()) as Refusal).error.code).toBe("overloaded");
      return true;
    });
    expect((await fetch(`${http}/readyz`)).status).toBe(200);
    const text = await (await fetch(`${http}/metrics`)).text();
    expect(metric(text, "barge_http_requests_under_way")).toBeGreaterThan(16);
    // The binary door does not care.
    await neighbour.put("still", "here");
    for (const raw of unfinished) raw[Symbol.dispose]();
    await until("room again", async () => (await fetch(`${http}/v1/kv/absent`)).status === 404);
  }));

test("a thousand requests at once are answered one way or the other", () =>
  withNode({}, async ({ http }) => {
    const statuses = await Promise.all(
      Array.from({ length: 1_000 }, async (_, i) => {
        const init = i % 2 === 0 ? { method: "PUT", body: `value${i}` } : {};
        return (await fetch(`${http}/v1/kv/key${i >> 1}`, init)).status;
      }),
    );
    const odd = statuses.filter((status) => ![200, 404, 429].includes(status));
    expect(odd).toEqual([]);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(400);
  }));
