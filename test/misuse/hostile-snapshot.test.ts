/** A member that poses as the leader and sends states that no leader ever has: each is refused before anything is installed, told, and forgotten. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { connect } from "../../src/client/index.ts";
import { openKvDatabase } from "../../src/machine/kv-database.ts";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import type { Hello, PeerMessage } from "../../src/wire/messages.ts";
import { encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { applyVersionMax } from "../../src/wire/versions.ts";
import { until, withCluster } from "../e2e/cluster.ts";
import { clientHello, frameOf, RawClient } from "./raw-client.ts";

const testMsMax = 60_000;
const bad = 3;
const folder = mkdtempSync(join(tmpdir(), "barge-hostile-snapshot-"));

afterAll(() => rmSync(folder, { recursive: true }));

/** The file of a state at that index, with `change` made to it. */
function state(index: number, change: string): Uint8Array<ArrayBuffer> {
  const path = join(folder, `${crypto.randomUUID()}.db`);
  const database = openKvDatabase(path, 64);
  database.db.run(`
    INSERT INTO meta VALUES (0, ${index}, 1, 1);
    INSERT INTO apply_state VALUES (0, 2, x'');
    INSERT INTO kv VALUES (x'01', 1, x'01');
    ${change}`);
  database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
  database.leave();
  return new Uint8Array(readFileSync(path));
}

const changes = {
  "sessions of an unknown format": "UPDATE apply_state SET sessions = x'07000000'",
  "sessions that end too early": "UPDATE apply_state SET sessions = x'0100000009'",
  "four billion sessions": "UPDATE apply_state SET sessions = x'010000000000000000000000ffffffff'",
  "a time before all times": "UPDATE meta SET timeMs = -1",
  "a trigger": "CREATE TRIGGER own AFTER INSERT ON kv BEGIN DELETE FROM kv; END",
  "a revision to come": "UPDATE kv SET revision = 9000000000",
} as const;

test(
  "states that make no sense are refused, one after the other, and the nodes go on",
  () =>
    withCluster({ nodes: 3 }, async (cluster) => {
      await using neighbour = connect({ endpoints: cluster.endpoints });
      await neighbour.put("neighbour", "before");
      const third = cluster.nodes[bad - 1]!;
      const victims = cluster.nodes.filter((node) => node !== third);
      const { incarnation, clusterId } = await (async () => {
        using client = await RawClient.connect(third.binary, { hello: clientHello });
        return client.helloReply!;
      })();
      await third.kill();
      const [victim] = victims;
      const { term: before, members } = await (await cluster.leader(victims)).group();
      const configuration = encodeConfiguration({
        voters: members.map(({ id }) => id),
        outgoing: [],
        learners: [],
        addresses: Object.fromEntries(members.map(({ id, address }) => [id, address])),
      });
      const hello: Hello = {
        ...clientHello,
        role: "peer-bulk",
        clusterId,
        incarnation,
        nodeId: bad,
        expectNodeId: victim!.id,
        applyVersion: 1,
        applyVersionMax,
      };
      let index = 1_000_000;
      for (const [what, change] of Object.entries(changes)) {
        const body = state(++index, change);
        // Meanwhile the others may have elected each other anew.
        const { term } = await victim!.group();
        const head = { group: 0, from: bad, to: victim!.id, term: term + 1, snapshot: index };
        const start = { index, term, crc: 1, timeMs: 0 };
        const crc = crc32(body);
        const frames: PeerMessage[] = [
          { ...head, type: "snapshotOffer", start, bytes: body.byteLength, configuration },
          { ...head, type: "snapshotChunk", offset: 0, crc, digest: nextDigest(0, crc), body },
        ];
        using client = await RawClient.connect(victim!.binary, { hello });
        for (const frame of frames) client.send(frameOf((out) => encodePeerMessage(out, frame)));
        await until(`${what} is refused`, () =>
          victim!.log().includes(`"index":${index},"message":"snapshot refused: `),
        );
      }
      await neighbour.put("neighbour", "after", { timeoutMs: 20_000 });
      for (const node of victims) {
        const { role, term, lastIndex } = await node.group();
        expect(role).not.toBe("stopped");
        expect(term).toBeLessThan(before + 1_000);
        expect(lastIndex).toBeLessThan(1_000_000);
      }
      await cluster.start([third]);
      await cluster.converged();
    }),
  testMsMax,
);
