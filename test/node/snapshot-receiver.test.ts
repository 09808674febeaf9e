/** Who receives a snapshot: where the disk is full at the moment of going over to it, log and machine stay as they were until there is space. */
import { expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import type { IncomingSnapshot } from "../../src/machine/machine.ts";
import { NullMachine } from "../../src/machine/null.ts";
import { SnapshotReceiver } from "../../src/node/snapshot-receiver.ts";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import type { Raft } from "../../src/raft/raft.ts";
import { frameHeaderBytes } from "../../src/wire/frame.ts";
import type { PeerMessage } from "../../src/wire/messages.ts";
import { nextDigest } from "../../src/wire/snapshot-messages.ts";
import { TestCluster, configurationOf, group, testLimits } from "../raft/harness.ts";
import { SimKvFile } from "../sim/sim-kv-file.ts";

/** Its snapshots are whole as soon as they are begun, and can be opened once there is space. */
class Receiver extends NullMachine {
  space = false;
  sound = true;
  opens = 0;
  discarded = 0;

  override receiveSnapshot(): IncomingSnapshot {
    return {
      generation: 1,
      write: (_offset, _bytes, done) => done(true),
      finish: (_proof, done) => done(true),
      open: () => {
        this.opens++;
        if (!this.space) return "noSpace";
        return this.sound ? "opened" : "unusable";
      },
      discard: () => void this.discarded++,
    };
  }
}

const bytes = 10;
const { diskFullRetryMs, snapshotStallMs } = testLimits;

/** Node 2, to which the leader has offered one of 10 bytes. */
class World {
  readonly machine: Receiver;
  readonly receiver: SnapshotReceiver;
  readonly sent: PeerMessage[] = [];
  readonly errors: string[] = [];
  readonly told: string[] = [];
  readonly givenBack: Uint8Array[] = [];
  installed = 0;
  readonly raft: Raft;
  readonly #term: number;
  #digest = 0;

  constructor() {
    const configuration = configurationOf([1, 2]);
    const cluster = new TestCluster([1, 2].map((id) => ({ id, configuration })));
    this.#term = cluster.elect(1).raft.term;
    this.raft = cluster.node(2).raft;
    const file = new SimKvFile({ random: () => 0, schedule: () => {} });
    this.machine = new Receiver({ limits: testLimits, nowMs: () => 0, file });
    this.receiver = new SnapshotReceiver({
      group,
      nodeId: 2,
      limits: testLimits,
      raft: this.raft,
      machine: this.machine,
      transport: {
        send: (message) => void this.sent.push(message),
        connected: () => true,
        dialsIn: () => false,
        takesBeats: () => false,
        applyVersionMax: () => 1,
        flush: () => {},
        giveBack: (_, memory) => void this.givenBack.push(memory),
      },
      applyVersionMax: 1,
      logger: {
        info: (_, words) => void this.told.push(words),
        error: (_, words) => void this.errors.push(words),
      },
      wake: () => {},
      install: () => {
        this.installed++;
        return true;
      },
    });
    this.offer(100);
  }

  offer(index: number): void {
    const start = { index, term: this.#term, crc: 1, timeMs: 0 };
    const configuration = encodeConfiguration(configurationOf([1, 2]));
    const offer = { type: "snapshotOffer" as const, ...this.#peer, start, bytes };
    this.#digest = 0;
    this.receiver.offered({ ...offer, configuration });
  }

  /** What was answered last. */
  get answer(): string | undefined {
    const last = this.sent.at(-1);
    return last?.type === "snapshotReply" ? last.state : undefined;
  }

  get #peer() {
    return { group, from: 1, to: 2, term: this.#term, snapshot: 7 };
  }

  chunk(offset: number, length: number, body = new Uint8Array(length)): void {
    const crc = crc32(body);
    this.#digest = nextDigest(this.#digest, crc);
    const place = { offset, digest: this.#digest, crc, body };
    this.receiver.chunk({ type: "snapshotChunk", ...this.#peer, ...place });
  }
}

test("a disk that is full when a whole snapshot is to be opened: it waits, and goes over once there is space", () => {
  const world = new World();
  const { receiver, machine, errors, sent } = world;
  world.chunk(0, bytes);
  for (let nowMs = 0; nowMs < diskFullRetryMs; nowMs += diskFullRetryMs / 10) receiver.work(nowMs);
  expect(machine.opens).toBe(1);
  expect(errors).toEqual(["the disk is too full to go over to the snapshot: free some space"]);
  receiver.work(diskFullRetryMs * 2);
  receiver.work(snapshotStallMs * 2);
  expect([machine.opens, world.installed, machine.discarded]).toEqual([3, 0, 0]);
  const isDone = (message: PeerMessage): boolean =>
    message.type === "snapshotReply" && message.state === "done";
  expect(sent.some(isDone)).toBe(false);

  machine.space = true;
  receiver.work(snapshotStallMs * 3);
  expect([world.installed, machine.discarded, receiver.idle]).toEqual([1, 0, true]);
  expect(isDone(sent.at(-1)!)).toBe(true);
  expect(errors).toHaveLength(1);
});

test("one that takes long is told of every some seconds, until it is whole", () => {
  const world = new World();
  const { receiver, machine, told } = world;
  machine.space = true;
  const begun = ["receiving a snapshot"];
  for (let nowMs = 0; nowMs < 5_000; nowMs += 500) receiver.work(nowMs);
  expect(told).toEqual(begun);
  world.chunk(0, bytes / 2);
  for (let nowMs = 5_000; nowMs < 10_000; nowMs += 500) receiver.work(nowMs);
  expect(told).toEqual([...begun, "still receiving a snapshot"]);
  world.chunk(bytes / 2, bytes / 2);
  for (let nowMs = 10_000; nowMs < 20_000; nowMs += 500) receiver.work(nowMs);
  expect(told).toHaveLength(3);
  expect([world.installed, receiver.idle]).toEqual([1, true]);
});

test("one that is no sound state is refused and told; who offers it again and again is put off, ever longer, and others are not", () => {
  const world = new World();
  const { receiver, machine, errors } = world;
  machine.space = true;
  machine.sound = false;
  const fails = (): void => {
    world.chunk(0, bytes);
    receiver.work(0);
    receiver.work(0);
    expect([world.answer, receiver.idle]).toEqual(["failed", true]);
  };
  fails();
  expect(errors).toEqual(["snapshot refused: it is no sound state"]);
  const declined: number[] = [];
  for (let times = 0; times < 12; times++) {
    let offers = 0;
    for (world.offer(100); world.answer === "failed"; world.offer(100)) offers++;
    declined.push(offers);
    fails();
  }
  expect(declined).toEqual([2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 1_024, 1_024]);
  expect([world.installed, machine.discarded]).toEqual([0, 13]);

  machine.sound = true;
  world.offer(101);
  expect(world.answer).toBe("receiving");
  world.chunk(0, bytes);
  receiver.work(0);
  receiver.work(0);
  expect([world.answer, world.installed]).toEqual(["done", 1]);
});

test("a stream whose sender leads no more is given up at once, unless it is whole", () => {
  for (const isWhole of [false, true]) {
    const world = new World();
    const { receiver, machine, raft, told } = world;
    world.chunk(0, isWhole ? bytes : bytes - 1);
    if (isWhole) receiver.work(0);
    const { term, lastIndex } = raft;
    const peer = { group, from: 1, to: 2, term: term + 1 };
    raft.step({ type: "vote", ...peer, transfer: true, lastIndex, lastTerm: term });
    expect(raft.term).toBe(term + 1);
    machine.space = true;
    receiver.work(diskFullRetryMs * 2);
    expect([receiver.idle, world.installed]).toEqual([true, isWhole ? 1 : 0]);
    if (!isWhole) expect(told.at(-1)).toMatch(/the sender leads no more/);
  }
});

test("memory of a chunk that came alone is given back once it is written, or not wanted, and of one beside others never", () => {
  // As snapshot-messages.ts lays it out.
  const chunkFieldsBytes = 44;
  const alone = new World();
  const frame = new Uint8Array(chunkFieldsBytes + bytes);
  alone.chunk(0, bytes, frame.subarray(chunkFieldsBytes));
  expect(alone.givenBack).toHaveLength(1);
  expect(alone.givenBack[0]!.buffer).toBe(frame.buffer);
  // It is there already.
  alone.chunk(0, bytes, frame.subarray(chunkFieldsBytes));
  expect(alone.givenBack).toHaveLength(2);

  const beside = new World();
  const socket = new Uint8Array(frameHeaderBytes + chunkFieldsBytes + bytes);
  beside.chunk(0, bytes, socket.subarray(frameHeaderBytes + chunkFieldsBytes));
  const more = new Uint8Array(chunkFieldsBytes + bytes + 1);
  beside.chunk(0, bytes, more.subarray(chunkFieldsBytes, chunkFieldsBytes + bytes));
  expect(beside.givenBack).toHaveLength(0);
});
