/**
 * Where the time of one command goes: `barge bench put` with Bun's sampling profiler on in all processes, and the samples added up by the part of the
 * program, in nanoseconds a command. `bun bench/profile.ts [--value-bytes 16,256] [--in-flight 1000] [--seconds 8] [--warmup 2]`. Only what runs on the event loops is
 * in it: the sync and kv Workers are not, nor what the kernel does on its own account.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { LoadReport } from "../src/cli/bench/report.ts";

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** The profiler looks a thousand times a second; a longer time between two samples was spent waiting. */
const sampleUsMax = 1_500;
/** What the runtime does for us, by the name that its profiler gives. */
const natives: Readonly<Record<string, string>> = {
  write: "socket writes",
  run: "SQLite",
  crc32: "checksums",
  notify: "waking the sync Worker",
  writeSync: "watermark file",
  nanoseconds: "reading the clock",
  Promise: "promises",
};

interface Timing {
  readonly inFlight: number;
  readonly seconds: number;
  readonly warmupSeconds: number;
}

/** Microseconds by part. */
type Parts = Map<string, number>;

function partOf({ functionName, url }: Profile["nodes"][number]["callFrame"]): string {
  const room = /\/src\/([a-z]+)\/(bench\/)?/.exec(url);
  if (room !== null) return room[2] === undefined ? `src/${room[1]}` : "load generator";
  const isNative = url === "" && !functionName.startsWith("function ");
  return (isNative ? natives[functionName] : undefined) ?? "runtime, other";
}

function partsOf(profile: Profile): Parts {
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
  const parts: Parts = new Map();
  for (const [at, id] of profile.samples.entries()) {
    const frame = frames.get(id);
    if (frame === undefined) continue;
    const part = partOf(frame);
    const tookUs = Math.min(sampleUsMax, profile.timeDeltas[at]!);
    parts.set(part, (parts.get(part) ?? 0) + tookUs);
  }
  return parts;
}

/** The client and the nodes, of which the one that serves the client leads. */
function rolesOf(profiles: readonly Profile[]): Map<string, Profile[]> {
  const isClient = ({ nodes }: Profile): boolean =>
    nodes.some(({ callFrame }) => callFrame.url.endsWith("/bench/load.ts"));
  const served = ({ nodes, samples }: Profile): number => {
    const leads = nodes.filter(
      ({ callFrame: { functionName, url } }) =>
        functionName === "#seal" || url.endsWith("/server/client-server.ts"),
    );
    const ids = new Set(leads.map(({ id }) => id));
    return samples.filter((id) => ids.has(id)).length;
  };
  const nodes = profiles.filter((profile) => !isClient(profile));
  const [leader, ...followers] = nodes.toSorted((a, b) => served(b) - served(a));
  return new Map([
    ["client", profiles.filter(isClient)],
    ["leader", leader === undefined ? [] : [leader]],
    ["follower", followers],
  ]);
}

async function profiled(
  valueBytes: number,
  { inFlight, seconds, warmupSeconds }: Timing,
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "barge-profile-"));
  try {
    const main = join(import.meta.dir, "../src/main.ts");
    const options =
      `bench put --json --in-flight ${inFlight} --value-bytes ${valueBytes} ` +
      `--seconds ${seconds} --warmup ${warmupSeconds}`;
    const command = [process.execPath, main, ...options.split(" ")];
    const run = Bun.spawn(command, {
      env: { ...process.env, BUN_OPTIONS: `--cpu-prof --cpu-prof-dir=${folder}` },
      stdout: "pipe",
      stderr: "ignore",
    });
    const report = JSON.parse(await new Response(run.stdout).text()) as LoadReport;
    await run.exited;
    const commands = report.operationsPerSecond * (seconds + warmupSeconds);
    const profiles = readdirSync(folder).map(
      (name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Profile,
    );
    const columns = new Map<string, Parts[]>();
    for (const [role, found] of rolesOf(profiles)) columns.set(role, found.map(partsOf));
    return table(valueBytes, report, commands, columns);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function table(
  valueBytes: number,
  report: LoadReport,
  commands: number,
  columns: ReadonlyMap<string, readonly Parts[]>,
): string {
  const roles = ["leader", "follower", "client"];
  const nanoseconds = (role: string, part: string): number => {
    const all = columns.get(role) ?? [];
    const sum = all.reduce((total, parts) => total + (parts.get(part) ?? 0), 0);
    return Math.round((sum * 1_000) / Math.max(1, all.length) / commands);
  };
  const parts = new Set([...columns.values()].flat().flatMap((found) => [...found.keys()]));
  const rows = [...parts]
    .map((part) => ({ part, ns: roles.map((role) => nanoseconds(role, part)) }))
    .filter(({ ns }) => ns.some((value) => value >= 5))
    .toSorted((a, b) => Math.max(...b.ns) - Math.max(...a.ns));
  const total = roles.map((_, at) => rows.reduce((sum, { ns }) => sum + ns[at]!, 0));
  return [
    `values of ${valueBytes} B, ${report.inFlight} in flight, ${report.operationsPerSecond.toLocaleString("en-US")}/s with the profiler on; ns per command`,
    "",
    `| part | ${roles.join(" | ")} |`,
    `| --- | --- | --- | --- |`,
    ...rows.map(({ part, ns }) => `| ${part} | ${ns.join(" | ")} |`),
    `| all | ${total.join(" | ")} |`,
    "",
  ].join("\n");
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      "value-bytes": { type: "string", default: "16,256" },
      "in-flight": { type: "string", default: "1000" },
      seconds: { type: "string", default: "8" },
      warmup: { type: "string", default: "2" },
    },
  });
  const timing: Timing = {
    inFlight: Number(values["in-flight"]),
    seconds: Number(values.seconds),
    warmupSeconds: Number(values.warmup),
  };
  for (const valueBytes of values["value-bytes"].split(",")) {
    process.stdout.write(`${await profiled(Number(valueBytes), timing)}\n`);
  }
}
