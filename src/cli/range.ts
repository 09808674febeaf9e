/** `barge range [PREFIX]`: lists keys and values in bytewise order of the keys, page by page. */
import type { Command } from "commander";
import type { Client, RangeItem } from "../client/index.ts";
import {
  addConsistency,
  base64,
  clientCommand,
  preview,
  printLine,
  readable,
  type ReadFlags,
  wholeNumber,
  withClient,
} from "./client-options.ts";

interface RangeFlags extends ReadFlags {
  readonly limit?: number;
  readonly after?: string;
  readonly keysOnly?: boolean;
}

const examples = `  barge range                             everything
  barge range user/ --limit 10
  barge range user/ --json | jq -r .key   keys and values are in base64`;

const pageItemsMax = 1_000;

export function rangeCommand(): Command {
  const command = clientCommand(
    "range",
    "Lists keys, revisions and values. Each page is read at one moment, several pages are not.",
    examples,
  );
  return addConsistency(command)
    .argument("[prefix]", "only keys that begin with this")
    .option("--after <key>", "only keys after this one")
    .option("--limit <n>", "stop after so many", wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option("--keys-only", "leave the values out")
    .action(range);
}

async function range(prefix: string | undefined, flags: RangeFlags): Promise<void> {
  await withClient(flags, async (client, answered) => {
    for await (const items of pages(client, prefix, flags)) {
      answered();
      if (items.length === 0) continue;
      await printLine(items.map((item) => line(item, flags)).join("\n"));
    }
  });
}

async function* pages(
  client: Client,
  prefix: string | undefined,
  { consistency, after: first, limit, keysOnly }: RangeFlags,
): AsyncGenerator<readonly RangeItem[]> {
  let left = limit ?? Number.POSITIVE_INFINITY;
  let after: Uint8Array | string | undefined = first;
  for (;;) {
    const page = await client.range({
      prefix,
      after,
      limit: Math.min(left, pageItemsMax),
      keysOnly,
      consistency,
    });
    yield page.items;
    left -= page.items.length;
    after = page.items.at(-1)?.key;
    if (!page.more || left === 0 || after === undefined) return;
  }
}

function line({ key, value, revision }: RangeItem, { json, keysOnly }: RangeFlags): string {
  if (json === true) {
    const common = { key: base64(key), revision };
    return JSON.stringify(keysOnly === true ? common : { ...common, value: base64(value) });
  }
  const columns = [readable(key), String(revision)];
  if (keysOnly !== true) columns.push(preview(value));
  return columns.join("\t");
}
