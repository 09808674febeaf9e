/** What judges a chaos run by time: who is merely slow is not late, and what ends a run is not followed by complaints that it makes itself. */
import { expect, test } from "bun:test";
import { GroupHistory } from "./group-history.ts";
import { Patience } from "./patience.ts";

test("time in which this process does not run does not count", async () => {
  using patience = new Patience();
  const beganMs = patience.nowMs;
  Bun.sleepSync(400);
  // One firing is due.
  await Bun.sleep(1);
  expect(patience.nowMs - beganMs).toBeLessThanOrEqual(50);
});

test("what never comes is waited for only so long, and said with what was in its way", async () => {
  using patience = new Patience();
  const never = (): never => {
    throw new Error("nobody answers");
  };
  const waiting = patience.until("the end", never, 100);
  expect(await waiting.catch(String)).toBe("Error: not within 100 ms: the end: nobody answers");
});

/** Of an epoch that cannot be read, with what was complained of. */
function unreadable(): {
  readonly history: GroupHistory;
  readonly giveUp: () => void;
  readonly complaints: string[];
} {
  const read = Promise.withResolvers<string>();
  const complaints: string[] = [];
  const history = new GroupHistory({
    group: 3,
    clientCount: 1,
    reader: () => ({ readAll: () => read.promise }),
    watchers: [],
    nowMs: () => 0,
    isLate: () => false,
    watched: async () => {},
    violation: (what) => complaints.push(what),
    broken: () => {},
    checked: () => {},
  });
  history.end();
  return { history, complaints, giveUp: () => read.resolve("no_leader: nobody leads") };
}

test("an epoch that cannot be read is a violation, which says why", async () => {
  const { history, complaints, giveUp } = unreadable();
  const checking = history.check();
  giveUp();
  await checking;
  expect(complaints).toEqual([
    "epoch 1 of group 3 cannot be read for long without a fault: no_leader: nobody leads",
  ]);
});

test("and is none where the run has ended for another reason", async () => {
  const { history, complaints, giveUp } = unreadable();
  const checking = history.check();
  history.abandon();
  giveUp();
  await checking;
  expect(complaints).toEqual([]);
});
