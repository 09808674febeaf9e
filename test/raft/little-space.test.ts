/** A node whose disk has little space or none, as the shell tells the core: it would rather not lead, and takes no more commands, but it votes [20]. */
import { describe, expect, test } from "bun:test";
import { TestCluster, configurationOf, testLimits } from "./harness.ts";

const { electionTicksMin, heartbeatTicks } = testLimits;

function led(size = 3): TestCluster {
  const cluster = TestCluster.of(size);
  cluster.elect(1);
  cluster.node(1).propose(3);
  cluster.settle();
  cluster.tick(heartbeatTicks);
  return cluster;
}

describe("a reluctant node", () => {
  test("does not take over when asked, and the leader goes on", () => {
    const cluster = led();
    const { raft } = cluster.node(1);
    cluster.node(2).raft.isReluctant = true;
    raft.transferLeadership(2);
    cluster.settle();
    expect(raft.role).toBe("leader");
    cluster.tick(electionTicksMin);
    expect(raft).toMatchObject({ role: "leader", transferTarget: 0 });
    // The next one is another.
    const avoid = new Set([2]);
    expect(raft.transferLeadership(0, -1, avoid).target).toBe(3);
    cluster.settle();
    expect(cluster.leader?.id).toBe(3);
  });

  test("where all are to be avoided there is nobody", () => {
    const { raft } = led().node(1);
    expect(raft.transferLeadership(0, -1, new Set([2, 3])).refusal).toBe("nobody");
    expect(raft.transferTarget).toBe(0);
  });

  test("is no preferred member meanwhile", () => {
    const configuration = configurationOf([1, 2, 3]);
    const cluster = new TestCluster(
      [1, 2, 3].map((id) => ({ id, configuration, preferred: id === 3 })),
    );
    cluster.elect(1);
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).raft.preferredTarget).toBe(3);
    cluster.node(3).raft.isReluctant = true;
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).raft.preferredTarget).toBe(0);
    cluster.node(3).raft.isReluctant = false;
    cluster.tick(heartbeatTicks);
    expect(cluster.node(1).raft.preferredTarget).toBe(3);
  });

  test("leads all the same where nobody else can", () => {
    const cluster = led();
    cluster.isolate(1);
    cluster.node(2).raft.isReluctant = cluster.node(3).raft.isReluctant = true;
    cluster.tick(3 * testLimits.electionTicksMax);
    const leaders = [2, 3].filter((id) => cluster.node(id).raft.role === "leader");
    expect(leaders).toHaveLength(1);
  });
});

describe("a node that takes no commands", () => {
  test("stays where it is, the others go on; then it catches up by itself", () => {
    const cluster = led();
    const full = cluster.node(3).raft;
    const { lastIndex } = full;
    full.takesCommands = false;
    for (let i = 0; i < 5; i++) {
      cluster.node(1).propose(2);
      cluster.settle();
      cluster.tick(heartbeatTicks);
    }
    expect(full).toMatchObject({ role: "follower", leader: 1, lastIndex });
    expect(cluster.node(1).raft.commit).toBe(lastIndex + 10);
    full.takesCommands = true;
    // Without anything new to send, and with one round of what was lost.
    cluster.tick(2 * heartbeatTicks);
    expect(full).toMatchObject({ lastIndex: lastIndex + 10, commit: lastIndex + 10 });
  });

  test("a single append that it did not take comes again, though nothing follows", () => {
    const cluster = led();
    const full = cluster.node(3).raft;
    full.takesCommands = false;
    cluster.node(1).propose(1);
    cluster.settle();
    full.takesCommands = true;
    cluster.tick(2 * heartbeatTicks);
    expect(full.lastIndex).toBe(cluster.node(1).raft.lastIndex);
  });

  test("votes, and takes what an election brings: reads go on where all are full", () => {
    const cluster = led();
    for (const { raft } of cluster.nodes.values()) raft.takesCommands = false;
    const { term, lastIndex } = cluster.node(1).raft;
    cluster.isolate(1);
    cluster.tick(3 * testLimits.electionTicksMax);
    const leader = [2, 3].map((id) => cluster.node(id).raft).find(({ role }) => role === "leader");
    expect(leader?.term).toBeGreaterThan(term);
    // Its no-op.
    expect(leader?.commit).toBeGreaterThan(lastIndex);
  });

  test("acknowledges commands that it has already", () => {
    const cluster = led();
    cluster.node(1).propose(2);
    cluster.settle();
    const { lastIndex } = cluster.node(1).raft;
    const full = cluster.node(3).raft;
    full.takesCommands = false;
    cluster.node(1).raft.peerReset(3);
    cluster.tick(2 * heartbeatTicks);
    expect(
      cluster
        .node(1)
        .raft.progress()
        .find(({ id }) => id === 3)?.match,
    ).toBe(lastIndex);
  });
});
