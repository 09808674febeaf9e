/** `barge conform --app-url URL`: does an application keep to the contract of machine/http/README.md? In words for its author. */
import { Command, InvalidArgumentError } from "commander";
import { UsageError } from "../config.ts";
import type { Finding } from "../conform/conform.ts";
import { printJson, printLine } from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";

interface ConformFlags {
  readonly appUrl?: string;
  readonly group: number;
  readonly start?: string;
  readonly update: readonly string[];
  readonly read: readonly string[];
  readonly sync?: boolean;
  readonly timeout: number;
  readonly seed?: number;
  readonly json?: boolean;
}

const examples = `  barge conform --app-url http://127.0.0.1:8080
  barge conform --app-url http://127.0.0.1:8080 --update 'append k {n}' --read 'get k'
  barge conform --app-url unix:/tmp/app.sock --start 'python3 app.py' --update 'append k {n}' --read 'get k'`;

const textMillisecondsMax = 600_000;

export function conformCommand(): Command {
  return new Command("conform")
    .description(
      "Checks an application that is to run beside a node: calls it back as the node would, and says what is wrong. It goes back to the state in which it was found, by way of a snapshot; all the same, give it data that may be lost. Ends with 0 when nothing is wrong, with 1 when something is.",
    )
    .option("--app-url <url>", "where it listens: http://HOST:PORT/PATH or unix:/PATH.sock")
    .option("--group <id>", "the group that it is called for", whole(0, 0xffff_fffe), 0)
    .option(
      "--start <command>",
      "starts it, on the same data each time: it is also killed at bad moments, then",
    )
    .option(
      "--update <text>",
      "a command that it understands, {n} in it becomes 1, 2, 3…; may be given often",
      gather,
      [],
    )
    .option(
      "--read <text>",
      "a query whose answer shows what the updates did; may be given often",
      gather,
      [],
    )
    .option("--sync", "it stores for good only when Sync is called (RAFT_SYNC=1)")
    .option(
      "--timeout <ms>",
      "of one callback, and of its start",
      whole(1, textMillisecondsMax),
      10_000,
    )
    .option("--seed <n>", "repeats the moments of an earlier run", whole(0, 0xffff_ffff))
    .option("--json", "print one JSON object a line")
    .addHelpText("after", `\nExamples:\n${examples}`)
    .action(check);
}

function gather(text: string, texts: readonly string[]): readonly string[] {
  return [...texts, text];
}

function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,10}$/.test(text) ? Number(text) : -1;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

async function check(flags: ConformFlags): Promise<void> {
  const { appUrl: url = process.env["BARGE_APP_URL"] ?? process.env["APP_URL"], json } = flags;
  if (url === undefined) throw new UsageError("--app-url is missing: where does it listen?");
  const { conform, urlProblem } = await import("../conform/conform.ts");
  const seed = flags.seed ?? Math.floor(Math.random() * 2 ** 32);
  const { group, start, update: updates, read: reads, sync = false, timeout } = flags;
  const times = { timeoutMs: timeout, startMs: timeout };
  const options = { url, group, start, updates, reads, sync, ...times, random: randomOf(seed) };
  const problem = urlProblem(options);
  if (problem !== undefined) throw new UsageError(`--app-url ${url}: ${problem}`);
  const told: Promise<void>[] = [];
  const findings = await conform(options, (finding) => {
    told.push(json === true ? printJson(finding) : printFinding(finding));
  });
  await Promise.all(told);
  const faults = findings.filter(({ verdict }) => verdict === "fault").length;
  if (faults > 0) process.exitCode = exitStatus.no;
  if (json === true) return;
  const skipped = findings.filter(({ verdict }) => verdict === "skipped").length;
  const ok = findings.length - faults - skipped;
  await printLine(`\n${ok} right, ${faults} wrong, ${skipped} not checked (--seed ${seed})`);
}

async function printFinding({ title, verdict, message, todo }: Finding): Promise<void> {
  const word = { ok: "ok      ", fault: "WRONG   ", skipped: "skipped " }[verdict];
  await printLine(`${word}${title}`);
  if (message !== undefined) await printLine(`        ${message}`);
  if (todo !== undefined) await printLine(`        ${todo}`);
}

/** Of one seed the same numbers in every run. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
