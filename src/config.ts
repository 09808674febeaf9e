/**
 * The options of a node: one table gives flag, environment names, file key, type, default, bounds and help. The parser, `serve --help`
 * and the Markdown table in the documents all come from it, so they cannot drift apart. Precedence: flag, environment, file, default.
 * Anything unknown or invalid is a `UsageError` that names the option, the value and what would be right; nothing was touched by then.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import * as v from "valibot";

export interface Address {
  /** Without the brackets of an IPv6 address. */
  readonly host: string;
  readonly port: number;
}

export const logLevels = ["trace", "debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export const machines = ["kv", "http", "null"] as const;
export type MachineName = (typeof machines)[number];

export interface NodeConfig {
  readonly nodeId: number;
  /** Absolute. */
  readonly dataDir: string;
  /** Port 0 = any free one. */
  readonly listen: Address;
  /** `host:port` under which peers and clients reach this node. Its port is 0 only when that of `listen` is. */
  readonly advertise: string;
  readonly httpListen: Address;
  /** Undefined: metrics are on the HTTP port only. */
  readonly metricsListen: Address | undefined;
  /** `host:port` by node id; this node is always among them. */
  readonly initialMembers: ReadonlyMap<number, string>;
  /** Undefined where this node forms its cluster with the initial members. */
  readonly join: JoinConfig | undefined;
  readonly machine: MachineName;
  /** Of groups whose machine is http; present where that of group 0 is. */
  readonly app: AppConfig | undefined;
  /** Undefined: no members were given either, so the node draws a random one and keeps it in its folder. */
  readonly clusterToken: string | undefined;
  /** When this node cuts its log; where a bound is undefined, the usual one. */
  readonly compaction: CompactionConfig;
  /** Undefined: the usual. */
  readonly minFreeBytes: number | undefined;
  /** State of one group above which it is told to be too large; 0 = never. */
  readonly groupWarnBytes: number | undefined;
  /** The pace at which the disk is read through; undefined = the usual one. */
  readonly scrubBytesPerSecond: number | undefined;
  /** This node should lead rather than one without it. */
  readonly preferredLeader: boolean;
  /** Undefined: what the build can. */
  readonly applyVersionMax: number | undefined;
  readonly insecure: boolean;
  readonly logLevel: LogLevel;
  /** For children of `demo` and `bench`: end when standard input closes, so that none is ever left behind. */
  readonly exitWithParent: boolean;
}

export interface CompactionConfig {
  readonly entries: number | undefined;
  readonly bytes: number | undefined;
  readonly tailBytes: number | undefined;
}

/** The application that keeps the data; where a bound is undefined, the usual one. */
export interface AppConfig {
  /** `http://host:port/path` or `unix:/path.sock`, maybe with `:/path` behind it; `{group}` in it stands for a group's id. */
  readonly url: string;
  /** It stores for good only when it is asked to sync. */
  readonly sync: boolean;
  readonly timeoutMs: number | undefined;
  readonly snapshotStallMs: number | undefined;
  readonly retryMsMax: number | undefined;
  /** The process ends once the application has been out for so long; undefined = never. */
  readonly exitMs: number | undefined;
}

/** A running cluster that is to add this node. */
export interface JoinConfig {
  /** `host:port` of members; one that runs is enough. */
  readonly endpoints: readonly string[];
  /** Stay a learner. */
  readonly learner: boolean;
}

/** Wrong usage: the process ends with status 2 and has touched nothing. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

/* ------------------------------------------------------------------ values */

const nodeIdMax = 0xffff_fffe;
const clusterTokenMax = 256;

const nodeIdSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9]{1,10}$/),
  v.transform(Number),
  v.minValue(1),
  v.maxValue(nodeIdMax),
);

/** No system call takes a path with a zero byte in it. */
const pathSchema = v.pipe(v.string(), v.regex(/^[^\0]+$/));

const wholeSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9]{1,16}$/),
  v.transform(Number),
  v.maxValue(Number.MAX_SAFE_INTEGER),
);

