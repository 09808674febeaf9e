/** Every row of the option table from each of its sources, precedence, and what is refused with which words. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  formatAddress,
  type NodeConfig,
  optionsHelp,
  optionsMarkdown,
  optionTable,
  parseAddress,
  parseConfig,
  UsageError,
} from "../src/config.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "barge-config-"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(content: string): string {
  const path = join(folder, `${Bun.hash(content).toString(16)}.toml`);
  writeFileSync(path, content);
  return path;
}

const alone: NodeConfig = {
  nodeId: 1,
  dataDir: resolve("barge-data"),
  listen: { host: "127.0.0.1", port: 9091 },
  advertise: "127.0.0.1:9091",
  httpListen: { host: "127.0.0.1", port: 9090 },
  metricsListen: undefined,
  initialMembers: new Map([[1, "127.0.0.1:9091"]]),
  machine: "kv",
  clusterToken: undefined,
  insecure: false,
  logLevel: "info",
  exitWithParent: false,
};

const members = "1=10.0.0.1:9091,2=10.0.0.2:9091";
const memberMap = new Map([
  [1, "10.0.0.1:9091"],
  [2, "10.0.0.2:9091"],
]);

/** A right value of each option, what else it needs, and what it changes. `config` has tests of its own. */
const cases: readonly {
  readonly flag: string;
  readonly value: string;
  readonly toml: string;
  readonly more?: readonly string[];
  readonly changes: Partial<NodeConfig>;
}[] = [
  {
    flag: "node-id",
    value: "7",
    toml: "7",
    changes: { nodeId: 7, initialMembers: new Map([[7, "127.0.0.1:9091"]]) },
  },
  { flag: "data-dir", value: "/x/y", toml: '"/x/y"', changes: { dataDir: "/x/y" } },
  {
    flag: "listen",
    value: "[::1]:9191",
    toml: '"[::1]:9191"',
    changes: {
      listen: { host: "::1", port: 9191 },
      advertise: "[::1]:9191",
      initialMembers: new Map([[1, "[::1]:9191"]]),
    },
  },
  {
    flag: "advertise",
    value: "Node1.example:9091",
    toml: '"node1.example:9091"',
    changes: {
      advertise: "node1.example:9091",
      initialMembers: new Map([[1, "node1.example:9091"]]),
    },
  },
  {
    flag: "http-listen",
    value: "localhost:0",
    toml: '"localhost:0"',
    changes: { httpListen: { host: "localhost", port: 0 } },
  },
  {
    flag: "metrics-listen",
    value: "127.0.0.2:9092",
    toml: '"127.0.0.2:9092"',
    changes: { metricsListen: { host: "127.0.0.2", port: 9092 } },
  },
  {
    flag: "initial-members",
    value: members,
    toml: `"${members}"`,
    more: ["--node-id", "2"],
    changes: {
      nodeId: 2,
      initialMembers: memberMap,
      advertise: "10.0.0.2:9091",
      clusterToken: "",
    },
  },
  { flag: "machine", value: "null", toml: '"null"', changes: { machine: "null" } },
  { flag: "cluster-token", value: "blue", toml: '"blue"', changes: { clusterToken: "blue" } },
  { flag: "log-level", value: "debug", toml: '"debug"', changes: { logLevel: "debug" } },
  { flag: "insecure", value: "true", toml: "true", changes: { insecure: true } },
];

const rowOf = (
  flag: string,
): { readonly value?: string; readonly environment: readonly string[] } =>
  Object.values(optionTable).find((row) => row.flag === flag)!;

test("every option of the table has a case here", () => {
  const flags = Object.values(optionTable).map(({ flag }) => flag);
  const others = ["config", "exit-with-parent"];
  expect([...cases.map(({ flag }) => flag), ...others].sort()).toEqual([...flags].sort());
});

test("nothing given: a cluster of one, ready to use", () => {
  expect(parseConfig([], {})).toEqual(alone);
});

