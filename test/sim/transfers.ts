/**
 * What must hold of a leader that hands over: only to who has durably all that it has, nothing new enters its log meanwhile, and after an
 * election time-out it goes on. None of it could lose an acknowledged write; all of it could make writes wait for ever.
 */
import type { Limits } from "../../src/limits.ts";
import type { TimeoutNowMessage } from "../../src/wire/messages.ts";
import type { DurableLedger } from "./durable-ledger.ts";

/** What a core says of itself. */
export interface HandingOver {
  readonly term: number;
  readonly lastIndex: number;
  /** 0 = nobody. */
  readonly transferTarget: number;
  readonly transferSinceTick: number;
}

interface Transfer extends HandingOver {
  readonly life: number;
  /** On the clock of the node that hands over, without the time for which it stood still. */
  sinceMs: number;
  seenMs: number;
}

export class Transfers {
  readonly #limits: Limits;
  /** By the node that hands over. */
  readonly #transfers = new Map<number, Transfer>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** A leader tells another to campaign; what is wrong with that. */
  asked(
    { from, to, lastIndex }: TimeoutNowMessage,
    leader: DurableLedger,
    target: DurableLedger,
  ): string | undefined {
    const { visible } = leader;
    const { durable } = target;
    if (target.holds(lastIndex, visible.at(lastIndex)?.crc)) return undefined;
    return `node ${from} hands over to ${to} as of ${lastIndex}, whose log ends at ${durable.lastIndex}`;
  }

  /** After a turn, at `nowMs` of the node's clock; what is wrong. */
  turned(nodeId: number, life: number, core: HandingOver, nowMs: number): string | undefined {
    const { term, transferTarget, transferSinceTick, lastIndex } = core;
    const known = this.#transfers.get(nodeId);
    if (transferTarget === 0) {
      this.#transfers.delete(nodeId);
      return undefined;
    }
    const same =
      known?.life === life &&
      known.term === term &&
      known.transferTarget === transferTarget &&
      known.transferSinceTick === transferSinceTick;
    if (known === undefined || !same) {
      const begun = { life, term, transferTarget, transferSinceTick, lastIndex };
      this.#transfers.set(nodeId, { ...begun, sinceMs: nowMs, seenMs: nowMs });
      return undefined;
    }
    if (lastIndex !== known.lastIndex) {
      return `node ${nodeId} hands over to ${transferTarget} and its log grows from ${known.lastIndex} to ${lastIndex}`;
    }
    const { tickMs, heartbeatTicks, electionTicksMin } = this.#limits;
    const gapMs = nowMs - known.seenMs;
    if (gapMs > heartbeatTicks * tickMs) known.sinceMs += gapMs;
    known.seenMs = nowMs;
    const forMs = nowMs - known.sinceMs;
    // A group at rest has its ticks some at a time.
    if (forMs <= (electionTicksMin + heartbeatTicks + 2) * tickMs) return undefined;
    return `node ${nodeId} has been handing over to ${transferTarget} for ${forMs} ms`;
  }
}
