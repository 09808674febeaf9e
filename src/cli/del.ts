/** `barge del KEY`: deletes a key. */
import type { Command } from "commander";
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

interface DelFlags extends WriteFlags {
  readonly prevRevision?: number;
}

const examples = `  barge del greeting
  barge del lock --prev-revision 17       only if it is still that one`;

export function delCommand(): Command {
  return addSession(clientCommand("del", "Deletes a key; status 1 when there was none.", examples))
    .argument("<key>", keyHelp)
    .option(
      "--prev-revision <n>",
      "delete only if the key's revision is this",
      wholeNumber(1, Number.MAX_SAFE_INTEGER),
    )
    .action(del);
}

async function del(key: string, flags: DelFlags): Promise<void> {
  const { prevRevision } = flags;
  const { deleted, revision } = await withClient(flags, async (client) => {
    if (prevRevision === undefined) return await client.delete(key);
    const result = await client.compareAndDelete(key, prevRevision);
    return { deleted: result.swapped, revision: result.revision };
  });
  if (!deleted) process.exitCode = exitStatus.no;
  if (flags.json === true) return printJson({ revision, deleted });
  if (deleted) return printLine(`revision ${revision}`);
  const compared = prevRevision !== undefined && revision !== 0;
  await printLine(compared ? `not deleted: revision is ${revision}` : "there was no such key");
}
