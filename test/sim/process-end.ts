/**
 * The end of a process between two of its effects: after a transaction of the log, after a sync was asked for, between the messages to
 * one peer and to the next. The effect counts down, and the one that reaches zero throws through the node's own code, as nothing else would stop it there.
 */

/** Thrown to end a process. The node's code must let it pass. */
export class ProcessEnd extends Error {
  override readonly name: string = "ProcessEnd";
}

export class EndPoint {
  #effectsLeft = 0;

  /** The process ends right after so many more effects. */
  arm(effects: number): void {
    this.#effectsLeft = effects;
  }

  disarm(): void {
    this.#effectsLeft = 0;
  }

  /** To be called after each effect. */
  readonly effect = (): void => {
    if (this.#effectsLeft > 0 && --this.#effectsLeft === 0) throw new ProcessEnd("here");
  };
}
