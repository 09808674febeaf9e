/** `barge restore FILE`: a backup becomes the folder of a new cluster, which begins with one node. */
import { Command } from "commander";
import type { Restored } from "../node/restore.ts";
import { nodeIdMax, printJson, printLine, wholeNumber } from "./client-options.ts";
import { addFoundingOptions, foundingWords, refuseBackup } from "./founding.ts";
import { sizeText } from "./status.ts";

interface RestoreFlags {
  readonly dataDir: string;
  readonly nodeId: number;
  readonly advertise?: string;
  readonly clusterToken: string;
  readonly json?: boolean;
}

const examples = `  barge restore friday.barge                  then: barge serve
  barge restore friday.barge --data-dir n1 --node-id 1 --advertise 10.0.0.1:9091`;

export function restoreCommand(): Command {
  const command = new Command("restore")
    .description(
      "Makes the data folder of a new cluster out of a backup. The cluster begins with this one node; others are added with serve --join. Its id is new: nodes of the cluster that the backup is of cannot join it. The backup is checked before anything is written, and the folder is there whole or not at all.",
    )
    .argument("<file>", "a backup, as `barge backup` writes it")
    .option("--data-dir <dir>", "the folder to make; absent or empty", "./barge-data")
    .option("--node-id <id>", "the node's number in the new cluster", wholeNumber(1, nodeIdMax), 1);
  return addFoundingOptions(command, examples).action(restore);
}

async function restore(file: string, flags: RestoreFlags): Promise<void> {
  const { restoreBackup } = await import("../node/restore.ts");
  const options = { ...flags, advertise: flags.advertise ?? "127.0.0.1:9091", file };
  const restored = await refuseBackup(file, () => restoreBackup(options));
  if (flags.json === true) return printJson(restored);
  for (const line of linesOf(restored, flags)) await printLine(line);
}

function linesOf({ backup, ...restored }: Restored, flags: RestoreFlags): readonly string[] {
  const { index, keys } = restored;
  return [
    `restored    ${backup.machine === "http" ? "what the application is to be given at its first start" : `${keys} keys`}, the state as of ${index}, ${sizeText(backup.bytes)}; backed up ${backup.created} from node ${backup.nodeId} of cluster ${backup.clusterId}`,
    ...foundingWords({ ...restored, ...flags, isApplication: backup.machine === "http" }),
  ];
}
