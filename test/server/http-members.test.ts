/** Members over HTTP: what a request asks for, and how its answer comes back. Who answers it is tested in test/e2e/membership.test.ts. */
import { afterAll, expect, test } from "bun:test";
import { BargeError } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import { startHttpServer } from "../../src/server/http-server.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { checkAdminBody } from "../../src/wire/admin-bodies.ts";
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

interface Answer {
  readonly status: number;
  readonly body: unknown;
  /** What was asked of the node; undefined where it was refused before. */
  readonly asked: { readonly operation: string; readonly body: unknown } | undefined;
}

async function ask(method: string, path: string, body?: unknown): Promise<Answer> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const pending = fetch(`http://127.0.0.1:${server.port}${path}`, {
    method,
    ...(text === undefined ? {} : { body: text }),
  });
  // Either the node is asked, and answers, or there is an answer without it.
  let asked: FakeGroups["admins"][number] | undefined;
  const settled = pending.then(() => true);
  while (asked === undefined && !(await Promise.race([settled, Bun.sleep(1)]))) {
    asked = groups.admins.shift();
  }
  asked?.waiter.answered({ fine: true });
  const response = await pending;
  return {
    status: response.status,
    body: await response.json(),
    asked: asked && { operation: asked.operation, body: asked.body },
  };
}

const common = { group: 0, timeoutMs: 0 };

test.each([
  ["GET", "/v1/members", undefined, "members", {}],
  ["GET", "/v1/members?group=7&timeoutMs=900", undefined, "members", { group: 7, timeoutMs: 900 }],
  [
    "POST",
    "/v1/members",
    { id: 4, address: "127.0.0.1:1", learner: true },
    "changeMembers",
    { changes: [{ op: "add", id: 4, address: "127.0.0.1:1", learner: true }], force: false },
  ],
  [
    "PATCH",
    "/v1/members/4",
    { role: "voter" },
    "changeMembers",
    { changes: [{ op: "promote", id: 4 }], force: false },
  ],
  [
    "PATCH",
    "/v1/members/4?force=true",
    { role: "learner" },
    "changeMembers",
    { changes: [{ op: "demote", id: 4 }], force: true },
  ],
  [
    "PATCH",
    "/v1/members/4",
    { address: "127.0.0.1:1" },
    "changeMembers",
    { changes: [{ op: "move", id: 4, address: "127.0.0.1:1" }], force: false },
  ],
  [
    "DELETE",
    "/v1/members/4?force=false",
    undefined,
    "changeMembers",
    { changes: [{ op: "remove", id: 4 }], force: false },
  ],
  [
    "POST",
    "/v1/members/3/replace",
    { id: 4, address: "127.0.0.1:1" },
    "changeMembers",
    { changes: [{ op: "replace", id: 3, by: 4, address: "127.0.0.1:1" }], force: false },
  ],
  [
    "PATCH",
    "/v1/members",
    {
      changes: [
        { op: "remove", id: 3 },
        { op: "remove", id: 2 },
      ],
      force: true,
    },
    "changeMembers",
    {
      changes: [
        { op: "remove", id: 3 },
        { op: "remove", id: 2 },
      ],
      force: true,
    },
  ],
] as const)("%s %s %j asks for %s", async (method, path, body, operation, wanted) => {
  const answer = await ask(method, path, body);
  expect(answer).toEqual({
    status: 200,
    body: { fine: true },
    asked: { operation, body: { ...common, ...wanted } },
  });
  // What is asked for is what the node takes.
  expect(checkAdminBody(operation, answer.asked!.body)).not.toHaveProperty("problem");
});

test.each([
  ["POST", "/v1/members", "{", 400, "not JSON"],
  ["POST", "/v1/members", "[1]", 400, "must be a JSON object"],
  ["POST", "/v1/members", undefined, 400, "must be a JSON object"],
  ["PATCH", "/v1/members/4", { role: "king" }, 400, 'must be "voter" or "learner"'],
  ["PATCH", "/v1/members/4", { role: "voter", x: 1 }, 400, "x: is unknown"],
  ["PATCH", "/v1/members/4", { role: "voter", address: "a:1" }, 400, "only one of them"],
  ["DELETE", "/v1/members/4?force=maybe", undefined, 400, "force must be one of true, false"],
  ["DELETE", "/v1/members/4?fast=true", undefined, 400, 'Unknown parameter "fast"'],
  ["PUT", "/v1/members", "x", 405, "Not PUT here, but GET, HEAD, POST, PATCH."],
  ["POST", "/v1/members/4", {}, 405, "PATCH, DELETE"],
  ["GET", "/v1/members/four", undefined, 404, "nothing at /v1/members/four"],
  ["GET", "/v1/membership", undefined, 404, "nothing at"],
] as const)("%s %s %j is refused: %d %s", async (method, path, body, status, words) => {
  const answer = await ask(method, path, body);
  expect(answer.asked).toBeUndefined();
  expect(answer.status).toBe(status);
  expect((answer.body as { error: { message: string } }).error.message).toContain(words);
});

test("a refusal of the node comes with its status and outcome", async () => {
  groups.fail = new BargeError("no_live_majority", "Start the others.");
  const { status, body } = await ask("DELETE", "/v1/members/4");
  groups.fail = undefined;
  expect(status).toBe(409);
  expect(body).toEqual({
    error: {
      code: "no_live_majority",
      message: "Start the others.",
      outcome: "not-applied",
      retryable: false,
    },
  });
});
