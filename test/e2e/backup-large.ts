/**
 * Backup and restore of a large state with bounded memory and no time-out: `bun test/e2e/backup-large.ts --megabytes 1000`. One node, values of
 * 64 KiB; prints the memory of the node before and during the backup, of both commands, how long each took, and what load saw meanwhile.
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/client/index.ts";
import { withCluster } from "./cluster.ts";
import { numberFlags } from "./script-flags.ts";

const { megabytes } = numberFlags({ megabytes: 200 });
const valueBytes = 65_536;
const count = Math.ceil((megabytes * 1e6) / valueBytes);
const program = join(import.meta.dir, "../../src/main.ts");
const folder = mkdtempSync(join(tmpdir(), "barge-large-"));

interface Took {
  readonly seconds: number;
  readonly peakMb: number;
}

async function run(args: readonly string[]): Promise<Took> {
  const startMs = performance.now();
  const child = Bun.spawn([process.execPath, program, ...args], {
    stdout: "inherit",
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) throw new Error(`${args[0]} ended with ${child.exitCode}`);
  const seconds = (performance.now() - startMs) / 1_000;
  return { seconds, peakMb: child.resourceUsage()!.maxRSS / 1e6 };
}

const words = ({ seconds, peakMb }: Took): string =>
  `${seconds.toFixed(1)} s, at most ${Math.round(peakMb)} MB`;

try {
  await withCluster({ nodes: 1 }, async (cluster) => {
    const [node] = cluster.nodes;
    await using client = connect({ endpoints: node!.binary });
    for (let at = 0; at < count; at += 64) {
      const some = Array.from({ length: Math.min(64, count - at) }, (_, i) => {
        const value = new Uint8Array(valueBytes).fill(at + i);
        return client.put(`key${at + i}`, value, { timeoutMs: 30_000 });
      });
      await Promise.all(some);
    }
    const before = (await node!.status()).peakRssBytes;
    let stop = false;
    let slowestMs = 0;
    let puts = 0;
    const load = (async () => {
      while (!stop) {
        const startMs = performance.now();
        await client.put("load", String(puts++));
        slowestMs = Math.max(slowestMs, performance.now() - startMs);
      }
    })();
    const file = join(folder, "large.barge");
    const backup = await run(["backup", file, "--endpoints", node!.binary]);
    stop = true;
    await load;
    const after = (await node!.status()).peakRssBytes;
    const restore = await run(["restore", file, "--data-dir", join(folder, "restored")]);
    const grown = Math.round((after - before) / 1e6);
    process.stdout.write(
      `${Math.round(statSync(file).size / 1e6)} MB: backup ${words(backup)}; the node grew by ${grown} MB and took ${puts} puts meanwhile, the slowest ${Math.round(slowestMs)} ms; restore ${words(restore)}\n`,
    );
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
