/** Who sends snapshots: a leader, and nobody who has just ceased to be one. */
import { expect, test } from "bun:test";
import type { KvMachineOptions } from "../../src/machine/kv.ts";
import { NullMachine } from "../../src/machine/null.ts";
import type { MachineSnapshot, StateMachine } from "../../src/machine/machine.ts";
import { retainedBytes } from "../../src/node/group.ts";
import { SnapshotSender } from "../../src/node/snapshot-sender.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { PeerMessage } from "../../src/wire/messages.ts";
import { TestCluster, configurationOf, group, testLimits } from "../raft/harness.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";

/** Its state is some bytes, at the first index. */
class SomeState extends NullMachine {
  held = 0;

  override prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    this.held++;
    done({
      index: 1,
      bytes: 10,
      read: () => {},
      release: () => void this.held--,
    });
  }
}

/** Of a group of three nodes, the first. */
function leader(): Raft {
  const configuration = configurationOf([1, 2, 3]);
  const cluster = new TestCluster([1, 2, 3].map((id) => ({ id, configuration })));
  return cluster.elect(1).raft;
}

function machineOptions(): KvMachineOptions {
  const file = new SimKvFile({ random: () => 0, schedule: () => {} });
  return { limits: testLimits, nowMs: () => 0, file };
}

function senderOf(
  raft: Raft,
  machine: StateMachine,
  send: (message: PeerMessage) => void,
  limits = testLimits,
  hasUnsent = (): boolean => true,
): SnapshotSender {
  return new SnapshotSender({
    group,
    nodeId: 1,
    limits,
    raft,
    machine,
    transport: {
      send,
      connected: () => true,
      dialsIn: () => false,
      takesBeats: () => false,
      applyVersionMax: () => 2,
      flush: () => {},
      hasUnsent,
    },
    applyVersionMax: 2,
    logger: { info: () => {}, error: () => {} },
    wake: () => {},
  });
}

test("a leader that was deposed in this turn offers nothing in the term that it has met", () => {
  const raft = leader();
  const machine = new SomeState(machineOptions());
  const sent: PeerMessage[] = [];
  const sender = senderOf(raft, machine, (message) => void sent.push(message));
  sender.request({ to: 2, minIndex: 0 });
  sender.work(0);
  sender.work(1);
  const { term } = raft;
  expect(sent).toMatchObject([{ type: "snapshotOffer", to: 2, term }]);

  const peer = { group, from: 3, to: 1, term: term + 1 };
  const { lastIndex } = raft;
  raft.step({ type: "vote", ...peer, transfer: true, lastIndex, lastTerm: term });
  expect(raft.term).toBe(term + 1);
  // Late enough for another offer.
  sender.work(5_000);
  expect(sent).toHaveLength(1);
  expect(sender.idle).toBe(true);
  expect(machine.held).toBe(0);
});

/** A state of some chunks, each full of its own number; whoever tests says when a read ends. */
class ChunkedState extends NullMachine {
  readonly reads: {
    readonly offset: number;
    readonly memory: Uint8Array<ArrayBuffer> | undefined;
    readonly end: () => void;
  }[] = [];

  override prepareSnapshot(done: (snapshot: MachineSnapshot | undefined) => void): void {
    done({
      index: 1,
      bytes: 4 * chunkBytes,
      read: (offset, length, ended, memory) => {
        const body = (memory ?? new Uint8Array(length)).fill(1 + offset / chunkBytes);
        this.reads.push({ offset, memory, end: () => ended(body) });
      },
      release: () => {},
    });
  }
}

const chunkBytes = testLimits.snapshotChunkBytes;

