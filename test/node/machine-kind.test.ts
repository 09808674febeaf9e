/** A data folder belongs to one kind of state machine: another one is refused before it touches anything. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FatalError } from "../../src/fatal.ts";
import type { MachineKind } from "../../src/machine/machines.ts";
import { checkMachineKind, machineKindIn } from "../../src/node/machine-kind.ts";

const cases: readonly [file: string, kind: MachineKind | undefined][] = [
  ["kv.db", "kv"],
  ["kv-7.db", "kv"],
  ["null.db", "null"],
  ["state-1", "http"],
  ["snapshot-12", "http"],
  ["kv.db-wal", undefined],
  ["notes.txt", undefined],
];

for (const [file, kind] of cases) {
  test(`${file} is of ${kind ?? "no machine"}`, () => {
    const folder = mkdtempSync(join(tmpdir(), "barge-machine-kind-"));
    writeFileSync(join(folder, file), "");
    expect(machineKindIn(folder)).toBe(kind);
    for (const given of ["kv", "null", "http"] as const) {
      const isOther = kind !== undefined && kind !== given;
      const check = (): void => checkMachineKind(folder, given, 0);
      if (isOther) expect(check).toThrow(FatalError);
      else expect(check).not.toThrow();
    }
    rmSync(folder, { recursive: true });
  });
}
