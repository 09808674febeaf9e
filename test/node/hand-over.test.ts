/** When a leader hands over on its own, what those hear who asked for it, and that it does not go to and fro. */
import { describe, expect, test } from "bun:test";
import type { BargeError } from "../../src/errors.ts";
import { checkLimits } from "../../src/limits.ts";
import { HandOver, type HandOverWaiter } from "../../src/node/hand-over.ts";
import { TestCluster, configurationOf, testLimits } from "../raft/harness.ts";

const limits = checkLimits({
  ...testLimits,
  syncStallMs: 500,
  loopStallMs: 150,
  loopStallsMax: 3,
  stallWindowMs: 10_000,
  preferredDelayMs: 5_000,
});

interface Answer {
  leader?: number;
  changed?: boolean;
  code?: string;
}

class Scene {
  readonly cluster: TestCluster;
  readonly begun: string[] = [];
  readonly handOver: HandOver;

  constructor(preferred = 0) {
    const configuration = configurationOf([1, 2, 3]);
    this.cluster = new TestCluster(
      [1, 2, 3].map((id) => ({ id, configuration, limits, preferred: id === preferred })),
    );
    this.cluster.elect(1);
    this.cluster.tick(limits.heartbeatTicks);
    this.handOver = new HandOver({
      nodeId: 1,
      limits,
      raft: this.cluster.node(1).raft,
      begun: (target, reason) => this.begun.push(`${target}: ${reason}`),
    });
    this.handOver.tick(0);
  }

  /** Everything is delivered, and the shell hears who leads. */
  settle(nowMs = 0): void {
    this.cluster.settle();
    this.handOver.led(this.cluster.node(1).raft.leader);
    this.handOver.tick(nowMs);
  }

  ask(target: number, from = 0, deadlineMs = 1_000): Answer {
    const answer: Answer = {};
    const once = (said: Answer): void => {
      expect(answer).toEqual({});
      Object.assign(answer, said);
    };
    const waiter: HandOverWaiter = {
      done: (leader, changed) => once({ leader, changed }),
      failed: ({ code }: BargeError) => once({ code }),
    };
    this.handOver.ask(target, from, deadlineMs, waiter);
    return answer;
  }
}

describe("asked by hand", () => {
  test("the answer comes once the target leads; all who asked for it get it", () => {
    const scene = new Scene();
    const answers = [scene.ask(2), scene.ask(2), scene.ask(0)];
    expect(answers).toEqual([{}, {}, {}]);
    expect(scene.begun).toEqual(["2: asked by hand"]);
    scene.settle();
    for (const answer of answers) expect(answer).toEqual({ leader: 2, changed: true });
    expect(scene.handOver.status()).toMatchObject({ to: 2, state: "done" });
  });

  test("to who leads, or away from who does not: nothing changes", () => {
    const scene = new Scene();
    expect(scene.ask(1)).toEqual({ leader: 1, changed: false });
    expect(scene.ask(0, 3)).toEqual({ leader: 1, changed: false });
    expect(scene.begun).toEqual([]);
    scene.ask(0, 1);
    expect(scene.begun).toHaveLength(1);
  });

  test("a target that does not take over in time, and the leader goes on", () => {
    const scene = new Scene();
    scene.cluster.delivers = ({ type }) => type !== "timeoutNow";
    const answer = scene.ask(2);
    expect(scene.ask(3)).toEqual({ code: "not_transferred" });
    scene.cluster.tick(limits.electionTicksMin);
    scene.handOver.tick(200);
    expect(answer).toEqual({ code: "not_transferred" });
    expect(scene.handOver.status()).toMatchObject({ state: "failed" });
  });

  test("another leads than was meant, or nobody in time", () => {
    const scene = new Scene();
    scene.cluster.delivers = ({ type }) => type !== "timeoutNow";
    const answer = scene.ask(2);
    scene.cluster.node(1).raft.stepDown("test");
    scene.handOver.led(0);
    expect(answer).toEqual({});
    scene.handOver.led(3);
    expect(answer).toEqual({ code: "not_transferred" });

    const other = new Scene();
    other.cluster.delivers = ({ type }) => type !== "timeoutNow";
    const late = other.ask(2, 0, 500);
    other.cluster.node(1).raft.stepDown("test");
    other.handOver.tick(499);
    expect(late).toEqual({});
    other.handOver.tick(500);
    expect(late).toEqual({ code: "timeout" });
    expect(other.handOver.idle).toBe(true);
  });

  test("who could not lead is named with a reason", () => {
    expect(new Scene().ask(9)).toEqual({ code: "unknown_member" });
    const scene = new Scene();
    scene.cluster.isolate(2);
    scene.cluster.tick(limits.electionTicksMin);
    expect(scene.ask(2)).toEqual({ code: "not_transferred" });
  });
});

