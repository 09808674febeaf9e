/** `barge put KEY [VALUE]`: writes a value, from the command line or from standard input, bytes verbatim. */
import type { Command } from "commander";
import { BargeError } from "../errors.ts";
import { defaultLimits } from "../limits.ts";
import {
  addSession,
  clientCommand,
  keyHelp,
  printJson,
  printLine,
  wholeNumber,
  withClient,
  type WriteFlags,
} from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";

interface PutFlags extends WriteFlags {
  readonly prevRevision?: number;
}

const examples = `  barge put greeting hello
  barge put logo < logo.png
  barge put lock me --prev-revision 0     only if there is none; status 1 when there is`;

export function putCommand(): Command {
  return addSession(clientCommand("put", "Writes a value and prints its revision.", examples))
    .argument("<key>", keyHelp)
    .argument("[value]", "value, as text; absent: standard input, bytes verbatim")
    .option(
      "--prev-revision <n>",
      "write only if the key's revision is this; 0 = only if it is absent",
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .action(put);
}

async function put(key: string, value: string | undefined, flags: PutFlags): Promise<void> {
  const bytes = value === undefined ? await readValue() : new TextEncoder().encode(value);
  const { valueBytesMax } = defaultLimits;
  if (bytes.byteLength > valueBytesMax) {
    const words = `the value has ${bytes.byteLength} bytes; a node takes up to ${valueBytesMax}`;
    throw new BargeError("too_large", words);
  }
  const { prevRevision } = flags;
  if (prevRevision === undefined) {
    const { revision } = await withClient(flags, (client) => client.put(key, bytes));
    return flags.json === true ? printJson({ revision }) : printLine(`revision ${revision}`);
  }
  const { swapped, revision } = await withClient(flags, (client) =>
    client.compareAndSet(key, bytes, prevRevision),
  );
  if (!swapped) process.exitCode = exitStatus.no;
  if (flags.json === true) return printJson({ swapped, revision });
  if (swapped) return printLine(`revision ${revision}`);
  await printLine(
    revision === 0 ? "not written: there is no such key" : `not written: revision is ${revision}`,
  );
}

function readValue(): Promise<Uint8Array> {
  if (process.stdin.isTTY === true) {
    process.stderr.write("barge: reading the value from the terminal; Ctrl-D ends it\n");
  }
  return Bun.stdin.bytes();
}
