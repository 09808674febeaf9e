/**
 * Application and daemon, each of which fails, crashes and comes back at any moment: in the end the application has each command once and in order, nobody was told a
 * wrong result, and nothing that was durable was asked for again. A failure prints its seed: SEED=… runs it alone, SEEDS=… so many.
 */
import { expect, test } from "bun:test";
import { layOutSection, SectionKind } from "../../../src/wire/section.ts";
import { Random } from "../../sim/random.ts";
import type { Fault } from "./fake-app.ts";
import { commands, entriesOf, expected, World } from "./world.ts";

const faults: readonly Fault[] = ["hang", "mute", "500", "reset", "resetAfter", "garbage"];
const seeds = process.env["SEED"] === undefined ? Number(process.env["SEEDS"] ?? 80) : 1;
const first = Number(process.env["SEED"] ?? 1);

function addSome(world: World, random: Random, ids: string[]): void {
  for (let batches = random.between(1, 4); batches > 0; batches--) {
    const sections: Uint8Array[] = [];
    for (let count = random.between(1, 3); count > 0; count--) {
      const id = random.chance(0.3) && ids.length > 0 ? random.pick(ids) : `id${ids.length}`;
      if (!ids.includes(id)) ids.push(id);
      const number = Number(id.slice(2)) + 1;
      sections.push(
        random.chance(0.4)
          ? layOutSection(commands(id), {
              kind: SectionKind.keyed,
              session: number,
              firstSeq: 0,
              doneUpTo: 0,
            })
          : layOutSection(
              commands(...Array.from({ length: random.between(1, 5) }, (_, i) => `p${i}`)),
              {
                kind: SectionKind.plain,
                session: 0,
                firstSeq: 0,
                doneUpTo: 0,
              },
            ),
      );
    }
    world.log.addSections(sections);
  }
}

/** Each request id once, where it came first. */
function withoutRepeats(entries: readonly string[]): string[] {
  const known = new Set<string>();
  return entries.filter((entry) => {
    const [command = ""] = entry.split("@");
    if (!command.startsWith("id")) return true;
    return !known.has(command) && known.add(command);
  });
}

function run(seed: number, rests = false): void {
  const random = new Random(seed);
  const sync = random.chance(0.5);
  const world = new World({ sync, rests });
  const { app, folder } = world;
  app.storesAtOnce = !sync;
  app.shape = random.chance(0.5) ? "binary" : "json";
  app.refusesGaps = sync || random.chance(0.5);
  app.prepareEvery = random.chance(0.3) ? random.between(5, 30) : undefined;
  let faulty = true;
  const rate = random.pick([0, 0.02, 0.1]);
  app.chance = () => (faulty && random.chance(rate) ? random.pick(faults) : undefined);
  world.log.raise(2);
  const ids: string[] = [];
  let durable = 0;
  const check = (): void => {
    const due = withoutRepeats(expected(world)).slice(0, app.entries.length);
    expect(entriesOf(world)).toEqual(due);
    expect(world.machine.durableIndex).toBeGreaterThanOrEqual(durable);
    durable = world.machine.durableIndex;
    // What is durable here the application has durably: the log below may go.
    const had = due.filter((entry) => Number(entry.split("@")[1]) <= durable).length;
    expect(app.durable.length).toBeGreaterThanOrEqual(had);
  };
  for (let step = 0; step < 300; step++) {
    const what = random.weighted([30, 3, 1, 1, 2, 1]);
    if (what === 0) for (let turns = random.between(1, 20); turns > 0; turns--) world.turn();
    else if (what === 1) {
      addSome(world, random, ids);
      if (random.chance(0.8)) world.commitAll();
    } else if (what === 2) app.crash(random.below(8));
    else if (what === 3) {
      world.crash(random.chance(0.5));
      world.start();
    } else if (what === 4) world.machine.flush();
    else folder.isFull = random.chance(0.3);
    check();
  }
  faulty = false;
  folder.isFull = false;
  world.caughtUp();
  // That it has forgotten something may still have to be noticed.
  const all = withoutRepeats(expected(world)).length;
  world.until(() => app.entries.length === all, "that the application has everything");
  check();
  for (const [index, { code, bytes }] of world.results.all) {
    const text = Buffer.from(bytes ?? []).toString("latin1");
    expect(code).toBe(0);
    expect(entriesOf(world)).toContain(text);
    expect(text.endsWith(`@${index}`)).toBe(true);
  }
}

