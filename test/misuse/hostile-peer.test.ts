/**
 * A node that went bad: it knows the cluster, has a valid hello, and sends what no core ever would. Raft is not Byzantine, and one who poses as the
 * leader of a new term can contradict what is committed, which stops the group by design. Everything short of that ends in a dropped
 * message or a closed connection, and never in the end of a process.
 */
import { expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { connect } from "../../src/client/index.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { FrameType, type Hello, type PeerMessage } from "../../src/wire/messages.ts";
import { encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { type TestNode, until, withCluster } from "../e2e/cluster.ts";
import { clientHello, frameOf, RawClient, rawFrame, repeated } from "./raw-client.ts";

const testMsMax = 60_000;
const bad = 3;
const huge = Number.MAX_SAFE_INTEGER;
const section = plainSection([encodeKvPut(Buffer.from("forwarded"), Buffer.from("value"))]);

function helloOf(to: TestNode, clusterId: string, incarnation: string, role: Hello["role"]): Hello {
  const expectNodeId = to.id;
  const versions = { applyVersion: 1, applyVersionMax };
  return { ...clientHello, role, clusterId, nodeId: bad, incarnation, expectNodeId, ...versions };
}

/** In term `term`; none of them hits the end of a batch, nor speaks as the leader of a term to come. */
function nonsense(to: number, term: number): PeerMessage[] {
  const head = { group: 0, from: bad, to, term };
  const numbers = [0, 2 ** 31 + 1, 2 ** 40 + 7, huge];
  const messages: PeerMessage[] = [];
  for (const number of numbers) {
    for (const type of ["preVote", "vote"] as const) {
      const transfer = type === "vote";
      messages.push({ ...head, type, transfer, lastIndex: number, lastTerm: 0 });
      const vote = { ...head, type, transfer };
      messages.push({ ...vote, term: huge, lastIndex: number, lastTerm: huge - 1 });
    }
    for (const type of ["preVoteReply", "voteReply"] as const) {
      messages.push({ ...head, type, granted: true });
      messages.push({ ...head, type, term: huge, granted: false });
      messages.push({ ...head, type, term: huge, granted: true });
    }
    for (const accepted of [true, false]) {
      const reply = { ...head, type: "appendReply" as const, accepted, wounded: number > term };
      messages.push({ ...reply, index: number, hintIndex: number, hintTerm: number });
      messages.push({ ...reply, term: huge, index: number, hintIndex: huge, hintTerm: huge });
      messages.push({ ...reply, term: 0, index: number, hintIndex: 0, hintTerm: 0 });
    }
    messages.push({
      ...head,
      type: "append",
      prevIndex: 2 ** 45 + number / 2,
      prevTerm: term,
      prevCrc: 9,
      commit: huge,
      fromIndex: 1,
      toIndex: 0,
      batches: [],
    });
    const beat = { ...head, type: "heartbeat" as const, freshStamp: 0 };
    messages.push({ ...beat, commit: number, readSeq: number, minMatch: 0 });
    messages.push({ ...beat, term: huge, commit: number, readSeq: number, minMatch: number });
    const reply = { ...head, type: "heartbeatReply" as const, preferred: true };
    messages.push({ ...reply, readSeq: number, stamp: number });
    messages.push({ ...head, type: "timeoutNow", lastIndex: number, lastTerm: term });
    messages.push({ ...head, type: "readIndex", context: number });
    messages.push({ ...head, type: "readIndex", group: 0xffff_ffff, context: number });
    messages.push({ ...head, type: "readIndexReply", context: number, index: number, ok: true });
    const forwardReply = { group: 0, from: bad, to, type: "forwardReply" as const, error: 0 };
    messages.push({ ...forwardReply, request: number, firstIndex: huge, term: huge });
    messages.push({ ...forwardReply, request: 1, firstIndex: number, term });
    messages.push({ ...forwardReply, request: 2, error: 0xffff, firstIndex: 0, term: 0 });
    const start = { index: number, term, crc: 1, timeMs: number };
    const configuration = new Uint8Array(number % 50);
    const stream = { ...head, snapshot: number };
    messages.push({ ...stream, type: "snapshotOffer", term: 0, start, bytes: huge, configuration });
    messages.push({ ...stream, type: "snapshotOffer", term: huge, start, bytes: 1, configuration });
    const body = new Uint8Array(100).fill(number);
    const chunk = { type: "snapshotChunk" as const, crc: crc32(body), digest: 1, body };
    messages.push({ ...stream, ...chunk, offset: number });
    for (const state of ["receiving", "done", "failed"] as const) {
      messages.push({ ...stream, type: "snapshotReply", state, offset: number });
    }
    const admin = { group: 0, from: bad, to, request: number };
    const asked = { ...admin, type: "adminRequest" as const, timeoutMs: 1 };
    messages.push({ ...asked, operation: "changeMembers", body: { changes: number } });
    messages.push({ ...asked, operation: "__proto__", body: null });
    messages.push({ ...asked, group: 77, operation: "members", body: {} });
    const done = { ...admin, type: "adminReply" as const, error: 0, message: "", body: {} };
    messages.push({ ...done, outcome: "applied" });
  }
  return messages;
}

const frameOfMessage = (message: PeerMessage): Uint8Array =>
  frameOf((out) => encodePeerMessage(out, message));

test(
  "a member that sends nonsense harms no process, no group and no neighbour",
  () =>
    withCluster({ nodes: 3 }, async (cluster) => {
      const neighbour = connect({ endpoints: cluster.endpoints });
      await neighbour.put("neighbour", "before");
      const third = cluster.nodes[bad - 1]!;
      const victims = cluster.nodes.filter((node) => node !== third);
      const { incarnation, clusterId } = await (async () => {
        using client = await RawClient.connect(third.binary, { hello: clientHello });
        return client.helloReply!;
      })();
      await third.kill();
      const leader = await cluster.leader(victims);
      const { term } = await leader.group();

      let writing = true;
      let writes = 0;
      const writer = (async () => {
        while (writing) {
          await neighbour.put("neighbour", String(++writes), { timeoutMs: 20_000 });
          await Bun.sleep(1);
        }
      })();

      for (const victim of victims) {
        const dial = (role: Hello["role"]): Promise<RawClient> =>
          RawClient.connect(victim.binary, {
            hello: helloOf(victim, clusterId, incarnation, role),
          });
        // Another incarnation is another node.
        using imposter = await RawClient.connect(victim.binary, {
          hello: helloOf(victim, clusterId, "another", "peer-bulk"),
        });
        expect(imposter.helloReply?.error?.code).toBe("wrong_incarnation");

        using control = await dial("peer-control");
        expect(control.helloReply?.error).toBeUndefined();
        for (const message of nonsense(victim.id, term)) control.send(frameOfMessage(message));
        const question = { group: 0, from: bad, to: victim.id, term, type: "readIndex" as const };
        const flood = frameOfMessage({ ...question, context: 5 });
        for (let i = 0; i < 10; i++) control.send(repeated(flood, 10_000));

        using bulk = await dial("peer-bulk");
        const forward = { group: 0, from: bad, to: victim.id, type: "forward" as const };
        const forwarded = frameOfMessage({ ...forward, request: 1, section });
        for (let i = 0; i < 4; i++) bulk.send(repeated(forwarded, 5_000));
        await until("all is read", () => control.unsentBytes + bulk.unsentBytes === 0);

        // What cannot be a peer's frame ends its connection, and no other.
        const wrong: Uint8Array[] = [
          rawFrame(FrameType.append, new Uint8Array(56)),
          rawFrame(FrameType.append, new Uint8Array(100).fill(0xff), 56),
          rawFrame(FrameType.heartbeat, new Uint8Array(52).fill(0xff)),
          rawFrame(FrameType.forward, new Uint8Array(300).fill(1), 24),
          rawFrame(FrameType.write, new Uint8Array(64), 16),
          frameOfMessage({ ...question, from: victim.id, context: 1 }),
          frameOfMessage({ ...question, to: bad, context: 1 }),
        ];
        for (const bytes of wrong) {
          using another = await dial("peer-control");
          another.send(bytes);
          await another.waitClosed("a malformed message");
        }
        expect(bulk.closed).toBe(false);
      }
      const before = writes;
      await until("the neighbour goes on", () => writes > before + 20);
      writing = false;
      await writer;
      for (const victim of victims) {
        const status = await victim.status();
        expect(status.groups[0]!.role).not.toBe("stopped");
        // A term from beyond all reason would have ended elections for ever, were it believed.
        expect(status.groups[0]!.term).toBeLessThan(2 ** 32);
      }
      await cluster.start([third]);
      await cluster.converged();
      await neighbour.close();
    }),
  testMsMax,
);
