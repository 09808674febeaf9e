/**
 * Chaos for as long as one likes:
 *
 *     bun test/chaos/run.ts --minutes 40 --nodes 5 --seed 7
 *
 * Prints a line per fault and a report at the end: operations, faults, violations, and the longest time without an acknowledged write for each
 * kind of fault. Ends with 1 where a promise was broken. `--kinds "kill all,loss"` draws from these only, `--pairs 0` never brings two
 * together. The seed fixes the faults and their order, not what threads and disks make of it.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Build } from "../e2e/cluster.ts";
import { recordEvidence } from "../evidence.ts";
import { type ChaosOptions, runChaos } from "./chaos.ts";
import { FaultProxy } from "./fault-proxy.ts";
import { faultKinds, type FaultKind } from "./faults.ts";
import type { Epoch } from "./histories.ts";
import { Namespaces, namespacesAllowed } from "./namespaces.ts";
import { reportText } from "./report.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    nodes: { type: "string", default: "3" },
    clients: { type: "string", default: "10" },
    watchers: { type: "string", default: "3" },
    /** Besides the default one. */
    groups: { type: "string", default: "0" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    /** `proxy`, or `namespaces` (root). */
    network: { type: "string", default: "proxy" },
    kinds: { type: "string", default: "" },
    pairs: { type: "string", default: "0.35" },
    /** Small disks in memory, which can run full. */
    "small-disks": { type: "boolean", default: false },
    "pause-ms": { type: "string", default: "10" },
    /** What the clients that watch have to say. */
    verbose: { type: "boolean", default: false },
    /** Append what this run showed to test/evidence.jsonl. */
    evidence: { type: "boolean", default: false },
    /** One of test/sim/planted-bugs.ts, for the nodes to run with. */
    bug: { type: "string" },
    /** A folder for the histories of all epochs, for checker/porcupine. */
    keep: { type: "string" },
    histories: { type: "string", default: "/tmp/barge-chaos" },
  },
});
const kinds = values.kinds.split(",").filter((kind) => kind !== "");
const unknown = kinds.filter((kind) => !faultKinds.includes(kind as FaultKind));
if (unknown.length > 0) throw new Error(`--kinds takes ${faultKinds.join(",")}`);
const isProxy = values.network === "proxy";
if (!isProxy && values.network !== "namespaces") throw new Error("--network: proxy or namespaces");
if (!isProxy && !namespacesAllowed()) throw new Error("no network namespaces here: be root");
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const options: ChaosOptions = {
  seed: Number(values.seed),
  seconds: Number(values.minutes) * 60,
  nodes: Number(values.nodes),
  clients: Number(values.clients),
  watchers: Number(values.watchers),
  groups: Number(values.groups),
  pairs: Number(values.pairs),
  pauseMs: Number(values["pause-ms"]),
  historyDir: values.histories,
  smallDisks: values["small-disks"],
  network: (random) => (isProxy ? new FaultProxy(random) : new Namespaces()),
  say,
  ...(values.bug === undefined ? {} : { build: await buggyBuild(values.bug) }),
  checked: (epoch) => keep(epoch),
  watcherSays: values.verbose ? say : undefined,
  ...(kinds.length > 0 ? { kinds: kinds as FaultKind[] } : {}),
};
process.stdout.write(
  `chaos: ${values.minutes} minutes, ${values.nodes} nodes, seed ${values.seed}\n`,
);
const report = await runChaos(options);
process.stdout.write(`${reportText(report)}\n`);
/** Not imported but for this: it reads the sources as they are. */
async function buggyBuild(name: string): Promise<Build> {
  const { plantedBuild } = await import("./planted.ts");
  const { isBugName } = await import("../sim/planted-bugs.ts");
  if (!isBugName(name)) throw new Error(`no planted bug ${name}`);
  return plantedBuild(name);
}

function keep({ number, operations }: Epoch): void {
  if (values.keep === undefined) return;
  mkdirSync(values.keep, { recursive: true });
  const path = join(values.keep, `seed-${values.seed}-epoch-${number}.jsonl`);
  writeFileSync(path, operations.map((each) => `${JSON.stringify(each)}\n`).join(""));
}

if (values.evidence) {
  const count = [...report.figures.values()].reduce((sum, { count: times }) => sum + times, 0);
  recordEvidence({
    kind: "chaos",
    seconds: report.seconds,
    amounts: { operations: report.counts.operations, faults: count },
    findings: report.violations.map((each) => each.split("\n", 1)[0]!),
  });
}
if (report.violations.length > 0) process.exitCode = 1;
