/** A sample of chaos, with each kind of fault as time allows; `run.ts` beside runs as long as one likes. A failure prints its seed. */
import { expect, test } from "bun:test";
import { runChaos } from "./chaos.ts";
import { reportText } from "./report.ts";

const seconds = 60;
/** With the recovery after the last fault, and others on the same cores. */
const testMsMax = (seconds + 150) * 1_000;

test(
  `${seconds} s of faults on three daemons break no promise`,
  async () => {
    const seed = Date.now() % 1_000_000;
    const lines: string[] = [];
    const report = await runChaos({
      seed,
      seconds,
      nodes: 3,
      clients: 10,
      watchers: 2,
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
