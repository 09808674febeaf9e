/** Embedding: a node inside a Bun process of one's own. */
export { startNode, type NodeOptions, type RunningNode } from "./node.ts";
