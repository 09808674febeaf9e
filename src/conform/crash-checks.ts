/**
 * The checks that kill the application: nothing that it has said to be stored is lost, and what is left is the state of its index. A process that is killed leaves what it
 * wrote to the system; that a power cut would too cannot be seen from here.
 */
import { Fault, Unreachable } from "./application.ts";
import type { Check } from "./checks.ts";
import { Skipped, steps, type Trial } from "./trial.ts";

const rounds = 10;

export const crashChecks: readonly Check[] = [
  {
    title: "what was answered survives a kill",
    run: async (trial) => {
      const { running, app } = trial;
      for (let round = 0; round < 3; round++) {
        await trial.reset();
        const last = 4 + round * 4;
        await app.update(trial.entries(1, last));
        if (trial.sync) await app.sync();
        await running.kill();
        const index = await trial.restart();
        await mustHave(
          trial,
          index,
          last,
          trial.sync ? "Sync was answered" : "UpdateEntries was answered",
        );
        await trial.checkWhole(index, "right after the answer");
      }
    },
  },
  {
    title: "the index is that of the data, whenever the application is killed",
    run: async (trial) => {
      const { running, app } = trial;
      if (!trial.hasReads)
        throw new Skipped("needs --read TEXT, a query that shows what updates do");
      for (let round = 0; round < rounds; round++) {
        await trial.reset();
        const answered = await killedAtWork(trial);
        await running.kill();
        const index = await trial.restart();
        // Without Sync what was answered is stored.
        const stored = trial.sync ? 0 : answered;
        await mustHave(trial, index, stored, "updates were answered");
        const has = await trial.checkWhole(index, "in the middle of updates");
        // And it goes on from there.
        if (has < steps) await app.update(trial.entries(has + 1, steps));
        await trial.checkWhole(
          await app.lastLogIndex(),
          "in the middle of updates, and given the rest",
        );
      }
    },
  },
  {
    title: "a kill between PrepareSnapshot and SaveSnapshot costs the handle at most",
    run: async (trial) => {
      const { running, app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 6));
      if (trial.sync) await app.sync();
      const handle = await app.prepareSnapshot();
      const saving = app.saveSnapshot(handle, true).catch(() => undefined);
      await running.kill();
      await saving;
      const index = await trial.restart();
      await mustHave(trial, index, 6, "the snapshot was prepared");
      await trial.checkWhole(index, "while a snapshot was saved");
      const snapshot = await app.saveSnapshot(await app.prepareSnapshot());
      await trial.restore(snapshot, index);
      await trial.checkWhole(index, "while a snapshot was saved, and given another one back");
    },
  },
  {
    title: "a kill in the middle of RecoverFromSnapshot is mended by the next one",
    run: async (trial) => {
      const { running, app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 6));
      const snapshot = await app.saveSnapshot(await app.prepareSnapshot());
      for (let round = 0; round < 3; round++) {
        await app.update(trial.entries(7, 9));
        const recovering = app.recoverFromSnapshot(snapshot).catch(() => undefined);
        await Bun.sleep(trial.random() * 10);
        await running.kill();
        await recovering;
        await trial.restart();
        // The daemon has noted that it was about to.
        await trial.restore(snapshot, trial.first.index + 6);
        await trial.checkWhole(app.index!, "while it took a snapshot over, and given it again");
      }
    },
  },
  {
    title: "the instance id is another one after a start",
    run: async (trial) => {
      const { running, app } = trial;
      const before = app.instance;
      if (before === undefined && !trial.sync) throw new Skipped("the application tells none");
      await running.kill();
      await trial.restart();
      if (before !== app.instance) return;
      const words = `The header barge-instance says ${before} before and after a restart.`;
      throw new Fault(words, "Draw a random one at each start.");
    },
  },
];

/** Killed at some moment while updates come; returns how many were answered. */
async function killedAtWork(trial: Trial): Promise<number> {
  const { app, running } = trial;
  const size = 1 + Math.floor(trial.random() * 4);
  const beginMs = performance.now();
  await app.update(trial.entries(1, 2));
  const oneMs = performance.now() - beginMs;
  const killed = Bun.sleep(trial.random() * oneMs * (steps / size)).then(() => running.kill());
  let answered = 2;
  try {
    while (answered < steps) {
      const last = Math.min(steps, answered + size);
      await app.update(trial.entries(answered + 1, last));
      answered = last;
    }
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
  }
  await killed;
  return answered;
}

async function mustHave(trial: Trial, index: number, number: number, when: string): Promise<void> {
  const acked = trial.first.index + number;
  if (index >= acked) return;
  const data = trial.hasReads ? trial.stepOf(await trial.digest()) : undefined;
  const hasData = data !== undefined && data >= number;
  throw new Fault(
    `${when} for entries up to index ${acked}; killed after that, the application came back with LastLogIndex ${index}${hasData ? ", though the data of those entries are there" : ""}.`,
    hasData
      ? "Store the index of the last entry together with the data, in one transaction."
      : "Answer only once the entries are stored: what was answered is never sent again, unless LastLogIndex says that it is missing, and the log may be gone by then.",
  );
}
