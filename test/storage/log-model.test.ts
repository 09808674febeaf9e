/**
 * Random lives of a log against a model: appends that supersede, syncs, compactions, groups that are removed and made again, full disks, ticks, rotations
 * under tiny bounds, crashes of every kind. After each crash the log must be exactly what some transaction had left, and none older than the last acknowledged
 * sync. `LOG_SEEDS=n` and `LOG_FROM=s` run others; a failure names its seed.
 */
import { expect, test } from "bun:test";
import { DiskFullError, RecordKind } from "../../src/storage/disk.ts";
import type { GroupWrite } from "../../src/storage/log-store.ts";
import type { Batch, HardState } from "../../src/wire/batch.ts";
import { Random } from "../sim/random.ts";
import type { CrashMode } from "../sim/sim-disk.ts";
import { LogWorld, makeBatch, seedCrc, startAfter } from "./log-world.ts";

const seeds = Number(process.env["LOG_SEEDS"] ?? 200);
const fromSeed = Number(process.env["LOG_FROM"] ?? 1);
const steps = 2_000;

interface GroupModel {
  hardState: HardState;
  /** Of the visible log, from the start that the last recovery found. */
  batches: readonly Batch[];
  /** Where that recovery's log began. */
  base: { index: number; crc: number };
  /** As compacted since; what a crash leaves may begin earlier. */
  startIndex: number;
  /** Of the registry: what made it, 0 = nothing did; and what removed it, 0 = it is there. */
  registryIndex: number;
  removedAt: number;
}

/** The state that one transaction left. Batches are immutable and lists are never changed, so keeping them is cheap. */
interface Version {
  readonly seq: number;
  readonly groups: readonly Pick<
    GroupModel,
    "hardState" | "batches" | "registryIndex" | "removedAt"
  >[];
}

const noHardState: HardState = { term: 0, votedFor: 0, commit: 0 };

class Model {
  readonly groups: GroupModel[];
  versions: Version[] = [];
  acked = 0;
  readonly #random: Random;

  constructor(count: number, random: Random) {
    this.#random = random;
    this.groups = Array.from({ length: count }, () => ({
      hardState: noHardState,
      batches: [],
      base: { index: 0, crc: seedCrc },
      startIndex: 0,
      registryIndex: 0,
      removedAt: 0,
    }));
  }

  record(seq: number): void {
    this.versions.push({
      seq,
      groups: this.groups.map(({ hardState, batches, registryIndex, removedAt }) => {
        return { hardState, batches, registryIndex, removedAt };
      }),
    });
  }

  acknowledge(seq: number): void {
    this.acked = seq;
    let keep = 0;
    while (this.versions[keep + 1] !== undefined && this.versions[keep + 1]!.seq <= seq) keep += 1;
    if (keep > 0) this.versions = this.versions.slice(keep);
  }

  /** A write that a Raft core could make: it goes on from the end or from some batch boundary above the start. */
  write(group: number): { write: GroupWrite; batches: Batch[]; hardState: HardState } {
    const random = this.#random;
    const model = this.groups[group]!;
    let { hardState } = model;
    const raises = random.chance(0.1);
    if (raises) {
      const term = hardState.term + 1 + random.below(2);
      hardState = { term, votedFor: random.below(4), commit: random.below(9) };
    }
    const batches = [...model.batches];
    if (random.chance(0.15)) {
      for (let drop = random.between(1, 3); drop > 0; drop--) {
        const last = batches.at(-1);
        if (last === undefined || last.firstIndex <= model.startIndex) break;
        batches.pop();
      }
    }
    const append: Batch[] = [];
    for (let each = random.between(raises ? 0 : 1, 3); each > 0; each--) {
      const last = batches.at(-1);
      const end = last === undefined ? model.base : startAfter(last);
      const batch = makeBatch({
        group,
        firstIndex: end.index + 1,
        count: random.between(1, 4),
        term: Math.max(last?.term ?? 0, hardState.term - random.below(2), 0),
        prevCrc: end.crc,
        bodyBytes: random.below(60),
        tag: random.below(256),
      });
      batches.push(batch);
      append.push(batch);
    }
    const written = append.length === 0 ? [...model.batches] : batches;
    const { removedAt } = model;
    const made = removedAt === 0 ? {} : { registryIndex: removedAt + 1 };
    return {
      write: { group, hardState: raises ? hardState : undefined, append, ...made },
      batches: written,
      hardState,
    };
  }
}

