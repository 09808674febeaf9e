/** Damage to the log of a node that does not run. */
import { Database } from "bun:sqlite";
import { cpSync, readdirSync, statSync, truncateSync } from "node:fs";
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

/** What a state file has saved of sessions; read from a copy, so that the folder stays as it is. */
export function sessionsIn(file: string, copy: string): Uint8Array {
  cpSync(file, copy);
  using database = new Database(copy);
  return database.query<{ sessions: Uint8Array }, []>("SELECT sessions FROM apply_state").get()!
    .sessions;
}
