/** A thousand groups beside one application: how much of what they ask is under way at once, and that each still gets its turn. */
import { expect, test } from "bun:test";
import { AppTraffic } from "../../../src/machine/http/app-traffic.ts";
import type { AppCalls, AppEvents, AppRequest } from "../../../src/machine/http/app-calls.ts";
import { FakeApp } from "./fake-app.ts";
import { quickLimits, World } from "./world.ts";

const groups = 300;
const limits = { ...quickLimits, appOpeningsMax: 8, appPollsMax: 4, appPollMs: 200 };

/** Notes how many callbacks are under way, over all of its groups. */
class Counted {
  underWay = 0;
  most = 0;

  of(app: FakeApp): FakeApp {
    const begin = app.begin.bind(app) as AppCalls["begin"];
    app.begin = (request: AppRequest, events: AppEvents) => {
      this.most = Math.max(this.most, ++this.underWay);
      let isOver = false;
      const over = (): void => {
        if (!isOver) this.underWay--;
        isOver = true;
      };
      const exchange = begin(request, {
        head: (head) => events.head(head),
        data: (bytes) => events.data(bytes),
        end: () => {
          over();
          events.end();
        },
        failed: (reason) => {
          over();
          events.failed(reason);
        },
      });
      return {
        ...exchange,
        cancel: () => {
          over();
          exchange.cancel();
        },
      };
    };
    return app;
  }
}

class Node {
  readonly counted = new Counted();
  readonly traffic = new AppTraffic(limits);
  readonly worlds: readonly World[];

  constructor(isUp = true) {
    this.worlds = Array.from({ length: groups }, (_, group) => {
      const app = this.counted.of(new FakeApp());
      app.isUp = isUp;
      return new World({ group, limits, app, traffic: this.traffic });
    });
  }

  run(turns: number): void {
    for (let turn = 0; turn < turns; turn++) for (const world of this.worlds) world.turn();
  }

  get absent(): number {
    return this.worlds.filter(({ machine }) => machine.absence !== undefined).length;
  }

  get polls(): readonly number[] {
    return this.worlds.map(({ app }) => app.count("Ready"));
  }
}

test("groups are opened some at a time, and all of them", () => {
  const node = new Node();
  node.run(3 * Math.ceil(groups / limits.appOpeningsMax));
  expect(node.absent).toBe(0);
  expect(node.counted.most).toBeGreaterThanOrEqual(limits.appOpeningsMax);
  expect(node.counted.most).toBeLessThanOrEqual(limits.appOpeningsMax + limits.appPollsMax);
});

test("those that hang while they are opened hold others up no longer than until they are late", () => {
  const node = new Node();
  for (const { app } of node.worlds.slice(0, 50)) app.chance = () => "hang";
  node.run(400);
  expect(node.absent).toBe(50);
  expect(node.counted.most).toBeLessThanOrEqual(limits.appOpeningsMax + limits.appPollsMax);
});

test("quiet groups ask whether their application is ready in turn; once one gets no answer, all do", () => {
  const node = new Node();
  node.run(200);
  const before = node.polls;
  // 25 ms each.
  const turns = 800;
  node.run(turns);
  const asked = node.polls.map((count, at) => count - before[at]!);
  const due = (turns * 25 * limits.appPollsMax) / limits.appPollMs;
  expect(asked.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(due + 1);
  expect(Math.min(...asked)).toBeGreaterThan(0);
  for (const { app } of node.worlds) app.isUp = false;
  node.run(200);
  expect(node.absent).toBe(groups);
  for (const { app } of node.worlds) app.isUp = true;
  node.run(400);
  expect(node.absent).toBe(0);
});

test("reads beyond the first of each group share a bound, and one group's do not stop another's", () => {
  const traffic = new AppTraffic({ ...limits, appReadsOfAllMax: 10 });
  const worlds = Array.from({ length: 5 }, () => {
    const world = new World({ limits, traffic });
    world.until(() => world.machine.absence === undefined, "that it is open");
    return world;
  });
  const [first, ...others] = worlds as [World, ...World[]];
  for (const { app } of worlds.slice(0, 3))
    app.chance = (name) => (name === "Read" ? "hang" : undefined);
  let answered = 0;
  const answers = { answer: () => void answered++ };
  for (const { machine } of worlds)
    for (let i = 0; i < 20; i++) machine.read(Buffer.from("x"), answers);
  for (const world of worlds) world.machine.work(world.nowMs);
  expect(
    worlds.reduce((sum, { machine }) => sum + machine.figures()["appUnderWay"]!, 0),
  ).toBeLessThanOrEqual(10 + worlds.length);
  const last = others.at(-1)!;
  last.until(() => answered >= 20, "that its reads are answered");
  first.machine.close();
});
