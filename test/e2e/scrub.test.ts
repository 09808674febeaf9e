/**
 * The scrubber on real processes: damage on the disk of a node that runs, which nobody has asked for, is found, told, and made good while it runs; or,
 * where it cannot be, it is said what to do. And it reads no faster than it may.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { connect, type ScrubAnswer } from "../../src/client/index.ts";
import { barge } from "../cli/program.ts";
import { type TestCluster, type TestNode, until, withCluster } from "./cluster.ts";
import { sessionsIn } from "./damage.ts";
import { HttpDoor } from "./doors.ts";

setDefaultTimeout(60_000);

const writes = 300;
/** More in all than SQLite keeps in memory. */
const value = "value".repeat(1_000);
const frameBytes = 24 + 4_096;
const fast = 200_000_000;
const flags = [`--scrub-bytes-per-second=${fast}`];

async function filled(cluster: TestCluster): Promise<TestNode> {
  await using client = connect({ endpoints: cluster.endpoints });
  await Promise.all(
    Array.from({ length: writes }, (_, i) => client.put(`key${i}-`, `${i}${value}`)),
  );
  await cluster.converged();
  return cluster.nodes[0]!;
}

/** Changes one byte of a file, where it lies: a program that has it open sees that. */
function flip(path: string, at: number): void {
  const byte = readFileSync(path)[at]!;
  const descriptor = openSync(path, "r+");
  writeSync(descriptor, Uint8Array.of(byte ^ 4), 0, 1, at);
  closeSync(descriptor);
}

interface Place {
  readonly log: string;
  readonly at: number;
  /** Where its frame begins. */
  readonly frameAt: number;
}

/** Where the log of a node has this text. */
function placeOf({ dataDir }: TestNode, text: string): Place {
  const folder = join(dataDir, "segments");
  for (const name of readdirSync(folder)) {
    const log = join(folder, name);
    const at = name.endsWith("-wal") ? readFileSync(log).lastIndexOf(text) : -1;
    if (at >= 0) return { log, at, frameAt: at - ((at - 32) % frameBytes) };
  }
  throw new Error(`no log holds ${text}`);
}

async function passed(node: TestNode): Promise<ScrubAnswer> {
  const before = (await node.status()).scrub!.passes;
  await node.fetch("/v1/scrub", { method: "POST" });
  let status: ScrubAnswer | undefined;
  await until("it has read all", async () => {
    status = (await (await node.fetch("/v1/scrub")).json()) as ScrubAnswer;
    return status.passes > before;
  });
  return status!;
}

const verified = async (node: TestNode): Promise<number | null> =>
  (await barge(["verify", node.dataDir])).status;

test("nothing is found where nothing is wrong; it says so, and the metrics too", () =>
  withCluster({ nodes: 1, flags }, async (cluster) => {
    const node = await filled(cluster);
    const early = await barge(["scrub", "--endpoints", node.binary]);
    expect(early.out).toMatch(
      /node 1: not yet read through since its start; the next time at 190\.7 MiB per second/,
    );
    const answer = await passed(node);
    expect(answer).toMatchObject({
      node: 1,
      state: "waiting",
      passes: 1,
      damages: 0,
      findings: [],
    });
    expect(answer.bytes).toBeGreaterThan(writes * value.length);
    await barge(["snapshot", "--endpoints", node.binary]);
    // Now the state machine has a file too.
    expect((await passed(node)).bytes).toBeGreaterThan(answer.bytes * 2);
    const metrics = await (await node.fetch("/metrics")).text();
    expect(metrics).toMatch(/^barge_scrub_passes 2$/m);
    expect(metrics).toMatch(/^barge_scrub_damages 0$/m);
    expect(await barge(["scrub", "--endpoints", node.binary])).toMatchObject({
      status: 0,
      err: "",
    });
  }));

test("a checksum of the log that is wrong beside bytes that are right: a node alone makes it good itself", () =>
  withCluster({ nodes: 1, flags }, async (cluster) => {
    const node = await filled(cluster);
    const { log, frameAt } = placeOf(node, "key100-");
    flip(log, frameAt + 17);
    const found = await passed(node);
    expect(found).toMatchObject({ damages: 1 });
    expect(found.findings[0]).toMatch(
      /^\d+\.db-wal: page \d+ of the \d+ in it is not what was written; what is live/,
    );
    const told = await barge(["scrub", "--endpoints", node.binary]);
    expect(told.status).toBe(1);
    expect(told.out).toMatch(/is not what was written/);
    expect(node.log()).toMatch(/is not what was written/);
    // Soon the segment is not there any more, and all is whole: also for a start.
    await until("it is whole again", async () => (await passed(node)).findings.length === 0);
    await node.kill();
    expect(await verified(node)).toBe(0);
    node.start();
    await node.ready();
    expect((await new HttpDoor(node).get("key100-", 5_000))?.value).toBe(`100${value}`);
  }));

