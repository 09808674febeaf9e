/** A follower cut off from the others and back, again and again under load: nobody may be elected, and the term must stay. */
import type { Random } from "../sim/random.ts";
import { type TestCluster, type TestNode, until } from "./cluster.ts";
import type { PeerNetwork } from "./peer-network.ts";
import { Workload } from "./workload.ts";

export interface IsolationOptions {
  readonly cluster: TestCluster;
  readonly network: PeerNetwork;
  readonly random: Random;
  readonly rounds: number;
  readonly told?: (line: string) => void;
}

export interface IsolationResult {
  readonly term: number;
  readonly leader: number;
  /** Away for longer than the longest election time-out. */
  readonly longCuts: number;
  /** Who was away asked whether it could be elected, before it is one. */
  readonly preVotes: number;
  readonly cutMsMax: number;
  /** From its return to the moment when it had the whole log. */
  readonly caughtUpMsMax: number;
  readonly acknowledged: number;
  /** Of a write, while a follower comes and goes. */
  readonly longestWriteMs: number;
}

/** Longest election time-out at defaults. */
const electionMsMax = 800;
const cutMsMin = 50;
const cutMsMax = 2_000;
const toldEvery = 10;
const preCandidate = /"group":0,"term":[0-9]+,"role":"preCandidate"/;

export async function isolationRounds(options: IsolationOptions): Promise<IsolationResult> {
  const { cluster, network, random, rounds, told } = options;
  // Writers through the node that is away would wait for it.
  await using workload = new Workload(cluster, { writersPerClient: 4, httpWritersPerNode: 0 });
  await cluster.converged();
  const leader = await cluster.leader();
  const { term } = await leader.group();
  workload.start();
  await workload.acknowledges(50);
  workload.counts.longestMs = 0;

  let longCuts = 0;
  let longestCutMs = 0;
  let caughtUpMsMax = 0;
  const others = cluster.nodes.filter((node) => node !== leader);
  for (let round = 1; round <= rounds; round++) {
    const away = random.pick(others);
    const cutMs = random.between(cutMsMin, cutMsMax);
    const keep = random.chance(0.5);
    network.cut(away.id);
    await Bun.sleep(cutMs);
    await workload.acknowledges(20);
    const { lastIndex } = await leader.group();
    network.heal(away.id, { keep });
    const backMs = performance.now();
    await until(`node ${away.id} has what it missed`, async () => {
      return (await away.group()).appliedIndex >= lastIndex;
    });
    caughtUpMsMax = Math.max(caughtUpMsMax, performance.now() - backMs);
    longestCutMs = Math.max(longestCutMs, cutMs);
    if (cutMs > electionMsMax) longCuts++;
    await unchanged(cluster, leader, term, round);
    if (round % toldEvery === 0) {
      const ms = Math.round(caughtUpMsMax);
      told?.(`round ${round}: term ${term} still; caught up within ${ms} ms`);
    }
  }
  await workload.stop();
  await cluster.converged();
  await workload.verify("all");
  await unchanged(cluster, leader, term, rounds);
  const preVotes = sum(cluster.nodes.map((node) => node.log().split(preCandidate).length - 1));
  if (preVotes < longCuts) throw new Error(`${longCuts} long cuts, and ${preVotes} pre-votes`);
  const { acknowledged, unknown, notApplied, longestMs } = workload.counts;
  if (unknown + notApplied > 0) throw new Error(`writes failed: ${workload.summary()}`);
  return {
    term,
    leader: leader.id,
    longCuts,
    preVotes,
    cutMsMax: Math.round(longestCutMs),
    caughtUpMsMax: Math.round(caughtUpMsMax),
    acknowledged,
    longestWriteMs: Math.round(longestMs),
  };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

/** Same term and leader, and nobody has campaigned in between: every candidacy is a change of role, and those are logged. */
async function unchanged(
  cluster: TestCluster,
  leader: TestNode,
  term: number,
  round: number,
): Promise<void> {
  const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
  for (const [at, group] of groups.entries()) {
    if (group.term === term) continue;
    const { id } = cluster.nodes[at]!;
    throw new Error(`round ${round}: node ${id} is in term ${group.term}, it was ${term}`);
  }
  if (groups[cluster.nodes.indexOf(leader)]!.role !== "leader") {
    throw new Error(`round ${round}: node ${leader.id} does not lead any more`);
  }
  for (const node of cluster.nodes) {
    const campaign = node
      .log()
      .split("\n")
      .findLast((line) => isCampaign(line, term));
    if (campaign !== undefined) throw new Error(`round ${round}: node ${node.id}: ${campaign}`);
  }
}

/** After the election that made the leader. In group 0: whoever is cut off may lead the registry, which then goes on elsewhere. */
function isCampaign(line: string, term: number): boolean {
  const found = /"group":0,"term":([0-9]+),"role":"(?:candidate|leader)"/.exec(line);
  return found !== null && Number(found[1]) > term;
}