const waitSchema = v.pipe(wholeSchema, v.minValue(1), v.maxValue(3_600_000));
const waitText = "milliseconds, from 1 to 3600000";

/** What callbacks go to; machine/http takes it apart. */
const appUrlSchema = v.pipe(
  v.string(),
  v.regex(/^(http:\/\/[^\s@?#]+|unix:\/[^\s:]+(:\/[^\s?#]*)?)$/),
  v.check((text) => text.startsWith("unix:") || URL.canParse(text.replaceAll("{group}", "0"))),
);

export function isAppUrl(text: string): boolean {
  return v.is(appUrlSchema, text);
}

const versionSchema = v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,8}$/), v.transform(Number));

const flagSchema = v.pipe(
  v.picklist(["true", "false", "1", "0"]),
  v.transform((text) => text === "true" || text === "1"),
);

/** Reads `host:port`, `[v6]:port` or `:port` (all interfaces, as Go programs write it); undefined where it is none of them. */
export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]*)):([0-9]{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  const host = (match[1] ?? match[2] ?? "").toLowerCase();
  return port > 65_535 ? undefined : { host: host === "" ? "0.0.0.0" : host, port };
}

export function formatAddress(address: Address): string {
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}

const addressSchema = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }): Address => {
    const address = parseAddress(dataset.value);
    if (address !== undefined) return address;
    addIssue({});
    return NEVER;
  }),
);

/** An address that others can dial: a host of its own and a port. */
const reachableSchema = v.pipe(
  addressSchema,
  v.check(({ host, port }) => port > 0 && !isWildcard(host)),
  v.transform(formatAddress),
);

const membersSchema = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }): ReadonlyMap<number, string> => {
    const members = parseMembers(dataset.value);
    if (typeof members !== "string") return members;
    addIssue({ message: members });
    return NEVER;
  }),
);

/** The members, or what is wrong with the list. */
function parseMembers(text: string): ReadonlyMap<number, string> | string {
  const members = new Map<number, string>();
  const addresses = new Set<string>();
  for (const part of text.split(",")) {
    const member = part.trim();
    const at = member.indexOf("=");
    const id = v.safeParse(nodeIdSchema, member.slice(0, Math.max(at, 0)));
    const address = v.safeParse(reachableSchema, member.slice(at + 1));
    if (!id.success || !address.success) return `"${member}" is not ID=HOST:PORT`;
    if (members.has(id.output)) return `node id ${id.output} is there twice`;
    if (addresses.has(address.output)) return `address ${address.output} is there twice`;
    members.set(id.output, address.output);
    addresses.add(address.output);
  }
  return members;
}

const endpointsSchema = v.pipe(
  v.string(),
  v.transform((text) => text.split(",").map((part) => part.trim())),
  v.array(reachableSchema),
);

