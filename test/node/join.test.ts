/** A new node asks to be added until it is, or until the answer is one that no waiting changes. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BargeError, type ErrorCode } from "../../src/errors.ts";
import { defaultLimits as limits } from "../../src/limits.ts";
import { joinCluster } from "../../src/node/join.ts";
import { createLogger } from "../../src/telemetry/logger.ts";
import { FakeNode } from "../client/fake-node.ts";

const folder = mkdtempSync(join(tmpdir(), "barge-join-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Asks a member that answers with these errors, one after the other, and then adds the node. */
async function askMember(...codes: ErrorCode[]): Promise<string | undefined> {
  using member = new FakeNode();
  member.answersControl = true;
  member.answer = (node, request) => {
    const code = codes.shift();
    if (code === undefined) node.control(request, {});
    else node.refuse(request, new BargeError(code, "not now"));
  };
  const joined = await joinCluster({
    nodeId: 4,
    dataDir: join(folder, crypto.randomUUID()),
    advertise: "127.0.0.1:1",
    clusterToken: undefined,
    join: { endpoints: [member.endpoint], learner: false },
    limits,
    logger: createLogger({ nodeId: 4, level: "silent" }),
  });
  return joined?.clusterId;
}

test("while no leader is known, and while no majority is alive, it goes on asking", async () => {
  expect(await askMember("no_leader", "no_live_majority")).toBe("fake");
});

test("an id that belongs to somebody else ends it", async () => {
  await expect(askMember("member_exists")).rejects.toThrow("127.0.0.1:");
});
