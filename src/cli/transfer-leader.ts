/** `barge transfer-leader`: another voter leads, without an election that anybody has to wait for. To repeat it does no harm. */
import type { Command } from "commander";
import {
  clientCommand,
  type ClientFlags,
  nodeIdMax,
  printJson,
  printLine,
  wholeNumber,
  withClient,
} from "./client-options.ts";

interface TransferFlags extends ClientFlags {
  readonly to?: number;
}

export function transferLeaderCommand(): Command {
  return clientCommand(
    "transfer-leader",
    "Has another voter lead. Writes wait for a moment, and none is lost. Ends with 1 where it was not possible.",
    `  barge transfer-leader
  barge transfer-leader --to 2`,
  )
    .option(
      "--to <id>",
      "who is to lead; without it, the voter that fits best",
      wholeNumber(1, nodeIdMax),
    )
    .action(async (flags: TransferFlags) => {
      const answer = await withClient(flags, (client) => client.transferLeader(flags.to));
      if (flags.json === true) return printJson(answer);
      const { leader, changed } = answer;
      await printLine(changed ? `node ${leader} leads now` : `node ${leader} leads already`);
    });
}
