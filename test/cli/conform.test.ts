/** `barge conform` as a command: what it prints, as text and as JSON, and its exit statuses. What it finds is tested in test/apps/conform.test.ts. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Machine, serveMachine } from "../../src/client/index.ts";
import { TestApplication, typescript } from "../apps/applications.ts";
import { barge } from "./program.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "barge-conform-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const given = ["--update", "append k {n}", "--read", "get k", "--read", "get k{n}"];

test("an application that is right: 0, and what was not checked is told", async () => {
  await using app = new TestApplication(typescript, join(folder, "right"));
  await app.start();
  const { status, out } = await barge(["conform", "--app-url", app.url, ...given]);
  expect({ status, out }).toMatchObject({ status: 0 });
  expect(out).toContain("ok      the same handle gives the same bytes, while updates go on\n");
  expect(out).toContain("needs --start, the command that starts the application");
  expect(out).toMatch(/\n14 right, 0 wrong, 6 not checked \(--seed \d+\)\n$/);
});

test("one that is wrong: 1, in words for its author, one JSON object a line", async () => {
  let index = 0;
  await using app = await served({
    lastIndex: () => index,
    apply: (_, last) => void (index = last),
    read: () => String(performance.now()),
    snapshot: () => ({ save: () => [String(index)] }),
    recover: async (chunks) => void (index = Number(await new Response(chunks as never).text())),
  });
  const { status, out } = await barge(["conform", "--app-url", app.url, ...given, "--json"]);
  expect(status).toBe(1);
  const findings = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { verdict: string });
  expect(findings[0]).toEqual({ title: "Ready is answered with 200", verdict: "ok" } as never);
  const wrong = findings.find(({ verdict }) => verdict === "fault");
  expect(wrong).toMatchObject({
    title: "a snapshot of the present state can be made, and taken back",
    message: expect.stringContaining("the reads do not answer as they should"),
    todo: expect.stringMatching(/./),
  } as never);
});

test("nobody there: 3; no URL, or none that is one: 2", async () => {
  const nobody = await barge(["conform", "--app-url", "http://127.0.0.1:1", "--timeout", "200"]);
  expect([nobody.status, nobody.out]).toEqual([3, ""]);
  const none = await barge(["conform"]);
  expect([none.status, none.err]).toEqual([2, expect.stringContaining("--app-url")]);
  const bad = await barge(["conform", "--app-url", "ftp://a"]);
  expect([bad.status, bad.err]).toEqual([2, expect.stringContaining("http://")]);
});

async function served(machine: Machine) {
  const server = await serveMachine({ port: 0, machine });
  const url = `http://127.0.0.1:${server.port}`;
  return { url, [Symbol.asyncDispose]: () => server.close() };
}
