/** `barge member`: who the members are, and changes of them. Any node may be asked; to repeat a change does no harm. */
import { Command, InvalidArgumentError } from "commander";
import {
  type Client,
  type MemberEntry,
  type MembersAnswer,
  type MemberWish,
} from "../client/index.ts";
import {
  clientCommand,
  type ClientFlags,
  nodeIdMax,
  printJson,
  printLine,
  wholeNumber,
  withClient,
} from "./client-options.ts";
import { catchUpNote, keptPlaceNote, shareOf } from "./status-notes.ts";
import { sizeText } from "./status.ts";
import { alignColumns } from "./table.ts";

interface ChangeFlags extends ClientFlags {
  readonly force?: boolean;
  readonly learner?: boolean;
  readonly wait?: boolean;
  readonly by?: Identity;
}

interface Identity {
  readonly id: number;
  readonly address: string;
}

const pollMs = 250;
const tellMs = 1_000;

export function memberCommand(): Command {
  const command = new Command("member").description(
    "Shows and changes the members of a cluster. A new voter is a learner until it has caught up.",
  );
  for (const sub of [list(), add(), promote(), demote(), move(), remove(), replace()]) {
    command.addCommand(sub);
  }
  return command.addHelpText("after", `\nExamples:\n${examples}`);
}

const examples = `  barge member list
  barge member add 4=10.0.0.4:9091            then start it: barge serve --node-id 4 --join 10.0.0.1:9091
  barge member replace 3 --by 4=10.0.0.4:9091
  barge member move 3=10.0.0.7:9091           it was started there with --advertise 10.0.0.7:9091
  barge member remove 3`;

/* ------------------------------------------------------------------ the commands */

function list(): Command {
  return clientCommand(
    "list",
    "Lists the members in force, as the leader sees them.",
    `  barge member list --endpoints 10.0.0.1:9091
  barge member list --json`,
  ).action(async (flags: ClientFlags) => {
    const members = await withClient(flags, (client) => client.members());
    if (flags.json === true) return printJson(members);
    await printLine(tableOf(members));
    for (const member of members.members) {
      const note = keptPlaceNote(member);
      if (note !== undefined) await printLine(note);
    }
  });
}

function add(): Command {
  const command = changeCommand(
    "add",
    "Adds nodes, which become voters once they have caught up.",
    `  barge member add 4=10.0.0.4:9091 --wait
  barge member add 4=10.0.0.4:9091 5=10.0.0.5:9091
  barge member add 6=10.0.0.6:9091 --learner`,
  );
  return waiting(command)
    .argument("<member...>", "new members, each ID=HOST:PORT", identities)
    .option("--learner", "they stay learners: all the data, but no vote")
    .action((members: readonly Identity[], flags: ChangeFlags) => {
      const learner = flags.learner === true;
      return change(
        flags,
        members.map(({ id, address }) => ({ op: "add" as const, id, address, learner })),
      );
    });
}

function promote(): Command {
  const command = changeCommand(
    "promote",
    "Makes learners voters, once they have caught up.",
    "  barge member promote 4 --wait",
  );
  return waiting(command)
    .argument("<id...>", "learners", ids)
    .action((given: readonly number[], flags: ChangeFlags) =>
      change(
        flags,
        given.map((id) => ({ op: "promote" as const, id })),
      ),
    );
}

function demote(): Command {
  return changeCommand(
    "demote",
    "Makes voters learners: they keep the data, but do not count any more.",
    "  barge member demote 3",
  )
    .argument("<id...>", "voters", ids)
    .action((given: readonly number[], flags: ChangeFlags) =>
      change(
        flags,
        given.map((id) => ({ op: "demote" as const, id })),
      ),
    );
}

function move(): Command {
  return changeCommand(
    "move",
    "Tells the members that a node, with its folder, is to be reached at another address from now on. Start it there first, or soon after.",
    "  barge member move 3=10.0.0.7:9091",
  )
    .argument("<member...>", "members at their new addresses, each ID=HOST:PORT", identities)
    .action((moved: readonly Identity[], flags: ChangeFlags) =>
      change(
        flags,
        moved.map(({ id, address }) => ({ op: "move" as const, id, address })),
      ),
    );
}

function remove(): Command {
  return changeCommand(
    "remove",
    "Removes members, for good: their ids are never used again, and their processes end by themselves.",
    `  barge member remove 3
  barge member remove 2 3 --force       although too few of those that stay answer`,
  )
    .argument("<id...>", "members", ids)
    .action((given: readonly number[], flags: ChangeFlags) =>
      change(
        flags,
        given.map((id) => ({ op: "remove" as const, id })),
      ),
    );
}

