/** Damage to the log of a node that does not run. */
import { readdirSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { TestNode } from "./cluster.ts";

/** Path of the newest file of log records that has any. */
export function newestLog({ dataDir }: TestNode, bytesMin = 20_000): string {
  const folder = join(dataDir, "segments");
  const logs = readdirSync(folder).filter((name) => name.endsWith("-wal"));
  return join(
    folder,
    logs.sort().findLast((name) => statSync(join(folder, name)).size > bytesMin)!,
  );
}

export function halve(path: string): void {
  truncateSync(path, Math.floor(statSync(path).size / 2));
}
