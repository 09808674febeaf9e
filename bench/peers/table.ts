/**
 * From single runs to the table. Machines drift, so a ratio is only ever taken between two runs of the same round, which lie within a
 * minute of each other; what is shown is the median of those ratios, not the ratio of the medians.
 */
import { describeLoad, type PeerLoad } from "./loads.ts";
import { bargeName, type Measured } from "./systems.ts";

export interface Run extends Measured {
  readonly load: string;
  readonly round: number;
  readonly system: string;
  /** Busy cores that belonged to nothing of this run, on the average from its start to its end. */
  readonly foreignCores: number;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface Row {
  readonly load: string;
  readonly system: string;
  readonly rounds: number;
  readonly operationsPerSecond: Spread;
  readonly p50Ms: Spread;
  /** Barge's operations per second through this system's, by rounds that have both; absent for Barge itself. */
  readonly ratio?: Spread;
  readonly errors: number;
}

/** Other work above this is worth a warning. */
export const foreignCoresMax = 0.25;
const roundsMin = 3;

export function rowsOf(
  loads: readonly PeerLoad[],
  systems: readonly string[],
  runs: readonly Run[],
): Row[] {
  const rows: Row[] = [];
  for (const load of loads) {
    const ofLoad = runs.filter((run) => run.load === load.name);
    const ours = ofLoad.filter((run) => run.system === bargeName);
    for (const system of systems) {
      const own = ofLoad.filter((run) => run.system === system);
      if (own.length === 0) continue;
      const ratios = system === bargeName ? [] : ratiosByRound(ours, own);
      rows.push({
        load: load.name,
        system,
        rounds: own.length,
        operationsPerSecond: spread(own.map((run) => run.operationsPerSecond)),
        p50Ms: spread(own.map((run) => run.p50Ms)),
        ...(ratios.length === 0 ? {} : { ratio: spread(ratios) }),
        errors: errorsOf(own),
      });
    }
  }
  return rows;
}

function ratiosByRound(ours: readonly Run[], theirs: readonly Run[]): number[] {
  return theirs.flatMap((their) => {
    const our = ours.find(({ round }) => round === their.round);
    return our === undefined ? [] : [our.operationsPerSecond / their.operationsPerSecond];
  });
}

function errorsOf(runs: readonly Run[]): number {
  return runs.reduce((sum, { errors }) => sum + errors, 0);
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median =
    sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** Why the table may mislead; empty when nothing speaks against it. */
export function doubtsOf(
  loads: readonly PeerLoad[],
  systems: readonly string[],
  runs: readonly Run[],
  roundsAsked: number,
  suits: (system: string, load: PeerLoad) => boolean = () => true,
): string[] {
  const doubts: string[] = [];
  const disturbed = runs.filter((run) => run.foreignCores > foreignCoresMax);
  if (disturbed.length > 0) {
    const worst = Math.max(...disturbed.map((run) => run.foreignCores));
    doubts.push(
      `other work took more than ${foreignCoresMax} cores during ${disturbed.length} of ${runs.length} runs (up to ${worst.toFixed(2)})`,
    );
  }
  for (const load of loads) {
    for (const system of systems) {
      if (!suits(system, load)) continue;
      const own = runs.filter((run) => run.load === load.name && run.system === system);
      const place = `${system}, ${describeLoad(load)}`;
      if (own.length < roundsAsked) {
        doubts.push(`${place}: ${own.length} of ${roundsAsked} rounds succeeded`);
      }
      const errors = errorsOf(own);
      if (errors > 0) {
        const first = own.find(({ firstError }) => firstError !== undefined)?.firstError;
        doubts.push(
          `${place}: ${errors} operations failed${first === undefined ? "" : `, first: ${first}`}`,
        );
      }
    }
  }
  if (roundsAsked < roundsMin) {
    doubts.push(`fewer than ${roundsMin} rounds: the spread says nothing`);
  }
  return doubts;
}

/** In Markdown, aligned so that a terminal shows it as well. */
export function markdownTable(loads: readonly PeerLoad[], rows: readonly Row[]): string {
  const head = ["load", "system", "operations/s", "p50 ms", `${bargeName} / system`];
  const cells = rows.map((row) => [
    describeLoad(loads.find((load) => load.name === row.load)!),
    row.system,
    withSpread(row.operationsPerSecond, (value) => Math.round(value).toLocaleString("en-US")),
    withSpread(row.p50Ms, (value) => value.toFixed(2)),
    row.ratio === undefined ? "" : withSpread(row.ratio, (value) => `${value.toFixed(2)}x`),
  ]);
  const widths = head.map((title, i) =>
    Math.max(title.length, ...cells.map((row) => row[i]!.length)),
  );
  const isNumber = (column: number): boolean => column >= 2;
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => (isNumber(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join(" | ")} |`;
  const rule = widths.map((width, i) =>
    isNumber(i) ? `${"-".repeat(width - 1)}:` : "-".repeat(width),
  );
  return [line(head), `| ${rule.join(" | ")} |`, ...cells.map(line)].join("\n");
}

function withSpread({ median, min, max }: Spread, format: (value: number) => string): string {
  if (format(min) === format(max)) return format(median);
  return `${format(median)} (${format(min)} to ${format(max)})`;
}
