/**
 * The checks that need no more than the application's URL, in their order: each goes on from the state that was found, which it goes back to by way of a snapshot. What each one
 * throws is a Fault, in words for the application's author.
 */
import { Fault } from "./application.ts";
import { differsAt, hexOf, Skipped, steps, type Trial } from "./trial.ts";

export interface Check {
  readonly title: string;
  /** Returns what its author may want to know though nothing is wrong. */
  readonly run: (trial: Trial) => Promise<string | void>;
  /** Without it nothing else can be checked. */
  readonly isVital?: true;
}

/** Of a system that waits with the second half of an answer until the first is acknowledged, which the other side puts off for 40 ms. */
const heldBackMs = 36;
const answersTimed = 6;

async function heldBack(app: Trial["app"]): Promise<string | undefined> {
  let leastMs = Infinity;
  for (let i = 0; i < answersTimed && leastMs >= heldBackMs; i++) {
    const beginMs = performance.now();
    await app.lastLogIndex();
    leastMs = Math.min(leastMs, performance.now() - beginMs);
  }
  if (leastMs < heldBackMs) return undefined;
  return `It takes ${Math.round(leastMs)} ms or more to answer LastLogIndex. If there is nothing to wait for, set TCP_NODELAY on its connections, or write head and body of an answer in one go (in Python's http.server: disable_nagle_algorithm = True, wbufsize = -1).`;
}

