/** Many groups, each below a path of its own of one application: one path that hangs, or refuses, parks its own group, and the others do not notice. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { TestNode } from "./cluster.ts";
import { until } from "./cluster.ts";
import { ManyApplications, type Mode } from "./application-groups-round.ts";

setDefaultTimeout(60_000);

const groups = 50;
const blocked = 7;

test("of 50 groups one whose path hangs, or refuses, harms no other; it goes on where it was", async () => {
  await using many = await new ManyApplications(groups).start();
  const { nodes } = many.cluster;
  const [node] = nodes as [TestNode];
  const others = many.groups.filter((group) => group !== blocked);
  expect((await many.write(node, blocked)).status).toBe(200);
  await many.load(others, 300);
  for (const mode of ["hang", "refuse"] satisfies Mode[]) {
    await many.mode(blocked, mode);
    // It is in the log, and answered once the application goes on.
    const waiting = many.write(node, blocked);
    // What else may fail ends the nodes first, and is what is to be told.
    waiting.catch(() => {});
    const { writes } = await many.load(others, 600);
    expect(writes).toBeGreaterThanOrEqual(others.length);
    await many.parked(blocked);
    expect((await many.write(node, blocked)).status).toBe(503);
    await many.load(others, 300);
    await many.mode(blocked, "well");
    await waiting;
    await until("it is written to again", async () => (await many.write(node, blocked)).ok);
  }
  // Nothing twice, nothing left out, and the same on all.
  for (const group of many.groups) {
    const [words, ...same] = await Promise.all(nodes.map((one) => many.read(one, group)));
    for (const other of same) expect(other).toEqual(words!);
    expect(new Set(words).size).toBe(words!.length);
    expect(words).toEqual(expect.arrayContaining(many.acknowledged.get(group) ?? []));
  }
});