function isWildcard(host: string): boolean {
  return /^[0.:]+$/.test(host);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/* ------------------------------------------------------------------ the table */

interface OptionRow {
  /** The flag without its dashes; also the key in the file. */
  readonly flag: string;
  /** Placeholder of the value; none for a switch. */
  readonly value?: string;
  /** First Barge's own name, then aliases; the first one that is set wins. */
  readonly environment: readonly string[];
  /** What applies when nothing is given, for people. */
  readonly fallback: string;
  readonly schema: v.GenericSchema<string, unknown>;
  /** What a right value is, after "must be". */
  readonly right: string;
  readonly help: string;
  /** Left out of help and documents. */
  readonly hidden?: true;
}

export const optionTable = {
  nodeId: {
    flag: "node-id",
    value: "ID",
    environment: ["BARGE_NODE_ID", "NODE_ID", "REPLICA_ID"],
    fallback: "1 when no members are given",
    schema: nodeIdSchema,
    right: `a whole number from 1 to ${nodeIdMax}`,
    help: "Number of this node, the same for the whole life of its data folder.",
  },
  dataDir: {
    flag: "data-dir",
    value: "DIR",
    environment: ["BARGE_DATA_DIR", "RAFT_DIR"],
    fallback: "./barge-data",
    schema: pathSchema,
    right: "the path of a folder",
    help: "Folder that holds everything this node keeps. Created when absent.",
  },
  listen: {
    flag: "listen",
    value: "HOST:PORT",
    environment: ["BARGE_LISTEN", "RAFT_LISTEN_ADDR"],
    fallback: "127.0.0.1:9091",
    schema: addressSchema,
    right: "HOST:PORT, for example 127.0.0.1:9091",
    help: "Binary port for peers and clients. Port 0 takes any free one.",
  },
  advertise: {
    flag: "advertise",
    value: "HOST:PORT",
    environment: ["BARGE_ADVERTISE"],
    fallback: "this node's address among the members, else the listen address",
    schema: reachableSchema,
    right: "HOST:PORT that others can reach; a wildcard host or port 0 is not",
    help: "Address under which peers and clients reach this node.",
  },
  httpListen: {
    flag: "http-listen",
    value: "HOST:PORT",
    environment: ["BARGE_HTTP_LISTEN", "HTTP_LISTEN_ADDR"],
    fallback: "127.0.0.1:9090",
    schema: addressSchema,
    right: "HOST:PORT, for example 127.0.0.1:9090",
    help: "HTTP port: keys and values, status, health, metrics.",
  },
  metricsListen: {
    flag: "metrics-listen",
    value: "HOST:PORT",
    environment: ["BARGE_METRICS_LISTEN", "METRICS_LISTEN_ADDR"],
    fallback: "on the HTTP port",
    schema: addressSchema,
    right: "HOST:PORT, for example 127.0.0.1:9092",
    help: "A port of its own for /metrics, besides the HTTP port.",
  },
  initialMembers: {
    flag: "initial-members",
    value: "LIST",
    environment: ["BARGE_INITIAL_MEMBERS", "RAFT_INITIAL_MEMBERS"],
    fallback: "this node alone",
    schema: membersSchema,
    right:
      "ID=HOST:PORT,… with each id and each address once, for example 1=10.0.0.1:9091,2=10.0.0.2:9091,3=10.0.0.3:9091",
    help: "All nodes that the cluster begins with; the same list on each of them.",
  },
  join: {
    flag: "join",
    value: "LIST",
    environment: ["BARGE_JOIN"],
    fallback: "off",
    schema: endpointsSchema,
    right: "HOST:PORT,… of running members, for example 10.0.0.1:9091,10.0.0.2:9091",
    help: "Asks a running cluster to add this node, which has an empty folder and an id that was never used. It becomes a voter once it has caught up.",
  },
  learner: {
    flag: "learner",
    environment: ["BARGE_LEARNER"],
    fallback: "off",
    schema: flagSchema,
    right: "true or false",
    help: "With --join: has all data and serves reads, but never votes, until it is promoted.",
  },
  machine: {
    flag: "machine",
    value: "NAME",
    environment: ["BARGE_MACHINE"],
    fallback: "kv; http where --app-url is given",
    schema: v.picklist(machines),
    right: machines.join(" or "),
    help: "State machine of group 0, and of groups of which nothing else is said: kv stores keys and values; http is an application of your own; null counts and forgets, to measure the log alone.",
  },
  appUrl: {
    flag: "app-url",
    value: "URL",
    environment: ["BARGE_APP_URL", "APP_URL"],
    fallback: "none",
    schema: appUrlSchema,
    right: "http://HOST:PORT, http://HOST:PORT/PATH, unix:/PATH.sock or unix:/PATH.sock:/PATH",
    help: "The application beside this node, which keeps the data and is called back (src/machine/http/README.md). Groups other than 0 are called below /groups/ID, or where {group} stands in the URL.",
  },
  appSync: {
    flag: "app-sync",
    environment: ["BARGE_APP_SYNC", "RAFT_SYNC"],
    fallback: "off",
    schema: flagSchema,
    right: "true or false",
    help: "The application may answer UpdateEntries before the data is durable, and makes it so when Sync is called. It must tell an instance id.",
  },
  appTimeoutMs: {
    flag: "app-timeout-ms",
    value: "MS",
    environment: ["BARGE_APP_TIMEOUT_MS"],
    fallback: "10000",
    schema: waitSchema,
    right: waitText,
    help: "A callback without an answer for so long has failed, and is tried again from where the application then says it is.",
  },
  appSnapshotStallMs: {
    flag: "app-snapshot-stall-ms",
    value: "MS",
    environment: ["BARGE_APP_SNAPSHOT_STALL_MS"],
    fallback: "60000",
    schema: waitSchema,
    right: waitText,
    help: "A snapshot that the application gives or takes has failed once no byte has moved for so long; as long as some do, it may take its time.",
  },
  appRetryMsMax: {
    flag: "app-retry-ms-max",
    value: "MS",
    environment: ["BARGE_APP_RETRY_MS_MAX"],
    fallback: "2000",
    schema: v.pipe(waitSchema, v.minValue(50)),
    right: "milliseconds, from 50 to 3600000",
    help: "The longest wait between two attempts to reach an application that fails; the first is 50 ms, each next one twice as long.",
  },
  appExitMs: {
    flag: "app-exit-ms",
    value: "MS",
    environment: ["BARGE_APP_EXIT_MS"],
    fallback: "0",
    schema: v.pipe(wholeSchema, v.maxValue(3_600_000)),
    right: "milliseconds, up to 3600000; 0 = never",
    help: "The process ends with status 46 once an application that was ready has been out for so long. 0 = it stays, leads nothing, is not ready, and waits for the application.",
  },
  config: {
    flag: "config",
    value: "FILE",
    environment: ["BARGE_CONFIG"],
    fallback: "none",
    schema: pathSchema,
    right: "the path of a TOML file",
    help: "TOML file; its keys are the names of these flags without the dashes in front.",
  },
  clusterToken: {
    flag: "cluster-token",
    value: "TEXT",
    environment: ["BARGE_CLUSTER_TOKEN"],
    fallback: "empty; random when no members are given",
    schema: v.pipe(v.string(), v.maxBytes(clusterTokenMax)),
    right: `at most ${clusterTokenMax} bytes`,
    help: "Keeps clusters with equal member lists apart. The same on each node.",
  },
  logLevel: {
    flag: "log-level",
    value: "LEVEL",
    environment: ["BARGE_LOG_LEVEL"],
    fallback: "info",
    schema: v.picklist(logLevels),
    right: logLevels.join(", "),
    help: "Lowest level that is logged, on standard error.",
  },
  compactEntries: {
    flag: "compact-entries",
    value: "N",
    environment: ["BARGE_COMPACT_ENTRIES"],
    fallback: "0",
    schema: wholeSchema,
    right: "a whole number; 0 = not by commands",
    help: "Makes the state durable every so many commands and cuts the log there, but for its tail, though a member lags behind; it gets a snapshot then. A restart replays no more than that. 0 = not by commands. Can be changed while the node runs: barge snapshot --entries.",
  },
  compactBytes: {
    flag: "compact-bytes",
    value: "BYTES",
    environment: ["BARGE_COMPACT_BYTES"],
    fallback: "268435456",
    schema: wholeSchema,
    right: "a whole number; 0 = not by bytes",
    help: "Cuts the log, but for its tail, once it holds so much though a member lags behind; what all have goes sooner. 0 = not by bytes. With both 0 the log is cut by hand alone (barge snapshot).",
  },
  compactTailBytes: {
    flag: "compact-tail-bytes",
    value: "BYTES",
    environment: ["BARGE_COMPACT_TAIL_BYTES"],
    fallback: "67108864",
    schema: wholeSchema,
    right: "a whole number below --compact-bytes",
    help: "Keeps so much of the log's end, so that a member that was away for a moment needs no snapshot.",
  },
  minFreeBytes: {
    flag: "min-free-bytes",
    value: "BYTES",
    environment: ["BARGE_MIN_FREE_BYTES"],
    fallback: "268435456",
    schema: wholeSchema,
    right: "a whole number; 0 = until the disk is full",
    help: "With less free on the disk of the data folder a leader refuses writes (disk_full, not applied) and hands over to a member that has more. It goes on by itself once there is space.",
  },
  groupWarnBytes: {
    flag: "group-warn-bytes",
    value: "BYTES",
    environment: ["BARGE_GROUP_WARN_BYTES"],
    fallback: "4294967296",
    schema: wholeSchema,
    right: "a whole number; 0 = never",
    help: "Warns of a group with more state than this, in the log, in barge status and as barge_groups_large: the state of a group is sent whole to who needs it, so several smaller groups serve better.",
  },
  scrubBytesPerSecond: {
    flag: "scrub-bytes-per-second",
    value: "BYTES",
    environment: ["BARGE_SCRUB_BYTES_PER_SECOND"],
    fallback: "4194304",
    schema: wholeSchema,
    right: "a whole number; 0 = not at all",
    help: "Once a day all that lies on the disk is read in the background, at this pace, so that damage is found while other members have what it hit. Can be changed while the node runs: barge scrub.",
  },
  preferredLeader: {
    flag: "preferred-leader",
    environment: ["BARGE_PREFERRED_LEADER"],
    fallback: "off",
    schema: flagSchema,
    right: "true or false",
    help: "Should lead: a leader without this hands over to a node that has it and has kept up for 10 s. Give it to every node that may lead, or leadership moves more often than it must.",
  },
  applyVersionMax: {
    flag: "apply-version-max",
    value: "N",
    environment: ["BARGE_APPLY_VERSION_MAX"],
    fallback: "what the build can",
    schema: versionSchema,
    right: "a whole number from 1 on",
    help: "Takes part only up to this apply version, as an older build would: the cluster is not raised beyond it, so a rolling upgrade can be undone until the option is taken away. A cluster that is beyond it refuses this node.",
  },
  insecure: {
    flag: "insecure",
    environment: ["BARGE_INSECURE"],
    fallback: "off",
    schema: flagSchema,
    right: "true or false",
    help: "Accepts to listen beyond the loopback addresses although nobody is authenticated.",
  },
  exitWithParent: {
    flag: "exit-with-parent",
    environment: [],
    fallback: "off",
    schema: flagSchema,
    right: "true or false",
    help: "Ends when standard input closes.",
    hidden: true,
  },
} as const satisfies Record<string, OptionRow>;

type OptionKey = keyof typeof optionTable;
type Options = {
  readonly [Key in OptionKey]?: v.InferOutput<(typeof optionTable)[Key]["schema"]>;
};

const rows = Object.entries(optionTable) as readonly (readonly [OptionKey, OptionRow])[];

/** Names that begin with BARGE_ and belong to clients, tests and benchmarks, or that Kubernetes makes for a service named "barge". */
const foreignEnvironment =
  /^BARGE_(ENDPOINTS|TEST_.*|BENCH_.*|(.*_)?SERVICE_(HOST|PORT.*)|(.*_)?PORT(_\d+_.*)?)$/;

/* ------------------------------------------------------------------ reading */

/** A value as text, with the words that name its origin in an error. */
interface Given {
  readonly text: string;
  readonly origin: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** `argv`: what follows `serve` on the command line. Throws UsageError. */
export function parseConfig(argv: readonly string[], environment: Environment): NodeConfig {
  const given = new Map<OptionKey, Given>();
  readFlags(argv, given);
  readEnvironment(environment, given);
  const file = given.get("config");
  if (file !== undefined) readFile(file, given);

  const options: Partial<Record<OptionKey, unknown>> = {};
  for (const [key, one] of given) options[key] = valueOf(key, one);
  return complete(options as Options);
}

function valueOf(key: OptionKey, { text, origin }: Given): unknown {
  const { schema, right } = optionTable[key] as OptionRow;
  const result = v.safeParse(schema, text);
  if (result.success) return result.output;
  const why = key === "initialMembers" ? `${result.issues[0].message}; ` : "";
  throw new UsageError(`${origin} "${text}": ${why}it must be ${right}`);
}

function readFlags(argv: readonly string[], given: Map<OptionKey, Given>): void {
  const byFlag = new Map(rows.map(([key, row]) => [row.flag, key]));
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      rows.map(([, row]) => [row.flag, { type: row.value === undefined ? "boolean" : "string" }]),
    ),
  });
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional")
      throw new UsageError(`"${token.value}" is not an option; serve takes no arguments`);
    const key = byFlag.get(token.name);
    if (key === undefined) throw unknownOption(token.rawName, [...byFlag.keys()], "--");
    if (given.has(key)) throw new UsageError(`--${token.name} is given twice`);
    const row: OptionRow = optionTable[key];
    if (row.value !== undefined && (token.value === undefined || !isValue(token)))
      throw new UsageError(`--${token.name} needs a value: ${row.right}`);
    given.set(key, { text: token.value ?? "true", origin: `--${token.name}` });
  }
}