test("bytes of the log that are wrong come from the leader again", () =>
  withCluster({ flags }, async (cluster) => {
    await filled(cluster);
    const [node] = await cluster.followers();
    const { log, at } = placeOf(node!, "key20-");
    flip(log, at);
    const found = await passed(node!);
    expect(found.damages).toBe(1);
    await until("it was wounded, and is whole", async () => {
      const isWhole = (await node!.status()).health === "ok";
      return isWhole && /wounded/.test(node!.log()) && /whole again: it votes/.test(node!.log());
    });
    await until("no damage is left", async () => (await passed(node!)).findings.length === 0);
    await cluster.converged();
    await node!.terminate();
    expect(await verified(node!)).toBe(0);
  }));

test("a damaged file of the state machine is told, with what to do", () =>
  withCluster({ flags }, async (cluster) => {
    await filled(cluster);
    const [node] = await cluster.followers();
    // A backup moves the state into the main file.
    const backup = join(cluster.dir, "a.barge");
    expect((await barge(["backup", backup, "--endpoints", node!.binary])).status).toBe(0);
    const file = join(node!.dataDir, "machine/0/kv.db");
    const at = readFileSync(file).indexOf("key100-");
    flip(file, at - (at % 4_096));
    const { findings } = await passed(node!);
    expect(findings[0]).toMatch(
      /^kv\.db: .*malformed.*stop this node, move that folder away and start again/,
    );
    await node!.kill();
    expect(await verified(node!)).toBe(1);
  }));

test("sessions that are damaged are told, as the start would refuse them", () =>
  withCluster({ nodes: 1, flags }, async (cluster) => {
    const node = await filled(cluster);
    const backup = join(cluster.dir, "a.barge");
    expect((await barge(["backup", backup, "--endpoints", node.binary])).status).toBe(0);
    const file = join(node.dataDir, "machine/0/kv.db");
    const at = readFileSync(file).indexOf(sessionsIn(file, join(cluster.dir, "copy.db")));
    expect(at).toBeGreaterThan(0);
    expect((await passed(node)).findings).toEqual([]);
    flip(file, at + 12);
    const { findings } = await passed(node);
    expect(findings).toHaveLength(1);
    expect(findings[0]).toMatch(
      /^kv\.db: its sessions: they fail their check; .*move that folder away/,
    );
    await node.kill();
    expect(await verified(node)).toBe(1);
  }));

test("of a group that was removed no file is read, and damage to what the log still has of it harms nobody", () =>
  withCluster({ nodes: 1, flags }, async (cluster) => {
    const node = await filled(cluster);
    await using client = connect({ endpoints: cluster.endpoints, timeoutMs: 20_000 });
    const [made] = await client.createGroups();
    const group = client.group(made!.id);
    await Promise.all(Array.from({ length: 50 }, (_, i) => group.put(`gone${i}-`, value)));
    const snapshot = ["snapshot", "--group", `${made!.id}`, "--tail-bytes", "1000000000"];
    const cut = await barge([...snapshot, "--endpoints", node.binary]);
    expect(cut).toMatchObject({ status: 0 });
    const file = join(node.dataDir, `machine/${made!.id}/kv.db`);
    await until("it has a file", () => existsSync(file));
    const place = placeOf(node, "gone20-");
    await client.removeGroups([made!.id]);
    await until("its file is gone", () => !existsSync(file));
    expect((await passed(node)).findings).toEqual([]);
    flip(place.log, place.at);
    const found = await passed(node);
    expect(found.findings[0]).toMatch(/is not what was written; what is live/);
    await until("it is whole again", async () => (await passed(node)).findings.length === 0);
    expect((await node.status()).health).toBe("ok");
    expect(node.log()).not.toMatch(/wounded/);
    await node.kill();
    expect(await verified(node)).toBe(0);
  }));

test("it keeps its pace, pauses, and goes on where it was", () =>
  withCluster({ nodes: 1, flags: ["--scrub-bytes-per-second=0"] }, async (cluster) => {
    const node = await filled(cluster);
    const set = async (body: object): Promise<ScrubAnswer> => {
      const response = await node.fetch("/v1/scrub", {
        method: "PATCH",
        body: JSON.stringify(body),
      });
      expect(response.status).toBe(200);
      return (await response.json()) as ScrubAnswer;
    };
    expect(await set({ now: true })).toMatchObject({ state: "off", bytes: 0 });
    // A step of 256 KiB, and then nothing for a second and a half.
    await set({ bytesPerSecond: 180_000 });
    await until("it has begun", async () => (await set({})).bytes > 0);
    const startMs = performance.now();
    const { bytes } = await set({});
    await until("it goes on", async () => (await set({})).bytes > bytes);
    expect(performance.now() - startMs).toBeGreaterThan(500);
    const paused = await set({ paused: true });
    expect(paused.state).toBe("paused");
    await Bun.sleep(300);
    await set({ bytesPerSecond: fast });
    const still = await set({});
    expect(still.passes).toBe(0);
    await set({ paused: false });
    await until("it ends", async () => (await set({})).passes === 1);
    expect((await set({})).bytes).toBeGreaterThan(paused.bytes);
    const wrong = await node.fetch("/v1/scrub", { method: "PATCH", body: '{"bytesPerSecond":-1}' });
    expect(wrong.status).toBe(400);
  }));