export const checks: readonly Check[] = [
  {
    title: "LastLogIndex tells a whole number",
    isVital: true,
    run: async ({ app }) => {
      const index = await app.lastLogIndex();
      const again = await app.lastLogIndex();
      if (index === again) return heldBack(app);
      const words = `LastLogIndex says ${index}, and then ${again}, with no update between.`;
      throw new Fault(words, "Tell the index of the last entry that is stored.");
    },
  },
  {
    title: "a snapshot of the present state can be made, and taken back",
    isVital: true,
    run: async (trial) => {
      const { app } = trial;
      const index = app.index!;
      const before = await trial.digest();
      const handle = await app.prepareSnapshot();
      trial.first = { snapshot: await app.saveSnapshot(handle), index };
      await app.releaseSnapshot(handle);
      await trial.reset();
      if ((await trial.digest()) !== before) throw otherState("the snapshot was taken back");
    },
  },
  {
    title: "updates are applied, each with its index",
    isVital: true,
    run: applyOneByOne,
  },
  {
    title: "the same updates give the same results and the same state",
    run: async (trial) => {
      const { digests, results } = trial.reference;
      // So that a clock would show.
      await Bun.sleep(1_100);
      const again = await oneByOne(trial);
      const wrong = results.findIndex((result, i) => result !== again.results[i]);
      const todo =
        "Nothing but the entries may decide what comes out: no clock, no randomness, no id of this machine. Whoever writes resolves such things before.";
      if (wrong >= 0) {
        const words = `Update ${wrong + 1} gives ${shown(results[wrong]!)}, and ${shown(again.results[wrong]!)} when the same updates come again from the same state.`;
        throw new Fault(words, todo);
      }
      const late = digests.findIndex((digest, i) => digest !== again.digests[i]);
      if (late < 0) return;
      const words = `After the same ${late} updates from the same state the reads answer otherwise.`;
      throw new Fault(words, todo);
    },
  },
  {
    title: "updates in one call do what they do one by one, with the results in their order",
    run: async (trial) => {
      const { digests, results } = trial.reference;
      await trial.reset();
      const given = await trial.app.update(trial.entries(1, steps));
      const together = (given ?? Array.from({ length: steps })).map(hexOf);
      const wrong = results.findIndex((result, i) => result !== together[i]);
      if (wrong >= 0) {
        const order = results.toSorted().join() === together.toSorted().join();
        throw new Fault(
          order
            ? "The results of one UpdateEntries are right, but in another order than its entries."
            : `In one UpdateEntries update ${wrong + 1} gives ${shown(together[wrong]!)}, alone ${shown(results[wrong]!)}.`,
          "Apply the entries in their order, each on top of the one before, and answer with one result for each at the same place.",
        );
      }
      await mustBe(trial, digests[steps]!, "all updates came in one call");
      if (new Set(results).size > 1) return;
      throw new Skipped(
        "all results are equal, so their order cannot be seen: give --update TEXT with results that differ",
      );
    },
  },
  {
    title: "entries that were applied before are skipped",
    run: async (trial) => {
      const { app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 6));
      const { status } = await app.tryUpdate(trial.entries(4, 6), app.index!);
      if (status > 299 && status !== 409) {
        const words = `UpdateEntries with entries that are applied answers ${status}.`;
        throw new Fault(words, "Skip them, and answer 200.");
      }
      await mustBeAt(trial, 6, "entries came that it had");
      await mustBe(trial, trial.reference.digests[6]!, "entries came that it had applied", [
        "It applied them twice.",
        "Skip entries whose index is not above the one that is stored.",
      ]);
      // Some that it has, and some that it has not.
      await app.tryUpdate(trial.entries(5, 8), app.index!);
      await mustBeAt(trial, 8, "a call came with entries that it had and others that it had not");
      await mustBe(trial, trial.reference.digests[8]!, "a call came with entries of both kinds");
    },
  },
  {
    title: "a call that leaves something out is refused with 409",
    run: async (trial) => {
      const { app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 3));
      const { status } = await app.tryUpdate(trial.entries(8, 9), trial.first.index + 7);
      if (status <= 299) {
        throw new Fault(
          `UpdateEntries with barge-previous-index ${trial.first.index + 7} is accepted, though the application has stored ${trial.first.index + 3}.`,
          "Compare that header with the stored index, and answer 409 where they differ: it means that this application was started anew and has lost entries which the daemon takes it to have.",
        );
      }
      if (status !== 409) {
        const words = `UpdateEntries that does not follow what is stored answers ${status}.`;
        throw new Fault(words, "Answer 409, so that the daemon asks LastLogIndex at once.");
      }
      await mustBeAt(trial, 3, "a call was refused");
      await mustBe(trial, trial.reference.digests[3]!, "a call was refused");
    },
  },
  {
    title: "indexes may have gaps, and go up to 2^53-1",
    run: async (trial) => {
      const { app, first } = trial;
      await trial.reset();
      const command = trial.entry(1).command;
      for (const index of [first.index + 1, first.index + 9, 2 ** 40 + 3, 2 ** 53 - 1]) {
        if (index <= app.index!) continue;
        await app.update([{ index, command }]);
        const found = await app.lastLogIndex();
        if (found === index) continue;
        const words = `After the entry with index ${index} LastLogIndex says ${found}.`;
        throw new Fault(words, "Store the index as a 64-bit integer, as it comes.");
      }
      const snapshot = await app.saveSnapshot(await app.prepareSnapshot());
      await trial.restore(snapshot, 2 ** 53 - 1);
    },
  },
  {
    title: "a command that makes no sense becomes a result, not an error",
    run: async (trial) => {
      await trial.reset();
      const { app } = trial;
      const every = Uint8Array.from({ length: 256 }, (_, i) => i);
      const odd = [every, new Uint8Array(0), new Uint8Array([0xff]), new Uint8Array(100_000)];
      for (const [i, command] of odd.entries()) {
        const index = trial.first.index + 1 + i;
        try {
          await app.update([{ index, command }]);
        } catch (error) {
          if (!(error instanceof Fault)) throw error;
          throw new Fault(
            `A command of ${command.byteLength} bytes that the application does not understand: ${error.message}`,
            "It is in the log of all nodes, and comes again until it is taken: answer 200 with a result that says what is wrong with it, and store its index.",
          );
        }
        await mustBeAt(trial, 1 + i, "a command came that makes no sense");
      }
    },
  },
  {
    title: "reads change nothing, and are answered beside updates",
    run: async (trial) => {
      if (!trial.hasReads) throw new Skipped("needs --read TEXT, a query");
      const { app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 4));
      const before = await trial.digest();
      await mustBe(trial, before, "it was only read");
      await mustBeAt(trial, 4, "it was only read");
      const updates = app.update(trial.entries(5, steps));
      const answers = Promise.all([trial.digest(), trial.digest(), trial.digest()]);
      const [seen] = await Promise.all([answers, updates]);
      // Each read by itself sees whole updates; several of them need not see the same.
      void seen;
      await mustBe(trial, trial.reference.digests[steps]!, "it was read beside updates");
    },
  },
  {
    title: "the same handle gives the same bytes, while updates go on",
    run: async (trial) => {
      const { app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 5));
      const handle = await app.prepareSnapshot();
      const slow = app.saveSnapshot(handle, true);
      const other = app.saveSnapshot(handle);
      await app.update(trial.entries(6, 8));
      const [a, b] = await Promise.all([slow, other]);
      await app.update(trial.entries(9, steps));
      const c = await app.saveSnapshot(handle);
      await app.releaseSnapshot(handle);
      for (const again of [b, c]) mustEqual(a, again);
      await trial.restore(a, trial.first.index + 5);
      await mustBe(trial, trial.reference.digests[5]!, "a snapshot of index 5 was taken over", [
        "The snapshot does not hold the state as it was when PrepareSnapshot was called.",
        "PrepareSnapshot fixes a moment; SaveSnapshot sends the whole state of that moment, whatever was applied since.",
      ]);
      // And it goes on from there.
      await app.update(trial.entries(6, 7));
      await mustBe(
        trial,
        trial.reference.digests[7]!,
        "updates came after a snapshot was taken over",
      );
    },
  },
  {
    title: "a handle may be asked for again after the one before was released",
    run: async (trial) => {
      const { app } = trial;
      await trial.reset();
      for (let i = 0; i < 5; i++) {
        const handle = await app.prepareSnapshot();
        await app.releaseSnapshot(handle);
        await app.update([trial.entry(i + 1)]);
      }
      const handle = await app.prepareSnapshot();
      const snapshot = await app.saveSnapshot(handle);
      await app.releaseSnapshot(handle);
      // Twice, as where two nodes ended with the same one.
      await app.releaseSnapshot(handle);
      await trial.restore(snapshot, trial.first.index + 5);
      await mustBe(trial, trial.reference.digests[5]!, "a snapshot was taken over");
    },
  },
  {
    title: "a snapshot whose body breaks off does no lasting harm",
    run: async (trial) => {
      const { app } = trial;
      await trial.reset();
      await app.update(trial.entries(1, 5));
      const handle = await app.prepareSnapshot();
      const snapshot = await app.saveSnapshot(handle);
      await app.releaseSnapshot(handle);
      await app.update(trial.entries(6, 8));
      await app.breakRecovery(snapshot);
      trial.process?.check();
      // The daemon comes with the whole of it.
      await app.ready(5_000);
      await trial.restore(snapshot, trial.first.index + 5);
      await mustBe(trial, trial.reference.digests[5]!, "a broken and then a whole snapshot came");
    },
  },
  {
    title: "Sync is answered, and an instance id is told",
    run: async (trial) => {
      if (!trial.sync) throw new Skipped("only with --sync");
      await trial.app.sync();
      if (trial.app.instance !== undefined) return;
      throw new Fault(
        "No reply has the header barge-instance.",
        "With Sync it is needed: draw a random one at each start and send it with every reply, so that the daemon notices a restart that has lost entries.",
      );
    },
  },
];

