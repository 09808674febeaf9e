/** `barge verify DIR`: what is whole in the data folder of a node that does not run, what is damaged, and what its next start will do. */
import { Command } from "commander";
import { statSync } from "node:fs";
import type { FolderReport, GroupReport } from "../node/verify.ts";
import { printJson, printLine } from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";
import { sizeText } from "./status.ts";

interface VerifyFlags {
  readonly json?: boolean;
}

const examples = `  barge verify ./barge-data
  barge verify /var/lib/barge --json
  barge verify friday.barge`;

export function verifyCommand(): Command {
  return new Command("verify")
    .description(
      "Checks the data folder of a node that does not run: every checksum, the chain of the log, what was known durable, the state machine's file; and says what its next start will do. Or checks a backup. Changes nothing. Ends with 0 when all is whole, with 1 when something is damaged.",
    )
    .argument("<path>", "the data folder, or a file that `barge backup` has written")
    .option("--json", "print JSON")
    .addHelpText("after", `\nExamples:\n${examples}`)
    .action(verify);
}

async function verify(path: string, flags: VerifyFlags): Promise<void> {
  const isFile = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  return isFile ? verifyBackup(path, flags) : verifyData(path, flags);
}

async function verifyBackup(file: string, { json }: VerifyFlags): Promise<void> {
  const { BackupError, readBackupFile } = await import("../node/backup-files.ts");
  try {
    const header = readBackupFile(file);
    if (json === true) return await printJson({ file, whole: true, ...header });
    const { index, clusterId, nodeId, bytes, created } = header;
    await printLine(
      `${file}: a backup of cluster ${clusterId} as of ${index}, ${sizeText(bytes)}, ${created} from node ${nodeId}; whole`,
    );
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    process.exitCode = exitStatus.no;
    if (json === true) return printJson({ file, whole: false, damage: [error.message] });
    await printLine(`${file}: ${error.message}`);
  }
}

async function verifyData(folder: string, { json }: VerifyFlags): Promise<void> {
  const { verifyFolder } = await import("../node/verify.ts");
  const report = verifyFolder(folder);
  process.exitCode = report.whole ? exitStatus.ok : exitStatus.no;
  if (json === true) return printJson(report);
  for (const line of linesOf(report)) await printLine(line);
}

function linesOf({
  folder,
  node,
  log,
  groups,
  damage,
  leftovers,
  lastEnd,
  whole,
  nextStart,
}: FolderReport): readonly string[] {
  const lines = [
    node === undefined
      ? `${folder}: of no node yet`
      : `${folder}: node ${node.nodeId} of cluster ${node.clusterId}, apply version ${node.applyVersion}`,
  ];
  const durable = log.durableTo === undefined ? "" : `; known durable up to ${log.durableTo}`;
  if (log.segments > 0) {
    lines.push(
      `log         ${log.segments} segments, ${sizeText(log.bytes)}, records up to ${log.lastRecord}${durable}`,
    );
  }
  for (const group of groups) lines.push(...groupLines(group));
  if (lastEnd !== undefined) {
    lines.push(`last end    by itself, ${lastEnd.at}, ${lastEnd.reason}: ${lastEnd.message}`);
  }
  for (const leftover of leftovers) lines.push(`left over   ${leftover}`);
  for (const what of damage) lines.push(`damaged     ${what}`);
  if (whole) lines.push("whole       every checksum holds");
  lines.push(`next start  ${nextStart.text}`);
  return lines;
}

function groupLines(group: GroupReport): readonly string[] {
  const { id, term, firstIndex, lastIndex, batches, bytes, commitIndex, voters, machine } = group;
  const holds = lastIndex < firstIndex ? "empty" : `${firstIndex} to ${lastIndex}`;
  return [
    `group ${id}     term ${term}, log ${holds} in ${batches} batches, ${sizeText(bytes)}; committed ${commitIndex} at least; voters ${voters.join(", ")}`,
    machine === undefined
      ? `machine     nothing flushed yet`
      : `machine     ${machine.file}: the state as of ${machine.appliedIndex}, ${machine.keys} keys, ${sizeText(machine.bytes)}, content ${machine.contentHash}`,
  ];
}