/** `--listen --insecure` means a forgotten value; `--cluster-token=--x` is meant as it stands. */
function isValue(token: { readonly value?: string; readonly inlineValue?: boolean }): boolean {
  return token.inlineValue === true || !token.value!.startsWith("-");
}

function readEnvironment(environment: Environment, given: Map<OptionKey, Given>): void {
  const known = new Set<string>();
  for (const [key, { environment: names }] of rows) {
    for (const name of names) {
      known.add(name);
      const text = environment[name];
      // An empty variable counts as unset: compose files and charts pass them through that way.
      if (text === undefined || text === "" || given.has(key)) continue;
      given.set(key, { text, origin: `environment ${name}` });
    }
  }
  const level = raftdLevel(environment);
  if (level !== undefined && !given.has("logLevel")) given.set("logLevel", level);
  for (const name of Object.keys(environment)) {
    if (!name.startsWith("BARGE_") || known.has(name) || foreignEnvironment.test(name)) continue;
    throw unknownOption(`environment ${name}`, [...known], "");
  }
}

/** raftd's switches. Other values of these names belong to other programs. */
function raftdLevel({ TRACE, DEBUG }: Environment): Given | undefined {
  if (TRACE === "1") return { text: "trace", origin: "environment TRACE" };
  return DEBUG === "1" ? { text: "debug", origin: "environment DEBUG" } : undefined;
}

