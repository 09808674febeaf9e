/** A sample of chaos on disks that fail, stall and run full, with kills and snapshots in between. A failure prints its seed. */
import { expect, test } from "bun:test";
import { runChaos } from "./chaos.ts";
import { reportText } from "./report.ts";

const seconds = 50;
/** With the recovery after the last fault, and others on the same cores. */
const testMsMax = (seconds + 150) * 1_000;

test(
  `${seconds} s of disks that fail, stall or run full break no promise`,
  async () => {
    const lines: string[] = [];
    const report = await runChaos({
      seed: Date.now() % 1_000_000,
      seconds,
      nodes: 3,
      clients: 10,
      watchers: 2,
      kinds: ["failing disk", "stalled disk", "full disk", "kill one", "snapshots"],
      smallDisks: true,
      pairs: 0.35,
      pauseMs: 20,
      say: (line) => lines.push(line),
    });
    if (report.leftOut.length > 0) {
      process.stderr.write(`skip: cannot be brought on here: ${report.leftOut.join(", ")}\n`);
    }
    if (report.violations.length > 0) {
      process.stderr.write(`${lines.join("\n")}\n${reportText(report)}\n`);
    }
    expect(report.violations).toEqual([]);
    expect(report.counts.succeeded).toBeGreaterThan(100);
    expect(report.epochs).toBeGreaterThan(2);
  },
  testMsMax,
);
