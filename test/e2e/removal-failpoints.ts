/**
 * Loaded into a node before its program, beside snapshot-failpoints.ts and in the same way: the moments in the removal of a group at which a test wants the
 * node to stand still.
 */
import { existsSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { KvFiles } from "../../src/machine/kv-files.ts";
import { Replicas } from "../../src/node/replicas.ts";
import { LogStore } from "../../src/storage/log-store.ts";
import { failpointVariable, reachedSuffix } from "./snapshot-failpoints.ts";

/** In the order in which they are passed. The first three come while the group is written to, or makes a snapshot. */
export const removalFailpoints = [
  "flush begun",
  "flush committed",
  "checkpoint begun",
  "before the tombstone",
  "tombstone written",
  "replica gone",
  "before its files go",
  "its files are gone",
] as const;
export type RemovalFailpoint = (typeof removalFailpoints)[number];

/** Folder of the machines of the node. */
export const machinesVariable = "BARGE_TEST_MACHINES";

const path = process.env[failpointVariable];
const machines = process.env[machinesVariable];
if (path !== undefined && machines !== undefined) install(path, machines);

/** Of a failpoint and a group: `replica gone of 7`. */
export function ofGroup(name: RemovalFailpoint, group: number): string {
  return `${name} of ${group}`;
}

function install(file: string, folder: string): void {
  const pass = (name: RemovalFailpoint, group: number | string): void => {
    if (!existsSync(file) || readFileSync(file, "utf8") !== `${name} of ${group}`) return;
    renameSync(file, `${file}${reachedSuffix}`);
    process.kill(process.pid, "SIGSTOP");
  };
  const { run } = KvFiles.prototype;
  KvFiles.prototype.run = function (job, events) {
    const group = job.path.split("/").at(-2)!;
    run.call(this, job, {
      ...events,
      committed: (walBytes) => {
        pass("flush committed", group);
        events.committed(walBytes);
      },
    });
    pass(job.kind === "write" ? "flush begun" : "checkpoint begun", group);
  };

  const { remove: bury } = LogStore.prototype;
  LogStore.prototype.remove = function (group, registryIndex) {
    pass("before the tombstone", group);
    bury.call(this, group, registryIndex);
    pass("tombstone written", group);
  };
  const left = new Set<number>();
  const { remove, deleteLeft } = Replicas.prototype;
  Replicas.prototype.remove = function (group, registryIndex) {
    remove.call(this, group, registryIndex);
    left.add(group);
    pass("replica gone", group);
  };
  Replicas.prototype.deleteLeft = function () {
    for (const group of left) pass("before its files go", group);
    deleteLeft.call(this);
    for (const group of left) {
      if (existsSync(join(folder, String(group)))) continue;
      left.delete(group);
      pass("its files are gone", group);
    }
  };
}
