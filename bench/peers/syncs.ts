/**
 * Evidence that everybody here is durable: runs each system for a few seconds under strace and counts the calls that force data to the
 * disk, by the folder of the node that made them. strace slows the runs, so the rates mean nothing beside those of run.ts.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { benchFolder } from "../../src/cli/bench/nodes.ts";
import { buildPeer, goVersion } from "./build.ts";
import { describeLoad, type PeerLoad, peerLoads } from "./loads.ts";
import { barge, peers, peerSystem, type System, type Timing } from "./systems.ts";

const timing: Timing = { warmupSeconds: 1, seconds: 4 };
const loadNames = ["put-256-64", "put-256-1000"];
const calls = "fsync,fdatasync,sync_file_range,msync,sync,syncfs";

if (import.meta.main) main();

function main(): void {
  const go = goVersion();
  if (go === undefined || Bun.which("strace") === null) {
    process.stdout.write("Skipped: needs `go` and `strace` on the PATH.\n");
    return;
  }
  const systems: System[] = [barge];
  for (const peer of peers) {
    const built = buildPeer(peer, go);
    if (built.ok) systems.push(peerSystem(peer, built.binary));
    else process.stderr.write(`skip ${peer.name}: ${built.reason}\n`);
  }
  const dir = benchFolder(undefined);
  process.once("exit", () => rmSync(dir, { recursive: true, force: true }));
  for (const load of peerLoads.filter(({ name }) => loadNames.includes(name))) {
    process.stdout.write(
      `${describeLoad(load)}, for ${timing.warmupSeconds + timing.seconds} s:\n`,
    );
    for (const system of systems) process.stdout.write(`  ${count(system, load, dir)}\n`);
  }
}

function count(system: System, load: PeerLoad, dir: string): string {
  const folder = mkdtempSync(join(dir, "run-"));
  const trace = join(dir, "trace");
  const strace = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-y",
    "-qq",
    "-e",
    `trace=${calls}`,
    "-o",
    trace,
    "--",
  ];
  const [program, ...words] = [...strace, ...system.command(load, timing, folder)];
  const run = spawnSync(program!, words, { encoding: "utf8", timeout: 120_000 });
  if (run.status !== 0) return `${system.name}: failed, ${run.stderr.trim().slice(-300)}`;
  const { operationsPerSecond } = system.parse(run.stdout);
  const byNode = [...syncsByNode(readFileSync(trace, "utf8"))].toSorted(([a], [b]) =>
    a.localeCompare(b),
  );
  rmSync(folder, { recursive: true, force: true });
  const counts = byNode.map(([node, ofNode]) => {
    const kinds = [...ofNode].map(([call, times]) => `${times.toLocaleString("en-US")} ${call}`);
    return `${node} ${kinds.join(" + ")}`;
  });
  return `${system.name}: ${counts.join(", ")} (${Math.round(operationsPerSecond).toLocaleString("en-US")} puts/s under strace)`;
}

/** A call that was interrupted by another thread's has a second line, which names no file and is not counted. */
export function syncsByNode(trace: string): Map<string, Map<string, number>> {
  const byNode = new Map<string, Map<string, number>>();
  for (const match of trace.matchAll(/^\d+\s+(\w+)\(\d+<[^>]*\/(node\d)\b[^>]*>/gm)) {
    const [, call, node] = match;
    const ofNode = byNode.get(node!) ?? new Map<string, number>();
    byNode.set(node!, ofNode.set(call!, (ofNode.get(call!) ?? 0) + 1));
  }
  return byNode;
}
