/** A rolling upgrade as an operator does it [Z-98]: one node after the other, each serving again before the next one stops. */
import { fatalTable } from "../../src/fatal.ts";
import { type Build, type TestCluster, type TestNode, until } from "./cluster.ts";

/** The node ends by itself, in time, and comes back as another build with its folder. */
export async function change(node: TestNode, build: Build): Promise<void> {
  const { status, stderr } = await node.terminate();
  if (status !== 0) throw new Error(`node ${node.id} ended with ${status}\n${stderr}`);
  node.build = build;
  node.start();
  await node.ready();
}

/** Of each node; a build that says nothing of it is at the first one. */
export async function applyVersions(cluster: TestCluster): Promise<number[]> {
  const groups = await Promise.all(cluster.nodes.map((node) => node.group()));
  return groups.map(({ applyVersion }) => applyVersion ?? 1);
}

export async function raisedTo(cluster: TestCluster, version: number): Promise<void> {
  await until(`all nodes apply version ${version}`, async () => {
    return (await applyVersions(cluster)).every((each) => each === version);
  });
}

/** A start that ends by itself, as the data is beyond the build: what it says. */
export async function refusedStart(node: TestNode, flags: readonly string[] = []): Promise<string> {
  node.start(flags);
  const { status, stderr } = await node.ended();
  if (status !== fatalTable.build_too_old.status) {
    throw new Error(`node ${node.id} ended with ${status}\n${stderr}`);
  }
  return stderr;
}
