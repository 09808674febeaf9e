/** When a leader raises the apply version, what a node that is too old takes, and which peers fit together [16]. */
import { describe, expect, test } from "bun:test";
import type { StateMachine } from "../../src/machine/machine.ts";
import type { Transport } from "../../src/net/transport.ts";
import { GroupApplyVersion } from "../../src/node/apply-version.ts";
import { Versions } from "../../src/node/versions.ts";
import type { Raft } from "../../src/raft/raft.ts";
import { applyVersionBytes, type Batch, BatchKind, sealBatch } from "../../src/wire/batch.ts";
import type { AppendMessage } from "../../src/wire/messages.ts";

interface World {
  role: string;
  lastIndex: number;
  appliedIndex: number;
  applyVersion: number;
  voters: number[];
  outgoing: number[];
  learners: number[];
  /** By node id; absent = not connected. */
  peers: Record<number, number>;
  /** By node id: what those with whom it has just formed the cluster said. */
  founders: Record<number, number>;
  refused: number[];
}

function worldOf(max: number): { world: World; group: GroupApplyVersion } {
  const world: World = {
    role: "leader",
    lastIndex: 5,
    appliedIndex: 5,
    applyVersion: 1,
    voters: [1, 2, 3],
    outgoing: [],
    learners: [],
    peers: { 2: 2, 3: 2 },
    founders: {},
    refused: [],
  };
  const raft = {
    get role() {
      return world.role;
    },
    get lastIndex() {
      return world.lastIndex;
    },
    get configuration() {
      const { voters, outgoing, learners } = world;
      return { voters, outgoing, learners, addresses: {} };
    },
  } as unknown as Raft;
  const transport = {
    applyVersionMax: (id: number) => world.peers[id] ?? 0,
  } as unknown as Transport;
  const group = new GroupApplyVersion({
    nodeId: 1,
    raft,
    machine: world as unknown as StateMachine,
    transport,
    max,
    founderMax: (id) => world.founders[id] ?? 0,
    refused: (version) => world.refused.push(version),
  });
  return { world, group };
}

function raiseTo(version: number): Batch {
  const header = {
    group: 0,
    kind: BatchKind.applyVersion,
    firstIndex: 6,
    count: 1,
    term: 1,
    timeMs: 0,
    prevCrc: 0,
  };
  return sealBatch(header, applyVersionBytes(version));
}

function dueVersion(group: GroupApplyVersion): number | undefined {
  return group.due()?.version;
}

describe("the leader", () => {
  test("raises to the newest version that all members can, learners and those on their way out too", () => {
    const { world, group } = worldOf(4);
    world.peers = { 2: 3, 3: 7 };
    expect(dueVersion(group)).toBe(3);
    world.learners = [4];
    expect(dueVersion(group)).toBeUndefined();
    expect(group.waitsFor).toEqual([4]);
    world.peers[4] = 2;
    expect(dueVersion(group)).toBe(2);
    world.outgoing = [5];
    expect(dueVersion(group)).toBeUndefined();
    world.peers[5] = 1;
    expect(dueVersion(group)).toBeUndefined();
    expect(group.waitsFor).toEqual([5]);
    world.peers[5] = 9;
    expect(dueVersion(group)).toBe(2);
    world.peers = { 2: 9, 3: 9, 4: 9, 5: 9 };
    expect(dueVersion(group)).toBe(4);
  });

  test("does so once what its log holds is applied, and not again while that is under way", () => {
    const { world, group } = worldOf(2);
    world.lastIndex = 9;
    group.led();
    expect(dueVersion(group)).toBeUndefined();
    world.appliedIndex = 9;
    expect(dueVersion(group)).toBe(2);
    group.raisedAt(10);
    expect(dueVersion(group)).toBeUndefined();
    world.appliedIndex = 10;
    world.applyVersion = 2;
    expect(dueVersion(group)).toBeUndefined();
    expect(group.waitsFor).toEqual([]);
  });

  test("of a cluster that has only just formed waits for nobody who was there then; later it does", () => {
    const { world, group } = worldOf(3);
    world.peers = { 2: 3 };
    expect(dueVersion(group)).toBeUndefined();
    world.founders = { 2: 3, 3: 2 };
    expect(dueVersion(group)).toBe(2);
    // Who is back as another build is taken at its word.
    world.peers[3] = 1;
    expect(dueVersion(group)).toBeUndefined();
    delete world.peers[3];
    world.applyVersion = 2;
    world.founders = { 2: 3, 3: 3 };
    expect(dueVersion(group)).toBeUndefined();
    expect(group.waitsFor).toEqual([3]);
  });

  test("and nobody else does", () => {
    const { world, group } = worldOf(2);
    world.role = "follower";
    expect(dueVersion(group)).toBeUndefined();
    expect(group.waitsFor).toEqual([]);
  });
});

test("what a build cannot apply it does not take, and says so once for each version", () => {
  const { world, group } = worldOf(2);
  const append = (version: number): AppendMessage =>
    ({ type: "append", from: 3, batches: [raiseTo(version)] }) as unknown as AppendMessage;
  expect(group.accepts(append(2))).toBe(true);
  expect(group.accepts(append(3))).toBe(false);
  expect(group.accepts(append(3))).toBe(false);
  expect(group.accepts(append(9))).toBe(false);
  expect(world.refused).toEqual([3, 9]);
  expect(group.tooHighIn([raiseTo(1), raiseTo(3)])).toBe(3);
});

describe("peers", () => {
  const versionsOf = (applyVersion: number, applyVersionMax: number) => {
    const told: string[] = [];
    const versions = new Versions({
      nodeId: 1,
      software: "1.2.3",
      applyVersionMax,
      applyVersion: () => applyVersion,
      tell: (nodeId, message) => told.push(`${nodeId}: ${message}`),
    });
    return { versions, told };
  };

  test("fit together while each can apply what is in force at the other; who says nothing can the first version", () => {
    const { versions, told } = versionsOf(1, 2);
    expect(versions.refuse({ nodeId: 2, software: "0.1.0" })).toBeUndefined();
    const newer = { nodeId: 3, software: "9", applyVersion: 2, applyVersionMax: 9 };
    expect(versions.refuse(newer)).toBeUndefined();
    expect(told).toEqual([]);
    expect(versions.incompatible).toEqual([]);
  });

  test("otherwise it is named who is to be upgraded; told once, and forgotten when they fit", () => {
    const { versions, told } = versionsOf(2, 2);
    expect(versions.refuse({ nodeId: 2, software: "0.1.0" })).toContain(
      "Node 2 runs barge 0.1.0, which can apply versions up to 1; the cluster applies version 2",
    );
    versions.refuse({ nodeId: 2, software: "0.1.0" });
    const ahead = { nodeId: 3, software: "9", applyVersion: 3, applyVersionMax: 3 };
    expect(versions.refuse(ahead)).toContain("Node 1 runs barge 1.2.3");
    expect(told).toHaveLength(2);
    expect(versions.incompatible.map(({ nodeId }) => nodeId)).toEqual([2, 3]);
    versions.refuse({ nodeId: 2, software: "0.2.0", applyVersion: 2, applyVersionMax: 2 });
    versions.met(3);
    expect(versions.incompatible).toEqual([]);
  });

  test("are kept in a bounded number", () => {
    const { versions } = versionsOf(2, 2);
    for (let nodeId = 1; nodeId < 1_000; nodeId++) versions.refuse({ nodeId, software: "0" });
    expect(versions.incompatible.length).toBeLessThanOrEqual(64);
  });
});
