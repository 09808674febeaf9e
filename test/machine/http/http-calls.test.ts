/** Callbacks over real sockets: kept open between two, over TCP and a Unix socket, and what becomes of an application that misbehaves on the way. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AppExchange } from "../../../src/machine/http/app-calls.ts";
import {
  type AppAddress,
  appAddress,
  HttpCalls,
  HttpConnections,
} from "../../../src/machine/http/http-calls.ts";

function callsTo(address: AppAddress): HttpCalls {
  return new HttpCalls(address, new HttpConnections());
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly failed: string | undefined;
}

function ask(calls: HttpCalls, name: string, body?: Uint8Array): Promise<Answer> {
  return new Promise((resolve) => {
    let status = 0;
    let text = "";
    const request = { name, headers: [["x-test", "1"]] as const, contentType: "text/plain", body };
    calls.begin(request, {
      head: (head) => (status = head.status),
      data: (bytes) => (text += Buffer.from(bytes).toString("latin1")),
      end: () => resolve({ status, body: text, failed: undefined }),
      failed: (failed) => resolve({ status, body: text, failed }),
    });
  });
}

test("one connection serves one callback after the other; two at once have one each", async () => {
  const ports = new Set<number>();
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request, own) => {
      ports.add(own.requestIP(request)!.port);
      const { pathname } = new URL(request.url);
      const said = `${request.method} ${pathname} ${request.headers.get("x-test")}`;
      return new Response(`${said} ${request.headers.get("content-type")} ${await request.text()}`);
    },
  });
  const calls = callsTo(appAddress(`http://127.0.0.1:${server.port}/app/`, 0));
  for (let i = 0; i < 5; i++) {
    const { body } = await ask(calls, "Read", Buffer.from(`q${i}`));
    expect(body).toBe(`POST /app/Read 1 text/plain q${i}`);
  }
  expect(ports.size).toBe(1);
  await Promise.all([ask(calls, "Read"), ask(calls, "Read"), ask(calls, "Read")]);
  expect(ports.size).toBe(3);
  calls.close();
});

test("over a Unix socket", async () => {
  const folder = mkdtempSync(join(tmpdir(), "barge-calls-"));
  const unix = join(folder, "app.sock");
  using _server = Bun.serve({
    unix,
    fetch: (request) => new Response(new URL(request.url).pathname),
  });
  const calls = callsTo(appAddress(`unix:${unix}:/app`, 3));
  expect((await ask(calls, "Ready")).body).toBe("/app/groups/3/Ready");
  calls.close();
  rmSync(folder, { recursive: true });
});

test("nobody there, and somebody who hangs up", async () => {
  const gone = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const { port } = gone;
  gone.stop(true);
  const calls = callsTo(appAddress(`http://127.0.0.1:${port}`, 0));
  expect((await ask(calls, "Ready")).failed).toStartWith("nobody answers there");
  using rude = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data: (socket) => void socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
    },
  });
  const other = callsTo(appAddress(`http://127.0.0.1:${rude.port}`, 0));
  expect(await ask(other, "Ready")).toEqual({
    status: 200,
    body: "half",
    failed: "the connection broke off",
  });
});

test("a connection that the application has shut is not used again", async () => {
  let server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("one") });
  const port = server.port!;
  const calls = callsTo(appAddress(`http://127.0.0.1:${port}`, 0));
  expect((await ask(calls, "Ready")).body).toBe("one");
  await server.stop(true);
  server = Bun.serve({ hostname: "127.0.0.1", port, fetch: () => new Response("two") });
  // What comes first, the end of the old connection or the request on it, nobody can say; the one after that is new in any case.
  await ask(calls, "Ready");
  expect((await ask(calls, "Ready")).body).toBe("two");
  await server.stop(true);
  calls.close();
});

test("an answer waits while nobody takes it", async () => {
  let given = 0;
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () =>
      new Response(
        new ReadableStream({
          pull: (controller) => {
            given += 65_536;
            controller.enqueue(new Uint8Array(65_536));
            if (given >= 33_554_432) controller.close();
          },
        }),
      ),
  });
  const calls = callsTo(appAddress(`http://127.0.0.1:${server.port}`, 0));
  let taken = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const request = { name: "SaveSnapshot", headers: [], contentType: undefined, body: undefined };
  const exchange: AppExchange = calls.begin(request, {
    head: () => {},
    data: (bytes) => {
      const isFirst = taken === 0;
      taken += bytes.byteLength;
      if (!isFirst) return;
      exchange.pause();
      let before = -1;
      const timer = setInterval(() => {
        // Until nothing moves any more.
        if (given === before) {
          clearInterval(timer);
          expect(given).toBeLessThan(33_554_432);
          exchange.resume();
        }
        before = given;
      }, 100);
    },
    end: resolve,
    failed: (reason) => reject(new Error(reason)),
  });
  await promise;
  expect(taken).toBe(33_554_432);
  calls.close();
});

test("of an answer that is copied as it comes no memory is kept; of any other all", async () => {
  const part = new Uint8Array(1_048_576).fill(7);
  using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response(part) });
  const calls = callsTo(appAddress(`http://127.0.0.1:${server.port}`, 0));
  for (const isCopied of [true, false]) {
    const parts: Uint8Array[] = [];
    let length = 0;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const request = { name: "X", headers: [], contentType: undefined, body: undefined, isCopied };
    calls.begin(request, {
      head: () => {},
      data: (bytes) => {
        parts.push(bytes);
        length += bytes.byteLength;
        expect(bytes.every((byte) => byte === 7)).toBe(true);
      },
      end: resolve,
      failed: (reason) => reject(new Error(reason)),
    });
    await promise;
    expect(length).toBe(part.byteLength);
    const kept = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
    // Of a few bytes that came alone the collector takes care.
    if (isCopied) expect(kept).toBeLessThan(parts.length * 4_096);
    else expect(kept).toBe(part.byteLength);
  }
  calls.close();
});

test("a body of known length is sent as fast as the application takes it", async () => {
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    maxRequestBodySize: 1e9,
    fetch: async (request) => {
      const length = Number(request.headers.get("content-length"));
      return new Response(`${length} ${(await request.bytes()).byteLength}`);
    },
  });
  const calls = callsTo(appAddress(`http://127.0.0.1:${server.port}`, 0));
  const total = 20_000_000;
  let sent = 0;
  let waits = 0;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = "";
  const send = (): void => {
    while (sent < total) {
      const part = new Uint8Array(Math.min(1_000_000, total - sent));
      sent += part.byteLength;
      if (exchange.write(part)) continue;
      waits++;
      return;
    }
  };
  const request = { name: "RecoverFromSnapshot", headers: [], contentType: undefined, body: total };
  const exchange: AppExchange = calls.begin(request, {
    head: () => {},
    data: (bytes) => (text += Buffer.from(bytes).toString()),
    end: () => resolve(text),
    failed: (reason) => reject(new Error(reason)),
    drained: send,
  });
  send();
  expect(await promise).toBe(`${total} ${total}`);
  expect(waits).toBeGreaterThan(0);
  calls.close();
});

const addresses: readonly [url: string, group: number, path: string][] = [
  ["http://localhost:8080", 0, ""],
  ["http://localhost:8080/", 5, "/groups/5"],
  ["http://localhost:8080/app//", 0, "/app"],
  ["http://localhost:8080/g{group}/x", 5, "/g5/x"],
  ["http://localhost:8080/g{group}/x", 0, "/g0/x"],
  ["unix:/run/a.sock", 0, ""],
  ["unix:/run/a.sock:/app", 2, "/app/groups/2"],
];
for (const [url, group, path] of addresses) {
  test(`${url} for group ${group}`, () => expect(appAddress(url, group).path).toBe(path));
}

for (const url of [
  "https://x",
  "localhost:80",
  "unix:run.sock",
  "http://u:p@x",
  "http://x?q=1",
  "",
]) {
  test(`"${url}" is no address of an application`, () => {
    expect(() => appAddress(url, 0)).toThrow();
  });
}
