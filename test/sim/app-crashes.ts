/** Applications that are killed during a run, each alone, and come back: with what they had made durable, or, one of them, with nothing. */
import { type AppSwarm } from "./app-swarm.ts";
import { defaultGroup } from "../../src/wire/registry.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";

export interface AppCrashesOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly swarm: AppSwarm;
  readonly nodes: readonly SimNode[];
}

export class AppCrashes {
  readonly #options: AppCrashesOptions;
  #isOver = false;

  constructor(options: AppCrashesOptions) {
    this.#options = options;
  }

  start(): void {
    const { isOn, crashEveryMs } = this.#options.swarm;
    if (isOn && crashEveryMs < Infinity) this.#later();
  }

  /** All are there, and stay so. */
  end(): void {
    this.#isOver = true;
    for (const { apps } of this.#options.nodes) apps?.calm();
  }

  #later(): void {
    const { scheduler, random, swarm, nodes } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * swarm.crashEveryMs, () => {
      if (this.#isOver) return;
      const { id, apps } = random.pick(nodes);
      const isWiped = id === 1 && random.chance(swarm.wipeShare);
      const downMs = random.float() * swarm.downMs;
      const all = apps?.all ?? [];
      if (all.length > 0) {
        const [group, app] = all.length === 1 ? all[0]! : random.pick(all);
        // Of a group with one member nobody else has what it had.
        app.crash(downMs, isWiped && group === defaultGroup);
      }
      this.#later();
    });
  }
}
