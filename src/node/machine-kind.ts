/**
 * Which state machine a data folder belongs to, by the files in it: its log means something to that one alone. One that was begun with an application is never opened
 * with keys and values, nor the other way round.
 */
import { readdirSync } from "node:fs";
import { FatalError } from "../fatal.ts";
import type { MachineKind } from "../machine/machines.ts";
import { defaultGroup } from "../wire/registry.ts";

const patterns: readonly (readonly [MachineKind, RegExp])[] = [
  ["kv", /^kv(-[0-9]+)?\.db$/],
  ["null", /^null(-[0-9]+)?\.db$/],
  ["http", /^(state|snapshot)-[0-9]+$/],
];

/** Undefined where no file tells yet. */
export function machineKindIn(path: string): MachineKind | undefined {
  const names = readdirSync(path);
  return patterns.find(([, pattern]) => names.some((name) => pattern.test(name)))?.[0];
}

/** Throws FatalError where the machine of the folder at `path` is another. */
export function checkMachineKind(path: string, kind: MachineKind, group: number): void {
  const found = machineKindIn(path);
  if (found === undefined || found === kind) return;
  if (group !== defaultGroup) {
    throw new FatalError(
      "wrong_data_dir",
      `${path} has files of the state machine ${found}, and group ${group} has the state machine ${kind}: they are of another group, or of another cluster`,
    );
  }
  const option = (which: MachineKind): string =>
    which === "http" ? "--app-url" : `--machine ${which}`;
  throw new FatalError(
    "wrong_data_dir",
    `The data folder was begun with ${option(found)}, and its log means nothing to ${option(kind)}: give ${option(found)} again, or another --data-dir (${path})`,
  );
}