for (const { flag, value, toml, more = [], changes } of cases) {
  const expected = { ...alone, ...changes };
  test(`${flag}: by flag, by each environment name, by file`, () => {
    const asFlag = rowOf(flag).value === undefined ? [`--${flag}`] : [`--${flag}`, value];
    expect(parseConfig([...more, ...asFlag], {})).toEqual(expected);
    expect(parseConfig([`--${flag}=${value}`, ...more], {})).toEqual(expected);
    for (const name of rowOf(flag).environment) {
      expect(parseConfig(more, { [name]: value })).toEqual(expected);
    }
    const path = file(`${flag} = ${toml}\n`);
    expect(parseConfig([...more, "--config", path], {})).toEqual(expected);
    expect(parseConfig(more, { BARGE_CONFIG: path })).toEqual(expected);
  });
}

test("flag before environment, own name before alias, environment before file, file before default", () => {
  const config = file('data-dir = "/file"\nlog-level = "warn"\nmachine = "null"\n');
  const environment = { BARGE_DATA_DIR: "/own", RAFT_DIR: "/alias", BARGE_LOG_LEVEL: "error" };
  expect(parseConfig(["--config", config, "--data-dir", "/flag"], environment)).toMatchObject({
    dataDir: "/flag",
    logLevel: "error",
    machine: "null",
    nodeId: 1,
  });
  expect(parseConfig(["--config", config], environment).dataDir).toBe("/own");
  expect(parseConfig(["--config", config], { RAFT_DIR: "/alias" }).dataDir).toBe("/alias");
  expect(parseConfig(["--config", config], {}).dataDir).toBe("/file");
});

test("an empty variable counts as unset; those of others are no concern", () => {
  const environment = {
    BARGE_NODE_ID: "",
    NODE_ID: "3",
    BARGE_ENDPOINTS: "a:1",
    BARGE_TEST_SEED: "1",
    BARGE_SERVICE_HOST: "10.0.0.9",
    BARGE_PORT_9091_TCP: "tcp://10.0.0.9:9091",
    PATH: "/bin",
  };
  expect(parseConfig([], environment).nodeId).toBe(3);
});

test("Go's short form means all interfaces", () => {
  const config = parseConfig(["--http-listen", ":8080", "--insecure"], {});
  expect(config.httpListen).toEqual({ host: "0.0.0.0", port: 8080 });
});

