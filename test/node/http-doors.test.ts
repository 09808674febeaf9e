/** Where nodes are asked over HTTP, as they tell each other. */
import { expect, test } from "bun:test";
import { HttpDoors } from "../../src/node/http-doors.ts";

test("a node tells others where its door is, unless they could not reach it there", () => {
  for (const [host, port, advertise, http] of [
    ["127.0.0.1", 9090, "127.0.0.1:9091", "127.0.0.1:9090"],
    ["0.0.0.0", 9090, "db-1.example:9091", "db-1.example:9090"],
    ["::", 9090, "[fe80::1]:9091", "[fe80::1]:9090"],
    ["10.0.0.1", 9090, "db-1.example:9091", "10.0.0.1:9090"],
    ["127.0.0.1", 9090, "10.0.0.1:9091", undefined],
    ["0.0.0.0", 0, "10.0.0.1:9091", undefined],
  ] as const) {
    expect(new HttpDoors({ host, port }, advertise).own.http).toBe(http);
  }
});

test("what a peer says last counts, and made-up nodes take no more room than they may", () => {
  const doors = new HttpDoors({ host: "127.0.0.1", port: 1 }, "127.0.0.1:2");
  for (let nodeId = 1; nodeId <= 100; nodeId++) doors.heard({ nodeId, http: `h${nodeId}:1` });
  expect([doors.of(64), doors.of(65)]).toEqual(["h64:1", undefined]);
  doors.heard({ nodeId: 3, http: "other:1" });
  doors.heard({ nodeId: 4 });
  doors.heard({ http: "nobody:1" });
  expect([doors.of(3), doors.of(4)]).toEqual(["other:1", undefined]);
});
