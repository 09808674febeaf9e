/** Somebody finds that a segment of a node's log is damaged, whichever it is, while the node runs: it is emptied and goes, and nothing of the log with it. */
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import type { Tally } from "./tally.ts";

export interface EvacuationsOptions {
  /** Drawn apart, so that other seeds do as before. */
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly nodes: readonly SimNode[];
  readonly without: boolean;
  readonly tally: Tally;
}

const share = 0.05;

export class Evacuations {
  readonly #options: EvacuationsOptions;
  readonly #everyMs: number;
  #over = false;

  constructor(options: EvacuationsOptions) {
    this.#options = options;
    const { random, without } = options;
    this.#everyMs = random.chance(share) && !without ? random.pick([20, 100, 500]) : Infinity;
  }

  start(): void {
    if (this.#everyMs < Infinity) this.#findLater();
  }

  end(): void {
    this.#over = true;
  }

  #findLater(): void {
    const { random, scheduler, nodes, tally } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * this.#everyMs, () => {
      if (this.#over) return;
      if (random.pick(nodes).evacuate(random.float())) tally.evacuations++;
      this.#findLater();
    });
  }
}
