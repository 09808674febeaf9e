/** Who receives a snapshot: where the disk is full at the moment of going over to it, log and machine stay as they were until there is space. */
import { expect, test } from "bun:test";
import type { IncomingSnapshot } from "../../src/machine/machine.ts";
import { NullMachine } from "../../src/machine/null.ts";
import { SnapshotReceiver } from "../../src/node/snapshot-receiver.ts";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import type { PeerMessage } from "../../src/wire/messages.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { TestCluster, configurationOf, group, testLimits } from "../raft/harness.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";

/** Its snapshots are whole as soon as they are begun, and can be opened once there is space. */
class Receiver extends NullMachine {
  space = false;
  opens = 0;
  discarded = 0;

  override receiveSnapshot(): IncomingSnapshot {
    return {
      generation: 1,
      write: (_offset, _bytes, done) => done(true),
      finish: (_proof, done) => done(true),
      open: () => {
        this.opens++;
        return this.space;
      },
      discard: () => void this.discarded++,
    };
  }
}

test("a disk that is full when a whole snapshot is to be opened: it waits, and goes over once there is space", () => {
  const configuration = configurationOf([1, 2]);
  const cluster = new TestCluster([1, 2].map((id) => ({ id, configuration })));
  const { raft } = cluster.nodes.get(2)!;
  const { term } = cluster.elect(1).raft;
  const file = new SimKvFile({ random: () => 0, schedule: () => {} });
  const machine = new Receiver({ limits: testLimits, nowMs: () => 0, file });
  const sent: PeerMessage[] = [];
  const said: string[] = [];
  let installed = 0;
  const receiver = new SnapshotReceiver({
    group,
    nodeId: 2,
    limits: testLimits,
    raft,
    machine,
    transport: {
      send: (message) => void sent.push(message),
      connected: () => true,
      flush: () => {},
    },
    logger: { info: () => {}, error: (_, words) => void said.push(words) },
    wake: () => {},
    install: () => {
      installed++;
      return true;
    },
  });
  const bytes = 10;
  const peer = { group, from: 1, to: 2, term, snapshot: 7 };
  const start = { index: 100, term, crc: 1, timeMs: 0 };
  const members = encodeConfiguration(configuration);
  receiver.offered({ type: "snapshotOffer", ...peer, start, bytes, configuration: members });
  const body = new Uint8Array(bytes);
  const crc = Bun.hash.crc32(body);
  const digest = nextDigest(0, crc);
  receiver.chunk({ type: "snapshotChunk", ...peer, offset: 0, digest, crc, body });

  const { diskFullRetryMs, snapshotStallMs } = testLimits;
  for (let nowMs = 0; nowMs < diskFullRetryMs; nowMs += diskFullRetryMs / 10) receiver.work(nowMs);
  expect(machine.opens).toBe(1);
  expect(said).toEqual(["the disk is too full to go over to the snapshot: free some space"]);
  receiver.work(diskFullRetryMs * 2);
  receiver.work(snapshotStallMs * 2);
  expect([machine.opens, installed, machine.discarded]).toEqual([3, 0, 0]);
  expect(sent.some((message) => message.type === "snapshotReply" && message.state === "done")).toBe(
    false,
  );

  machine.space = true;
  receiver.work(snapshotStallMs * 3);
  expect([installed, machine.discarded, receiver.idle]).toEqual([1, 0, true]);
  expect(sent.at(-1)).toMatchObject({ type: "snapshotReply", state: "done" });
  expect(said).toHaveLength(1);
});
