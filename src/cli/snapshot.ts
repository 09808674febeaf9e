/**
 * `barge snapshot`: has each node that is named make its state durable and cut its log, as it does by itself after some time; and says, or changes,
 * when that is. A member that is too far behind for what is left of the log gets a snapshot of the state.
 */
import type { Command } from "commander";
import type { CompactionAnswer, SnapshotAnswer } from "../client/index.ts";
import {
  clientCommand,
  type ClientFlags,
  printJson,
  printLine,
  wholeNumber,
  withClient,
} from "./client-options.ts";
import { sizeText } from "./status.ts";

interface SnapshotFlags extends ClientFlags {
  readonly show?: boolean;
  readonly entries?: number;
  readonly bytes?: number;
  readonly tailBytes?: number;
}

const examples = `  barge snapshot                          on the node at 127.0.0.1:9091
  barge snapshot --endpoints 127.0.0.1:9091,127.0.0.1:9191,127.0.0.1:9291
  barge snapshot --show                   when does it cut its log by itself?
  barge snapshot --entries 0 --bytes 1000000000    from now on only by bytes`;

const whole = wholeNumber(0, Number.MAX_SAFE_INTEGER);

export function snapshotCommand(): Command {
  return clientCommand(
    "snapshot",
    "Has every node of --endpoints make its state durable and cut its log. With --entries or --bytes it does nothing at once, but changes when the node does so by itself, until it starts anew.",
    examples,
  )
    .option("--show", "only say when the log is cut")
    .option("--entries <n>", "cut the log once so many commands can go; 0 = not by commands", whole)
    .option("--bytes <n>", "cut the log once it holds so many bytes; 0 = not by bytes", whole)
    .option("--tail-bytes <n>", "keep so much of its end for members that were away", whole)
    .action(snapshot);
}

async function snapshot(flags: SnapshotFlags): Promise<void> {
  const { show, entries, bytes, tailBytes } = flags;
  const changes = entries !== undefined || bytes !== undefined;
  await withClient(flags, async (client, answered) => {
    for (const endpoint of flags.endpoints.split(",")) {
      const at = { endpoint: endpoint.trim() };
      if (show === true || changes) {
        const wanted = show === true ? {} : given({ entries, bytes, tailBytes });
        await print(flags, at.endpoint, await client.admin("compaction", wanted, at));
      } else {
        await print(flags, at.endpoint, await client.admin("snapshot", given({ tailBytes }), at));
      }
      answered();
    }
  });
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
    return printLine(
      `${name}: durable up to ${index}; its log holds ${firstIndex} to ${lastIndex}, ${sizeText(logBytes)}`,
    );
  }
  const { entries, bytes, tailBytes } = answer;
  const when = [
    ...(entries > 0 ? [`after ${entries} commands`] : []),
    ...(bytes > 0 ? [`at ${sizeText(bytes)}`] : []),
  ];
  const text = when.length === 0 ? "never by itself" : when.join(" or ");
  await printLine(`${name} cuts its log ${text}, and keeps ${sizeText(tailBytes)} of its end`);
}
