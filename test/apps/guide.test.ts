/** The guide of src/machine/http/README.md: its application, its commands and its examples do what it says. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { conform } from "../../src/conform/conform.ts";
import { freePorts, until } from "../e2e/cluster.ts";
import { TestApplication, typescript } from "./applications.ts";

setDefaultTimeout(120_000);

const root = join(import.meta.dir, "../..");
const readme = await Bun.file(join(root, "src/machine/http/README.md")).text();
const folder = mkdtempSync(join(tmpdir(), "barge-guide-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The application of the guide, over the SDK in this tree. */
function countersFile(): string {
  const code = /<!-- example: counters -->\s+```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(code.split("\n").length).toBeLessThan(60);
  const path = join(folder, "counters.ts");
  writeFileSync(path, code.replace('"barge-client"', `"${join(root, "src/client/index.ts")}"`));
  return path;
}

test("the application of the guide keeps to the contract, whenever it is killed", async () => {
  const [port] = freePorts(1);
  const data = join(folder, "conform");
  mkdirSync(data);
  const start = `PORT=${port} DATA_DIR=${data} exec '${process.execPath}' '${countersFile()}'`;
  const findings = await conform(
    {
      url: `http://127.0.0.1:${port}`,
      group: 0,
      timeoutMs: 20_000,
      startMs: 20_000,
      start,
      updates: ["hits 1", "a{n} {n}"],
      reads: ["hits", "a{n}"],
      sync: false,
      random: Math.random,
    },
    () => {},
  );
  expect(findings.filter(({ verdict }) => verdict === "fault")).toEqual([]);
  expect(findings.length).toBe(20);
});

test("what the guide has typed does what it says, and goes on without whoever led", async () => {
  const file = countersFile();
  const [a, b, c, ...more] = freePorts(9) as [number, number, number, ...number[]];
  const members = [a, b, c].map((port, at) => `${at + 1}=127.0.0.1:${port}`).join(",");
  const children: Bun.Subprocess[] = [];
  const io = ["ignore", "ignore", "ignore"] as ["ignore", "ignore", "ignore"];
  try {
    for (const [at, listen] of [a, b, c].entries()) {
      const data = join(folder, `data${at + 1}`);
      mkdirSync(data);
      const port = String(more[at]!);
      const env = { ...process.env, PORT: port, DATA_DIR: data };
      children.push(Bun.spawn([process.execPath, file], { env, stdio: io }));
      const flags = {
        "node-id": at + 1,
        "data-dir": `${data}/log`,
        "app-url": `http://127.0.0.1:${port}`,
        listen: `127.0.0.1:${listen}`,
        "http-listen": `127.0.0.1:${more[3 + at]!}`,
        "initial-members": members,
      };
      const words = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
      for (const word of Object.keys(flags)) expect(readme).toContain(`--${word} `);
      const program = [process.execPath, join(root, "src/main.ts"), "serve", ...words];
      children.push(Bun.spawn(program, { stdio: io }));
    }
    const post = async (
      node: number,
      path: string,
      body: string,
      headers: Record<string, string> = {},
    ): Promise<string> => {
      const url = `http://127.0.0.1:${more[2 + node]!}${path}`;
      return (await fetch(url, { method: "POST", body, headers })).text();
    };
    for (const node of [1, 2, 3]) {
      await until(`node ${node} is ready`, async () => {
        return (await fetch(`http://127.0.0.1:${more[2 + node]!}/rc`)).ok;
      });
    }
    expect(await post(1, "/raft/update", "hits 1")).toBe("1");
    expect(await post(2, "/raft/update", "hits 1")).toBe("2");
    expect(await post(3, "/raft/read", "hits")).toBe("2");
    const status = await fetch(`http://127.0.0.1:${more[3]!}/v1/status`);
    const { groups } = (await status.json()) as { groups: { leader: number }[] };
    const leader = groups[0]!.leader;
    // The application and the daemon of whoever leads.
    for (const child of children.slice(2 * leader - 2, 2 * leader)) child.kill("SIGKILL");
    const [first, second] = [1, 2, 3].filter((node) => node !== leader) as [number, number];
    const once = { "barge-request-id": "order-17" };
    const isThird = async (): Promise<boolean> =>
      (await post(first, "/raft/update", "hits 1", once)) === "3";
    await until("the others go on, and apply it once", isThird);
    expect(await post(second, "/raft/read", "hits")).toBe("3");
  } finally {
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map((child) => child.exited));
  }
});

test("every callback is answered as the examples say", async () => {
  const text = /<!-- examples: callbacks -->\s+```text\n([\s\S]*?)```/.exec(readme)![1]!;
  await using app = new TestApplication(typescript, join(folder, "examples"));
  await app.start();
  const asked = new Set<string>();
  let handle = "";
  for (const example of text.trim().split("\n\n")) {
    const lines = example.split("\n");
    const path = /^> POST (\/\w+)$/.exec(lines[0]!)![1]!;
    asked.add(path);
    const heads = lines.slice(1).flatMap((line) => {
      const match = /^> ([a-z-]+): (.+)$/.exec(line);
      return match === null ? [] : [[match[1]!, match[2]!] as [string, string]];
    });
    const body = lines
      .filter((line) => /^> (?!POST|[a-z-]+: )/.test(line))
      .map((line) => line.slice(2));
    const sent = (body[0] ?? "")
      .replaceAll("\\n", "\n")
      .replace('"Handle":1', `"Handle":${handle}`);
    const response = await fetch(app.url + path, {
      method: "POST",
      headers: Object.fromEntries(heads),
      ...(sent === "" ? {} : { body: sent }),
    });
    const said = await response.text();
    handle = /"Handle":(\d+)/.exec(said)?.[1] ?? handle;
    const shown = said.replace(/"Handle":\d+/, '"Handle":1').replaceAll("\n", "\\n");
    expect(`< ${response.status} ${shown}`).toBe(lines.at(-1)!);
  }
  const table = [...readme.matchAll(/^\| `(\w+)` +\| /gm)].map((match) => `/${match[1]!}`);
  expect([...asked].toSorted()).toEqual(table.filter((name) => /^\/[A-Z]/.test(name)).toSorted());
});
