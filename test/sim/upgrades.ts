/**
 * Builds of two apply versions in one simulated cluster: nodes begin with either, are stopped and started again with the other at any time, forth and
 * back; one that finds its own data beyond its build gets the newer one at once. In the end all have that, and the version must be raised.
 */
import { membersOf } from "../../src/raft/configuration.ts";
import { applyVersionFirst, applyVersionMax } from "../../src/wire/versions.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";

export interface UpgradesOptions {
  /** Drawn apart, so that other seeds do as before. */
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly nodes: readonly SimNode[];
  readonly without: boolean;
  /** Ends a node's process; it is started again some time later. */
  readonly restart: (node: SimNode) => void;
}

const share = 0.3;

export class Upgrades {
  readonly #options: UpgradesOptions;
  readonly #everyMs: number;
  /** That a node that is changed gets the older build. */
  readonly #olderChance: number;
  #over = false;

  constructor(options: UpgradesOptions) {
    this.#options = options;
    const { random, nodes, without } = options;
    const mixed = random.chance(share) && !without;
    this.#everyMs = mixed ? random.pick([100, 400, 2_000]) : Infinity;
    this.#olderChance = random.pick([0.1, 0.3, 0.5]);
    const atFirst = random.pick([0, 0.3, 1]);
    for (const node of nodes) {
      if (mixed && random.chance(atFirst)) node.applyVersionMax = applyVersionFirst;
    }
  }

  start(): void {
    if (this.#everyMs < Infinity) this.#changeLater();
  }

  /** All builds are new from now on; who runs an older one ends, and is to be started again. */
  end(): void {
    this.#over = true;
    for (const node of this.#options.nodes) {
      if (node.applyVersionMax === applyVersionMax) continue;
      node.applyVersionMax = applyVersionMax;
      if (node.alive) this.#options.restart(node);
    }
  }

  /** All that run apply the newest version. A member that stays down could not, for all that is known, and holds it back. */
  raised(up: readonly SimNode[]): boolean {
    const members = up.flatMap(({ group }) => membersOf(group!.raft.configuration));
    if (!members.every((id) => up.some((node) => node.id === id))) return true;
    return up.every((node) => node.applyVersion === applyVersionMax);
  }

  #changeLater(): void {
    const { random, scheduler, nodes, restart } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * this.#everyMs, () => {
      if (this.#over) return;
      const node = random.pick(nodes);
      const isOlder = random.chance(this.#olderChance);
      node.applyVersionMax = isOlder ? applyVersionFirst : applyVersionMax;
      if (node.alive) restart(node);
      this.#changeLater();
    });
  }
}
