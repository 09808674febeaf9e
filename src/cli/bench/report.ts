/** Results of a benchmark: the document of `--json`, the table for people, and the doubts that both carry. */
import type { NodeStatus } from "../../client/index.ts";
import type { Environment } from "./environment.ts";
import type { LoadResult } from "./load.ts";
import type { LoadPlan } from "./plan.ts";

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoadReport {
  readonly benchmark: string;
  readonly nodes: number;
  readonly connections: number;
  readonly inFlight: number;
  readonly batch: number;
  readonly valueBytes: number;
  readonly keySpace: number;
  /** Operations due per second; absent in a closed loop. */
  readonly rate?: number;
  readonly seconds: number;
  readonly groups: number;
  /** Writes went in sessions. */
  readonly session: boolean;
  readonly operations: number;
  readonly operationsPerSecond: number;
  /** Per second, of each whole minute of a run that has several: whether it grows slower. */
  readonly minutes?: readonly number[];
  /** Values only: 1 MB = 1,000,000 bytes. */
  readonly megabytesPerSecond: number;
  /** Per request: with a batch, of all its commands together. */
  readonly latencyMs: Percentiles;
  readonly errors: number;
  readonly unknown: number;
  /** Of the leader's log during the run; its percentiles are since the node's start. */
  readonly syncs: {
    readonly count: number;
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly commandsPerSync: number;
  };
  /** Of each node during the run: how often its event loop was held for longer than so many milliseconds. */
  readonly loopGaps: readonly {
    readonly over5Ms: number;
    readonly over20Ms: number;
    readonly over50Ms: number;
    readonly over100Ms: number;
  }[];
  readonly cpuSeconds: { readonly client: number; readonly nodes: readonly number[] };
  readonly peakRssMb: readonly number[];
  readonly environment: Environment;
  /** Why the figures may be wrong or too low; empty when nothing speaks against them. */
  readonly doubts: readonly string[];
}

export function loadReport(
  plan: LoadPlan,
  result: LoadResult,
  before: readonly NodeStatus[],
  after: readonly NodeStatus[],
  environment: Environment,
): LoadReport {
  const perSecond = result.operations / result.seconds;
  const leaderId = after[0]?.groups[0]?.leader ?? 0;
  const was = before.find(({ nodeId }) => nodeId === leaderId);
  const is = after.find(({ nodeId }) => nodeId === leaderId);
  const syncs = is === undefined || was === undefined ? 0 : is.syncs.count - was.syncs.count;
  const writes = result.operations * (1 - plan.readShare);
  return {
    benchmark: plan.workload,
    nodes: after.length,
    connections: plan.connections,
    inFlight: plan.inFlight,
    batch: plan.batch,
    valueBytes: plan.valueBytes,
    keySpace: plan.keySpace,
    ...(plan.rate === undefined ? {} : { rate: plan.rate }),
    seconds: round(result.seconds, 3),
    groups: plan.groups,
    session: plan.session,
    operations: result.operations,
    operationsPerSecond: Math.round(perSecond),
    ...(result.perMinute.length < 2
      ? {}
      : { minutes: result.perMinute.map((operations) => Math.round(operations / 60)) }),
    megabytesPerSecond: round((perSecond * plan.valueBytes) / 1e6, 2),
    latencyMs: percentiles(result),
    errors: result.errors,
    unknown: result.unknown,
    syncs: {
      count: syncs,
      p50Ms: round(is?.syncs.p50Ms ?? 0, 3),
      p99Ms: round(is?.syncs.p99Ms ?? 0, 3),
      commandsPerSync: syncs === 0 ? 0 : round(writes / syncs, 1),
    },
    loopGaps: after.map((node) => {
      const earlier = before.find(({ nodeId }) => nodeId === node.nodeId);
      const over = (ms: number): number => gapsOver(node, ms) - gapsOver(earlier, ms);
      return {
        over5Ms: over(5),
        over20Ms: over(20),
        over50Ms: over(50),
        over100Ms: over(100),
      };
    }),
    cpuSeconds: {
      client: round(result.clientCpuSeconds, 2),
      nodes: after.map(({ nodeId, cpuSeconds }) => {
        const earlier = before.find((node) => node.nodeId === nodeId)?.cpuSeconds ?? 0;
        return round(cpuSeconds - earlier, 2);
      }),
    },
    peakRssMb: after.map(({ peakRssBytes }) => Math.round(peakRssBytes / 1e6)),
    environment,
    doubts: doubtsOf(plan, result, before, after, environment),
  };
}

function gapsOver(node: NodeStatus | undefined, ms: number): number {
  if (node === undefined) return 0;
  const { boundsMs, counts } = node.loopGaps;
  return counts.slice(boundsMs.indexOf(ms) + 1).reduce((sum, count) => sum + count, 0);
}

