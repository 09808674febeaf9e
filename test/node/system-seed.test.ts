/** How `system` begins: who says it, when, and that it is kept with the state of group 0 for every node that needs it. */
import { expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import { areSessions, Sessions } from "../../src/machine/sessions.ts";
import type { StateMachine } from "../../src/machine/machine.ts";
import type { Transport } from "../../src/net/transport.ts";
import { GroupApplyVersion } from "../../src/node/apply-version.ts";
import { foundingLog } from "../../src/node/bootstrap.ts";
import { systemSeedOf } from "../../src/node/registry.ts";
import { decodeConfiguration } from "../../src/raft/configuration.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { applyVersionBytes, type Batch, BatchKind, sealBatch } from "../../src/wire/batch.ts";
import { decodeSystemSeed, systemGroup } from "../../src/wire/registry.ts";

const clusterId = "0123456789abcdef0123456789abcdef";

function raise(version: number, seed?: Uint8Array): Batch {
  const place = { firstIndex: 6, count: 1, term: 1, timeMs: 0, prevCrc: 0 };
  const header = { group: 0, kind: BatchKind.applyVersion, ...place };
  return sealBatch(header, applyVersionBytes(version, seed));
}

/** What a leader knows. */
class World {
  configuration: Configuration = {
    voters: [1, 2],
    outgoing: [],
    learners: [3],
    addresses: { 1: "a:1", 2: "b:1", 3: "c:1" },
  };
  readonly incarnations = new Map([[1, "one"]]);
  readonly sessions = new Sessions({ run: () => undefined }, defaultLimits, 1);
  readonly source = systemSeedOf(
    clusterId,
    () => this.configuration,
    (id) => this.incarnations.get(id),
  );
  readonly group: GroupApplyVersion;

  constructor() {
    const { sessions } = this;
    this.group = new GroupApplyVersion({
      nodeId: 1,
      raft: {
        role: "leader",
        lastIndex: 5,
        configuration: this.configuration,
      } as unknown as Raft,
      machine: {
        appliedIndex: 5,
        get applyVersion() {
          return sessions.version;
        },
        get systemSeed() {
          return sessions.systemSeed;
        },
      } as unknown as StateMachine,
      transport: { applyVersionMax: () => 3 } as unknown as Transport,
      max: 3,
      founderMax: () => 0,
      seed: this.source,
      refused: () => {},
    });
  }

  /** What is due goes through the log. */
  apply(): number | undefined {
    const due = this.group.due();
    if (due !== undefined) this.sessions.raise(raise(due.version, due.seed));
    return due?.version;
  }
}

test("from when on its first members may be in the log, a leader knows", () => {
  const world = new World();
  const { group, incarnations } = world;
  expect(group.mayHaveSeed).toBe(false);
  world.apply();
  incarnations.set(2, "two");
  expect(group.mayHaveSeed).toBe(false);
  group.raisedAt(6);
  expect(group.mayHaveSeed).toBe(true);
  group.raisedAt(5);
  expect(world.apply()).toBe(3);
  expect(group.mayHaveSeed).toBe(true);
  // Of another cluster's state it says nothing.
  const { sessions } = world;
  const other = new Uint8Array(sessions.systemSeed!);
  other[0]! ^= 1;
  sessions.raise(raise(3, other));
  expect(group.mayHaveSeed).toBe(false);
});

test("the version that begins it waits until the folder of every voter is known, the ones before do not", () => {
  const world = new World();
  expect(world.apply()).toBe(2);
  expect(world.apply()).toBeUndefined();
  world.incarnations.set(2, "two");
  expect(world.apply()).toBe(3);
  expect(world.apply()).toBeUndefined();
  const seed = decodeSystemSeed(world.sessions.systemSeed)!;
  expect(seed.clusterId).toBe(clusterId);
  const configuration = decodeConfiguration(seed.configuration)!;
  expect(configuration).toMatchObject({ voters: [1, 2], incarnations: { 1: "one", 2: "two" } });
  expect(configuration.learners).toEqual([]);
});

test("while the members change nobody says who they are", () => {
  const world = new World();
  world.incarnations.set(2, "two");
  world.configuration = { ...world.configuration, outgoing: [1] };
  expect(world.source.now()).toBeUndefined();
});

test("of another cluster it is void, and said anew at the same version", () => {
  const world = new World();
  world.incarnations.set(2, "two");
  const other = systemSeedOf(
    "ffffffffffffffffffffffffffffffff",
    () => world.configuration,
    () => "other",
  );
  world.sessions.raise(raise(3, other.now()));
  expect(world.apply()).toBe(3);
  expect(world.source.isOurs(world.sessions.systemSeed)).toBe(true);
  expect(world.apply()).toBeUndefined();
});

test("it is saved with the state, and an older version has none", () => {
  const world = new World();
  expect(world.sessions.save().byteLength).toBe(0);
  world.apply();
  const before = world.sessions.save();
  world.incarnations.set(2, "two");
  world.apply();
  const saved = world.sessions.save();
  const again = new Sessions({ run: () => undefined }, defaultLimits, 1);
  again.load(3, saved);
  expect(again.systemSeed).toEqual(world.sessions.systemSeed);
  expect(again.save()).toEqual(saved);
  again.load(2, before);
  expect(again.systemSeed.byteLength).toBe(0);
  for (let length = 0; length < saved.byteLength; length++) {
    expect(areSessions(3, saved.subarray(0, length), defaultLimits)).toBe(length === 0);
  }
  // What a log says that is no seed is not taken for one.
  again.raise(raise(3, new Uint8Array(100_000)));
  expect(again.systemSeed.byteLength).toBe(0);
});

test("all first members make the very same log of it", () => {
  const world = new World();
  world.incarnations.set(2, "two");
  const { configuration: bytes } = decodeSystemSeed(world.source.now()!)!;
  const configuration = decodeConfiguration(bytes)!;
  const log = () =>
    foundingLog({ group: systemGroup, seedCrc: 7, configuration, applyVersion: 3 }).write.append;
  expect(log().map(({ kind }) => kind)).toEqual([BatchKind.configuration, BatchKind.applyVersion]);
  expect(log().map((batch) => batch.bytes)).toEqual(log().map((batch) => batch.bytes));
  const [first, second] = log();
  expect(second!.prevCrc).toBe(first!.crc);
});