/**
 * A replica whose log is cut, whose application may lose everything, and that falls behind, beside one where nothing ever fails and that gives it
 * its state.
 */
function runWithSnapshots(seed: number, rests = false): void {
  const random = new Random(seed, 1);
  const sync = random.chance(0.5);
  const source = new World();
  source.app.saysLength = random.chance(0.5);
  const world = new World({ sync, rests, log: source.log });
  const { app, folder } = world;
  app.storesAtOnce = !sync;
  let faulty = true;
  const rate = random.pick([0, 0.02, 0.1]);
  app.chance = () => (faulty && random.chance(rate) ? random.pick(faults) : undefined);
  source.log.raise(2);
  const ids: string[] = [];
  const state = (): { index: number; bytes: Buffer } => {
    source.caughtUp();
    const snapshot = source.prepared()!;
    const bytes = source.all(snapshot)!;
    snapshot.release();
    return { index: snapshot.index, bytes };
  };
  /** What the application has must be what it should have, but where it has lost it. */
  const check = (): void => {
    const due = withoutRepeats(expected(world));
    expect(entriesOf(world)).toEqual(due.slice(0, app.entries.length));
  };
  const refill = (): void => {
    if (world.machine.lacksStateAt === undefined) return;
    const { index, bytes } = state();
    world.machine.refill(world.receive(bytes, index).incoming);
  };
  for (let step = 0; step < 200; step++) {
    const what = random.weighted([30, 4, 1, 1, 2, 3, 0.5, 1]);
    if (what === 0) for (let turns = random.between(1, 20); turns > 0; turns--) world.turn();
    else if (what === 1) {
      addSome(world, random, ids);
      if (random.chance(0.7)) world.commitAll();
    } else if (what === 2) app.crash(random.below(8));
    else if (what === 3) {
      world.crash(random.chance(0.5));
      world.start();
    } else if (what === 4) world.machine.flush();
    else if (what === 5) {
      const durable = world.log.batches.findLast(
        ({ firstIndex, count }) => firstIndex + count - 1 <= world.machine.durableIndex,
      );
      if (durable !== undefined) world.logStart = durable.firstIndex + durable.count - 1;
    } else if (what === 6) {
      app.entries = [];
      app.durable = [];
      app.crash();
    } else if (world.commit < world.log.lastIndex) {
      const { index, bytes } = state();
      const isKilled = random.chance(0.3);
      world.takeOver(bytes, index, isKilled);
      if (isKilled) {
        for (let turns = random.between(0, 5); turns > 0; turns--) world.turn();
        world.crash(random.chance(0.5));
        world.start();
      }
    }
    if (random.chance(0.5)) refill();
    check();
  }
  faulty = false;
  source.caughtUp();
  world.commitAll();
  const all = withoutRepeats(expected(world)).length;
  world.until(() => {
    refill();
    const isThere = world.machine.appliedIndex === world.commit;
    return isThere && app.entries.length === all && world.machine.absence === undefined;
  }, "that the application has everything");
  check();
  expect(world.machine.stateHash).toBe(source.machine.stateHash);
  expect(folder.snapshots.size).toBeLessThanOrEqual(1);
}

function each(what: (seed: number) => void): void {
  for (let seed = first; seed < first + seeds; seed++) {
    try {
      what(seed);
    } catch (error) {
      throw new Error(`SEED=${seed}: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
  }
}

test(
  "whatever fails, whenever: each command once and in order",
  () => each((seed) => run(seed)),
  60_000,
);

test(
  "and where logs are cut, and states come from elsewhere",
  () => each((seed) => runWithSnapshots(seed)),
  60_000,
);

test(
  "both also where it has no turn while it rests",
  () =>
    each((seed) => {
      run(seed, true);
      runWithSnapshots(seed, true);
    }),
  60_000,
);