function readFile(file: Given, given: Map<OptionKey, Given>): void {
  const content = parseFile(file);
  const byFlag = new Map(rows.map(([key, row]) => [row.flag, key]));
  byFlag.delete(optionTable.config.flag);
  for (const [name, value] of Object.entries(content)) {
    const key = byFlag.get(name);
    const origin = `${name} in ${file.text}`;
    if (key === undefined) throw unknownOption(origin, [...byFlag.keys()], "");
    const row: OptionRow = optionTable[key];
    const fits =
      row.value === undefined
        ? typeof value === "boolean"
        : typeof value === "string" || (key === "nodeId" && typeof value === "number");
    if (!fits) throw new UsageError(`${origin}: it is ${shown(value)}, it must be ${row.right}`);
    if (!given.has(key)) given.set(key, { text: String(value), origin });
  }
}

function parseFile(file: Given): object {
  valueOf("config", file);
  const { text: path, origin } = file;
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`${origin} "${path}" cannot be read: ${(error as Error).message}`);
  }
  try {
    return Bun.TOML.parse(text);
  } catch (error) {
    throw new UsageError(`${origin} "${path}" is not TOML: ${(error as Error).message}`);
  }
}

/** A value of the file for an error, also one that JSON has no words for. */
function shown(value: unknown): string {
  const text = Bun.inspect(value, { compact: true, depth: 1 });
  return text.length > shownCharsMax ? `${text.slice(0, shownCharsMax)}…` : text;
}