function visible(world: LogWorld, model: GroupModel, group: number): void {
  const expected = model.batches.filter((batch) => batch.firstIndex > model.startIndex);
  const got = world.log(group, model.startIndex + 1);
  if (got.length !== expected.length) throw new Error(`group ${group}: ${got.length} batches`);
  for (const [at, batch] of got.entries()) {
    const same = Buffer.compare(batch.bytes, expected[at]!.bytes) === 0;
    if (!same) throw new Error(`group ${group}: other bytes at index ${batch.firstIndex}`);
  }
  const bytes = expected.reduce((sum, batch) => sum + batch.bytes.byteLength, 0);
  if (world.store.logBytes(group) !== bytes) throw new Error(`group ${group}: wrong log bytes`);
}

/** The version that the recovered log is; adopts it as the model's new beginning. */
function adopt(world: LogWorld, model: Model, mode: CrashMode): void {
  const recovered = model.groups.map((_, group) => world.recovered.get(group));
  const matches = (version: Version): boolean =>
    version.groups.every(({ hardState, batches, registryIndex, removedAt }, group) => {
      const found = recovered[group];
      if ((world.store.tombstones.get(group) ?? 0) !== removedAt) return false;
      if (removedAt > 0) return found === undefined;
      if ((found?.registryIndex ?? 0) !== registryIndex) return false;
      const start = found?.start.index ?? 0;
      const last = found?.batches.at(-1);
      const expected = batches.at(-1);
      const have = found?.hardState ?? noHardState;
      if (have.term !== hardState.term || have.votedFor !== hardState.votedFor) return false;
      if (expected === undefined) return last === undefined;
      if (last === undefined) return start === startAfter(expected).index;
      // Equal crc at equal index: the chain makes the logs equal.
      return last.crc === expected.crc && last.firstIndex === expected.firstIndex;
    });
  let version: Version | undefined;
  for (const candidate of model.versions.toReversed()) {
    if (matches(candidate)) {
      version = candidate;
      break;
    }
  }
  if (version === undefined) throw new Error("the log is what no transaction left");
  if (mode === "all" && version !== model.versions.at(-1) && !matches(model.versions.at(-1)!)) {
    throw new Error("a process that died lost something visible");
  }
  for (const [group, state] of model.groups.entries()) {
    const found = recovered[group];
    const start = found?.start ?? { index: 0, term: 0, crc: seedCrc, timeMs: 0 };
    const { hardState, registryIndex, removedAt } = version.groups[group]!;
    const isSameLife = registryIndex === state.registryIndex && removedAt === state.removedAt;
    if (isSameLife && start.index > state.startIndex) {
      throw new Error(`group ${group}: the start went ahead`);
    }
    const batches = version.groups[group]!.batches.filter((b) => b.firstIndex > start.index);
    if (found !== undefined && found.batches.length !== batches.length) {
      throw new Error(`group ${group}: the log has gaps`);
    }
    state.hardState = hardState;
    state.registryIndex = registryIndex;
    state.removedAt = removedAt;
    state.batches = batches;
    state.base = start;
    state.startIndex = start.index;
    visible(world, state, group);
  }
  model.versions = [];
  model.record(0);
  model.acked = 0;
}

interface Life {
  readonly crashes: number;
  readonly rotations: number;
  /** Records that copied a batch forward, as far as they are still on the disk. */
  readonly rewrites: number;
  readonly evacuations: number;
  readonly removals: number;
}

