/** What a data folder keeps of an application, looked at without changing anything: for `barge verify`. */
import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Limits } from "../../limits.ts";
import { decodeState, type SavedState, stateBytes } from "./saved-state.ts";

/** Enough to know how long a state is. */
const headBytes = 12;

export interface AppReading {
  readonly file: string;
  /** Undefined where it cannot be read. */
  readonly state: SavedState | undefined;
}

/** States, the newest first, then snapshots that wait for the application; none where the folder is not that of an application. */
export function readAppFolder(directory: string, limits: Limits): readonly AppReading[] {
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return [];
  const readings: AppReading[] = [];
  for (const kind of ["state", "snapshot"]) {
    const pattern = new RegExp(`^${kind}-([1-9][0-9]*)$`);
    const numbers = readdirSync(directory)
      .map((name) => Number(pattern.exec(name)?.[1] ?? 0))
      .filter((number) => number > 0)
      .toSorted((a, b) => b - a);
    for (const number of numbers) {
      const file = `${kind}-${number}`;
      readings.push({ file, state: readState(join(directory, file), limits) });
    }
  }
  return readings;
}

function readState(path: string, limits: Limits): SavedState | undefined {
  const descriptor = openSync(path, "r");
  try {
    const head = readFrom(descriptor, headBytes);
    const length = stateBytes(head, limits);
    return length === undefined ? undefined : decodeState(readFrom(descriptor, length), limits);
  } finally {
    closeSync(descriptor);
  }
}

function readFrom(descriptor: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, readSync(descriptor, bytes, 0, length, 0));
}