const shownCharsMax = 80;

function unknownOption(name: string, known: readonly string[], prefix: string): UsageError {
  const bare = name.replace(/^-+|^environment | in .*$/g, "");
  let hint = "";
  let best = typoMax + 1;
  for (const other of known) {
    const distance = editDistance(bare, other);
    if (distance >= best) continue;
    best = distance;
    hint = `; did you mean ${prefix}${other}?`;
  }
  return new UsageError(`unknown option ${name}${hint}`);
}

const typoMax = 2;

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/* ------------------------------------------------------------------ defaults and cross checks */

function complete(options: Options): NodeConfig {
  const listen = options.listen ?? { host: "127.0.0.1", port: 9091 };
  const httpListen = options.httpListen ?? { host: "127.0.0.1", port: 9090 };
  checkListening(options.insecure ?? false, [
    ["listen", listen],
    ["http-listen", httpListen],
    ["metrics-listen", options.metricsListen],
  ]);
  checkCompaction(options);
  const nodeId = nodeIdOf(options);
  const advertise = advertiseOf(options, nodeId, listen);
  const join = joinOf(options, advertise);
  return {
    nodeId,
    dataDir: resolve(options.dataDir ?? "barge-data"),
    listen,
    advertise,
    httpListen,
    metricsListen: options.metricsListen,
    initialMembers: options.initialMembers ?? new Map([[nodeId, advertise]]),
    join,
    machine: machineOf(options),
    app: appOf(options),
    clusterToken: options.clusterToken ?? (options.initialMembers === undefined ? undefined : ""),
    compaction: {
      entries: options.compactEntries,
      bytes: options.compactBytes,
      tailBytes: options.compactTailBytes,
    },
    minFreeBytes: options.minFreeBytes,
    groupWarnBytes: options.groupWarnBytes,
    scrubBytesPerSecond: options.scrubBytesPerSecond,
    preferredLeader: options.preferredLeader ?? false,
    applyVersionMax: options.applyVersionMax,
    insecure: options.insecure ?? false,
    logLevel: options.logLevel ?? "info",
    exitWithParent: options.exitWithParent ?? false,
  };
}

