/** The applications beside one node: one for each group whose state machine they are, there from when it is first asked for. */
import type { SimApp } from "./sim-app.ts";

export class SimApps {
  readonly #make: (group: number) => SimApp;
  readonly #apps = new Map<number, SimApp>();
  #isCalm = false;

  constructor(make: (group: number) => SimApp) {
    this.#make = make;
  }

  get all(): readonly (readonly [group: number, app: SimApp])[] {
    return [...this.#apps];
  }

  of(group: number): SimApp {
    let app = this.#apps.get(group);
    if (app === undefined) {
      app = this.#make(group);
      if (this.#isCalm) app.calm();
      this.#apps.set(group, app);
    }
    return app;
  }

  /** Somebody clears away what it has, as the group has left the node. */
  drop(group: number): void {
    this.#apps.delete(group);
  }

  /** Nothing fails or is slow any more. */
  calm(): void {
    this.#isCalm = true;
    for (const app of this.#apps.values()) app.calm();
  }

  /** Power is cut. */
  crash(): void {
    for (const app of this.#apps.values()) app.crash(0);
  }
}
