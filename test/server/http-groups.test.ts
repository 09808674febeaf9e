/** Groups over HTTP: what a request asks for, and how its answer comes back; and which groups a status is asked for. */
import { afterAll, expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import { startHttpServer } from "../../src/server/http-server.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { checkAdminBody } from "../../src/wire/admin-bodies.ts";
import type { AdminOperation } from "../../src/wire/admin.ts";
import { FakeGroups } from "./fake-groups.ts";

const groups = new FakeGroups();
const server = startHttpServer({
  groups,
  listen: { host: "127.0.0.1", port: 0 },
  metricsText: () => Promise.resolve(""),
  limits: defaultLimits,
  tallies: new Metrics().tallies,
});
afterAll(() => server.stop(0));

async function ask(
  method: string,
  path: string,
  body: unknown,
  answer: unknown,
): Promise<{ response: Response; operation: string; asked: Record<string, unknown> }> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
  const pending = fetch(`http://127.0.0.1:${server.port}${path}`, init);
  let admin: FakeGroups["admins"][number] | undefined;
  while (admin === undefined) {
    await Bun.sleep(1);
    admin = groups.admins.shift();
  }
  const checked = checkAdminBody(admin.operation as AdminOperation, admin.body);
  expect(checked).not.toHaveProperty("problem");
  admin.waiter.answered(answer);
  const asked = admin.body as Record<string, unknown>;
  return { response: await pending, operation: admin.operation, asked };
}

test.each([
  ["GET", "/v1/groups", undefined, "groups", {}],
  ["POST", "/v1/groups", undefined, "createGroups", {}],
  [
    "POST",
    "/v1/groups",
    { count: 9, members: [1, 2] },
    "createGroups",
    { count: 9, members: [1, 2] },
  ],
  ["POST", "/v1/groups", { request: "my own one" }, "createGroups", { request: "my own one" }],
  ["PATCH", "/v1/groups/5", { members: [1, 2, 4] }, "moveGroup", { id: 5, members: [1, 2, 4] }],
  ["DELETE", "/v1/groups/4294967294", undefined, "removeGroups", { groups: [4_294_967_294] }],
])("%s %s %j asks for %s", async (method, path, body, operation, wanted) => {
  const { response, operation: named, asked } = await ask(method, path, body, { fine: true });
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ fine: true });
  expect(named).toBe(operation);
  expect(asked).toMatchObject(wanted);
});

test("whoever makes groups without naming the request gets one that is nobody else's", async () => {
  const one = await ask("POST", "/v1/groups", {}, {});
  const other = await ask("POST", "/v1/groups", {}, {});
  expect(one.asked["request"]).not.toBe(other.asked["request"]);
});

test("one of the groups", async () => {
  const answer = { groups: [{ id: 4 }, { id: 5, name: "orders" }] };
  const found = await ask("GET", "/v1/groups/5", undefined, answer);
  expect(await found.response.json()).toEqual({ id: 5, name: "orders" });
  const none = await ask("GET", "/v1/groups/6", undefined, answer);
  expect(none.response.status).toBe(404);
  expect(await none.response.json()).toMatchObject({ error: { code: "unknown_group" } });
});

test.each([
  ["GET", "/v1/groups/x", undefined, 404],
  ["PUT", "/v1/groups", {}, 405],
  ["PATCH", "/v1/groups/5", [1], 400],
  ["GET", "/v1/status?groups=1,x", undefined, 400],
  ["GET", "/v1/status?limit=0", undefined, 400],
  ["GET", "/v1/status?colour=blue", undefined, 400],
])("%s %s %j: %i", async (method, path, body, status) => {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, init);
  expect(response.status).toBe(status);
});