function live(seed: number): Life {
  const random = new Random(seed, 7);
  // Of its own: what it draws changes nothing else of a life.
  const damage = new Random(seed, 8);
  const registry = new Random(seed, 9);
  const removes = registry.chance(0.5) ? 0.03 : 0;
  const world = new LogWorld(seed, {
    segmentRecordsMax: random.pick([3, 5, 17, 60, 1_000]),
    segmentBytes: random.pick([400, 1_500, 4_000, 1_000_000]),
    appendBytesMax: random.pick([1, 200, 5_000]),
    watermarkSyncMs: random.pick([1, 20]),
  });
  const groups = random.between(1, 5);
  const model = new Model(groups, random);
  // Groups that stand still pin old segments, which makes the store copy their batches forward.
  const activity = model.groups.map(() => random.pick([1 / groups, 1 / groups, 0.005]));
  model.record(0);
  const weights = [40, 15, 25, 6, 4, random.pick([0, 1]), random.pick([0.1, 0.5, 2])];
  let crashes = 0;
  let evacuations = 0;
  let removals = 0;
  let step = 0;
  try {
    for (; step < steps; step++) {
      switch (random.weighted(weights)) {
        case 0: {
          const writes: ReturnType<Model["write"]>[] = [];
          for (let group = 0; group < groups; group++) {
            if (random.chance(activity[group]!)) writes.push(model.write(group));
          }
          const seq = world.store.append(writes.map(({ write }) => write));
          for (const { write, batches, hardState } of writes) {
            const group = model.groups[write.group]!;
            group.batches = batches;
            group.hardState = hardState;
            group.registryIndex = write.registryIndex ?? group.registryIndex;
            group.removedAt = 0;
          }
          model.record(seq);
          break;
        }
        case 1:
          world.store.sync((seq) => model.acknowledge(seq));
          break;
        case 2:
          world.scheduler.step();
          break;
        case 3: {
          if (damage.chance(0.05)) {
            const segments = world.disk.segments.map(({ number }) => number);
            evacuations += world.store.evacuate(damage.pick(segments)) ? 1 : 0;
          }
          const removed = registry.chance(removes)
            ? remove(world, model, registry.below(groups))
            : 0;
          world.store.tick(world.scheduler.nowMs);
          if (removed > 0) model.record(world.store.appendSeq);
          removals += removed;
          break;
        }
        case 4: {
          const id = random.below(groups);
          if (activity[id]! < 0.01 && random.chance(0.98)) break;
          const group = model.groups[id]!;
          const candidates = group.batches.filter((b) => b.firstIndex > group.startIndex);
          const batch = candidates[random.below(candidates.length)];
          if (batch === undefined) break;
          world.store.compactTo(id, startAfter(batch), new Uint8Array([id]));
          group.startIndex = startAfter(batch).index;
          break;
        }
        case 5: {
          world.disk.bytesMax = world.store.diskBytes;
          const { write } = model.write(random.below(groups));
          const seq = world.store.appendSeq;
          expect(() => world.store.append([write])).toThrow(DiskFullError);
          if (world.store.appendSeq !== seq) throw new Error("a failed append left something");
          world.disk.bytesMax = Number.POSITIVE_INFINITY;
          visible(world, model.groups[write.group]!, write.group);
          break;
        }
        default: {
          const mode = random.pick(["all", "none", "prefix", "prefix"] as const);
          world.crash(mode);
          adopt(world, model, mode);
          crashes += 1;
        }
      }
    }
    leave(world);
    for (let group = 0; group < groups; group++) visible(world, model.groups[group]!, group);
    expect(world.damage).toEqual([]);
  } catch (error) {
    throw new Error(`LOG_SEEDS=1 LOG_FROM=${seed}: step ${step}: ${String(error)}`, {
      cause: error,
    });
  }
  let rewrites = 0;
  for (const segment of world.disk.segments) {
    segment.scan(({ kind }) => (rewrites += kind === RecordKind.rewrite ? 1 : 0), 48);
  }
  const rotations = world.disk.segments.at(-1)!.number;
  return { crashes, rotations, rewrites, evacuations, removals };
}

/** Nothing where it was never written. */
function remove(world: LogWorld, model: Model, id: number): number {
  const group = model.groups[id]!;
  if (group.removedAt > 0 || (group.batches.length === 0 && group.hardState.term === 0)) return 0;
  group.removedAt = group.registryIndex + 1;
  group.registryIndex = 0;
  world.store.remove(id, group.removedAt);
  group.hardState = noHardState;
  group.batches = [];
  group.base = { index: 0, crc: seedCrc };
  group.startIndex = 0;
  return 1;
}

/** All segments that there are now are damaged: soon none of them is there. */
function leave(world: LogWorld): void {
  const newest = world.disk.segments.at(-1)!.number;
  if (!world.store.evacuate(newest)) return;
  for (let round = 0; world.store.evacuating; round++) {
    if (round > 10_000) throw new Error(`segment ${newest} does not go`);
    world.tick();
    if (world.store.syncedSeq < world.store.appendSeq) world.sync();
  }
  const oldest = world.disk.segments[0]!.number;
  if (oldest <= newest) throw new Error(`segment ${oldest} is still there`);
}

test(`${seeds} random lives of ${steps} steps`, () => {
  let crashes = 0;
  let rotations = 0;
  let rewrites = 0;
  let evacuations = 0;
  let removals = 0;
  for (let seed = fromSeed; seed < fromSeed + seeds; seed++) {
    const life = live(seed);
    crashes += life.crashes;
    rotations += life.rotations;
    rewrites += life.rewrites;
    evacuations += life.evacuations;
    removals += life.removals;
  }
  // The dimensions that the test is about were met.
  if (seeds >= 50) {
    expect(crashes).toBeGreaterThan(seeds);
    expect(rotations).toBeGreaterThan(seeds * 10);
    expect(rewrites).toBeGreaterThan(seeds);
    expect(evacuations).toBeGreaterThan(seeds);
    expect(removals).toBeGreaterThan(seeds);
  }
}, 60_000);
