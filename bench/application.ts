/**
 * Updates through three nodes to three applications: how many a second, how long one takes, and how many the application gets in one call. Beside it the same
 * load on kv, on the same machine at the same time of day.
 *
 *     bun bench/application.ts [--shapes json,binary,kv] [--in-flight 1,64,1000] [--seconds 5] [--value-bytes 256]
 *
 * The application (`bun bench/application.ts app PORT SHAPE`) does the least that one can do: it counts entries and remembers the last index.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const main = join(import.meta.dir, "..", "src", "main.ts");

if (Bun.argv[2] === "app") application(Number(Bun.argv[3]), Bun.argv[4] ?? "json");
else await measure();

function application(port: number, shape: string): void {
  let stored = 0;
  let calls = 0;
  let entries = 0;
  const instance = crypto.randomUUID();
  const headers = { "barge-instance": instance };
  Bun.serve({
    hostname: "127.0.0.1",
    port,
    fetch: async (request) => {
      const name = new URL(request.url).pathname.slice(1);
      if (name === "UpdateEntries") {
        if (Number(request.headers.get("barge-previous-index")) !== stored) {
          return new Response("gap", { status: 409, headers });
        }
        calls++;
        if (request.headers.get("content-type") === "application/json") {
          const { Entries } = (await request.json()) as {
            Entries: { Index: number; Cmd: string }[];
          };
          entries += Entries.length;
          stored = Entries.at(-1)!.Index;
        } else {
          const view = new DataView(await request.arrayBuffer());
          let at = 4;
          for (let runs = view.getUint32(0, true); runs > 0; runs--) {
            const count = view.getUint32(at + 8, true);
            entries += count;
            stored = Number(view.getBigUint64(at, true)) + count - 1;
            at += 16 + view.getUint32(at + 12, true);
          }
        }
        return new Response(null, { headers });
      }
      if (name === "Ready") return Response.json({ Shape: shape }, { headers });
      if (name === "LastLogIndex") return Response.json({ LastLogIndex: stored }, { headers });
      if (name === "counts") return Response.json({ calls, entries });
      return new Response("not here", { status: 404, headers });
    },
  });
}

async function measure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      shapes: { type: "string", default: "json,binary,kv" },
      "in-flight": { type: "string", default: "1,64,1000" },
      seconds: { type: "string", default: "5" },
      "value-bytes": { type: "string", default: "256" },
    },
  });
  for (const shape of values.shapes.split(",")) {
    await using cluster = await startCluster(shape);
    for (const inFlight of values["in-flight"].split(",")) {
      const before = await cluster.counts();
      const report = await load(cluster.endpoints, inFlight, values.seconds, values["value-bytes"]);
      const after = await cluster.counts();
      const calls = after.calls - before.calls;
      const batch =
        calls === 0
          ? ""
          : `, ${((after.entries - before.entries) / calls).toFixed(1)} entries a call`;
      const { operationsPerSecond, latencyMs, errors, unknown } = report;
      console.log(
        `${shape}, ${inFlight} in flight: ${Math.round(operationsPerSecond)}/s, p50 ${latencyMs.p50} ms, p99 ${latencyMs.p99} ms${batch}; errors ${errors}, unknown ${unknown}`,
      );
    }
  }
}

interface Report {
  readonly operationsPerSecond: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number };
  readonly errors: number;
  readonly unknown: number;
}

async function load(
  endpoints: string,
  inFlight: string,
  seconds: string,
  valueBytes: string,
): Promise<Report> {
  const argv = ["bun", main, "bench", "put", "--json", "--endpoints", endpoints];
  argv.push("--in-flight", inFlight, "--seconds", seconds, "--warmup", "1");
  argv.push("--value-bytes", valueBytes);
  const process = Bun.spawn(argv, { stdout: "pipe", stderr: "inherit" });
  const text = await new Response(process.stdout).text();
  return JSON.parse(text) as Report;
}

async function startCluster(shape: string) {
  const folder = mkdtempSync(join(import.meta.dir, ".bench-application-"));
  const ports = Array.from({ length: 9 }, () => {
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    return server;
  });
  const numbers = ports.map(({ port }) => port);
  for (const server of ports) server.stop(true);
  const members = [1, 2, 3].map((id) => `${id}=127.0.0.1:${numbers[id - 1]}`).join(",");
  const processes: Bun.Subprocess[] = [];
  const start = (argv: string[]): void =>
    void processes.push(Bun.spawn(["bun", ...argv], { stdout: "ignore", stderr: "ignore" }));
  for (const id of [1, 2, 3]) {
    const app = `http://127.0.0.1:${numbers[id + 5]}`;
    if (shape !== "kv") start([import.meta.path, "app", String(numbers[id + 5]), shape]);
    const listen = ["--listen", `127.0.0.1:${numbers[id - 1]}`];
    const http = ["--http-listen", `127.0.0.1:${numbers[id + 2]}`];
    const machine = shape === "kv" ? [] : ["--app-url", app];
    const data = ["--data-dir", join(folder, String(id)), "--initial-members", members];
    start([main, "serve", "--node-id", String(id), ...listen, ...http, ...data, ...machine]);
  }
  for (const id of [1, 2, 3]) await ready(`http://127.0.0.1:${numbers[id + 2]}/readyz`);
  return {
    endpoints: numbers
      .slice(0, 3)
      .map((port) => `127.0.0.1:${port}`)
      .join(","),
    async counts(): Promise<{ calls: number; entries: number }> {
      if (shape === "kv") return { calls: 0, entries: 0 };
      const answers = [6, 7, 8].map(async (at) => {
        const response = await fetch(`http://127.0.0.1:${numbers[at]}/counts`);
        return (await response.json()) as { calls: number; entries: number };
      });
      const all = await Promise.all(answers);
      return {
        calls: all.reduce((sum, { calls }) => sum + calls, 0),
        entries: all.reduce((sum, { entries }) => sum + entries, 0),
      };
    },
    async [Symbol.asyncDispose](): Promise<void> {
      for (const process of processes) process.kill("SIGKILL");
      await Promise.all(processes.map((process) => process.exited));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function ready(url: string): Promise<void> {
  const untilMs = performance.now() + 20_000;
  for (;;) {
    const isReady = await fetch(url).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return;
    if (performance.now() > untilMs) throw new Error(`${url} is not ready`);
    await Bun.sleep(50);
  }
}
