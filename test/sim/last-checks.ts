/** What must be true when a run is over: all nodes hold what the model holds, nothing that was refused is there, and the history is linearizable. */
import { ResultCode } from "../../src/machine/machine.ts";
import { encodeKvGet, readKvEntry } from "../../src/wire/kv.ts";
import { checkOrder } from "../checker/order.ts";
import { checkLinearizable } from "../checker/wgl.ts";
import type { Clients } from "./clients.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";
import type { SimNode } from "./sim-node.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function checkStates(
  nodes: readonly SimNode[],
  group: number,
  clients: Clients,
  oracle: Oracle,
): void {
  const keys = new Set(clients.history.map(({ key }) => key));
  for (const node of nodes) {
    const { id, refused } = node;
    if (refused) continue;
    const { machine } = node.replica(group)!;
    oracle.hash(id, machine.appliedIndex, machine.stateHash);
    if (oracle.isOfApplication) {
      checkApplication(node, group, oracle);
      continue;
    }
    for (const key of keys) {
      const held = oracle.state.get(key);
      machine.read(encodeKvGet(encoder.encode(key)), {
        answer: (code, bytes) => {
          const entry = code === ResultCode.ok ? readKvEntry(bytes!) : undefined;
          const value = entry === undefined ? undefined : decoder.decode(entry.value);
          if (value !== held?.value || entry?.revision !== held?.revision) {
            throw new Violation(
              `node ${id} holds ${value}@${entry?.revision} for ${key}, the model ${held?.value}@${held?.revision}`,
            );
          }
        },
      });
    }
  }
  for (const { outcome, value, kind } of clients.history) {
    if (outcome === "refused" && kind !== "get" && oracle.indexOfValue.has(value)) {
      throw new Violation(
        `${value} was reported as not applied and is in the log at ${oracle.indexOfValue.get(value)}`,
      );
    }
  }
}

/** It holds what the model holds, and nothing else. */
function checkApplication({ id, apps }: SimNode, group: number, oracle: Oracle): void {
  const { entries } = apps!.of(group);
  for (const key of new Set([...entries.keys(), ...oracle.state.keys()])) {
    const [has, held] = [entries.get(key), oracle.state.get(key)];
    if (has?.value === held?.value && has?.revision === held?.revision) continue;
    throw new Violation(
      `the application of group ${group} of node ${id} holds ${has?.value}@${has?.revision} for ${key}, the model ${held?.value}@${held?.revision}`,
    );
  }
}

export function checkHistory({ history, localReads }: Clients, oracle: Oracle): void {
  const disorder =
    checkOrder(history) ??
    checkOrder([
      ...history.filter(({ kind }) => kind !== "get"),
      ...localReads.map((read) => ({ ...read, call: 0, return: Infinity })),
    ]);
  if (disorder !== undefined) throw new Violation(disorder);
  const verdict = checkLinearizable(resolved(history, oracle));
  if (verdict.kind !== "legal") {
    throw new Violation(
      `history of ${verdict.key}: ${verdict.kind === "illegal" ? verdict.reason : "undecided"}`,
    );
  }
}

/** What the log says of writes whose outcome nobody told the client: without effect, or where they took it. */
function resolved(history: Clients["history"], oracle: Oracle): Clients["history"] {
  return history.flatMap((operation) => {
    if (operation.outcome !== "unknown" || operation.value === "") return [operation];
    const index = oracle.indexOfValue.get(operation.value);
    if (index === undefined || oracle.commands.get(index)!.code !== ResultCode.ok) return [];
    return [{ ...operation, index }];
  });
}
