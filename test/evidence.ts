/**
 * What long runs have shown, one JSON line each in evidence.jsonl: on which commit, what ran, how much of it, what it found. Scripts that
 * run for long call `recordEvidence` when they end; the table in README.md is made from the file, and a test keeps it fresh.
 *
 *     bun test/evidence.ts        writes the table anew
 */
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

const root = join(import.meta.dir, "..");
const evidencePath = join(import.meta.dir, "evidence.jsonl");
export const readmePath: string = join(root, "README.md");

/** What is counted: one row of the table each, in this order. */
export const evidenceKinds = {
  simulation: "simulation of whole clusters",
  chaos: "chaos on real processes",
  soak: "mixed load, resources watched",
  kills: "kill -9 under load",
  images: "power cuts, as images rebuilt from a trace",
  power: "power cuts on ext4 and xfs, under load",
  fuzz: "frames bent at random",
  hostile: "a hostile peer",
  upgrades: "rolling upgrades under load",
  porcupine: "histories judged by Porcupine too",
} as const;

export type EvidenceKind = keyof typeof evidenceKinds;

export interface Evidence {
  readonly date: string;
  /** With a `+` where src was not as committed. */
  readonly commit: string;
  readonly kind: EvidenceKind;
  /** How to run it again. */
  readonly command: string;
  /** How long it took. */
  readonly seconds: number;
  /** How much of what the kind counts in: seeds, operations, frames. */
  readonly amounts: Readonly<Record<string, number>>;
  /** Each thing found, in words; none is what one hopes for. */
  readonly findings: readonly string[];
}

export function recordEvidence(entry: Omit<Evidence, "date" | "commit" | "command">): void {
  const line: Evidence = {
    date: new Date().toISOString().slice(0, 10),
    commit: commitName(),
    command: commandLine(),
    ...entry,
  };
  appendFileSync(evidencePath, `${JSON.stringify(line)}\n`);
  writeFileSync(readmePath, withTable(readFileSync(readmePath, "utf8")));
}

export function readEvidence(): Evidence[] {
  const lines = readFileSync(evidencePath, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as Evidence);
}

/** The text of README.md with the table of what is in the file now. */
export function withTable(readme: string): string {
  const [begin, end] = ["<!-- evidence -->\n", "<!-- /evidence -->\n"];
  const at = readme.indexOf(begin);
  const until = readme.indexOf(end);
  if (at < 0 || until < at) throw new Error(`README.md lacks ${begin.trim()} … ${end.trim()}`);
  return `${readme.slice(0, at + begin.length)}\n${table(readEvidence())}\n${readme.slice(until)}`;
}

function table(all: readonly Evidence[]): string {
  const cells = [["what", "last run", "on commit", "found", "in all"]];
  for (const [kind, what] of Object.entries(evidenceKinds)) {
    const runs = all.filter((each) => each.kind === kind);
    const last = runs.at(-1);
    if (last === undefined) continue;
    const seconds = runs.reduce((sum, each) => sum + each.seconds, 0);
    const found = runs.reduce((sum, each) => sum + each.findings.length, 0);
    cells.push([
      what,
      `${amountsText(last.amounts)} in ${timeText(last.seconds)}`,
      last.commit,
      last.findings.length === 0 ? "nothing" : last.findings.join("; ").replaceAll("|", "/"),
      `${runs.length} ${runs.length === 1 ? "run" : "runs"}, ${amountsText(sumOf(runs))} in ${timeText(seconds)}; ${found} found`,
    ]);
  }
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |\n`;
  const rule = line(widths.map((width) => "-".repeat(width)));
  return line(cells[0]!) + rule + cells.slice(1).map(line).join("");
}

function sumOf(runs: readonly Evidence[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const { amounts } of runs) {
    for (const [name, amount] of Object.entries(amounts)) sum[name] = (sum[name] ?? 0) + amount;
  }
  return sum;
}

function amountsText(amounts: Readonly<Record<string, number>>): string {
  return Object.entries(amounts)
    .map(([name, amount]) => `${amount.toLocaleString("en-US")} ${name}`)
    .join(", ");
}

function timeText(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 120 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
}

function commitName(): string {
  const git = (...words: string[]): string =>
    Bun.spawnSync(["git", ...words], { cwd: root })
      .stdout.toString()
      .trim();
  const changed = git("status", "--porcelain", "--", "src") !== "";
  return git("rev-parse", "--short=7", "HEAD") + (changed ? "+" : "");
}

function commandLine(): string {
  const [, script = "", ...words] = process.argv;
  const quoted = words.map((word) => (/^[\w./=-]+$/.test(word) ? word : `"${word}"`));
  return ["bun", relative(root, script), ...quoted].join(" ");
}

if (import.meta.main) {
  writeFileSync(readmePath, withTable(readFileSync(readmePath, "utf8")));
}
