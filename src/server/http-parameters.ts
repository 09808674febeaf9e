/** The query parameters of one HTTP request, checked: a wrong or unknown one is refused, because a typo must not change what is done. */
import { BargeError } from "../errors.ts";
import { decodeEscapes } from "./request-target.ts";

export class HttpParameters {
  readonly #values: ReadonlyMap<string, string>;

  constructor(values: ReadonlyMap<string, string>, allowed: readonly string[]) {
    for (const name of values.keys()) {
      if (allowed.includes(name)) continue;
      const list = allowed.length === 0 ? "none" : allowed.join(", ");
      throw new BargeError("bad_request", `Unknown parameter "${name}"; known here: ${list}.`);
    }
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The bytes of a parameter that holds a key. */
  bytes(name: string): Uint8Array | undefined {
    const value = this.#values.get(name);
    if (value === undefined) return undefined;
    const bytes = decodeEscapes(value, true);
    if (bytes !== undefined) return bytes;
    throw new BargeError("bad_request", `${name} has a broken percent escape.`);
  }

  integer(name: string): number | undefined {
    const value = this.#values.get(name);
    if (value === undefined) return undefined;
    const number = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isSafeInteger(number)) return number;
    throw new BargeError("bad_request", `${name} must be a whole number, not "${value}".`);
  }

  choice<T>(name: string, choices: Readonly<Record<string, T>>): T | undefined {
    const value = this.#values.get(name);
    if (value === undefined) return undefined;
    if (Object.hasOwn(choices, value)) return choices[value]!;
    const list = Object.keys(choices).join(", ");
    throw new BargeError("bad_request", `${name} must be one of ${list}, not "${value}".`);
  }
}
