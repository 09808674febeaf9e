/** What tests of groups have in common: making and changing them over HTTP, and looking at what each node has of them. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { GroupStatus } from "../../src/client/index.ts";
import { type TestCluster, type TestNode, until } from "./cluster.ts";

export interface Entry {
  readonly id: number;
  readonly name?: string;
  readonly members: readonly number[];
  readonly leaving: readonly number[];
  readonly version: number;
}

/** The answer's body; whoever is not the right one to ask yet, or has no leader, is asked again. */
export async function ask<T>(
  node: TestNode,
  method: string,
  path: string,
  body?: object,
): Promise<T> {
  const untilMs = performance.now() + 20_000;
  for (;;) {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await node.fetch(path, init, 10_000);
    const text = await response.text();
    const answer = text === "" ? {} : JSON.parse(text);
    if (response.ok) return answer as T;
    const { code, retryable } = answer.error ?? {};
    const isEarly = retryable === true || code === "no_registry";
    if (!isEarly || performance.now() > untilMs) {
      throw new Error(`${method} ${path}: ${response.status} ${text}`);
    }
    await Bun.sleep(20);
  }
}

let drawn = 0;

/** Asked again where the answer is lost: it is the same request. */
export async function createGroups(node: TestNode, wanted: object = {}): Promise<readonly Entry[]> {
  const request = `test-${process.pid}-${++drawn}`;
  const { groups } = await ask<{ groups: Entry[] }>(node, "POST", "/v1/groups", {
    ...wanted,
    request,
  });
  return groups;
}

export async function listGroups(node: TestNode): Promise<readonly Entry[]> {
  return (await ask<{ groups: Entry[] }>(node, "GET", "/v1/groups")).groups;
}

export async function groupsOf(node: TestNode): Promise<readonly GroupStatus[]> {
  const found: GroupStatus[] = [];
  for (let after = -1; ;) {
    const query = after < 0 ? "" : `?after=${after}`;
    const status = (await (await node.fetch(`/v1/status${query}`)).json()) as {
      groups: GroupStatus[];
      more?: boolean;
    };
    found.push(...status.groups);
    if (status.more !== true || status.groups.length === 0) return found;
    after = status.groups.at(-1)!.id;
  }
}

export async function groupOf(node: TestNode, id: number): Promise<GroupStatus | undefined> {
  return (await groupsOf(node)).find((group) => group.id === id);
}

export async function put(
  node: TestNode,
  group: number,
  key: string,
  value: string,
): Promise<number> {
  const untilMs = performance.now() + 20_000;
  for (;;) {
    const response = await node
      .fetch(`/v1/kv/${key}?group=${group}`, { method: "PUT", body: value }, 5_000)
      .catch(() => undefined);
    if (response?.ok === true) return ((await response.json()) as { revision: number }).revision;
    const text = await response?.text();
    if (performance.now() > untilMs) throw new Error(`put ${key} into group ${group}: ${text}`);
    await Bun.sleep(20);
  }
}

/** Undefined where there is no such key; throws where the node cannot say. */
export async function get(node: TestNode, group: number, key: string): Promise<string | undefined> {
  const response = await node.fetch(`/v1/kv/${key}?group=${group}`, {}, 5_000);
  if (response.ok) return response.text();
  const text = await response.text();
  if (response.status === 404 && !text.includes("unknown_group")) return undefined;
  throw new Error(text);
}

/** Waits until exactly these nodes have a replica of the group, all of them voters, and one of them leads. */
export async function settled(
  cluster: TestCluster,
  id: number,
  members: readonly number[],
): Promise<void> {
  await until(`group ${id} is on ${members.join(", ")}`, async () => {
    const running = cluster.nodes.filter((node) => node.running);
    for (const node of running) {
      const group = await groupOf(node, id);
      if (members.includes(node.id) !== (group !== undefined)) return false;
      if (group === undefined) continue;
      const voters = group.members.filter(({ voter }) => voter).map((member) => member.id);
      if (group.leader === 0 || group.joint || group.members.length !== members.length)
        return false;
      if (voters.toSorted((a, b) => a - b).join() !== members.join()) return false;
    }
    return true;
  });
}

/** Folders of state machines. */
export function machineFolders(node: TestNode): number[] {
  const path = join(node.dataDir, "machine");
  return existsSync(path) ? readdirSync(path).map(Number) : [];
}
