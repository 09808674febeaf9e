/** `barge watch [PREFIX]`: prints changes of keys as they happen, for as long as it is left to. */
import type { Command } from "commander";
import type { Change, Client } from "../client/index.ts";
import {
  base64,
  type ClientFlags,
  clientCommand,
  preview,
  printLine,
  readable,
  wholeNumber,
  withClient,
} from "./client-options.ts";

interface WatchFlags extends ClientFlags {
  readonly from?: number;
  readonly key?: string;
  readonly limit?: number;
  readonly progress?: boolean;
}

const examples = `  barge watch                             everything that changes from now on
  barge watch user/ --from 1200           what changed since revision 1200, then on
  barge watch --key leader --limit 1      wait for one change of one key
  barge watch user/ --json | jq -r .key   keys and values are in base64`;

export function watchCommand(): Command {
  return clientCommand(
    "watch",
    "Prints changes of keys as they happen: all of them, in order, each once, whatever becomes of nodes meanwhile.",
    examples,
  )
    .argument("[prefix]", "only keys that begin with this")
    .option("--key <key>", "only this key")
    .option("--from <revision>", "changes from this revision on, not only from now on", revision)
    .option("--limit <n>", "end after so many changes", wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option("--progress", "say now and then up to which revision nothing else has changed")
    .action(watch);
}

const revision = wholeNumber(1, Number.MAX_SAFE_INTEGER);

async function watch(prefix: string | undefined, flags: WatchFlags): Promise<void> {
  await withClient(flags, (client, answered) => print(client, prefix, flags, answered));
}

async function print(
  client: Client,
  prefix: string | undefined,
  { key, from, limit = Infinity, progress, timeout, json }: WatchFlags,
  answered: () => void,
): Promise<void> {
  const watched = client.watch({ prefix, key, from, giveUpMs: timeout });
  let left = limit;
  try {
    for await (const { changes, revision: reached } of watched.batches()) {
      answered();
      const lines = changes.slice(0, left).map((change) => line(change, json));
      if (changes.length === 0 && progress === true) lines.push(progressLine(reached, json));
      if (lines.length > 0) await printLine(lines.join("\n"));
      left -= changes.length;
      if (left <= 0) return;
    }
  } catch (error) {
    if (watched.revision > 0) {
      process.stderr.write(`barge: to go on where this ended: --from ${watched.revision + 1}\n`);
    }
    throw error;
  }
}

function line(change: Change, json: boolean | undefined): string {
  const { type, key, revision: at } = change;
  if (json === true) {
    const common = { type, key: base64(key), revision: at };
    const value = type === "put" ? { value: base64(change.value) } : {};
    return JSON.stringify({ ...common, ...value });
  }
  const columns = [type, readable(key), String(at)];
  if (type === "put") columns.push(preview(change.value));
  return columns.join("\t");
}

function progressLine(reached: number, json: boolean | undefined): string {
  if (json === true) return JSON.stringify({ type: "progress", revision: reached });
  return `progress\t\t${reached}`;
}