function replace(): Command {
  const command = changeCommand(
    "replace",
    "Puts a new node in the place of a member, which keeps it until the new one has caught up. For a node whose disk was lost, too.",
    "  barge member replace 3 --by 4=10.0.0.4:9091 --wait",
  );
  return waiting(command)
    .argument("<id>", "the member that goes", wholeNumber(1, nodeIdMax))
    .requiredOption("--by <member>", "the new one, ID=HOST:PORT", identity)
    .action((id: number, flags: ChangeFlags) => {
      const { id: by, address } = flags.by!;
      return change(flags, [{ op: "replace", id, by, address }]);
    });
}

function changeCommand(name: string, description: string, sample: string): Command {
  return clientCommand(name, description, sample).option(
    "--force",
    "also where too few of the voters that would be left answer, so that the group may stop; or where somebody else answers at a new address",
  );
}

function waiting(command: Command): Command {
  return command.option("--wait", "until the new ones are voters, however long that takes");
}

/* ------------------------------------------------------------------ a change */

async function change(flags: ChangeFlags, wishes: readonly MemberWish[]): Promise<void> {
  const members = await withClient(flags, async (client, answered) => {
    const done = await client.changeMembers(wishes, { force: flags.force === true });
    answered();
    for (const { id, address, why } of done.silent ?? []) {
      process.stderr.write(
        `barge: nobody answers for node ${id} at ${address} yet: ${why}; if that stays so, it is reached over its own connection once it has joined\n`,
      );
    }
    return flags.wait === true ? untilPromoted(client, done, flags) : done;
  });
  if (flags.json === true) return printJson(members);
  await printLine(tableOf(members));
  const left = members.members.filter((member) => member.promotion === true);
  for (const member of left) await printLine(nextStep(member, flags));
}

/** Catching up may take long: a line a second says how far it has come. */
async function untilPromoted(
  client: Client,
  first: MembersAnswer,
  flags: ChangeFlags,
): Promise<MembersAnswer> {
  let members = first;
  let toldMs = 0;
  while (members.members.some((member) => member.promotion === true)) {
    const nowMs = performance.now();
    if (nowMs - toldMs >= tellMs) {
      toldMs = nowMs;
      for (const member of members.members) {
        if (member.promotion === true)
          process.stderr.write(`barge: ${catchUpNote(member, members.commitIndex, sizeText)}\n`);
      }
    }
    await Bun.sleep(pollMs);
    members = await client.members({ timeoutMs: flags.timeout });
  }
  return members;
}

function nextStep({ id, bound }: MemberEntry, { endpoints }: ClientFlags): string {
  return bound
    ? `node ${id} becomes a voter once it has caught up; barge member list shows how far it is`
    : `start node ${id} with an empty folder: barge serve --node-id ${id} --join ${endpoints}; it becomes a voter once it has caught up`;
}

/* ------------------------------------------------------------------ arguments and tables */

function ids(text: string, before: readonly number[] | undefined): readonly number[] {
  return [...(before ?? []), wholeNumber(1, nodeIdMax)(text)];
}

function identities(text: string, before: readonly Identity[] | undefined): readonly Identity[] {
  return [...(before ?? []), identity(text)];
}

function identity(text: string): Identity {
  const at = text.indexOf("=");
  if (at > 0 && /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$/.test(text.slice(at + 1))) {
    return { id: wholeNumber(1, nodeIdMax)(text.slice(0, at)), address: text.slice(at + 1) };
  }
  throw new InvalidArgumentError("It must be ID=HOST:PORT, such as 4=10.0.0.4:9091.");
}

const titles = ["id", "address", "role", "match", "lag", "state"] as const;
const leftColumns = new Set<string>(["address", "role", "state"]);

function tableOf(answer: MembersAnswer): string {
  const rows = answer.members.map((member) => [
    String(member.id),
    member.address,
    roleOf(member),
    String(member.matchIndex ?? "?"),
    member.matchIndex === undefined
      ? "?"
      : String(Math.max(0, answer.commitIndex - member.matchIndex)),
    stateOf(member),
  ]);
  return alignColumns([titles, ...rows], leftColumns);
}

function roleOf({ role, leader, promotion, replaces }: MemberEntry): string {
  if (leader) return role === "leaving" ? "leader, leaving" : "leader";
  if (promotion !== true) return role;
  return replaces === undefined ? "learner, to be voter" : `learner, to be voter for ${replaces}`;
}

function stateOf({ bound, connected, dialsIn, leader, snapshot }: MemberEntry): string {
  if (snapshot !== undefined && snapshot.bytes > 0)
    return `gets a snapshot: ${shareOf(snapshot.sentBytes, snapshot.bytes)}`;
  if (dialsIn === true) return "reached over its own connection";
  if (leader || connected) return "connected";
  return bound ? "not connected" : "not joined";
}
