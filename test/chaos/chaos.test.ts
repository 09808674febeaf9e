/** A sample of chaos, with each kind of fault as time allows; `run.ts` beside runs as long as one likes. A failure prints its seed. */
import { expect, test } from "bun:test";
import { runChaos } from "./chaos.ts";
import { type Fault, faults } from "./faults.ts";
import { reportText } from "./report.ts";

const samples = [
  { what: "one group", groups: 0, clients: 10, seconds: 45 },
  { what: "five groups that move", groups: 4, clients: 15, seconds: 30 },
];
/** The recovery after the last fault, and others on the same cores. */
const slackMs = 150_000;

for (const { what, groups, clients, seconds } of samples) {
  test(
    `${seconds} s of faults on three daemons with ${what} break no promise`,
    async () => {
      const seed = Date.now() % 1_000_000;
      const lines: string[] = [];
      const report = await runChaos({
        seed,
        seconds,
        nodes: 3,
        clients,
        watchers: 2,
        groups,
        pairs: 0.35,
        pauseMs: 20,
        say: (line) => lines.push(line),
      });
      const leftOut = report.leftOut.filter((kind) => {
        const { needs }: Fault = faults[kind];
        return needs !== "groups";
      });
      if (leftOut.length > 0) {
        process.stderr.write(`skip: cannot be brought on here: ${leftOut.join(", ")}\n`);
      }
      if (report.violations.length > 0) {
        process.stderr.write(`${lines.join("\n")}\n${reportText(report)}\n`);
      }
      expect(report.violations).toEqual([]);
      expect(report.counts.succeeded).toBeGreaterThan(100);
      expect(report.epochs).toBeGreaterThan(2);
    },
    seconds * 1_000 + slackMs,
  );
}
