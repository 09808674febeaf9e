/** `barge demo`: what it prints, what it keeps, and that nothing of it is ever left behind. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../e2e/cluster.ts";
import { barge, type Ran, removeFolder, Running, scratchFolder } from "./program.ts";

setDefaultTimeout(60_000);

const folder = scratchFolder();
afterAll(() => removeFolder(folder));

const usualPort = 9_091;
/** After Ctrl-C nothing runs any more within this. */
const stopMsMax = 3_000;

let folders = 0;
/** A folder for temporary files of one demo, so that what it leaves there is seen. */
function newFolder(): string {
  const path = join(folder, String(folders++));
  mkdirSync(path);
  return path;
}

interface ShownNode {
  readonly pid: number;
  readonly binary: string;
  readonly http: string;
}

function nodesIn(text: string): ShownNode[] {
  const rows = text.matchAll(/^ {2}node \d+ {3}pid (\d+) {3}binary (\S+) {3}http (\S+)$/gm);
  return [...rows].map(([, pid, binary, http]) => ({
    pid: Number(pid),
    binary: binary!,
    http: http!,
  }));
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // Ended, and only not yet collected by whoever adopted it.
  return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
}

async function nothingRuns(nodes: readonly ShownNode[]): Promise<void> {
  await until("all nodes of the demo ended", () => !nodes.some(({ pid }) => runs(pid)));
}

function roundTrip({ status, out, err }: Ran, nodeCount: number): ShownNode[] {
  expect({ status, err }).toEqual({ status: 0, err: "" });
  expect(out).not.toContain("\u001b");
  expect(out).toMatch(/^Node \d leads, \d+ ms after the start\.$/m);
  expect(out).toMatch(/^wrote {2}greeting = "hello from Barge" {2}through node 1: revision \d+$/m);
  expect(out).toContain(`\nread   greeting = "hello from Barge"  through node ${nodeCount}: `);
  const nodes = nodesIn(out);
  expect(nodes).toHaveLength(nodeCount);
  expect(nodes.some(({ pid }) => runs(pid))).toBe(false);
  return nodes;
}

function hold(port: number): { stop(force: boolean): void } | undefined {
  try {
    return Bun.listen({ hostname: "127.0.0.1", port, socket: { data(): void {} } });
  } catch {
    return undefined;
  }
}

/** Some other program may have the usual ports; then the demo must take others. */
test("takes the usual ports where they are free", async () => {
  const holds = [9_090, 9_091, 9_190, 9_191, 9_290, 9_291].map(hold);
  const free = !holds.includes(undefined);
  for (const one of holds) one?.stop(true);
  const TMPDIR = newFolder();
  const nodes = roundTrip(await barge(["demo", "--once"], { env: { TMPDIR } }), 3);
  const binaries = nodes.map(({ binary }) => binary);
  const usual = ["127.0.0.1:9091", "127.0.0.1:9191", "127.0.0.1:9291"];
  if (free) expect(binaries).toEqual(usual);
  else expect(binaries).not.toEqual(usual);
  expect(readdirSync(TMPDIR)).toEqual([]);
});