/** What is refused, and words that the message must have: the option, the value, what is right. */
const refused: readonly (readonly [argv: readonly string[], ...words: readonly string[]])[] = [
  [["--frobnicate"], "--frobnicate"],
  [["--node"], "--node"],
  [["-x"], "-x"],
  [["--nodeid", "3"], "--nodeid", "did you mean --node-id?"],
  [["extra"], '"extra"'],
  [["--node-id"], "--node-id", "needs a value"],
  [["--listen", "--insecure"], "--listen", "needs a value"],
  [["--node-id", "1", "--node-id", "2"], "--node-id", "twice"],
  [["--insecure=perhaps"], "--insecure", '"perhaps"', "true or false"],
  ...["0", "-1", "x", "1.5", "4294967295", ""].map(
    (id) => [[`--node-id=${id}`], "--node-id", `"${id}"`, "whole number from 1 to"] as const,
  ),
  ...["localhost", "127.0.0.1:", "127.0.0.1:65536", "a b:1", "::1:9091", "http://a:1"].map(
    (address) => [["--listen", address], "--listen", `"${address}"`, "HOST:PORT"] as const,
  ),
  [["--advertise", "0.0.0.0:9091"], "--advertise", "0.0.0.0:9091", "wildcard"],
  [["--advertise", "[::]:9091"], "--advertise", "wildcard"],
  [["--advertise", "a:0"], "--advertise", "port 0"],
  [["--listen", "0.0.0.0:9091", "--insecure"], "--listen", "wildcard", "--advertise"],
  [["--machine", "http"], "--machine", '"http"', "kv or null"],
  [["--log-level", "loud"], "--log-level", '"loud"', "debug"],
  [["--cluster-token", "é".repeat(129)], "--cluster-token", "256 bytes"],
  [["--listen", "0.0.0.0:9091"], "--listen", "0.0.0.0:9091", "--insecure"],
  [["--listen", "node1:9091"], "--listen", "--insecure"],
  [["--http-listen", "192.168.1.5:9090"], "--http-listen", "192.168.1.5:9090", "--insecure"],
  [["--metrics-listen", "[::]:9092"], "--metrics-listen", "--insecure"],
  [["--http-listen", "127.0.0.1:9091"], "--http-listen", "--listen", "another port"],
  [["--initial-members", members], "--node-id", "1, 2"],
  [["--node-id", "3", "--initial-members", members], "--node-id 3", "1, 2"],
  ...["", "1", "1=", "=a:1", "1=a", "1=a:0", "1=0.0.0.0:1", "0=a:1", "1=a:1,", "1=a:1;2=b:1"].map(
    (list) =>
      [["--node-id=1", `--initial-members=${list}`], "--initial-members", "ID=HOST:PORT"] as const,
  ),
  [["--node-id=1", "--initial-members=1=a:1,1=b:1"], "--initial-members", "id 1 is there twice"],
  [["--node-id=1", "--initial-members=1=a:1,2=A:1"], "--initial-members", "a:1 is there twice"],
  [
    ["--node-id=1", `--initial-members=${members}`, "--advertise=10.0.0.9:9091"],
    "10.0.0.9:9091",
    "10.0.0.1:9091",
    "--initial-members",
  ],
  [
    ["--node-id=2", "--initial-members=1=127.0.0.1:9091,2=127.0.0.1:9191"],
    "127.0.0.1:9191",
    "give --listen 127.0.0.1:9191",
  ],
];

test.each(refused.map(([argv, ...words]) => [argv.join(" "), argv, words] as const))(
  "refused: %s",
  (_name, argv, words) => {
    const error = refusal(argv, {});
    for (const word of words) expect(error).toContain(word);
  },
);

test("errors of the environment and the file name where they are", () => {
  expect(refusal([], { NODE_ID: "x" })).toContain('NODE_ID "x"');
  const typo = refusal([], { BARGE_DATADIR: "/x" });
  expect(typo).toContain("BARGE_DATADIR");
  expect(typo).toContain("did you mean BARGE_DATA_DIR?");

  const rows: readonly [string, ...string[]][] = [
    ["node-id = 0", "node-id in ", "whole number"],
    ["insecure = 'yes'", "insecure in ", "true or false"],
    ["listen = 9091", "listen in ", "HOST:PORT"],
    ["nodeid = 1", "nodeid in ", "did you mean node-id?"],
    ["config = 'x'", "config in "],
    ["[listen]\nhost = 'a'", "listen in ", "HOST:PORT"],
    ["node-id = = 1", "is not TOML"],
  ];
  for (const [content, ...words] of rows) {
    const path = file(content);
    const error = refusal(["--config", path], {});
    for (const word of [...words, path]) expect(error).toContain(word);
  }
  expect(refusal(["--config", join(folder, "none.toml")], {})).toContain("cannot be read");
});

function refusal(argv: readonly string[], environment: Record<string, string>): string {
  try {
    parseConfig(argv, environment);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  throw new Error(`not refused: ${argv.join(" ")}`);
}

test("addresses survive being written and read", () => {
  for (const text of ["127.0.0.1:0", "[::1]:9091", "node-1.a_b.example:65535"]) {
    expect(formatAddress(parseAddress(text)!)).toBe(text);
  }
});

test("help and documents list every option but the hidden one", () => {
  for (const text of [optionsHelp(), optionsMarkdown()]) {
    for (const { flag, environment } of Object.values(optionTable)) {
      const hidden = flag === "exit-with-parent";
      expect(text.includes(`--${flag}`)).toBe(!hidden);
      if (!hidden) expect(text).toContain(environment[0]!);
    }
  }
});
