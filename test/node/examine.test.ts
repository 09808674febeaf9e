/** Who is at the address of a new member: nobody yet, that very node, or somebody who cannot be it; each is told apart. */
import { afterAll, expect, test } from "bun:test";
import { defaultLimits as limits } from "../../src/limits.ts";
import { listen } from "../../src/net/listener.ts";
import { examiner, type Finding } from "../../src/node/examine.ts";
import { frameVersion } from "../../src/wire/frame.ts";
import type { HelloReply } from "../../src/wire/messages.ts";

const host = "127.0.0.1";
const ours = "cluster-a";
const stops: (() => void)[] = [];

afterAll(() => stops.forEach((stop) => stop()));

/** A port where this is the answer to a hello. */
function answering(reply: Partial<HelloReply>): string {
  const listener = listen({
    host,
    port: 0,
    limits,
    decideHello: () => ({
      version: frameVersion,
      features: 0,
      software: "test",
      clusterId: ours,
      nodeId: 4,
      incarnation: "folder",
      frameBytesMax: limits.frameBytesMax,
      sectionBytesMax: limits.sectionBytesMax,
      members: {},
      leader: 0,
      ...reply,
    }),
    onConnection: () => {},
  });
  stops.push(() => listener.close());
  return `${host}:${listener.port}`;
}

function find(address: string): Promise<Finding> {
  const { promise, resolve } = Promise.withResolvers<Finding>();
  examiner(ours, limits)(4, address, resolve);
  return promise;
}

async function refused(address: string): Promise<[string, string]> {
  const finding = await find(address);
  if (!("refused" in finding)) throw new Error(JSON.stringify(finding));
  return [finding.refused.code, finding.refused.message];
}

test("that very node", async () => {
  expect(await find(answering({}))).toEqual({ fine: true });
});

test("another node of the cluster, a node of another cluster, one of another version", async () => {
  expect(await refused(answering({ nodeId: 5 }))).toEqual([
    "member_exists",
    expect.stringContaining("node 5 of this cluster answers, not node 4"),
  ]);
  expect(await refused(answering({ clusterId: "cluster-b" }))).toEqual([
    "unauthorised",
    expect.stringContaining("of another cluster answers, cluster-b; this one is cluster-a"),
  ]);
  const error = { code: "version_mismatch", message: "This node speaks version 9." };
  expect(await refused(answering({ error }))).toEqual([
    "version_mismatch",
    expect.stringContaining("This node speaks version 9."),
  ]);
});

test("what is no node at all", async () => {
  const server = Bun.serve({ hostname: host, port: 0, fetch: () => new Response("web") });
  stops.push(() => void server.stop(true));
  expect(await refused(`${host}:${server.port}`)).toEqual([
    "bad_request",
    expect.stringContaining("no node of Barge"),
  ]);
});

test("nobody yet: a closed port, a name that nobody has, one who says nothing, a node that stops", async () => {
  const mute = Bun.listen({ hostname: host, port: 0, socket: { data: () => {} } });
  stops.push(() => mute.stop(true));
  const error = { code: "shutting_down", message: "This node is stopping." };
  const addresses = [`${host}:1`, "nowhere.invalid:9091", `${host}:${mute.port}`, "nonsense"];
  const findings = await Promise.all([...addresses, answering({ error })].map(find));
  expect(findings).toEqual(findings.map(() => ({ silent: expect.any(String) })));
  expect(new Set(findings.map((finding) => JSON.stringify(finding))).size).toBeGreaterThan(3);
});
