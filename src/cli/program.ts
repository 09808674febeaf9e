/**
 * The list of commands, and the way from a command line to one of them. Each is loaded only when it is used, so that `--help` and the
 * small client commands start quickly.
 */
import { Command } from "commander";
import { version } from "../version.ts";
import { exitStatus, reportError } from "./exit-status.ts";

interface Entry {
  readonly name: string;
  readonly summary: string;
  /** Its errors say whether anything was changed. */
  readonly writes?: true;
  readonly load: () => Promise<Command>;
}

/** Takes its command line as it stands: its options come from the table in config.ts. */
const serveName = "serve";

const entries: readonly Entry[] = [
  {
    name: serveName,
    summary: "run one node",
    load: async () => new Command(serveName),
  },
  {
    name: "demo",
    summary: "run three nodes on this machine, write through one, read through another",
    load: async () => (await import("./demo.ts")).demoCommand(),
  },
  {
    name: "put",
    summary: "write a value",
    writes: true,
    load: async () => (await import("./put.ts")).putCommand(),
  },
  {
    name: "get",
    summary: "print the value of a key",
    load: async () => (await import("./get.ts")).getCommand(),
  },
  {
    name: "del",
    summary: "delete a key",
    writes: true,
    load: async () => (await import("./del.ts")).delCommand(),
  },
  {
    name: "range",
    summary: "list keys and values in order",
    load: async () => (await import("./range.ts")).rangeCommand(),
  },
  {
    name: "watch",
    summary: "print changes of keys as they happen",
    load: async () => (await import("./watch.ts")).watchCommand(),
  },
  {
    name: "txn",
    summary: "compare, then one of two lists of operations, atomically",
    writes: true,
    load: async () => (await import("./txn.ts")).txnCommand(),
  },
  {
    name: "member",
    summary: "list, add, promote, demote, move, remove, replace members",
    writes: true,
    load: async () => (await import("./member.ts")).memberCommand(),
  },
  {
    name: "group",
    summary: "list, make, move, remove groups",
    writes: true,
    load: async () => (await import("./group.ts")).groupCommand(),
  },
  {
    name: "transfer-leader",
    summary: "have another node lead",
    writes: true,
    load: async () => (await import("./transfer-leader.ts")).transferLeaderCommand(),
  },
  {
    name: "status",
    summary: "show all nodes of a cluster",
    load: async () => (await import("./status.ts")).statusCommand(),
  },
  {
    name: "snapshot",
    summary: "make a node's state durable and cut its log; say when it does so by itself",
    load: async () => (await import("./snapshot.ts")).snapshotCommand(),
  },
  {
    name: "scrub",
    summary: "say what nodes found that read their disks through; change how they do",
    load: async () => (await import("./scrub.ts")).scrubCommand(),
  },
  {
    name: "backup",
    summary: "write the state of a running cluster into a file",
    load: async () => (await import("./backup.ts")).backupCommand(),
  },
  {
    name: "restore",
    summary: "make a new cluster out of a backup",
    load: async () => (await import("./restore.ts")).restoreCommand(),
  },
  {
    name: "recover",
    summary: "make a new cluster out of the survivor of one that lost its majority for good",
    load: async () => (await import("./recover.ts")).recoverCommand(),
  },
  {
    name: "verify",
    summary: "check the data folder of a node that does not run, or a backup",
    load: async () => (await import("./verify.ts")).verifyCommand(),
  },
  {
    name: "conform",
    summary: "check an application that is to run beside a node",
    load: async () => (await import("./conform.ts")).conformCommand(),
  },
  {
    name: "bench",
    summary: "measure a cluster, or the disk, under load",
    load: async () => (await import("./bench.ts")).benchCommand(),
  },
];

/** Runs one command line and returns the exit status. Never throws. */
export async function run(argv: readonly string[]): Promise<number> {
  process.stdout.on("error", endQuietly);
  // `barge help put` is `barge put --help`.
  const words = argv[0] === "help" ? [...argv.slice(1, 2), "--help"] : [...argv];
  try {
    if (words[0] === serveName) return await (await import("./serve.ts")).serve(words.slice(1));
    const program = await programFor(words[0]);
    await program.parseAsync(words, { from: "user" });
    return Number(process.exitCode ?? exitStatus.ok);
  } catch (error) {
    const writes = entries.some((entry) => entry.name === words[0] && entry.writes === true);
    return reportError(error, { json: words.includes("--json"), writes });
  }
}

/** Nobody reads any more, as with `barge range | head`. */
function endQuietly(error: { readonly code?: unknown }): void {
  if (error.code === "EPIPE") process.exit(exitStatus.ok);
  throw error;
}

async function programFor(name: string | undefined): Promise<Command> {
  const program = new Command("barge")
    .description("Raft replication server: every acknowledged write is on the disks of a quorum.")
    .version(version, "-V, --version", "print the version")
    .helpCommand(false)
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, "barge: ")),
    })
    .showHelpAfterError("(barge --help lists the commands)")
    .exitOverride()
    .addHelpText("after", `\n${rootExamples}`);
  for (const entry of entries) {
    const command = entry.name === name ? await entry.load() : new Command(entry.name);
    command.summary(entry.summary).copyInheritedSettings(program);
    for (const part of command.commands) {
      const hint = `(barge ${entry.name} ${part.name()} --help shows its options)`;
      part.copyInheritedSettings(program).showHelpAfterError(hint);
    }
    program.addCommand(
      command.showHelpAfterError(`(barge ${entry.name} --help shows its options)`),
    );
  }
  return program;
}

const rootExamples = `Examples:
  barge serve                     one node in ./barge-data, ready to use
  barge demo                      three nodes, a write, a read; Ctrl-C ends it
  barge put greeting hello        then: barge get greeting`;
