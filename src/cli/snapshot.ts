/**
 * `barge snapshot`: has each node that is named, or each member, make its state durable and cut its log, as it does by itself after some time; and says, or changes,
 * when that is. A member that is too far behind for what is left of the log gets a snapshot of the state.
 */
import type { Command } from "commander";
import type { Client, CompactionAnswer, SnapshotAnswer } from "../client/index.ts";
import { clientCommand, printJson, printLine, wholeNumber } from "./client-options.ts";
import { eachNode, type EachNodeFlags } from "./each-node.ts";
import { sizeText } from "./status.ts";

interface SnapshotFlags extends EachNodeFlags {
  readonly show?: boolean;
  readonly entries?: number;
  readonly bytes?: number;
  readonly tailBytes?: number;
}

const examples = `  barge snapshot                          on the node at 127.0.0.1:9091
  barge snapshot --all                    on all members, whichever of them is asked
  barge snapshot --all --show             when do they cut their logs by themselves?
  barge snapshot --all --entries 1000000                 from now on each million commands too

What is changed holds until the node starts anew. To keep it, start the nodes with --compact-entries,
--compact-bytes and --compact-tail-bytes.`;

const whole = wholeNumber(0, Number.MAX_SAFE_INTEGER);

export function snapshotCommand(): Command {
  return clientCommand(
    "snapshot",
    "Has every node of --endpoints make its state durable and cut its log. With --entries or --bytes it does nothing at once, but changes when the nodes do so by themselves, until they start anew.",
    examples,
  )
    .option("--all", "on all members of the cluster, not only the nodes of --endpoints")
    .option("--show", "only say when the log is cut")
    .option("--entries <n>", "cut the log once so many commands can go; 0 = not by commands", whole)
    .option("--bytes <n>", "cut the log once it holds so many bytes; 0 = not by bytes", whole)
    .option("--tail-bytes <n>", "keep so much of its end for members that were away", whole)
    .action(snapshot);
}

async function snapshot(flags: SnapshotFlags): Promise<void> {
  await eachNode(flags, async (client, endpoint) =>
    print(flags, endpoint, await ask(client, flags, endpoint)),
  );
}

function ask(
  client: Client,
  { show, entries, bytes, tailBytes }: SnapshotFlags,
  endpoint: string,
): Promise<SnapshotAnswer | CompactionAnswer> {
  const at = { endpoint };
  if (show === true) return client.admin("compaction", {}, at);
  if (entries === undefined && bytes === undefined) {
    return client.admin("snapshot", given({ tailBytes }), at);
  }
  return client.admin("compaction", given({ entries, bytes, tailBytes }), at);
}

/** Without what is not there: the node takes no other names. */
function given<T extends Record<string, number | undefined>>(values: T): Partial<T> {
  const found = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(found) as Partial<T>;
}

async function print(
  { json }: SnapshotFlags,
  endpoint: string,
  answer: SnapshotAnswer | CompactionAnswer,
): Promise<void> {
  if (json === true) return printJson({ endpoint, ...answer });
  const name = `node ${answer.node}`;
  if ("index" in answer) {
    const { index, firstIndex, lastIndex, logBytes } = answer;
    const log =
      firstIndex > lastIndex
        ? "its log is empty"
        : `its log holds ${firstIndex} to ${lastIndex}, ${sizeText(logBytes)}`;
    return printLine(`${name}: durable up to ${index}; ${log}`);
  }
  const { entries, bytes, tailBytes } = answer;
  const when = [
    ...(entries > 0 ? [`after ${entries} commands`] : []),
    ...(bytes > 0 ? [`at ${sizeText(bytes)}`] : []),
  ];
  const text = when.length === 0 ? "never by itself" : when.join(" or ");
  await printLine(`${name} cuts its log ${text}, and keeps ${sizeText(tailBytes)} of its end`);
}
