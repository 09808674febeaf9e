/**
 * Nodes that leave the cluster, as the registry notes them, so that no group is lost with one. Pure.
 *
 * The leader of group 0 has a node noted before it lets it go, in whatever way. What places replicas compares what is noted: from then on no group comes to where
 * it would be lost with that node, whoever leads `system`, and whatever was thought out before. So what is found on the registry after it was noted stays true: where no
 * group is in the way, none comes there. Only a leader of group 0 takes it back, of the same term or a later one, as nobody else knows that it does not let the node go.
 */
import type { BargeError } from "../errors.ts";
import { encodeGoing, goingKey, type GoingNode } from "../wire/registry.ts";
import { leavingProblem } from "./registry-changes.ts";
import type { RegistryView } from "./registry-view.ts";
import type { RegistryWrite } from "./registry-writer.ts";

/** What a leader of group 0 says of nodes: the how manieth that is, so that what comes late undoes nothing. */
export interface LeaderWord {
  readonly nodes: readonly number[];
  readonly term: number;
  readonly word: number;
}

/** They go. `forced`: also where groups are lost with them. */
export function noting(
  word: LeaderWord,
  forced: boolean,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const { nodes } = view.going;
    const next = nodes.map((node) => (word.nodes.includes(node.id) ? renewed(node, word) : node));
    for (const id of word.nodes) {
      if (!view.isGoing(id)) next.push({ id, term: word.term, word: word.word });
    }
    const all = next.map((node) =>
      forced && word.nodes.includes(node.id) ? { ...node, forced: true as const } : node,
    );
    return written(view, all);
  };
}

/** They stay. */
export function forgetting(word: LeaderWord): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const isOver = (node: GoingNode): boolean =>
      word.nodes.includes(node.id) && isBefore(node, word);
    return written(
      view,
      view.going.nodes.filter((node) => !isOver(node)),
    );
  };
}

/** They have left for good, and no group names them any more: until then those that leave after them are to know it. */
export function forgettingLeft(
  isNode: (id: number) => boolean,
): (view: RegistryView) => RegistryWrite | undefined {
  return (view) => {
    const left = view.going.nodes.filter(({ id }) => !isNode(id));
    if (left.length === 0) return undefined;
    const named = new Set<number>();
    for (const { entry } of view.groups.values()) {
      for (const { id } of [...entry.members, ...entry.leaving]) named.add(id);
    }
    return written(
      view,
      view.going.nodes.filter(({ id }) => isNode(id) || named.has(id)),
    );
  };
}

function renewed(node: GoingNode, { term, word }: LeaderWord): GoingNode {
  return isBefore(node, { term, word }) ? { ...node, term, word } : node;
}

function isBefore(
  a: Pick<GoingNode, "term" | "word">,
  b: Pick<GoingNode, "term" | "word">,
): boolean {
  return a.term < b.term || (a.term === b.term && a.word < b.word);
}

function written(view: RegistryView, nodes: readonly GoingNode[]): RegistryWrite | undefined {
  const { nodes: before, revision } = view.going;
  if (nodes.length === before.length && nodes.every((node, at) => isSame(node, before[at]!))) {
    return undefined;
  }
  const put = { op: "put", key: goingKey, value: encodeGoing(nodes) } as const;
  return {
    compare: [{ key: goingKey, revision }],
    operations: [nodes.length === 0 ? { op: "delete", key: goingKey } : put],
  };
}

function isSame(a: GoingNode, b: GoingNode): boolean {
  return a.id === b.id && a.term === b.term && a.word === b.word && a.forced === b.forced;
}

/**
 * Why a node that is noted cannot go yet: a group would be lost with it, or is being moved while it is among its members. Those that were noted before it count as gone, and
 * those that were noted later look at it: so none waits for what another one does that waits for it, and none that could go cannot any more.
 */
export function departureProblem(
  { going, groups }: RegistryView,
  id: number,
  isNode: (id: number) => boolean,
): BargeError | undefined {
  const at = going.nodes.findIndex((node) => node.id === id);
  if (going.nodes[at]?.forced === true) return undefined;
  const gone = new Set([id, ...going.nodes.slice(0, at + 1).map((node) => node.id)]);
  const concerned = [...groups.values()].flatMap(({ entry }) => {
    const names = [...entry.members, ...entry.leaving].some((member) => member.id === id);
    return names ? [entry] : [];
  });
  return leavingProblem(concerned, gone, isNode);
}
