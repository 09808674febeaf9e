/** Runs all checks on one application, one after the other, and tells what came of each. The application is left as it was found. */
import { Application, type ApplicationOptions, Fault, Unreachable } from "./application.ts";
import { type Check, checks } from "./checks.ts";
import { crashChecks } from "./crash-checks.ts";
import { ApplicationProcess } from "./process.ts";
import { isGone, Skipped, Trial, type TrialOptions } from "./trial.ts";

export interface ConformOptions
  extends ApplicationOptions, Pick<TrialOptions, "updates" | "reads" | "sync" | "startMs"> {
  /** The command that starts the application; undefined: it runs, and is never killed. */
  readonly start: string | undefined;
  readonly random: () => number;
}

export interface Finding {
  readonly title: string;
  readonly verdict: "ok" | "fault" | "skipped";
  /** What is wrong, or why it was not checked. */
  readonly message?: string;
  /** For the author of the application. */
  readonly todo?: string;
}

/** What is wrong with the URL of an application, in words; undefined where nothing is. */
export function urlProblem(options: ApplicationOptions): string | undefined {
  try {
    void new Application(options);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Tells each finding as it comes. Throws Unreachable where there is no application. */
export async function conform(
  options: ConformOptions,
  tell: (finding: Finding) => void,
): Promise<readonly Finding[]> {
  const app = new Application(options);
  const process = options.start === undefined ? undefined : new ApplicationProcess(options.start);
  const trial = new Trial({ ...options, app, process });
  const findings: Finding[] = [];
  const add = (finding: Finding): void => {
    findings.push(finding);
    tell(finding);
  };
  try {
    process?.start();
    if (process === undefined) await app.ready(options.startMs).catch(mustReach);
    const ready = await findingOf(ready200, trial);
    add(ready);
    if (ready.verdict === "fault") return findings;
    for (const check of [...checks, ...crashChecks]) {
      const finding = await findingOf(check, trial);
      add(finding);
      if (finding.verdict === "fault" && check.isVital === true) return findings;
      if (finding.verdict === "fault") await revive(trial);
    }
    // As it was found.
    await trial.reset().catch(() => {});
  } finally {
    await process?.kill();
  }
  return findings;
}

/** What it says otherwise is a finding. */
function mustReach(error: unknown): void {
  if (error instanceof Unreachable) throw error;
}

const ready200: Check = {
  title: "Ready is answered with 200",
  run: async (trial) => {
    await trial.begin();
  },
};

async function findingOf({ title, run }: Check, trial: Trial): Promise<Finding> {
  try {
    const message = await run(trial);
    return { title, verdict: "ok", ...(message === undefined ? {} : { message }) };
  } catch (error) {
    if (error instanceof Skipped) return { title, verdict: "skipped", message: error.message };
    return { title, verdict: "fault", ...faultOf(error, trial) };
  }
}

function faultOf(error: unknown, trial: Trial): { message: string; todo: string } {
  if (error instanceof Fault) return { message: error.message, todo: error.todo };
  if (!(error instanceof Unreachable)) throw error;
  try {
    trial.process?.check();
  } catch (ended) {
    if (ended instanceof Fault) return { message: ended.message, todo: ended.todo };
  }
  return {
    message: `The application did not answer: ${error.message}.`,
    todo: "It must answer every callback, and run until it is told to stop, whatever it is sent.",
  };
}

/** What a fault left behind is no matter of the next check. */
async function revive(trial: Trial): Promise<void> {
  try {
    await trial.app.lastLogIndex();
  } catch (error) {
    if (!isGone(error) || trial.process === undefined) return;
    await trial.process.kill();
    await trial.restart().catch(() => {});
  }
}