async function applyOneByOne(trial: Trial): Promise<void> {
  trial.reference = await oneByOne(trial);
  if (!trial.hasReads || !trial.hasUpdates) return;
  if (new Set(trial.reference.digests).size > 1) return;
  throw new Fault(
    "The reads answer the same before and after all the updates.",
    "Apply the updates; or give --update and --read that have to do with each other.",
  );
}

async function oneByOne(trial: Trial): Promise<Trial["reference"]> {
  await trial.reset();
  const digests = [await trial.digest()];
  const results: string[] = [];
  for (let n = 1; n <= steps; n++) {
    const [result] = (await trial.app.update([trial.entry(n)])) ?? [];
    results.push(hexOf(result));
    await mustBeAt(trial, n, `the entry with index ${trial.first.index + n} was answered`);
    digests.push(await trial.digest());
  }
  return { digests, results };
}

async function mustBeAt(trial: Trial, number: number, after: string): Promise<void> {
  const found = await trial.app.lastLogIndex();
  const index = trial.first.index + number;
  if (found === index) return;
  throw new Fault(
    `After ${after} LastLogIndex says ${found}, not ${index}.`,
    "Store the index of each entry with its data, also where an entry changes nothing.",
  );
}

async function mustBe(
  trial: Trial,
  digest: string,
  after: string,
  [words, todo]: readonly [string, string] | readonly [] = [],
): Promise<void> {
  const found = await trial.digest();
  if (found === digest) return;
  const step = trial.stepOf(found);
  const which = step === undefined ? "" : ` They answer as after update ${step}.`;
  const fault = otherState(after);
  const message = words === undefined ? fault.message : `${fault.message} ${words}`;
  throw new Fault(`${message}${which}`, todo ?? fault.todo);
}

function otherState(after: string): Fault {
  return new Fault(
    `After ${after} the reads do not answer as they should.`,
    "The state must be that of the entries that were applied, all of them and each once.",
  );
}

function mustEqual(a: Uint8Array, b: Uint8Array): void {
  if (a.byteLength === b.byteLength && differsAt(a, b) === a.byteLength) return;
  throw new Fault(
    `SaveSnapshot gave ${a.byteLength} bytes for a handle, and ${b.byteLength} another time; they differ from byte ${differsAt(a, b)} on.`,
    "The same handle must give the same bytes each time: keep what it stands for (a file, a read transaction, a version) until ReleaseSnapshot, and put nothing in it that changes, such as the time.",
  );
}

function shown(hex: string): string {
  const text = Buffer.from(hex, "hex").toString("utf8");
  if (hex === "") return "nothing";
  return text.length > 60 ? JSON.stringify(`${text.slice(0, 60)}…`) : JSON.stringify(text);
}
