/** The machine that a comparison ran on, and what else it was doing. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { filesystemOf } from "../../src/cli/bench/environment.ts";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  /** Of the folder that holds everybody's data. */
  readonly filesystem: string;
  /** Load average of the last minute, before the start. */
  readonly load: number;
  /** Cores that were busy before the start, looked at for a second. */
  readonly busyCores: number;
}

export async function describeMachine(dir: string): Promise<Machine> {
  const load = loadavg()[0]!;
  const before = busySeconds();
  await Bun.sleep(1_000);
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGb: Math.round(totalmem() / 1e9),
    kernel: `${process.platform} ${release()}`,
    filesystem: filesystemOf(dir),
    load: Math.round(load * 100) / 100,
    busyCores: Math.round((busySeconds() - before) * 100) / 100,
  };
}

const ticksPerSecond = 100;

/** CPU time that the whole machine has spent; 0 where the system does not say. */
export function busySeconds(): number {
  try {
    const fields = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]!.trim().split(/\s+/);
    // user, nice, system, irq, softirq
    const ticks = [1, 2, 3, 6, 7].reduce((sum, i) => sum + Number(fields[i]), 0);
    return ticks / ticksPerSecond;
  } catch {
    return 0;
  }
}
