/** `barge get KEY`: prints a value, bytes verbatim. */
import type { Command } from "commander";
import {
  addConsistency,
  base64,
  clientCommand,
  keyHelp,
  printJson,
  type ReadFlags,
  withClient,
} from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";

const examples = `  barge get greeting
  barge get logo > logo.png
  barge get greeting --consistency local --endpoints 127.0.0.1:9191`;

export function getCommand(): Command {
  const command = clientCommand(
    "get",
    "Prints the value of a key, bytes verbatim; status 1 when there is none.",
    examples,
  );
  return addConsistency(command).argument("<key>", keyHelp).action(get);
}

async function get(key: string, flags: ReadFlags): Promise<void> {
  const { consistency, json } = flags;
  const entry = await withClient(flags, (client) => client.get(key, { consistency }));
  if (entry === undefined) {
    process.exitCode = exitStatus.no;
    if (json === true) return printJson({ found: false });
    process.stderr.write(`barge: there is no key "${key}"\n`);
    return;
  }
  const { value, revision } = entry;
  if (json === true) return printJson({ found: true, value: base64(value), revision });
  await Bun.write(Bun.stdout, value);
  // On a terminal the prompt must not follow the value; a pipe gets the bytes and nothing else.
  if (process.stdout.isTTY === true) await Bun.write(Bun.stdout, "\n");
}
