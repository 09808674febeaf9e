/** `barge recover DIR`: the survivor of a cluster that has lost its majority for good becomes a new cluster of one. Asks first. */
import { Command } from "commander";
import { createInterface } from "node:readline/promises";
import { isAppUrl, UsageError } from "../config.ts";
import type { RecoverOptions, RecoverySurvey } from "../node/recover.ts";
import { printJson, printLine } from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";
import { addFoundingOptions, foundingWords } from "./founding.ts";

interface RecoverFlags {
  readonly advertise?: string;
  readonly clusterToken: string;
  readonly appUrl?: string;
  readonly appSync?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

const examples = `  barge recover /var/lib/barge                says what would be lost, and asks
  barge recover /var/lib/barge --yes`;

export function recoverCommand(): Command {
  const command = new Command("recover")
    .description(
      "For a cluster that has lost a majority of its voters for good. Makes the stopped node of this folder the only voter of a new cluster, with all data that it has; others are added with serve --join. What the lost nodes acknowledged without it is lost. While a majority could still be brought back, do that instead.",
    )
    .argument(
      "<dir>",
      "the data folder of the survivor; of several, the one with the highest term, then the longest log: barge verify tells",
    )
    .option(
      "--app-url <url>",
      "the application, which runs and has its data, where one keeps the state: it is given what the log has beyond that",
    )
    .option("--app-sync", "that application stores for good when Sync is called")
    .option("--yes", "do not ask");
  return addFoundingOptions(command, examples).action(recover);
}

async function recover(folder: string, flags: RecoverFlags): Promise<void> {
  const { recoverFolder, surveyRecovery } = await import("../node/recover.ts");
  const survey = surveyRecovery(folder);
  for (const line of surveyLines(survey)) process.stderr.write(`${line}\n`);
  const app = appOf(flags, survey);
  if (flags.yes !== true && !(await confirmed(survey.nodeId))) {
    process.stderr.write("barge: nothing was changed\n");
    process.exitCode = exitStatus.no;
    return;
  }
  const { clusterToken } = flags;
  const advertise = flags.advertise ?? survey.address;
  const recovered = await recoverFolder({ dataDir: folder, clusterToken, advertise, app });
  if (flags.json === true) return printJson({ survey, ...recovered });
  await printLine(`recovered   the state as of ${recovered.index}`);
  const { groupsKept, groupsLost, groupsDamaged } = recovered;
  if (groupsKept > 0)
    await printLine(`kept        ${groupsKept} more groups, with what this node has of them`);
  if (groupsLost.length > 0) {
    await printLine(`lost        groups without a copy in this folder: ${groupsLost.join(", ")}`);
  }
  for (const what of groupsDamaged) await printLine(`damaged     ${what}`);
  const words = foundingWords({
    ...recovered,
    dataDir: folder,
    advertise,
    clusterToken,
    isApplication: survey.applications.length > 0,
  });
  for (const line of words) await printLine(line);
}

/** That of group 0 is needed; the others of an application go on without a leader until it is there. */
function appOf(
  { appUrl: url, appSync: sync = false }: RecoverFlags,
  { applications }: RecoverySurvey,
): RecoverOptions["app"] {
  if (url !== undefined) {
    if (!isAppUrl(url)) throw new UsageError(`--app-url: ${url} is no http:// URL, nor unix:/PATH`);
    return { url, sync };
  }
  if (sync) throw new UsageError("--app-sync needs --app-url: which application?");
  if (applications.includes(0)) {
    throw new UsageError(
      "an application keeps the state of group 0, and may lack what the log has: start it, with the data that it has, and give --app-url (and --app-sync, if it had that)",
    );
  }
  return undefined;
}

/** What somebody has to know who decides. */
function surveyLines(survey: RecoverySurvey): readonly string[] {
  const { folder, nodeId, clusterId, others, lastIndex, lastTerm, commitIndex, lostTo, damage } =
    survey;
  const list = others.join(", ");
  const lines = [
    `${folder}: node ${nodeId} of cluster ${clusterId}`,
    `kept        all that this node has: its log up to index ${lastIndex}, of term ${lastTerm}`,
    others.length === 0
      ? "may be lost nothing: this node is the only voter"
      : `may be lost what the other voters (${list}) acknowledged after index ${lastIndex} without this node; nobody can tell from here whether there is any`,
  ];
  if (lostTo !== undefined) {
    lines.push(`is lost     index ${lastIndex + 1} to ${lostTo}: this folder had it and lost it`);
  }
  if (lastIndex > commitIndex) {
    lines.push(
      `may appear  up to ${lastIndex - commitIndex} commands after index ${commitIndex}, of which this node does not know whether they were acknowledged: from now on they are done`,
    );
  }
  for (const what of damage) lines.push(`damaged     ${what}`);
  lines.push(
    `afterwards  a new cluster with node ${nodeId} alone. The old nodes cannot join it with their folders: should one of them still run, stop it, or clients may write to both`,
  );
  return lines;
}

async function confirmed(nodeId: number): Promise<boolean> {
  if (process.stdin.isTTY !== true) {
    throw new UsageError("nobody can be asked here: add --yes, having read what it says");
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`Make node ${nodeId} a cluster of its own? Type yes: `);
    return answer.trim().toLowerCase() === "yes";
  } finally {
    terminal.close();
  }
}
