/** What the client commands have in common: their options, the connection, and how bytes are printed. */
import { Command, InvalidArgumentError, Option } from "commander";
import { BargeError, type Client, connect, type ConsistencyName } from "../client/index.ts";

export interface ClientFlags {
  readonly endpoints: string;
  /** By the time that a command acts; before that it may be a name. */
  readonly group: number;
  /** Milliseconds. */
  readonly timeout: number;
  readonly json?: boolean;
}

export interface WriteFlags extends ClientFlags {
  readonly session: boolean;
}

export interface ReadFlags extends ClientFlags {
  readonly consistency: ConsistencyName;
}

/** The highest id that a group may have. */
export const groupIdMax: number = 0xffff_fffe;

/** The highest id that a node may have. */
export const nodeIdMax: number = 0xffff_fffe;

export const keyHelp: string = "key, as text; -- goes before one that begins with a dash";

/** A command with the options of every client command, and examples in its help. */
export function clientCommand(name: string, description: string, examples: string): Command {
  return new Command(name)
    .description(description)
    .addOption(
      new Option("--endpoints <list>", "nodes to ask, as host:port,…; one is enough")
        .env("BARGE_ENDPOINTS")
        .default("127.0.0.1:9091"),
    )
    .option("--group <group>", "group of keys, by its id or its name", idOrName(0), 0)
    .addOption(
      new Option("--timeout <time>", "give up after so long, such as 500ms")
        .argParser(duration)
        .default(5_000, "5s"),
    )
    .option("--json", "print JSON")
    .hook("preAction", findNamedGroup)
    .addHelpText("after", `\nExamples:\n${examples}`);
}

/** No name begins with a digit. */
export function idOrName(min: number): (text: string) => number | string {
  const asId = wholeNumber(min, groupIdMax);
  return (text) => (/^[0-9]/.test(text) ? asId(text) : text);
}

/** Commands know groups by their ids alone: a name is looked up before one acts. */
async function findNamedGroup(_: Command, command: Command): Promise<void> {
  const flags = command.opts<Omit<ClientFlags, "group"> & { readonly group: number | string }>();
  if (typeof flags.group === "number") return;
  const named = flags.group;
  const id = await withClient({ ...flags, group: 0 }, (client) => groupIdOf(client, named));
  command.setOptionValueWithSource("group", id, "cli");
}

export async function groupIdOf(client: Client, group: number | string): Promise<number> {
  if (typeof group === "number") return group;
  const groups = await client.listGroups();
  const found = groups.find(({ name }) => name === group);
  if (found !== undefined) return found.id;
  throw new BargeError("unknown_group", `There is no group ${group}: barge group list shows all.`);
}

export function addSession(command: Command): Command {
  return command.option(
    "--no-session",
    "send it once: unknown when the answer is lost, instead of sent again under an id that makes it happen once",
  );
}

export function addConsistency(command: Command): Command {
  return command.addOption(
    new Option("--consistency <level>", "how fresh: linearizable sees every acknowledged write")
      .choices(["linearizable", "lease", "local"])
      .default("linearizable"),
  );
}

const waitingMs = 1_000;

/** `use` may call `answered` once something came, where it goes on after that. */
export async function withClient<T>(
  { endpoints, group, timeout, session }: ClientFlags & { readonly session?: boolean },
  use: (client: Client, answered: () => void) => Promise<T>,
): Promise<T> {
  // Whoever writes once has no use for a session, which takes two more entries of the log.
  const writes = session === false ? false : "request-ids";
  await using client = connect({ endpoints, group, timeoutMs: timeout, session: writes });
  // A person should know what they wait for; a script waits for the time-out.
  const told = (): void => void process.stderr.write(`barge: waiting for ${endpoints} …\n`);
  const timer = process.stderr.isTTY === true ? setTimeout(told, waitingMs) : undefined;
  try {
    return await use(client, () => clearTimeout(timer));
  } finally {
    clearTimeout(timer);
  }
}

/** Parses a whole number within bounds, for commander. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000 };
const timeoutMsMax = 60_000;

function duration(text: string): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)(ms|s)$/.exec(text);
  const value = match === null ? Number.NaN : Math.round(Number(match[1]) * unitMs[match[2]!]!);
  if (value >= 1 && value <= timeoutMsMax) return value;
  throw new InvalidArgumentError("It must be from 1ms to 60s, such as 500ms or 5s.");
}

export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/** Bytes for a line of text: as they are where that is plain text, else with escapes as in JSON or, for no text at all, in hex. */
export function readable(bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return `0x${Buffer.from(bytes).toString("hex")}`;
  }
  return /^[\p{L}\p{N}\p{P}\p{S} ]*$/u.test(text) ? text : JSON.stringify(text);
}

const previewBytes = 100;

/** Values are shown to be recognised; `barge get` and `--json` have the whole. */
export function preview(value: Uint8Array): string {
  if (value.byteLength <= previewBytes) return readable(value);
  return `${readable(head(value))}… (${value.byteLength} bytes)`;
}

/** The first bytes, not cut within a character of UTF-8: what is text is shown as text. */
function head(value: Uint8Array): Uint8Array {
  let end = previewBytes;
  while (end > previewBytes - 4 && (value[end]! & 0xc0) === 0x80) end--;
  return value.subarray(0, end);
}

export async function printLine(text: string): Promise<void> {
  await Bun.write(Bun.stdout, `${text}\n`);
}

export function printJson(value: unknown): Promise<void> {
  return printLine(JSON.stringify(value));
}
