/** `barge backup FILE`: the state of a running cluster at one index, as a file that `barge restore` takes. */
import type { Command } from "commander";
import { existsSync } from "node:fs";
import type { BackupHeader } from "../node/backup-files.ts";
import {
  clientCommand,
  type ClientFlags,
  printJson,
  printLine,
  withClient,
} from "./client-options.ts";
import { CheckFailed } from "./exit-status.ts";
import { sizeText } from "./status.ts";
import { shareOf } from "./status-notes.ts";

interface BackupFlags extends ClientFlags {
  readonly local?: boolean;
  readonly force?: boolean;
}

const examples = `  barge backup friday.barge
  barge backup 'barge-{index}.barge' --endpoints 10.0.0.2:9091     from that node, a follower perhaps

In FILE, {index}, {node}, {cluster} and {date} stand for what they say.`;

const tellEveryMs = 1_000;

export function backupCommand(): Command {
  return clientCommand(
    "backup",
    "Writes the state of the cluster at one index into a file, while it goes on: all that was acknowledged before this began is in it. Read from the first node of --endpoints that answers. The file is checked, and is there whole or not at all.",
    examples,
  )
    .argument("<file>", "the file to write; must not be there yet")
    .option("--local", "what that node has applied, also while there is no leader")
    .option("--force", "write over a file that is there")
    .action(backup);
}

async function backup(template: string, flags: BackupFlags): Promise<void> {
  const { saveBackup } = await import("../node/backup-files.ts");
  await withClient(flags, async (client, answered) => {
    const taken = await client.backup({ local: flags.local });
    answered();
    const file = fileName(template, taken.header);
    if (existsSync(file) && flags.force !== true) {
      await taken.close();
      throw new CheckFailed(`${file} is there already: name another, or add --force`);
    }
    const header = await saveBackup(file, taken, progress(taken.header));
    if (flags.json === true) return printJson({ file, ...header });
    const { nodeId, clusterId, index, bytes } = header;
    await printLine(
      `${file}: the state of cluster ${clusterId} as of ${index}, ${sizeText(bytes)}, from node ${nodeId}; read back and whole`,
    );
  });
}

function fileName(template: string, { index, nodeId, clusterId, created }: BackupHeader): string {
  const values: Readonly<Record<string, string>> = {
    index: String(index),
    node: String(nodeId),
    cluster: clusterId,
    date: created.slice(0, 10),
  };
  return template.replaceAll(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
}

/** For people who wait. */
function progress({ bytes: all }: BackupHeader): (bytes: number) => void {
  let toldMs = performance.now();
  return (bytes) => {
    if (process.stderr.isTTY !== true || performance.now() - toldMs < tellEveryMs) return;
    toldMs = performance.now();
    process.stderr.write(`barge: ${shareOf(Math.min(bytes, all), all)} of ${sizeText(all)}\n`);
  };
}