describe("where a usual port is taken", () => {
  // Held while all of these run, so that they can run beside each other.
  let held: { stop(force: boolean): void } | undefined;
  beforeAll(() => void (held = hold(usualPort)));
  afterAll(() => held?.stop(true));

  describe.concurrent("demo takes free ones and", () => {
    for (const count of [1, 5]) {
      test(`makes the round with --nodes ${count}`, async () => {
        const TMPDIR = newFolder();
        const ran = await barge(["demo", "--once", "--nodes", String(count)], { env: { TMPDIR } });
        const nodes = roundTrip(ran, count);
        expect(nodes.map(({ binary }) => binary)).not.toContain(`127.0.0.1:${usualPort}`);
        expect(readdirSync(TMPDIR)).toEqual([]);
      });
    }

    test("keeps a --dir and picks it up again, as large as it is", async () => {
      const cwd = newFolder();
      const first = await barge(["demo", "--once", "--nodes", "2", "--dir", "kept"], { cwd });
      const nodes = roundTrip(first, 2);
      expect(first.out).toMatch(/\nThe data is kept; .* demo --dir kept goes on with it\.\n$/);
      const other = await barge(["demo", "--once", "--nodes", "3", "--dir", "kept"], { cwd });
      expect(other).toMatchObject({ status: 2, out: "" });
      expect(other.err).toContain("--nodes 3: the cluster in ");
      const again = await barge(["demo", "--once", "--dir", "kept"], { cwd });
      expect(roundTrip(again, 2).map(({ binary }) => binary)).toEqual(
        nodes.map(({ binary }) => binary),
      );
      const revision = ({ out }: Ran): number => Number(/revision (\d+)/.exec(out)![1]);
      expect(revision(again)).toBeGreaterThan(revision(first));
    });

    test("stops everything on Ctrl-C, and removes its folder", async () => {
      const TMPDIR = newFolder();
      await using demo = new Running(["demo"], { env: { TMPDIR }, terminal: true });
      await demo.says(/Ctrl-C ends all nodes\./);
      const nodes = nodesIn(demo.said.replaceAll("\r\n", "\n"));
      expect(nodes).toHaveLength(3);
      const beganMs = performance.now();
      demo.interrupt();
      expect(await demo.ended()).toEqual({ status: 0, signal: null });
      expect(performance.now() - beganMs).toBeLessThan(stopMsMax);
      expect(nodes.some(({ pid }) => runs(pid))).toBe(false);
      expect(readdirSync(TMPDIR)).toEqual([]);
      expect(demo.said).toEndWith("\r\nStopping.\r\n");
    });

    test("the leader killed: writing goes on, and Enter brings it back", async () => {
      const TMPDIR = newFolder();
      await using demo = new Running(["demo"], { env: { TMPDIR }, terminal: true });
      const [, pid, id] = await demo.says(/kill -9 (\d+) {4}# node (\d), the leader/);
      const [, endpoints] = await demo.says(/export BARGE_ENDPOINTS=(\S+)/);
      process.kill(Number(pid), "SIGKILL");
      await demo.says(new RegExp(`node ${id} ended \\(SIGKILL\\); 2 of 3 are left\\.`));
      const put = await barge(["put", "k", "v", "--endpoints", endpoints!]);
      expect([put.status, put.err]).toEqual([0, ""]);
      demo.type("\r");
      await demo.says(new RegExp(`node ${id} is back, pid \\d+\\.`));
      demo.interrupt();
      expect(await demo.ended()).toEqual({ status: 0, signal: null });
    });

    test("leaves no node behind when it is killed", async () => {
      const TMPDIR = newFolder();
      await using demo = new Running(["demo"], { env: { TMPDIR } });
      await demo.says(/Ctrl-C ends all nodes\./);
      const nodes = nodesIn(demo.said);
      expect(nodes.every(({ pid }) => runs(pid))).toBe(true);
      demo.signal("SIGKILL");
      await demo.ended();
      await nothingRuns(nodes);
    });

    test("ends with its nodes when nobody reads what it prints", async () => {
      const TMPDIR = newFolder();
      await using demo = new Running(["demo"], { env: { TMPDIR }, closeOutput: true });
      expect(await demo.ended()).toEqual({ status: 0, signal: null });
      await until("the folder is removed", () => readdirSync(TMPDIR).length === 0);
    });

    // Alone: the others could be given the ports that it has had.
    test.serial("says why a node did not start", async () => {
      const cwd = newFolder();
      await barge(["demo", "--once", "--nodes", "1", "--dir", "kept"], { cwd });
      const { ports } = JSON.parse(readFileSync(join(cwd, "kept/demo.json"), "utf8")) as {
        readonly ports: readonly { readonly binary: number }[];
      };
      const taken = hold(ports[0]!.binary);
      const { status, err } = await barge(["demo", "--once", "--dir", "kept"], { cwd });
      taken?.stop(true);
      expect(status).toBe(3);
      expect(err).toStartWith("barge: node 1 ended:\nbarge: port_in_use: 127.0.0.1:");
      expect(err.trimEnd().split("\n")).toHaveLength(2);
      expect(existsSync(join(cwd, "kept/demo.json"))).toBe(true);
    });
  });
});
