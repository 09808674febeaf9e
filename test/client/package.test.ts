/**
 * The package that people install, in both worlds: the examples of its README run against a real node, by `node` and by `bun`, and its types
 * serve a strict program without any others. Where there is no `node`, it says so.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OneNode, oneNode } from "../node/one-node.ts";
import { buildClientPackage, compile } from "../structure/client-package.ts";
import { printed, readExamples } from "./examples.ts";

const program = `
import { BargeError, connect, type Change, type Client, type RangeItem } from "barge-client";

export async function use(client: Client<"json">): Promise<number> {
  const { revision } = await client.put("a", { b: 1 }, { timeoutMs: 100 });
  const { succeeded, results } = await client
    .txn()
    .compare({ key: "k", exists: false })
    .onSuccess({ op: "put", key: "k", value: 1 })
    .onFailure({ op: "get", key: "k" })
    .commit();
  if (succeeded) results[0].revision;
  else results[0]?.value;
  for await (const item of client.scan({ prefix: "p" })) item satisfies RangeItem<"json">;
  await client.changeMembers([{ op: "promote", id: 3 }]);
  return revision;
}
export const client = connect({ endpoints: ["a:1"], codec: "json", session: "required" });
export const isOurs = (error: unknown): boolean => error instanceof BargeError && error.outcome === "unknown";
export type Any = Change;
// @ts-expect-error there is no such option
connect({ endpoint: "a:1" });
`;

const testMsMax = 60_000;
let app: string;
let node: OneNode;

beforeAll(async () => {
  app = mkdtempSync(join(tmpdir(), "barge-app-"));
  mkdirSync(join(app, "node_modules"));
  await buildClientPackage(join(app, "node_modules", "barge-client"));
  node = await oneNode();
}, testMsMax);

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  rmSync(app, { recursive: true, force: true });
});

const runtimes = { node: Bun.which("node"), bun: process.execPath };

for (const [name, runtime] of Object.entries(runtimes)) {
  const title = `the examples of the README, run by ${name}${runtime === null ? ": skipped, as there is none here" : ""}`;
  test.skipIf(runtime === null)(
    title,
    async () => {
      const examples = await readExamples();
      expect([...examples.keys()].sort()).toEqual(Object.keys(printed).sort());
      for (const [example, source] of examples) {
        const path = join(app, `${name}-${example}.mjs`);
        await Bun.write(path, source);
        const run = Bun.spawn([runtime!, path], {
          cwd: app,
          env: { ...process.env, BARGE_ENDPOINTS: node.endpoint },
          stdout: "pipe",
          stderr: "pipe",
        });
        const [out, err] = await Promise.all([
          new Response(run.stdout).text(),
          new Response(run.stderr).text(),
        ]);
        expect({ example, out: out.trim(), err }).toEqual({
          example,
          out: printed[example]!,
          err: "",
        });
        expect(await run.exited).toBe(0);
      }
    },
    testMsMax,
  );
}

test(
  "the types serve a strict program by themselves, whatever way modules are found",
  async () => {
    const path = join(app, "program.mts");
    await Bun.write(path, program);
    const strict = ["--ignoreConfig", "--noEmit", "--strict", "--exactOptionalPropertyTypes"];
    const world = ["--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "--types", ""];
    for (const resolution of ["nodenext", "bundler"]) {
      const module = resolution === "nodenext" ? "nodenext" : "esnext";
      const modules = ["--module", module, "--moduleResolution", resolution];
      await compile(...strict, ...world, ...modules, path);
    }
  },
  testMsMax,
);

test("the package is one that can be moved: it names no place of this machine", async () => {
  const text = await Bun.file(join(app, "node_modules/barge-client/index.js")).text();
  expect(text).not.toContain(join(import.meta.dir, "..", ".."));
});