describe("on its own", () => {
  test("a preferred member leads once it could for long enough, and not before", () => {
    const scene = new Scene(3);
    scene.handOver.tick(4_999);
    expect(scene.begun).toEqual([]);
    scene.handOver.tick(5_000);
    expect(scene.begun).toEqual(["3: it is preferred"]);
    scene.settle(5_100);
    expect(scene.cluster.leader?.id).toBe(3);
  });

  test("the wait begins anew where the preferred member was away, or an attempt failed", () => {
    const scene = new Scene(3);
    scene.cluster.isolate(3);
    scene.cluster.tick(limits.electionTicksMin);
    scene.handOver.tick(4_000);
    scene.cluster.heal();
    scene.cluster.tick(limits.heartbeatTicks);
    scene.handOver.tick(5_000);
    scene.handOver.tick(9_999);
    expect(scene.begun).toEqual([]);
    scene.cluster.delivers = ({ type }) => type !== "timeoutNow";
    scene.handOver.tick(10_000);
    expect(scene.begun).toHaveLength(1);
    scene.cluster.tick(limits.electionTicksMin);
    scene.handOver.tick(10_200);
    scene.handOver.tick(15_199);
    expect(scene.begun).toHaveLength(1);
    scene.handOver.tick(15_200);
    expect(scene.begun).toHaveLength(2);
  });

  test("a slow sync, but only to who has on its disk what this node has not", () => {
    const scene = new Scene();
    const { lastIndex } = scene.cluster.node(1).raft;
    scene.handOver.slowSync(499, lastIndex, 0);
    scene.handOver.slowSync(600, lastIndex, 0);
    expect(scene.begun).toEqual([]);
    scene.cluster.autoSync = false;
    scene.cluster.node(1).propose();
    scene.cluster.settle();
    scene.handOver.slowSync(600, lastIndex + 1, 100);
    expect(scene.begun).toEqual([]);
    scene.cluster.node(3).sync();
    scene.cluster.settle();
    scene.handOver.slowSync(499, lastIndex + 1, 200);
    expect(scene.begun).toEqual([]);
    scene.handOver.slowSync(600, lastIndex + 1, 300);
    expect(scene.begun).toEqual(["3: a sync takes 600 ms"]);
  });

  test("not to who has a part of what the slow sync is to bring: it may be as slow, and a sync ahead", () => {
    const scene = new Scene();
    const { lastIndex } = scene.cluster.node(1).raft;
    scene.cluster.autoSync = false;
    scene.cluster.node(1).propose();
    scene.cluster.settle();
    scene.cluster.node(3).sync();
    scene.cluster.node(1).propose();
    scene.cluster.settle();
    scene.handOver.slowSync(600, lastIndex + 2, 100);
    expect(scene.begun).toEqual([]);
    scene.cluster.node(3).sync();
    scene.cluster.settle();
    scene.handOver.slowSync(600, lastIndex + 2, 200);
    expect(scene.begun).toEqual(["3: a sync takes 600 ms"]);
  });

  test("stalls of the loop, when they come one after the other", () => {
    const scene = new Scene();
    for (const nowMs of [0, 1_000, 20_000, 21_000]) scene.handOver.loopStalled(150, nowMs);
    scene.handOver.loopStalled(149, 22_000);
    expect(scene.begun).toEqual([]);
    scene.handOver.loopStalled(150, 23_000);
    expect(scene.begun).toEqual(["2: the event loop stood still 3 times"]);
  });

  test("then not again for a while", () => {
    const scene = new Scene();
    for (const nowMs of [0, 100, 200]) scene.handOver.loopStalled(150, nowMs);
    scene.settle(300);
    expect(scene.cluster.leader?.id).toBe(2);
    scene.cluster.tick(limits.electionTicksMax);
    scene.cluster.elect(1);
    for (const nowMs of [400, 500, 600]) scene.handOver.loopStalled(150, nowMs);
    expect(scene.begun).toHaveLength(1);
    for (const nowMs of [10_300, 10_400, 10_500]) scene.handOver.loopStalled(150, nowMs);
    expect(scene.begun).toHaveLength(2);
  });

  test("a follower hands nothing over", () => {
    const scene = new Scene(3);
    scene.cluster.node(1).raft.stepDown("test");
    scene.handOver.led(0);
    scene.handOver.tick(10_000);
    scene.handOver.slowSync(5_000, 1, 10_000);
    for (const nowMs of [1, 2, 3]) scene.handOver.loopStalled(500, nowMs);
    expect(scene.begun).toEqual([]);
  });

  test("with little space the members are asked in turn, then nobody for a while", () => {
    const scene = new Scene();
    for (const id of [2, 3]) scene.cluster.node(id).raft.isReluctant = true;
    const reason = "its disk has little space";
    let nowMs = 0;
    const until = (count: number): void => {
      while (scene.begun.length < count && nowMs < 60_000) {
        nowMs += 100;
        scene.handOver.unfit("its disk has little space", nowMs);
        scene.cluster.settle();
        scene.cluster.tick(limits.electionTicksMin);
        scene.handOver.tick(nowMs);
      }
    };
    until(2);
    expect(scene.begun.toSorted()).toEqual([`2: ${reason}`, `3: ${reason}`]);
    const asked = nowMs;
    until(3);
    expect(nowMs - asked).toBeGreaterThanOrEqual(limits.stallWindowMs);
    // Now there is one that has more space.
    scene.cluster.node(3).raft.isReluctant = false;
    until(4);
    scene.settle(nowMs);
    expect(scene.cluster.leader?.id).toBe(3);
  });
});
