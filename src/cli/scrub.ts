/** `barge scrub`: how far nodes have read their disks through in the background, and what they found; and how they do it. */
import type { Command } from "commander";
import type { ScrubAnswer } from "../client/index.ts";
import { clientCommand, printJson, printLine, wholeNumber } from "./client-options.ts";
import { eachNode, type EachNodeFlags } from "./each-node.ts";
import { exitStatus } from "./exit-status.ts";
import { sizeText } from "./status.ts";

interface ScrubFlags extends EachNodeFlags {
  readonly now?: boolean;
  readonly pause?: boolean;
  readonly resume?: boolean;
  readonly bytesPerSecond?: number;
}

const examples = `  barge scrub                                how far it is, on the node at 127.0.0.1:9091
  barge scrub --all --now                    all members begin at once
  barge scrub --bytes-per-second 50000000    faster, until the node starts anew
  barge scrub --pause                        then: barge scrub --resume`;

export function scrubCommand(): Command {
  return clientCommand(
    "scrub",
    "Once a day a node reads all that lies on its disk, in the background, so that damage is found while other members have what it hit. Says how far it is and what it found; ends with 1 where that is damage. With options it changes how, until the node starts anew.",
    examples,
  )
    .option("--all", "on all members of the cluster, not only the nodes of --endpoints")
    .option("--now", "begin at once")
    .option("--pause", "read nothing until --resume")
    .option("--resume", "go on")
    .option(
      "--bytes-per-second <n>",
      "how fast; 0 = not at all",
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .action(scrub);
}

async function scrub(flags: ScrubFlags): Promise<void> {
  const { now = false, pause = false, resume = false, bytesPerSecond } = flags;
  const body = {
    now,
    ...(pause || resume ? { paused: pause } : {}),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
  };
  await eachNode(flags, async (client, endpoint) => {
    const answer = await client.admin("scrub", body, { endpoint });
    if (answer.findings.length > 0) process.exitCode = exitStatus.no;
    if (flags.json === true) return printJson({ endpoint, ...answer });
    for (const line of linesOf(answer)) await printLine(line);
  });
}

function linesOf({ node, findings, ...status }: ScrubAnswer): readonly string[] {
  return [`node ${node}: ${wordsOn(status)}`, ...findings.map((found) => `node ${node}: ${found}`)];
}

function wordsOn(status: Omit<ScrubAnswer, "node" | "findings">): string {
  const { state, bytesPerSecond, at, passBytes = 0, passedSecondsAgo, passes } = status;
  const last =
    passedSecondsAgo === undefined
      ? "not yet read through since its start"
      : `read through ${passes} times since its start, last ${passedSecondsAgo} s ago`;
  const pace = `${sizeText(bytesPerSecond)} per second`;
  if (state === "off") return `reads nothing; ${last}`;
  if (state === "paused") return `paused; ${last}`;
  if (state === "waiting") return `${last}; the next time at ${pace}`;
  return `reads ${at ?? "its disk"} at ${pace}, ${sizeText(passBytes)} so far; ${last}`;
}
