/** Ticks that come together do what they do one by one: a shard with many groups gives those that rest several at a time. */
import { expect, test } from "bun:test";
import { TestCluster, configurationOf, randomFrom } from "./harness.ts";

/** The same life twice, in which only the ticks differ; what each node sent in it. */
function life(seed: number, together: boolean): unknown[] {
  const random = randomFrom(seed);
  const below = (bound: number): number => Math.floor(random() * bound);
  const voters = [1, 2, 3, 4, 5].slice(0, 1 + (seed % 5));
  const configuration = configurationOf(voters);
  const cluster = new TestCluster(voters.map((id) => ({ id, configuration, seed })));
  let cut = 0;
  let context = 0;
  for (let step = 0; step < 400; step++) {
    const node = cluster.node(1 + below(voters.length));
    const ticks = 1 + below(6);
    if (together) node.raft.tick(ticks);
    else for (let i = 0; i < ticks; i++) node.raft.tick();
    if (random() < 0.03) cut = below(voters.length + 1);
    cluster.delivers = ({ from, to }) => from !== cut && to !== cut;
    const fate = random();
    if (fate < 0.05) node.propose();
    else if (fate < 0.1) node.raft.readIndex(++context);
    else if (fate < 0.11) node.raft.transferLeadership(0);
    else if (fate < 0.12) node.restart();
    if (random() < 0.8) cluster.settle();
  }
  cluster.settle();
  const states = [...cluster.nodes.values()].map(({ raft, reads }) => {
    const { role, term, leader, commit, lastIndex, stalenessTicks } = raft;
    return { role, term, leader, commit, lastIndex, stalenessTicks, reads };
  });
  return [...cluster.sent.map((message) => ({ ...message, batches: undefined })), states];
}

test("together or one by one, the same happens", () => {
  let sent = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const one = life(seed, false);
    sent += one.length;
    if (!Bun.deepEquals(life(seed, true), one)) throw new Error(`seed ${seed} differs`);
  }
  expect(sent).toBeGreaterThan(10_000);
});
