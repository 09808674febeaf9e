/** The most memory that this process has had at once. */
import { readFileSync } from "node:fs";

/**
 * Bytes resident at the peak. What the kernel says of resource usage (getrusage) begins at what the parent had when it started this process, so where there is
 * `/proc` that is asked, which begins anew with the program.
 */
export function peakRssBytes(): number {
  return peakIn("/proc/self/status") ?? process.resourceUsage().maxRSS * 1_024;
}

function peakIn(path: string): number | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(text)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1_024;
}
