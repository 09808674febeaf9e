/** Requests to change the members: one after the other, and each is told what became of it. */
import { expect, test } from "bun:test";
import { BargeError } from "../../src/errors.ts";
import { type ChangeRequest, MemberChanges } from "../../src/node/member-changes.ts";
import { inProgress, refuse, type ChangePlan } from "../../src/raft/membership.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { Configuration } from "../../src/raft/ready.ts";

function voters(...ids: number[]): Configuration {
  return { voters: ids, outgoing: [], learners: [], addresses: {} };
}

/** A core whose configurations the test moves by hand. */
class World {
  readonly log = [{ index: 1, configuration: voters(1, 2, 3) }];
  commit = 1;
  plan: (request: ChangeRequest) => ChangePlan = () => refuse("bad_request", "nothing planned");
  /** Whether a plan with a next configuration is appended at once. */
  seals = true;
  readonly told: string[] = [];
  readonly changes: MemberChanges;

  constructor() {
    const { log } = this;
    const committed = (): number => this.commit;
    const raft = {
      get configuration() {
        return log.at(-1)!.configuration;
      },
      get configurationIndex() {
        return log.at(-1)!.index;
      },
      get configurationCommitted() {
        return log.at(-1)!.index <= committed();
      },
      configurationAt: (index: number) =>
        log.findLast((entry) => entry.index <= index)!.configuration,
    } as unknown as Raft;
    this.changes = new MemberChanges(raft, (request) => {
      const plan = this.plan(request);
      if ("next" in plan && this.seals) this.append(plan.next);
      return plan;
    });
  }

  append(configuration: Configuration): void {
    this.log.push({ index: this.log.at(-1)!.index + 1, configuration });
  }

  ask(name: string, deadlineMs = 1_000, refusal?: ChangeRequest["refusal"]): void {
    const waiter = {
      done: (changed: boolean) => void this.told.push(`${name} ${changed ? "done" : "unchanged"}`),
      failed: ({ code, outcome }: BargeError) => void this.told.push(`${name} ${code} ${outcome}`),
    };
    const more = refusal === undefined ? {} : { refusal };
    this.changes.ask({ changes: [], force: false, deadlineMs, waiter, ...more });
  }
}

const joint: Configuration = { ...voters(1, 2, 4), outgoing: [1, 2, 3] };

test("what was made sure of before is looked at once more when its turn comes", () => {
  const world = new World();
  world.plan = () => ({ next: joint });
  let refused: BargeError | undefined;
  world.ask("a");
  world.ask("b", 1_000, () => refused);
  world.changes.step(0);
  refused = new BargeError("not_leader", "another term");
  world.append(voters(1, 2, 4));
  world.commit = 3;
  world.changes.step(1);
  expect(world.told).toEqual(["a done", "b not_leader not-applied"]);
  expect(world.log).toHaveLength(3);
});

test("a change is done when it is committed and no longer joint", () => {
  const world = new World();
  world.plan = () => ({ next: joint });
  world.ask("a");
  world.changes.step(0);
  world.commit = 2;
  world.changes.step(1);
  expect(world.told).toEqual([]);
  world.append(voters(1, 2, 4));
  world.changes.step(2);
  expect(world.told).toEqual([]);
  world.commit = 3;
  world.changes.step(3);
  expect(world.told).toEqual(["a done"]);
  expect(world.changes.idle).toBe(true);
});

test("others wait for their turn, or are told after their time that they never had one", () => {
  const world = new World();
  world.plan = () => (world.commit < 2 && world.log.length > 1 ? inProgress() : { next: joint });
  world.ask("a");
  world.ask("b", 500);
  world.ask("c");
  world.changes.step(0);
  world.changes.step(500);
  expect(world.told).toEqual(["b change_in_progress not-applied"]);
  world.commit = 3;
  world.append(voters(1, 2, 4));
  world.plan = () => ({ unchanged: true });
  world.changes.step(600);
  expect(world.told.slice(1)).toEqual(["a done", "c unchanged"]);
});

test("nothing is begun while leadership is handed over", () => {
  const world = new World();
  world.plan = () => ({ next: joint });
  world.seals = false;
  world.ask("a", 10);
  world.changes.step(0);
  expect(world.changes.idle).toBe(false);
  world.changes.step(10);
  expect(world.told).toEqual(["a change_in_progress not-applied"]);
});

test("what is refused is told with its code; the next one has its turn at once", () => {
  const world = new World();
  world.plan = () => refuse("no_live_majority", "start them");
  world.ask("a");
  world.ask("b");
  world.changes.step(0);
  expect(world.told).toEqual(["a no_live_majority not-applied", "b no_live_majority not-applied"]);
});

test("a change that is taken back, or not committed in time, may have been made or not", () => {
  const world = new World();
  world.plan = () => ({ next: joint });
  world.ask("a");
  world.changes.step(0);
  // Another leader's log replaces it.
  world.log.pop();
  world.append(voters(1, 2));
  world.changes.step(1);
  expect(world.told).toEqual(["a outcome_unknown unknown"]);
  world.ask("b", 20);
  world.changes.step(10);
  world.changes.step(20);
  expect(world.told[1]).toBe("b timeout unknown");
});

test("who no longer leads refuses what waits, and sees to the end what it began", () => {
  const world = new World();
  world.plan = () => ({ next: joint });
  world.ask("a");
  world.changes.step(0);
  world.ask("b");
  world.changes.refuseWaiting({ code: "not_leader", outcome: "not-applied" } as BargeError);
  expect(world.told).toEqual(["b not_leader not-applied"]);
  world.append(voters(1, 2, 4));
  world.commit = 3;
  world.changes.step(1);
  expect(world.told[1]).toBe("a done");
});

test("too many at once are refused; a node that stops tells all", () => {
  const world = new World();
  world.plan = () => inProgress();
  for (let at = 0; at < 65; at++) world.ask(String(at));
  expect(world.told).toEqual(["64 change_in_progress not-applied"]);
  world.plan = () => ({ next: joint });
  world.changes.step(0);
  world.changes.failAll({ code: "shutting_down", outcome: "not-applied" } as BargeError);
  expect(world.told.length).toBe(65);
  expect(world.told.at(-1)).toBe("0 outcome_unknown unknown");
});