function checkCompaction({ compactBytes = 0, compactTailBytes = 0 }: Options): void {
  if (compactBytes === 0 || compactTailBytes < compactBytes) return;
  throw new UsageError(
    `--compact-tail-bytes ${compactTailBytes} must be below --compact-bytes ${compactBytes}: what is kept cannot be cut`,
  );
}

function machineOf({ machine, appUrl }: Options): MachineName {
  if (appUrl !== undefined) return machine ?? "http";
  if (machine !== "http") return machine ?? "kv";
  throw new UsageError("--machine http needs --app-url: where is the application?");
}

const appRows = [
  "appSync",
  "appTimeoutMs",
  "appSnapshotStallMs",
  "appRetryMsMax",
  "appExitMs",
] as const;

function appOf(options: Options): AppConfig | undefined {
  const { appUrl: url, appSync: sync = false, appExitMs = 0 } = options;
  if (url === undefined) {
    // RAFT_SYNC=0 says nothing.
    const key = appRows.find((row) => options[row] !== undefined && options[row] !== false);
    if (key === undefined) return undefined;
    throw new UsageError(`--${optionTable[key].flag} needs --app-url: which application?`);
  }
  return {
    url,
    sync,
    timeoutMs: options.appTimeoutMs,
    snapshotStallMs: options.appSnapshotStallMs,
    retryMsMax: options.appRetryMsMax,
    exitMs: appExitMs === 0 ? undefined : appExitMs,
  };
}

function nodeIdOf({ nodeId, initialMembers: members }: Options): number {
  if (members === undefined) return nodeId ?? 1;
  const ids = [...members.keys()].join(", ");
  if (nodeId === undefined)
    throw new UsageError(`--initial-members needs --node-id: which of ${ids} is this node?`);
  if (!members.has(nodeId))
    throw new UsageError(`--node-id ${nodeId} is not among the ids of --initial-members: ${ids}`);
  return nodeId;
}

