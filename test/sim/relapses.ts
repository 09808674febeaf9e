/**
 * Rot that strikes a node again while it is still wounded, at the beginning of its newest segment, where it has noted that it is: what tells it then how
 * much it had is the watermark alone. And when it takes itself for whole again, the leader falls: whoever was too early has not got the rest yet. By the
 * usual chances that is too rare to show whether the watermark remembers.
 */
import { checkLimits } from "../../src/limits.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import { faults, type Swarm } from "./swarm.ts";

/** In some of the runs in which disks rot. Logs travel batch by batch, so that a node is wounded for a while, and not whole at one stroke. */
export function drawRelapses(random: Random, swarm: Swarm): Swarm {
  const rot = faults.indexOf("rot");
  const rots = swarm.faultWeights[rot]! > 0;
  if (!rots || !random.chance(share)) return swarm;
  const { tickMs, electionTicksMax } = swarm.limits;
  const electionMs = electionTicksMax * tickMs;
  const single = { batchBytesMax: 1, appendBytesMax: 1, inflightFramesMax: 1 };
  return {
    ...swarm,
    limits: checkLimits({ ...swarm.limits, ...single }),
    delayMs: tickMs * random.pick([0.1, 0.3, 0.6]),
    faultWeights: swarm.faultWeights.map((weight, at) => (at === rot ? 4 * weight : weight)),
    relapseEveryMs: electionMs * random.pick([0.2, 0.5, 1]),
  };
}

export interface RelapsesOptions {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly swarm: Swarm;
  readonly nodes: readonly SimNode[];
  /** Ends a node's process and damages its newest segment; it is started again some time later. */
  readonly strike: (node: SimNode) => void;
  readonly leaderFalls: () => void;
}

/** Of the runs in which disks rot at all. */
const share = 0.7;

export class Relapses {
  readonly #options: RelapsesOptions;
  /** Struck a second time, and not whole since. */
  readonly #relapsed = new Set<SimNode>();
  #over = false;

  constructor(options: RelapsesOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.swarm.relapseEveryMs > 0) this.#strikeLater();
  }

  end(): void {
    this.#over = true;
  }

  #strikeLater(): void {
    const { random, scheduler, swarm, nodes } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * swarm.relapseEveryMs, () => {
      if (this.#over) return;
      const wounded = nodes.filter((node) => node.alive && node.wounded);
      if (wounded.length > 0) this.#strike(random.pick(wounded));
      this.#strikeLater();
    });
  }

  #strike(node: SimNode): void {
    this.#relapsed.add(node);
    this.#options.strike(node);
  }

  healed(node: SimNode): void {
    const { scheduler, leaderFalls } = this.#options;
    if (!this.#relapsed.delete(node)) return;
    scheduler.after(0, () => {
      if (!this.#over) leaderFalls();
    });
  }
}
