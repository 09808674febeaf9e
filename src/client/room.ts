/**
 * How much a client may have in flight, over all its groups together. While that is full, a group with less than its share may go on, so that one
 * which gets no answers takes no room from the others: in all at most twice the bound.
 */
import type { Settings } from "./options.ts";

/** One group's part of what is in flight. */
export interface RoomUser {
  readonly callsInFlight: number;
  readonly bytesInFlight: number;
}

export class Room {
  readonly #callsMax: number;
  readonly #bytesMax: number;
  #calls = 0;
  #bytes = 0;
  /** Groups with something in flight. */
  #users = 0;

  constructor({ maxInFlightRequests, maxInFlightBytes }: Settings) {
    this.#callsMax = maxInFlightRequests;
    this.#bytesMax = maxInFlightBytes;
  }

  /** Of `user`, who had none before where `isFirst`. */
  take(calls: number, bytes: number, isFirst: boolean): void {
    this.#calls += calls;
    this.#bytes += bytes;
    if (isFirst) this.#users++;
  }

  /** `isLast`: the user has none any more. */
  give(calls: number, bytes: number, isLast: boolean): void {
    this.#calls -= calls;
    this.#bytes -= bytes;
    if (isLast) this.#users--;
  }

  isFullFor({ callsInFlight, bytesInFlight }: RoomUser): boolean {
    if (this.#calls < this.#callsMax && this.#bytes < this.#bytesMax) return false;
    const users = callsInFlight > 0 ? this.#users : this.#users + 1;
    return (
      (this.#calls >= this.#callsMax && callsInFlight * users >= this.#callsMax) ||
      (this.#bytes >= this.#bytesMax && bytesInFlight * users >= this.#bytesMax)
    );
  }
}
