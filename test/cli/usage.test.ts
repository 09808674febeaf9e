/** The command line itself: help of each command, wrong usage, nobody to talk to. Nothing here needs a node. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { barge, removeFolder, Running, scratchFolder } from "./program.ts";

setDefaultTimeout(60_000);

const folder = scratchFolder();
afterAll(() => removeFolder(folder));

/** Help and errors are for people who wait. */
const quickCpuMs = 500;
/** What applies without --timeout. */
const timeoutMsDefault = 5_000;
const escape = "\u001b";

const { out: rootHelp } = await barge(["--help"]);
const commands = [...rootHelp.matchAll(/^ {2}([a-z-]+) {2,}\S/gm)]
  .map(([, name]) => name!)
  .filter((name) => !name.startsWith("-") && name !== "barge");

test("the help lists the commands", async () => {
  for (const name of ["serve", "demo", "put", "get", "del", "range", "txn", "status", "bench"]) {
    expect(commands).toContain(name);
  }
  const { status, out, err } = await barge([]);
  expect({ status, out, err }).toEqual({ status: 2, out: "", err: rootHelp });
  expect((await barge(["help"])).out).toBe(rootHelp);
  expect((await barge(["help", "get"])).out).toBe((await barge(["get", "--help"])).out);
});

describe.concurrent("help", () => {
  for (const name of commands) {
    test(`of ${name} has an example, is quick and plain`, async () => {
      const { status, out, err, cpuMs } = await barge([name, "--help"]);
      expect(status).toBe(0);
      expect(err).toBe("");
      expect(out).toMatch(new RegExp(`^Usage: barge ${name} `));
      expect(out).toMatch(new RegExp(`\\nExamples:\\n(.*\\n)*.*barge ${name}\\b`));
      expect(out).not.toContain(escape);
      expect(cpuMs).toBeLessThan(quickCpuMs);
    });
  }

  test("of the version", async () => {
    for (const flag of ["-V", "--version"]) {
      expect((await barge([flag])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
    }
  });
});

/** Wrong usage and the words it is told with. */
const wrong: readonly (readonly [args: string[], words: string | RegExp])[] = [
  [["nope"], "unknown command 'nope'"],
  [["ptu"], "(Did you mean put?)"],
  [["put"], "missing required argument 'key'"],
  [["put", "a", "b", "c"], "too many arguments"],
  [["put", "k", "v", "--prev-revision", "-1"], "It must be a whole number from 0"],
  [["put", "k", "v", "--prev-revision", "1.5"], "It must be a whole number from 0"],
  [["put", "-k", "v"], "unknown option '-k'"],
  [["put", "k", "v", "--grop", "1"], "(Did you mean --group?)"],
  [["put", "k", "v", "--group", "4294967295"], "from 0 to 4294967294"],
  [["put", "k", "v", "--endpoints", "nonsense"], 'endpoint "nonsense" is not host:port'],
  [["put", "k", "v", "--endpoints", ""], "give at least one host:port"],
  [["put", "", "v"], "a key must not be empty"],
  [["get"], "missing required argument 'key'"],
  [["get", "k", "--consistency", "eventual"], "linearizable, lease, local"],
  [["get", "k", "--timeout", "5"], "It must be from 1ms to 60s"],
  [["get", "k", "--timeout", "0s"], "It must be from 1ms to 60s"],
  [["get", "k", "--timeout", "1h"], "It must be from 1ms to 60s"],
  [["del", "k", "--prev-revision", "0"], "It must be a whole number from 1"],
  [["range", "--limit", "0"], "It must be a whole number from 1"],
  [["range", "a", "b"], "too many arguments"],
  [["txn", "absent.json"], "absent.json"],
  [["status", "extra"], "too many arguments"],
  [["demo", "--nodes", "0"], "from 1 to 9"],
  [["demo", "--nodes", "10"], "from 1 to 9"],
  [["demo", "--dir", "/proc/none"], "--dir /proc/none cannot be used"],
  [["bench"], "missing required argument 'workload'"],
  [["bench", "write"], "put, get, mixed, disk"],
  [["bench", "put", "--seconds", "0"], "It must be above 0"],
  [["bench", "put", "--seconds", "long"], "It must be a number of seconds"],
  [["bench", "put", "--groups", "0"], "from 1 to 1000000"],
  [["bench", "put", "--rate", "10", "--batch", "2"], "--rate counts single operations"],
  [["bench", "put", "--in-flight", "1", "--connections", "2"], "at least --connections"],
  [["bench", "put", "--batch", "1000", "--value-bytes", "1024"], "fit one request"],
  [["bench", "put", "--out", "/proc/none/x"], "--out /proc/none/x cannot be written"],
  [["bench", "put", "--dir", "/proc/none"], "--dir /proc/none cannot be used"],
  [["bench", "disk", "--dir", "/proc/none"], "--dir /proc/none cannot be used"],
  [["bench", "get", "--machine", "null"], "keeps nothing"],
  [["serve", "--nope"], "unknown option --nope (barge serve --help"],
  [["serve", "here"], '"here" is not an option'],
  [["serve", "--node-id=0"], '--node-id "0": it must be a whole number'],
  [["serve", "--listen", "0.0.0.0:9091"], "add --insecure"],
  [["serve", "--config", "absent.toml"], '--config "absent.toml" cannot be read'],
];

describe.concurrent("wrong usage ends with 2, says why, and touches nothing", () => {
  for (const [i, [args, words]] of wrong.entries()) {
    test(args.join(" "), async () => {
      const cwd = join(folder, String(i));
      mkdirSync(cwd);
      const { status, out, err, cpuMs } = await barge(args, { cwd });
      expect(err).toContain(words as string);
      expect(err).toMatch(/^(bench: .*\n)?barge: /);
      expect(err).not.toContain(escape);
      expect({ status, out }).toEqual({ status: 2, out: "" });
      expect(cpuMs).toBeLessThan(quickCpuMs);
      expect(readdirSync(cwd)).toEqual([]);
    });
  }
});

/** Nobody listens there: the kernel gives out no port below 1,024 by itself. */
const nobody = "127.0.0.1:1";

describe.concurrent("with nobody there", () => {
  const commandsOfClients = [
    ["put", "k", "v"],
    ["get", "k"],
    ["get", "k", "--consistency", "local"],
    ["del", "k"],
    ["range"],
  ];
  for (const args of commandsOfClients) {
    test(`${args.join(" ")} ends with 3 in time`, async () => {
      const { status, out, err, ms } = await barge([...args, "--timeout", "300ms"], {
        env: { BARGE_ENDPOINTS: nobody },
      });
      expect(err).toContain(`barge: unreachable: no node answered within 300 ms (${nobody}: `);
      expect(err).toContain("(barge serve runs a node here; ");
      expect(err.includes("Nothing was changed.")).toBe(args[0] === "put" || args[0] === "del");
      expect({ status, out }).toEqual({ status: 3, out: "" });
      expect(ms).toBeLessThan(timeoutMsDefault);
    });
  }

  test("--json tells it as one document", async () => {
    const args = ["get", "k", "--json", "--timeout", "100ms", "--endpoints", nobody];
    const { status, out } = await barge(args);
    expect(JSON.parse(out)).toEqual({
      error: {
        code: "unreachable",
        message: expect.stringContaining(nobody),
        outcome: "not-applied",
        retryable: true,
      },
    });
    expect(status).toBe(3);
  });

  test("status shows the row all the same, and why", async () => {
    const args = ["status", "--endpoints", nobody, "--timeout", "100ms"];
    const { status, out } = await barge(args);
    expect(status).toBe(3);
    expect(out).toMatch(
      /^id +address .*\n +\? +127\.0\.0\.1:1 +unreachable\n127\.0\.0\.1:1: .+\n$/,
    );
    const json = await barge([...args, "--json"]);
    expect(json.status).toBe(3);
    const { nodes } = JSON.parse(json.out) as { readonly nodes: unknown };
    expect(nodes).toEqual([
      { address: nobody, reachable: false, error: expect.stringContaining(nobody) },
    ]);
  });

  test("on a terminal it says whom it waits for", async () => {
    const args = ["get", "k", "--timeout", "1300ms", "--endpoints", nobody];
    await using get = new Running(args, { terminal: true });
    await get.says(/^barge: waiting for 127\.0\.0\.1:1 …\r\nbarge: unreachable: /);
    expect(await get.ended()).toEqual({ status: 3, signal: null });
  });

  test("bench says so before it begins", async () => {
    const { status, err, ms } = await barge(["bench", "put", "--endpoints", nobody]);
    expect(status).toBe(3);
    expect(err).toContain("barge: unreachable: ");
    expect(ms).toBeLessThan(timeoutMsDefault);
  });
});