test("what was read before the stream went back is never sent in another place", () => {
  const raft = leader();
  const machine = new ChunkedState(machineOptions());
  const chunks: { readonly offset: number; readonly number: number }[] = [];
  const sender = senderOf(
    raft,
    machine,
    (message) => {
      if (message.type !== "snapshotChunk") return;
      chunks.push({ offset: message.offset / chunkBytes, number: message.body[0]! - 1 });
    },
    { ...testLimits, snapshotWindowBytes: 4 * chunkBytes },
  );
  const peer = { group, from: 2, to: 1, term: raft.term, snapshot: 1 };
  const answer = (written: number): void =>
    sender.reply({
      type: "snapshotReply",
      ...peer,
      state: "receiving",
      offset: written * chunkBytes,
    });
  sender.request({ to: 2, minIndex: 0 });
  sender.work(0);
  sender.work(1);
  answer(0);
  sender.work(2);
  machine.reads.shift()!.end();
  sender.work(3);
  // The chunk is lost with its connection, while the next one is being read.
  sender.peerDown(2);
  sender.work(4);
  machine.reads.shift()!.end();
  answer(0);
  sender.work(5);
  while (machine.reads.length > 0) {
    machine.reads.shift()!.end();
    sender.work(6);
  }
  expect(chunks.map(({ offset }) => offset)).toEqual([0, 0, 1, 2, 3]);
  for (const { offset, number } of chunks) expect(number).toBe(offset);
});

test("the memory of a chunk serves for another once no socket has to take it any more, and not before", () => {
  const raft = leader();
  const machine = new ChunkedState(machineOptions());
  const bodies: Uint8Array[] = [];
  let hasUnsent = true;
  const sender = senderOf(
    raft,
    machine,
    (message) => void (message.type === "snapshotChunk" && bodies.push(message.body)),
    { ...testLimits, snapshotWindowBytes: 4 * chunkBytes },
    () => hasUnsent,
  );
  sender.request({ to: 2, minIndex: 0 });
  sender.work(0);
  sender.work(1);
  const peer = { group, from: 2, to: 1, term: raft.term, snapshot: 1 };
  sender.reply({ type: "snapshotReply", ...peer, state: "receiving", offset: 0 });
  sender.work(2);
  const given: (Uint8Array | undefined)[] = [];
  for (const isUnsent of [true, true, false, true]) {
    hasUnsent = isUnsent;
    const { memory, end } = machine.reads.shift()!;
    given.push(memory);
    end();
    sender.work(3);
  }
  expect(given.slice(0, 3)).toEqual([undefined, undefined, undefined]);
  // Of the first two, which have left by then.
  expect([bodies[0], bodies[1]]).toContain(given[3]!);
  expect(bodies[3]).toBe(given[3]!);
});

test("each time that the log outruns a snapshot more of it is kept for the next, up to half of what a group may have", () => {
  const limits = { ...testLimits, retainedLogBytesMax: 1_000, groupLogBytesMax: 10_000 };
  expect([0, 1, 2, 3, 50].map((outrun) => retainedBytes(limits, outrun))).toEqual([
    1_000, 2_000, 4_000, 5_000, 5_000,
  ]);
  const narrow = { ...limits, groupLogBytesMax: 1_000 };
  expect(retainedBytes(narrow, 3)).toBe(1_000);
});

test("how often the log has outrun a snapshot is counted until one is taken over", () => {
  const raft = leader();
  const machine = new SomeState(machineOptions());
  let startIndex = 0;
  const moving = new Proxy(raft, {
    get: (target, name) => {
      if (name === "startIndex") return startIndex;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const sender = senderOf(moving, machine, () => {});
  const begin = (): void => {
    startIndex = 0;
    sender.request({ to: 2, minIndex: 0 });
    sender.work(0);
    sender.work(1);
  };
  for (const times of [1, 2, 3]) {
    begin();
    startIndex = 2;
    sender.work(2);
    expect([sender.outrun, sender.idle, machine.held]).toEqual([times, true, 0]);
  }
  begin();
  const peer = { group, from: 2, to: 1, term: raft.term, snapshot: 4 };
  sender.reply({ type: "snapshotReply", ...peer, state: "done", offset: 10 });
  expect([sender.outrun, sender.sent]).toEqual([0, 1]);
});
