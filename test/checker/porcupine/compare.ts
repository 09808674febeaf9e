/**
 * Is our checker to be trusted? Judges the same histories with Porcupine (Go) and with wgl.ts, and ends with 1 where the verdicts differ:
 *
 *     bun test/chaos/run.ts --minutes 2 --keep /tmp/histories
 *     bun test/checker/porcupine/compare.ts /tmp/histories --bent 20 --seed 7
 *
 * The histories of a chaos run are legal, so each is also judged after it was bent: a read that saw something else, an outcome that is
 * turned around, a call that is moved.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { recordEvidence } from "../../evidence.ts";
import { Random } from "../../sim/random.ts";
import type { Operation } from "../history.ts";
import { checkLinearizable } from "../wgl.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Of each history, so many more that are bent. */
    bent: { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    evidence: { type: "boolean", default: false },
  },
});
const random = new Random(Number(values.seed));
const startMs = performance.now();
const histories: Operation[][] = [];
for (const dir of positionals) {
  for (const name of readdirSync(dir).filter((each) => each.endsWith(".jsonl"))) {
    const straight = read(join(dir, name));
    histories.push(straight);
    for (let i = 0; i < Number(values.bent); i++) histories.push(bend(straight));
  }
}
const theirs = await judgeWithPorcupine(histories);
const tally = { legal: 0, illegal: 0 };
const findings: string[] = [];
for (const [at, history] of histories.entries()) {
  const ours = checkLinearizable(history);
  if (ours.kind === "legal" || ours.kind === "illegal") tally[ours.kind]++;
  if (ours.kind === theirs[at]) continue;
  const key = ours.kind === "legal" ? "" : ` (${ours.key})`;
  findings.push(`history ${at}: ${ours.kind}${key}, Porcupine says ${theirs[at]}`);
  await Bun.write(`/tmp/barge-differ-${at}.jsonl`, lines(history));
}
process.stdout.write(
  `${histories.length} histories: ${tally.legal} legal, ${tally.illegal} illegal, ${findings.length} judged differently\n${findings.join("\n")}\n`,
);
if (values.evidence) {
  const seconds = Math.round((performance.now() - startMs) / 1_000);
  recordEvidence({
    kind: "porcupine",
    seconds,
    amounts: { histories: histories.length, illegal: tally.illegal },
    findings,
  });
}
if (findings.length > 0 || histories.length === 0) process.exitCode = 1;

function read(path: string): Operation[] {
  const texts = readFileSync(path, "utf8").split("\n");
  return texts.filter((text) => text !== "").map((text) => revive(JSON.parse(text) as Operation));
}

/** JSON has no Infinity. */
function revive(operation: Operation): Operation {
  return operation.outcome === "unknown" ? { ...operation, return: Infinity } : operation;
}

function lines(history: readonly Operation[]): string {
  return history.map((operation) => `${JSON.stringify(operation)}\n`).join("");
}

/** One thing in it is no longer as it was. */
function bend(straight: readonly Operation[]): Operation[] {
  const history = [...straight];
  const reads = history.filter(({ kind, outcome }) => kind === "get" && outcome === "ok");
  const at = random.below(history.length);
  const operation = history[at]!;
  const { kind, key, outcome, success, call } = operation;
  if (kind === "get" && outcome === "ok") {
    const others = reads.filter((each) => each.key === key);
    const { seenValue, seenRevision, success: found } = random.pick(others);
    history[at] = { ...operation, seenValue, seenRevision, success: found };
  } else if (random.chance(0.3)) {
    // As if it had been called, and had returned, somewhat later.
    const later = random.between(1, 400) + 0.5;
    history[at] = { ...operation, call: call + later, return: operation.return + later };
  } else if (outcome === "ok" && kind !== "put") {
    history[at] = { ...operation, success: !success, seenRevision: success ? operation.index : 0 };
  } else if (outcome === "ok" && history.every(({ expected }) => expected !== operation.index)) {
    history.splice(at, 1);
  } else {
    history[at] = { ...operation, outcome: outcome === "unknown" ? "refused" : "unknown" };
  }
  return history;
}

async function judgeWithPorcupine(all: readonly Operation[][]): Promise<string[]> {
  const input = all.map((history) => `${lines(history)}\n`).join("");
  const judge = Bun.spawn(["go", "run", "."], {
    cwd: import.meta.dir,
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "inherit",
    env: { ...process.env, GOFLAGS: "-mod=mod" },
  });
  const output = await new Response(judge.stdout).text();
  if ((await judge.exited) !== 0) throw new Error("Porcupine did not run");
  return output.trim().split("\n");
}