function joinOf(options: Options, advertise: string): JoinConfig | undefined {
  const { join, learner = false, initialMembers, nodeId } = options;
  if (join === undefined) {
    if (learner) throw new UsageError("--learner needs --join: it says how this node is added");
    return undefined;
  }
  if (initialMembers !== undefined) {
    throw new UsageError(
      "--join and --initial-members exclude each other: a node joins a running cluster, or begins one with others",
    );
  }
  if (nodeId === undefined) {
    throw new UsageError("--join needs --node-id: one that this cluster has never had");
  }
  if (advertise.endsWith(":0")) {
    throw new UsageError("--join needs a port that others can dial: --listen HOST:PORT");
  }
  return { endpoints: join, learner };
}

function advertiseOf(options: Options, nodeId: number, listen: Address): string {
  const { advertise, initialMembers: members } = options;
  // Where the two differ the node has moved; that it has been there before is for the start to check.
  const address = advertise ?? members?.get(nodeId);
  if (address === undefined) {
    if (!isWildcard(listen.host)) return formatAddress(listen);
    throw new UsageError(
      `--listen ${formatAddress(listen)} is a wildcard, which others cannot dial: give --advertise HOST:PORT`,
    );
  }
  // Loopback to loopback, with no word of forwarding in between: another port is a slip, most often a forgotten --listen.
  const { host, port } = parseAddress(address)!;
  const isSlip = isLoopback(host) && isLoopback(listen.host) && port !== listen.port;
  if (isSlip && advertise === undefined) {
    throw new UsageError(
      `node ${nodeId} is to be reached at ${address}, but listens on ${formatAddress(listen)}: give --listen ${address}`,
    );
  }
  return address;
}

function checkListening(
  insecure: boolean,
  addresses: readonly (readonly [flag: string, address: Address | undefined])[],
): void {
  const taken = new Map<string, string>();
  for (const [flag, address] of addresses) {
    if (address === undefined) continue;
    const text = formatAddress(address);
    const other = taken.get(text);
    if (other !== undefined && address.port !== 0)
      throw new UsageError(`--${flag} ${text} is the address of --${other} too; give another port`);
    taken.set(text, flag);
    if (isLoopback(address.host) || insecure) continue;
    throw new UsageError(
      `--${flag} ${text} can be reached from other machines, and nobody who connects is authenticated: ` +
        `add --insecure to accept that, or listen on 127.0.0.1`,
    );
  }
}

/* ------------------------------------------------------------------ documents */

const visibleRows = rows.map(([, row]) => row).filter((row) => row.hidden !== true);

/** The options as aligned text for `serve --help`, in lines of a usual terminal. */
export function optionsHelp(): string {
  const lines: string[] = [];
  for (const row of visibleRows) {
    const flag = row.value === undefined ? `--${row.flag}` : `--${row.flag} ${row.value}`;
    const texts = [row.help, `${row.environment[0]}; default: ${row.fallback}`];
    for (const [i, line] of texts.flatMap(wrapped).entries()) {
      lines.push(`  ${(i === 0 ? flag : "").padEnd(flagColumns)}${line}`);
    }
  }
  lines.push(`  ${"-h, --help".padEnd(flagColumns)}Shows this.`);
  return lines.join("\n");
}

const flagColumns = 28;
const helpColumns = 52;

function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > helpColumns) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** The options as a Markdown table, for the documents. */
export function optionsMarkdown(): string {
  const lines = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"];
  for (const { flag, environment, fallback, help } of visibleRows) {
    const [name, ...aliases] = environment.map((one) => `\`${one}\``);
    const names = aliases.length === 0 ? name : `${name} (${aliases.join(", ")})`;
    lines.push(`| \`--${flag}\` | ${names} | ${fallback} | ${help} |`);
  }
  return lines.join("\n");
}
