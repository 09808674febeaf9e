/**
 * What a daemon under power cuts loads first: bounds so small that a second of load rotates and recycles segments, flushes, checkpoints and
 * compacts many times.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Build, thisBuild } from "../e2e/cluster.ts";

const environmentName = "SMALL_BOUNDS";

export const smallBuild: Build = {
  name: "small bounds",
  bunArguments: [`--preload=${import.meta.path}`, ...thisBuild.bunArguments],
  environment: { [environmentName]: "1" },
};

/** With these the log goes away as soon as it may. */
export const smallFlags: readonly string[] = [
  "--compact-entries=0",
  "--compact-bytes=60000",
  "--compact-tail-bytes=20000",
];

const changes: Readonly<Record<string, string>> = {
  "segmentBytes: 64 * MiB": "segmentBytes: 256 * KiB",
  "memtableFlushMs: 30_000": "memtableFlushMs: 100",
  "flushLogBytesMin: 64 * KiB": "flushLogBytesMin: 1",
  "flushLogBytes: 512 * MiB": "flushLogBytes: 256 * KiB",
  "kvWalBytesMax: 256 * MiB": "kvWalBytesMax: 512 * KiB",
  "retainedLogBytesMax: 1024 * MiB": "retainedLogBytesMax: 512 * KiB",
};

function plant(): void {
  const path = join(import.meta.dir, "../../src/limits.ts");
  let contents = readFileSync(path, "utf8");
  for (const [from, to] of Object.entries(changes)) {
    if (contents.split(from).length !== 2) throw new Error(`limits.ts has not once: ${from}`);
    contents = contents.replace(from, to);
  }
  Bun.plugin({
    name: "small bounds",
    setup(build) {
      build.onLoad({ filter: /\/src\/limits\.ts$/ }, () => ({ contents, loader: "ts" }));
    },
  });
}

if (process.env[environmentName] !== undefined) plant();