const secondsMin = 5;
const loadMax = 0.5;
const clientCoresMax = 0.9;

function doubtsOf(
  plan: LoadPlan,
  result: LoadResult,
  before: readonly NodeStatus[],
  after: readonly NodeStatus[],
  environment: Environment,
): string[] {
  const doubts: string[] = [];
  const cores = result.clientCpuSeconds / result.seconds;
  if (cores > clientCoresMax) {
    doubts.push(
      `the client was busy (${cores.toFixed(2)} cores): it may be the limit, not the nodes`,
    );
  }
  if (environment.load > loadMax) {
    doubts.push(`other work was going on before the start (load ${environment.load})`);
  }
  if (result.errors + result.unknown > 0) {
    const failed = `${result.errors} failed, ${result.unknown} with an unknown outcome`;
    doubts.push(`not all operations succeeded: ${failed}; first: ${result.firstError}`);
  }
  if (result.seconds < secondsMin) doubts.push(`a short run: at least ${secondsMin} s is better`);
  if (result.operations < 1_000) doubts.push("few operations: the percentiles are rough");
  if (environment.filesystem === "tmpfs" || environment.filesystem === "ramfs") {
    doubts.push("the data lies in memory: syncs cost nothing");
  }
  if (result.backlogMax > 0) {
    doubts.push(
      `all ${plan.inFlight} slots were busy when operations were due (up to ${result.backlogMax} late): the rate is above what the nodes do`,
    );
  }
  if (termOf(before) !== termOf(after)) doubts.push("the leader changed during the run");
  if (before.length !== after.length) doubts.push("not all nodes answered the status request");
  return doubts;
}

function termOf(nodes: readonly NodeStatus[]): number {
  return Math.max(0, ...nodes.map(({ groups }) => groups[0]?.term ?? 0));
}

function percentiles({ latency, operations }: LoadResult): Percentiles {
  if (operations === 0) return { p50: 0, p90: 0, p99: 0, p999: 0, max: 0 };
  // The histogram's buckets reach a little beyond what was seen.
  const at = (percentile: number): number =>
    round(Math.min(latency.percentile(percentile), latency.max) / 1e6, 3);
  return {
    p50: at(50),
    p90: at(90),
    p99: at(99),
    p999: at(99.9),
    max: round(latency.max / 1e6, 3),
  };
}

export function humanReport(report: LoadReport): string {
  const { latencyMs: latency, syncs, environment } = report;
  const shape =
    report.rate === undefined
      ? `${report.inFlight} in flight`
      : `${report.rate}/s due, at most ${report.inFlight} in flight`;
  const lines = [
    `${report.benchmark}: ${grouped(report.operationsPerSecond)} operations/s, ${report.megabytesPerSecond} MB/s of values`,
    `latency p50 ${latency.p50} ms, p99 ${latency.p99} ms, max ${latency.max} ms`,
    "",
    `  load         ${shape}, ${plural(report.connections, "connection")}${report.groups === 1 ? "" : `, ${grouped(report.groups)} groups`}, ${report.batch} per request, values of ${report.valueBytes} B, ${grouped(report.keySpace)} keys${report.session ? "" : ", no session"}`,
    `  operations   ${grouped(report.operations)} in ${report.seconds} s; ${report.errors} failed, ${report.unknown} unknown`,
    ...(report.minutes === undefined
      ? []
      : [`  by minute    ${report.minutes.map(grouped).join(", ")} per second`]),
    `  latency ms   p50 ${latency.p50}   p90 ${latency.p90}   p99 ${latency.p99}   p99.9 ${latency.p999}   max ${latency.max}`,
    `  log syncs    ${grouped(syncs.count)} on the leader, ${syncs.commandsPerSync} commands each, p50 ${syncs.p50Ms} ms, p99 ${syncs.p99Ms} ms`,
    `  loop held    ${report.loopGaps.map((gaps) => `${gaps.over5Ms} / ${gaps.over20Ms} / ${gaps.over50Ms}`).join(", ")} times over 5 / 20 / 50 ms, by node`,
    `  cpu s        client ${report.cpuSeconds.client}; nodes ${report.cpuSeconds.nodes.join(", ")}`,
    `  memory MB    ${report.peakRssMb.join(", ")} at most`,
    `  machine      ${environment.cores} cores, ${environment.filesystem}, load ${environment.load} before; Bun ${environment.bun}, commit ${environment.commit}`,
  ];
  return lines.join("\n");
}

function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

export function round(value: number, digits: number): number {
  const factor = 10 ** digits;
  return Math.round(value * factor) / factor;
}
