/** What a chaos run prints at its end. */
import type { ChaosReport } from "./chaos.ts";

export function reportText(report: ChaosReport): string {
  const {
    counts,
    figures,
    seconds,
    nodes,
    network,
    seed,
    epochs,
    leftOut,
    violations,
    changes,
    watchGaps,
    groups,
  } = report;
  const { operations, succeeded, refused, unknown, errors } = counts;
  const count = [...figures.values()].reduce((sum, each) => sum + each.count, 0);
  const rows = [...figures]
    .sort(([, a], [, b]) => b.longestGapMs - a.longestGapMs)
    .map(([kind, { count: times, ms, longestGapMs, longestGapAloneMs }]) =>
      [
        kind.padEnd(18),
        String(times).padStart(6),
        (ms / 1_000).toFixed(0).padStart(9),
        (longestGapAloneMs / 1_000).toFixed(2).padStart(12),
        (longestGapMs / 1_000).toFixed(2).padStart(14),
      ].join(""),
    );
  const codes = [...errors]
    .sort(([, a], [, b]) => b - a)
    .map(([code, times]) => `${code} ${times}`);
  return `
chaos: ${nodes} nodes, network ${network}, seed ${seed}, ${seconds} s
operations  ${operations}: ${succeeded} succeeded, ${refused} not applied, ${unknown} unknown
errors      ${codes.join(", ") || "none"}
histories   ${epochs} checked, of ${groups} ${groups === 1 ? "group" : "groups"}
watches     ${changes} changes told; ${watchGaps} times what a watcher asked for was compacted
faults      ${count}${leftOut.length > 0 ? `; not possible here: ${leftOut.join(", ")}` : ""}
violations  ${violations.length}

longest time without an acknowledged write, in seconds:

${"fault".padEnd(18)} times  seconds       alone  with another
${rows.join("\n")}
${violations.map((each) => `\nVIOLATION: ${each}\n`).join("")}`;
}
