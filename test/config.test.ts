/** The options of a node: each row of the table by every way it can be given, what wins, what is refused, and the checks across rows. */
import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
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

const folder = mkdtempSync(join(tmpdir(), "barge-config-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type OptionKey = keyof typeof optionTable;
type Environment = Readonly<Record<string, string>>;

/** What a row takes, what it makes of that, and what it refuses. */
interface Sample {
  /** Two values that differ, as text. */
  readonly good: readonly [string, string];
  /** What the configuration holds for them. */
  readonly read: (config: NodeConfig) => unknown;
  readonly expected: readonly [unknown, unknown];
  readonly bad: readonly string[];
  /** Flags that the values need beside them. */
  readonly with?: readonly string[];
}

const address = { host: "127.0.0.1", port: 1234 };
const memberList = "1=127.0.0.1:7001,2=127.0.0.1:7002";
const badAddresses = [
  "",
  "9091",
  "127.0.0.1",
  "127.0.0.1:",
  "127.0.0.1:65536",
  "a b:1",
  "::1:1",
  "[::1]",
];

const badWholes = ["", "-1", "1.5", "1e3", "many", "9007199254740992", "99999999999999999"];

/** `config` is not among them: it has tests of its own. */
const samples: Readonly<Record<Exclude<OptionKey, "config">, Sample>> = {
  nodeId: {
    good: ["7", "4294967294"],
    read: ({ nodeId }) => nodeId,
    expected: [7, 4_294_967_294],
    bad: ["", "0", "1.5", "0x10", "one", "4294967295", "99999999999", " 1"],
  },
  dataDir: {
    good: ["some/folder", "/an/absolute one"],
    read: ({ dataDir }) => dataDir,
    expected: [resolve("some/folder"), "/an/absolute one"],
    bad: [""],
  },
  listen: {
    good: ["127.0.0.1:1234", "[::1]:0"],
    read: ({ listen }) => listen,
    expected: [address, { host: "::1", port: 0 }],
    bad: badAddresses,
  },
  advertise: {
    good: ["127.0.0.1:9091", "node-1.example:7000"],
    read: ({ advertise }) => advertise,
    expected: ["127.0.0.1:9091", "node-1.example:7000"],
    bad: [...badAddresses, ":9091", "0.0.0.0:9091", "[::]:9091", "0:9091", "127.0.0.1:0"],
  },
  httpListen: {
    good: ["127.0.0.1:1234", "LOCALHOST:0"],
    read: ({ httpListen }) => httpListen,
    expected: [address, { host: "localhost", port: 0 }],
    bad: badAddresses,
  },
  metricsListen: {
    good: ["127.0.0.1:1234", "127.0.0.1:0"],
    read: ({ metricsListen }) => metricsListen,
    expected: [address, { host: "127.0.0.1", port: 0 }],
    bad: badAddresses,
  },
  initialMembers: {
    good: [memberList, "2=127.0.0.1:7002, 3=n3.example:7003"],
    read: ({ initialMembers }) => [...initialMembers],
    expected: [
      [
        [1, "127.0.0.1:7001"],
        [2, "127.0.0.1:7002"],
      ],
      [
        [2, "127.0.0.1:7002"],
        [3, "n3.example:7003"],
      ],
    ],
    bad: [
      "",
      ",",
      "1",
      "127.0.0.1:7001",
      "1=127.0.0.1",
      "x=127.0.0.1:7001",
      "0=127.0.0.1:7001",
      "1=127.0.0.1:0",
      "1=0.0.0.0:7001",
      "1=127.0.0.1:7001,",
      "1=127.0.0.1:7001,1=127.0.0.1:7002",
      "1=127.0.0.1:7001,2=127.0.0.1:7001",
    ],
    with: ["--node-id=2", "--listen=127.0.0.1:7002"],
  },
  machine: {
    good: ["null", "kv"],
    read: ({ machine }) => machine,
    expected: ["null", "kv"],
    bad: ["", "KV", "redis"],
  },
  appUrl: {
    good: ["http://app.example:8080/a/{group}/b/", "unix:/run/app.sock:/raft"],
    read: ({ app, machine }) => [machine, app?.url],
    expected: [
      ["http", "http://app.example:8080/a/{group}/b/"],
      ["http", "unix:/run/app.sock:/raft"],
    ],
    bad: [
      "",
      "app.example:8080",
      "https://app.example",
      "http://",
      "http://me@app.example",
      "http://app.example?a=1",
      "http://app.example:99999",
      "unix:app.sock",
      "unix:/app.sock:raft",
      "unix:/a b",
    ],
  },
  appSync: {
    good: ["true", "false"],
    read: ({ app }) => app?.sync,
    expected: [true, false],
    bad: ["", "yes"],
    with: ["--app-url=http://127.0.0.1:8080"],
  },
  appTimeoutMs: {
    good: ["1", "3600000"],
    read: ({ app }) => app?.timeoutMs,
    expected: [1, 3_600_000],
    bad: [...badWholes, "0", "3600001"],
    with: ["--app-url=http://127.0.0.1:8080"],
  },
  appSnapshotStallMs: {
    good: ["1", "3600000"],
    read: ({ app }) => app?.snapshotStallMs,
    expected: [1, 3_600_000],
    bad: [...badWholes, "0", "3600001"],
    with: ["--app-url=http://127.0.0.1:8080"],
  },
  appRetryMsMax: {
    good: ["50", "3600000"],
    read: ({ app }) => app?.retryMsMax,
    expected: [50, 3_600_000],
    bad: [...badWholes, "49", "3600001"],
    with: ["--app-url=http://127.0.0.1:8080"],
  },
  appExitMs: {
    good: ["0", "3600000"],
    read: ({ app }) => app?.exitMs,
    expected: [undefined, 3_600_000],
    bad: [...badWholes, "3600001"],
    with: ["--app-url=http://127.0.0.1:8080"],
  },
  clusterToken: {
    good: ["a token", "x".repeat(256)],
    read: ({ clusterToken }) => clusterToken,
    expected: ["a token", "x".repeat(256)],
    bad: ["x".repeat(257), "ü".repeat(129)],
  },
  logLevel: {
    good: ["debug", "silent"],
    read: ({ logLevel }) => logLevel,
    expected: ["debug", "silent"],
    bad: ["", "INFO", "verbose"],
  },
  join: {
    good: ["127.0.0.1:7001", "127.0.0.1:7001, node-2.example:7000"],
    read: ({ join }) => join?.endpoints,
    expected: [["127.0.0.1:7001"], ["127.0.0.1:7001", "node-2.example:7000"]],
    bad: [...badAddresses, "127.0.0.1:7001,", "0.0.0.0:7001"],
    with: ["--node-id=4"],
  },
  learner: {
    good: ["true", "false"],
    read: ({ join }) => join?.learner,
    expected: [true, false],
    bad: ["", "yes"],
    with: ["--node-id=4", "--join=127.0.0.1:7001"],
  },
  compactEntries: {
    good: ["0", "9007199254740991"],
    read: ({ compaction }) => compaction.entries,
    expected: [0, 9_007_199_254_740_991],
    bad: badWholes,
  },
  compactBytes: {
    good: ["0", "1000000"],
    read: ({ compaction }) => compaction.bytes,
    expected: [0, 1_000_000],
    bad: badWholes,
  },
  compactTailBytes: {
    good: ["0", "4096"],
    read: ({ compaction }) => compaction.tailBytes,
    expected: [0, 4_096],
    bad: badWholes,
  },
  minFreeBytes: {
    good: ["0", "4096"],
    read: ({ minFreeBytes }) => minFreeBytes,
    expected: [0, 4_096],
    bad: badWholes,
  },
  groupWarnBytes: {
    good: ["0", "4096"],
    read: ({ groupWarnBytes }) => groupWarnBytes,
    expected: [0, 4_096],
    bad: badWholes,
  },
  scrubBytesPerSecond: {
    good: ["0", "4096"],
    read: ({ scrubBytesPerSecond }) => scrubBytesPerSecond,
    expected: [0, 4_096],
    bad: badWholes,
  },
  preferredLeader: {
    good: ["true", "false"],
    read: ({ preferredLeader }) => preferredLeader,
    expected: [true, false],
    bad: ["", "yes"],
  },
  applyVersionMax: {
    good: ["1", "2"],
    read: ({ applyVersionMax }) => applyVersionMax,
    expected: [1, 2],
    bad: ["", "0", "-1", "1.5", "two"],
  },
  insecure: {
    good: ["true", "false"],
    read: ({ insecure }) => insecure,
    expected: [true, false],
    bad: ["", "yes", "on", "2"],
  },
  exitWithParent: {
    good: ["true", "false"],
    read: ({ exitWithParent }) => exitWithParent,
    expected: [true, false],
    bad: ["", "yes"],
  },
};

const sampled = Object.entries(samples) as [Exclude<OptionKey, "config">, Sample][];

/** Writes a TOML file and returns its path. */
let files = 0;
function tomlFile(content: string): string {
  const path = join(folder, `${files++}.toml`);
  writeFileSync(path, content);
  return path;
}

/** A line of TOML in the type that the option has. */
function tomlLine(key: OptionKey, text: string): string {
  const row: { readonly flag: string; readonly value?: string } = optionTable[key];
  return `${row.flag} = ${row.value === undefined ? text : JSON.stringify(text)}\n`;
}

function refused(argv: readonly string[], environment: Environment = {}): string {
  try {
    parseConfig(argv, environment);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  throw new Error(`accepted: ${JSON.stringify({ argv, environment })}`);
}

test("every row has a sample", () => {
  expect(Object.keys(samples).toSorted()).toEqual(
    Object.keys(optionTable)
      .filter((key) => key !== "config")
      .toSorted(),
  );
});

test("names are unique: flags, and environment variables over all rows", () => {
  const rows = Object.values(optionTable);
  const names = rows.flatMap(({ flag, environment }) => [flag, ...environment]);
  expect(new Set(names).size).toBe(names.length);
});

for (const [key, sample] of sampled) {
  const row: {
    readonly flag: string;
    readonly value?: string;
    readonly environment: readonly string[];
    readonly right: string;
  } = optionTable[key];
  const { good, expected, read, bad, with: more = [] } = sample;

  describe(`--${row.flag}`, () => {
    const give = (argv: readonly string[], environment: Environment = {}): unknown =>
      read(parseConfig([...argv, ...more], environment));

    test("as a flag", () => {
      for (const [i, text] of good.entries()) {
        expect(give([`--${row.flag}=${text}`])).toEqual(expected[i]);
        if (row.value !== undefined) expect(give([`--${row.flag}`, text])).toEqual(expected[i]);
      }
      if (row.value === undefined) expect(give([`--${row.flag}`])).toBe(true);
    });

    test.each(row.environment)("from the environment as %s", (name) => {
      for (const [i, text] of good.entries()) {
        expect(give([], { [name]: text })).toEqual(expected[i]);
      }
    });

    test("from a file", () => {
      for (const [i, text] of good.entries()) {
        const path = tomlFile(tomlLine(key, text));
        expect(give(["--config", path])).toEqual(expected[i]);
        expect(give([], { BARGE_CONFIG: path })).toEqual(expected[i]);
      }
    });

    test("flag over environment over file over default; a name over its aliases; empty is unset", () => {
      const [first, second] = good;
      const file = ["--config", tomlFile(tomlLine(key, second))];
      expect(give([`--${row.flag}=${first}`, ...file])).toEqual(expected[0]);
      for (const [i, name] of row.environment.entries()) {
        expect(give([`--${row.flag}=${first}`], { [name]: second })).toEqual(expected[0]);
        expect(give(file, { [name]: first })).toEqual(expected[0]);
        expect(give(file, { [name]: "" })).toEqual(expected[1]);
        for (const alias of row.environment.slice(i + 1)) {
          expect(give([], { [name]: first, [alias]: second })).toEqual(expected[0]);
          expect(give([], { [name]: "", [alias]: second })).toEqual(expected[1]);
        }
      }
    });

    test.each(bad)("refuses %j and says what is right", (text) => {
      const says = (message: string, origin: string): void => {
        expect(message).toStartWith(`${origin} "${text}": `);
        expect(message).toEndWith(`it must be ${row.right}`);
      };
      says(refused([`--${row.flag}=${text}`, ...more]), `--${row.flag}`);
      const [name] = row.environment;
      if (name !== undefined && text !== "") {
        says(refused(more, { [name]: text }), `environment ${name}`);
      }
      if (row.value === undefined) return;
      const path = tomlFile(tomlLine(key, text));
      says(refused(["--config", path, ...more]), `${row.flag} in ${path}`);
    });

    test("refuses the wrong type in a file", () => {
      const wrong = row.value === undefined ? `"true"` : key === "nodeId" ? "true" : "1";
      for (const value of [wrong, `["a"]`, `{ a = 1 }`]) {
        const path = tomlFile(`${row.flag} = ${value}\n`);
        const message = refused(["--config", path, ...more]);
        expect(message).toStartWith(`${row.flag} in ${path}: it is `);
        expect(message).toEndWith(`it must be ${row.right}`);
      }
    });

    test("refuses to be given twice", () => {
      const flag = `--${row.flag}=${good[0]}`;
      expect(refused([flag, flag, ...more])).toContain(`--${row.flag} is given twice`);
    });

    if (row.value !== undefined) {
      test("refuses to stand without a value", () => {
        const words = `--${row.flag} needs a value: ${row.right}`;
        expect(refused([`--${row.flag}`])).toBe(words);
        expect(refused([`--${row.flag}`, "--insecure"])).toBe(words);
      });
    }
  });
}

test("with nothing given: one node, on loopback", () => {
  expect(parseConfig([], {})).toEqual({
    nodeId: 1,
    dataDir: resolve("barge-data"),
    listen: { host: "127.0.0.1", port: 9091 },
    advertise: "127.0.0.1:9091",
    httpListen: { host: "127.0.0.1", port: 9090 },
    metricsListen: undefined,
    initialMembers: new Map([[1, "127.0.0.1:9091"]]),
    join: undefined,
    machine: "kv",
    clusterToken: undefined,
    compaction: { entries: undefined, bytes: undefined, tailBytes: undefined },
    minFreeBytes: undefined,
    groupWarnBytes: undefined,
    scrubBytesPerSecond: undefined,
    preferredLeader: false,
    applyVersionMax: undefined,
    app: undefined,
    insecure: false,
    logLevel: "info",
    exitWithParent: false,
  });
});

describe("unknown names", () => {
  const cases: [argv: string[], environment: Environment, words: string][] = [
    [["--lissen=a:1"], {}, "unknown option --lissen; did you mean --listen?"],
    [["--insecur"], {}, "unknown option --insecur; did you mean --insecure?"],
    [["--node_id", "1"], {}, "unknown option --node_id; did you mean --node-id?"],
    [["--quite-another"], {}, "unknown option --quite-another"],
    [["-x"], {}, "unknown option -x"],
    [["--no-insecure"], {}, "unknown option --no-insecure"],
    [["data"], {}, '"data" is not an option; serve takes no arguments'],
    [["--", "data"], {}, '"data" is not an option; serve takes no arguments'],
    [
      [],
      { BARGE_NODEID: "1" },
      "unknown option environment BARGE_NODEID; did you mean BARGE_NODE_ID?",
    ],
    [[], { BARGE_: "" }, "unknown option environment BARGE_"],
  ];
  test.each(cases)("%j %j", (argv, environment, words) => {
    expect(refused(argv, environment)).toBe(words);
  });

  test("of clients, tests, benchmarks and Kubernetes are none of ours", () => {
    parseConfig([], {
      BARGE_ENDPOINTS: "127.0.0.1:9091",
      BARGE_TEST_SEED: "1",
      BARGE_BENCH_SECONDS: "1",
      BARGE_SERVICE_HOST: "10.0.0.1",
      BARGE_SERVICE_PORT_HTTP: "80",
      BARGE_PORT_9091_TCP_ADDR: "10.0.0.1",
      BARGE_HEADLESS_SERVICE_PORT: "80",
      NODE_ENV: "production",
    });
  });
});

describe("--config", () => {
  test("names the file and what is wrong with it", () => {
    const absent = join(folder, "absent.toml");
    expect(refused(["--config", absent])).toStartWith(`--config "${absent}" cannot be read: `);
    expect(refused([], { BARGE_CONFIG: folder })).toStartWith(
      `environment BARGE_CONFIG "${folder}" cannot be read: `,
    );
    const torn = tomlFile("listen = [");
    expect(refused(["--config", torn])).toStartWith(`--config "${torn}" is not TOML: `);
    expect(refused(["--config="])).toBe('--config "": it must be the path of a TOML file');
    expect(refused(["--config"])).toBe("--config needs a value: the path of a TOML file");
  });

  test("refuses unknown keys, also those of another file", () => {
    const typo = tomlFile('lisen = "127.0.0.1:1"');
    expect(refused(["--config", typo])).toBe(
      `unknown option lisen in ${typo}; did you mean listen?`,
    );
    const table = tomlFile("[node]\nid = 1");
    expect(refused(["--config", table])).toStartWith(`unknown option node in ${table}`);
    const nested = tomlFile('config = "other.toml"');
    expect(refused(["--config", nested])).toStartWith(`unknown option config in ${nested}`);
  });

  test("takes a node id as a number too", () => {
    expect(parseConfig(["--config", tomlFile("node-id = 3")], {}).nodeId).toBe(3);
    const path = tomlFile("node-id = 3.5");
    expect(refused(["--config", path])).toContain(`node-id in ${path} "3.5": it must be`);
  });

  test("a zero byte in a path is refused here, not by the system later", () => {
    const path = tomlFile('data-dir = "a\\u0000b"');
    expect(refused(["--config", path])).toContain("it must be the path of a folder");
  });
});

describe("checks across options", () => {
  const members = `--initial-members=${memberList}`;
  const cases: [title: string, argv: string[], words: string][] = [
    [
      "to join and to begin",
      [members, "--node-id=1", "--listen=127.0.0.1:7001", "--join=127.0.0.1:7002"],
      "--join and --initial-members exclude each other: a node joins a running cluster, or begins one with others",
    ],
    [
      "to join without an id",
      ["--join=127.0.0.1:7002"],
      "--join needs --node-id: one that this cluster has never had",
    ],
    [
      "to join at any port",
      ["--node-id=4", "--listen=127.0.0.1:0", "--join=127.0.0.1:7002"],
      "--join needs a port that others can dial: --listen HOST:PORT",
    ],
    [
      "a learner that does not join",
      ["--learner"],
      "--learner needs --join: it says how this node is added",
    ],
    ["members without an own id", [members], "--initial-members needs --node-id: which of 1, 2"],
    [
      "an own id that is not a member",
      [members, "--node-id=3"],
      "--node-id 3 is not among the ids of --initial-members: 1, 2",
    ],
    [
      "a forgotten --listen",
      [members, "--node-id=1"],
      "node 1 is to be reached at 127.0.0.1:7001, but listens on 127.0.0.1:9091: give --listen 127.0.0.1:7001",
    ],
    [
      "a wildcard that nobody can dial",
      ["--listen=:9091", "--insecure"],
      "--listen 0.0.0.0:9091 is a wildcard, which others cannot dial: give --advertise",
    ],
    [
      "listening beyond loopback",
      ["--listen=10.0.0.1:9091"],
      "--listen 10.0.0.1:9091 can be reached from other machines, and nobody who connects is authenticated: add --insecure",
    ],
    [
      "HTTP beyond loopback",
      ["--http-listen=:9090"],
      "--http-listen 0.0.0.0:9090 can be reached from other machines",
    ],
    [
      "metrics beyond loopback",
      ["--metrics-listen=[::]:9092"],
      "--metrics-listen [::]:9092 can be reached from other machines",
    ],
    [
      "one address for two ports",
      ["--listen=127.0.0.1:9090"],
      "--http-listen 127.0.0.1:9090 is the address of --listen too",
    ],
  ];
  test.each(cases)("%s", (_title, argv, words) => {
    expect(refused(argv)).toStartWith(words);
  });

  test.each([
    [["--listen=localhost:9091"]],
    [["--listen=127.1.2.3:9091"]],
    [["--listen=[::1]:9091"]],
    [["--listen=:9091", "--insecure", "--advertise=n1.example:9091"]],
    [["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"]],
    [[members, "--node-id=2", "--listen=:7002", "--insecure"]],
  ])("accepts %j", (argv) => {
    parseConfig(argv, {});
  });

  test("a token is drawn only where no members are given", () => {
    expect(parseConfig([], {}).clusterToken).toBeUndefined();
    const argv = [members, "--node-id=1", "--listen=127.0.0.1:7001"];
    expect(parseConfig(argv, {}).clusterToken).toBe("");
    expect(parseConfig(["--cluster-token="], {}).clusterToken).toBe("");
  });
});

/* ------------------------------------------------------------------ whatever it is given */

const flags = Object.values(optionTable).map(({ flag }) => flag);
const environmentNames = Object.values(optionTable).flatMap(({ environment }) => [...environment]);
const goodTexts = sampled.flatMap(([, { good }]) => [...good]);

const anyText = fc.oneof(
  fc.constantFrom(...goodTexts),
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.constantFrom("true", "-", "--", "__proto__", "constructor", "\0", "=", "1=[::1]:1,2=a:2"),
);
const anyArgument = fc.oneof(
  fc.constantFrom(...flags).map((flag) => `--${flag}`),
  fc.tuple(fc.constantFrom(...flags), anyText).map(([flag, text]) => `--${flag}=${text}`),
  anyText,
  anyText.map((text) => `--${text}`),
  anyText.map((text) => `-${text}`),
);
const anyEnvironment = fc.dictionary(
  fc.oneof(
    fc.constantFrom(...environmentNames.filter((name) => name !== "BARGE_CONFIG")),
    fc.string().map((text) => `BARGE_${text}`),
    fc.string(),
  ),
  anyText,
  { maxKeys: 4 },
);
const anyToml = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc
    .array(
      fc.tuple(
        fc.oneof(fc.constantFrom(...flags), fc.string()),
        fc.oneof(
          anyText.map((text) => JSON.stringify(text)),
          fc.constantFrom("1", "1.5", "true", "[]", "{}", "1979-05-27T07:32:00Z", "nan", "1e400"),
        ),
      ),
      { maxLength: 4 },
    )
    .map((lines) => lines.map(([name, value]) => `${name} = ${value}`).join("\n")),
);

/** A configuration that all later rooms can rely on. */
function isSound(config: NodeConfig): void {
  expect(config.initialMembers.has(config.nodeId)).toBe(true);
  expect(config.dataDir).toStartWith("/");
  for (const { host, port } of [config.listen, config.httpListen]) {
    expect(host).not.toBe("");
    expect(parseAddress(formatAddress({ host, port }))).toEqual({ host, port });
  }
}

test("whatever is given, the answer is a sound configuration or a UsageError", () => {
  const path = join(folder, "any.toml");
  fc.assert(
    fc.property(
      fc.array(anyArgument, { maxLength: 5 }),
      anyEnvironment,
      fc.option(anyToml),
      (argv, environment, toml) => {
        if (toml !== null) writeFileSync(path, toml);
        const all = toml === null ? environment : { ...environment, BARGE_CONFIG: path };
        try {
          isSound(parseConfig(argv, all));
        } catch (error) {
          if (!(error instanceof UsageError)) throw error;
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test("an address that is read is written the same", () => {
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
  fc.assert(
    fc.property(host, fc.nat(65_535), (one, port) => {
      const written = formatAddress({ host: one.toLowerCase(), port });
      expect(parseAddress(written)).toEqual({ host: one.toLowerCase(), port });
    }),
  );
});

/* ------------------------------------------------------------------ documents */

test("help and documents show every option but the hidden ones, in lines of a usual terminal", () => {
  const help = optionsHelp();
  const markdown = optionsMarkdown();
  for (const row of Object.values(optionTable)) {
    const hidden = "hidden" in row;
    expect(help.includes(`--${row.flag} `)).toBe(!hidden);
    expect(markdown.includes(`\`--${row.flag}\``)).toBe(!hidden);
    for (const name of row.environment) expect(markdown).toContain(`\`${name}\``);
  }
  for (const line of help.split("\n")) expect(line.length).toBeLessThanOrEqual(84);
});

describe("an application", () => {
  const url = "--app-url=http://127.0.0.1:8080";

  test("its URL makes the machine http where nothing else is said, and http needs it", () => {
    expect(parseConfig([url], {}).machine).toBe("http");
    expect(parseConfig([url, "--machine=http"], {}).machine).toBe("http");
    expect(refused(["--machine=http"])).toContain("--machine http needs --app-url");
    const { machine, app } = parseConfig([url, "--machine=kv"], {});
    expect([machine, app?.url]).toEqual(["kv", "http://127.0.0.1:8080"]);
  });

  test.each(["sync", "timeout-ms=9", "snapshot-stall-ms=9", "retry-ms-max=90", "exit-ms=9"])(
    "--app-%s needs its URL",
    (flag) => {
      const [name] = flag.split("=");
      expect(refused([`--app-${flag}`])).toBe(`--app-${name} needs --app-url: which application?`);
    },
  );

  test("raftd's RAFT_SYNC=0 needs nothing", () => {
    expect(parseConfig([], { RAFT_SYNC: "0" }).app).toBeUndefined();
  });
});

test("an environment made for raftd starts a node", () => {
  const environment = {
    APP_URL: "http://localhost:8080",
    HTTP_LISTEN_ADDR: "127.0.0.1:9190",
    RAFT_LISTEN_ADDR: "127.0.0.1:9191",
    METRICS_LISTEN_ADDR: "127.0.0.1:9192",
    RAFT_INITIAL_MEMBERS: "1=127.0.0.1:9091,2=127.0.0.1:9191,3=127.0.0.1:9291",
    REPLICA_ID: "2",
    RAFT_SYNC: "1",
    RAFT_DIR: "_raft",
    DEBUG: "1",
  };
  expect(parseConfig([], environment)).toMatchObject({
    nodeId: 2,
    dataDir: resolve("_raft"),
    listen: { host: "127.0.0.1", port: 9_191 },
    httpListen: { host: "127.0.0.1", port: 9_190 },
    metricsListen: { host: "127.0.0.1", port: 9_192 },
    machine: "http",
    app: { url: "http://localhost:8080", sync: true },
    logLevel: "debug",
  });
  expect(parseConfig([], { ...environment, TRACE: "1" }).logLevel).toBe("trace");
  expect(parseConfig(["--log-level=warn"], environment).logLevel).toBe("warn");
  // Others use these names too.
  expect(parseConfig([], { DEBUG: "express:*" }).logLevel).toBe("info");
  for (const [name, text] of [
    ["NODE_ID", "0"],
    ["REPLICA_ID", "18446744073709551615"],
    ["RAFT_SYNC", "maybe"],
    ["APP_URL", "localhost"],
    ["RAFT_LISTEN_ADDR", "nowhere"],
    ["RAFT_INITIAL_MEMBERS", "127.0.0.1:9091"],
  ] as const) {
    expect(refused([], { [name]: text })).toStartWith(`environment ${name} "${text}": `);
  }
});
