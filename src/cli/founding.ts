/** What `restore` and `recover` have in common: the options of a cluster that begins anew with one node, and what to do next. */
import { type Command, InvalidArgumentError } from "commander";
import { parseAddress } from "../config.ts";
import { CheckFailed } from "./exit-status.ts";

export interface Founded {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly dataDir: string;
  readonly advertise?: string | undefined;
  readonly clusterToken: string;
  /** An application has the data. */
  readonly isApplication?: boolean;
}

export function addFoundingOptions(command: Command, examples: string): Command {
  return command
    .option("--advertise <host:port>", "where others will reach this node", reachable)
    .option("--cluster-token <text>", "the new cluster's; nodes that join give the same", "")
    .option("--json", "print JSON")
    .addHelpText("after", `\nExamples:\n${examples}`);
}

function reachable(text: string): string {
  const address = parseAddress(text);
  if (address !== undefined && address.port > 0 && address.host !== "0.0.0.0") return text;
  throw new InvalidArgumentError("It must be HOST:PORT, as others can dial it.");
}

/** The way on, for people. */
export function foundingWords({
  nodeId,
  clusterId,
  dataDir,
  advertise,
  clusterToken,
  isApplication = false,
}: Founded): readonly string[] {
  const at = advertise === undefined ? "" : ` --listen ${advertise}`;
  const token = clusterToken === "" ? "" : ` --cluster-token ${clusterToken}`;
  const app = isApplication ? " --app-url …" : "";
  const join = advertise ?? "127.0.0.1:9091";
  return [
    `cluster     ${clusterId}, new, with node ${nodeId} alone`,
    `start it    barge serve --node-id ${nodeId} --data-dir ${dataDir}${at}${token}${app}`,
    `add others  barge serve --node-id ${nodeId + 1} --join ${join}${token}${app} --data-dir …, each with an empty folder`,
  ];
}

/** A backup that cannot be used is an answer, and not a fault of the program. */
export async function refuseBackup<T>(file: string, use: () => T | Promise<T>): Promise<T> {
  const { BackupError } = await import("../node/backup-files.ts");
  try {
    return await use();
  } catch (error) {
    if (error instanceof BackupError) {
      throw new CheckFailed(`${file} cannot be restored: ${error.message}. Nothing was changed.`);
    }
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      throw new CheckFailed(`${file} is not there. Nothing was changed.`);
    }
    throw error;
  }
}
