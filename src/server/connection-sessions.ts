/**
 * How many sessions of a group one connection has opened: a program that opens one for each write, and forgets them, must not take the room of all others.
 * Each counts until it is closed over this connection, or its time has passed since it was opened. Sessions of different groups have nothing to do with
 * each other: their ids may be the same.
 */
export class ConnectionSessions {
  readonly #max: number;
  #opening = 0;
  /** By id: until when it counts. */
  readonly #until = new Map<number, number>();
  #unknown = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** There is none, nor is one on its way. */
  get isEmpty(): boolean {
    return this.#until.size === 0 && this.#opening === 0;
  }

  /** Another one is asked for; false where there is no room. Where there is, `opened` or `failed` follows. */
  open(nowMs: number): boolean {
    for (const [session, untilMs] of this.#until) {
      if (nowMs >= untilMs) this.#until.delete(session);
    }
    if (this.#until.size + this.#opening >= this.#max) return false;
    this.#opening++;
    return true;
  }

  opened(session: number, ttlMs: number, nowMs: number): void {
    this.#opening--;
    this.#until.set(session, nowMs + ttlMs);
  }

  /** `maybe`: it may be open all the same, or be opened yet. */
  failed(maybe: boolean, ttlMs: number, nowMs: number): void {
    this.#opening--;
    if (maybe) this.#until.set(--this.#unknown, nowMs + ttlMs);
  }

  closed(session: number): void {
    this.#until.delete(session);
  }
}
