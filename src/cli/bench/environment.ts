/** Where a benchmark ran, as far as its figures depend on it. */
import { spawnSync } from "node:child_process";
import { statfsSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";

export interface Environment {
  readonly bun: string;
  readonly cores: number;
  /** Of the folder that holds the data; "remote" with nodes that were not started here. */
  readonly filesystem: string;
  /** Load average of the last minute, before the run. */
  readonly load: number;
  readonly commit: string;
}

const magics: Readonly<Record<number, string>> = {
  0xef53: "ext4",
  0x5846_5342: "xfs",
  0x9123_683e: "btrfs",
  0x0102_1994: "tmpfs",
  0x8584_58f6: "ramfs",
  0x794c_7630: "overlay",
  0x2fc1_2fc1: "zfs",
  0xf2f5_2010: "f2fs",
  0x6969: "nfs",
};

export function describeEnvironment(dir: string | undefined): Environment {
  return {
    bun: Bun.version,
    cores: availableParallelism(),
    filesystem: dir === undefined ? "remote" : filesystemOf(dir),
    load: Math.round(loadavg()[0]! * 100) / 100,
    commit: currentCommit(),
  };
}

export function filesystemOf(dir: string): string {
  const type = statfsSync(dir).type >>> 0;
  return magics[type] ?? `0x${type.toString(16)}`;
}

function currentCommit(): string {
  const git = spawnSync("git", ["rev-parse", "--short", "HEAD"], {
    cwd: import.meta.dir,
    encoding: "utf8",
  });
  return git.status === 0 ? git.stdout.trim() : "unknown";
}
