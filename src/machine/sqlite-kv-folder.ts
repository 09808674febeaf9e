/** The folder of a machine's files in SQLite: `kv.db`, which it has made itself, and `kv-7.db`, the seventh that it got as a snapshot. */
import { readdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { DiskFullError } from "../storage/disk.ts";
import { fsyncDirectory } from "../storage/sync-latch.ts";
import { kvSchema } from "./kv-database.ts";
import type { KvMeta } from "./kv-file.ts";
import type { KvFiles } from "./kv-files.ts";
import type { IncomingKvFile, KvFolder } from "./kv-folder.ts";
import { sessionsBytesMax } from "./sessions.ts";
import type { SqliteKvFile } from "./sqlite-kv-file.ts";

const indexQuery = "SELECT appliedIndex AS value FROM meta";
const versionQuery = "SELECT applyVersion AS value FROM apply_state";
const sessionsQuery = "SELECT length(sessions) AS value FROM apply_state";
/** Rows that no command can have written, or not yet. */
const straysQuery = `
  SELECT count(*) AS value FROM kv
  WHERE length(key) NOT BETWEEN 1 AND 0xffff OR revision NOT BETWEEN 1 AND (SELECT appliedIndex FROM meta)
`;

export class SqliteKvFolder implements KvFolder {
  readonly #directory: string;
  readonly #name: string;
  readonly #files: KvFiles;
  readonly #made = new Map<number, SqliteKvFile>();
  /** Received, opened, and kept so until somebody asks for it. */
  readonly #opened = new Map<number, KvMeta>();
  /** The highest one that was ever used, as far as the folder tells. */
  #generation = 0;

  constructor(directory: string, name: string, files: KvFiles) {
    this.#directory = directory;
    this.#name = name;
    this.#files = files;
  }

  file(generation: number): SqliteKvFile {
    this.#generation = Math.max(this.#generation, generation);
    let file = this.#made.get(generation);
    if (file === undefined) {
      file = this.#files.file(this.#path(generation));
      this.#made.set(generation, file);
    }
    // Whoever asks opens it himself, and at once.
    if (this.#opened.delete(generation)) file.letGo();
    return file;
  }

  keepOnly(generation: number): void {
    this.#generation = Math.max(this.#generation, generation);
    let removed = false;
    // Write-ahead logs first: a main file never loses its own to one that comes later (M3).
    const names = readdirSync(this.#directory).toSorted((a, b) => b.length - a.length);
    for (const name of names) {
      const found = this.#generationOf(name);
      if (found === undefined || found === generation) continue;
      unlinkSync(join(this.#directory, name));
      removed = true;
    }
    if (removed) fsyncDirectory(this.#directory);
  }

  receive(bytes: number): IncomingKvFile | undefined {
    if (!this.#files.hasRoomFor(bytes)) return undefined;
    const generation = ++this.#generation;
    const path = this.#path(generation);
    const { snapshots, limits } = this.#files;
    let wanted = true;
    const unlessDiscarded =
      (done: (ok: boolean) => void) =>
      (ok: boolean): void => {
        if (wanted) done(ok);
      };
    return {
      generation,
      write: (offset, bytes, done) => snapshots.write(path, offset, bytes, unlessDiscarded(done)),
      finish: ({ applyVersionMax, ...proof }, done) => {
        const bounds = [
          { query: versionQuery, max: applyVersionMax },
          { query: sessionsQuery, max: sessionsBytesMax(limits) },
          { query: straysQuery, max: 0 },
        ];
        const whole = { ...proof, schema: kvSchema, indexQuery, bounds };
        snapshots.finish(path, whole, unlessDiscarded(done));
      },
      open: () => this.#open(generation),
      discard: () => {
        wanted = false;
        if (!this.#opened.has(generation)) return snapshots.remove(path);
        this.file(generation).close();
        this.remove(generation);
      },
    };
  }

  remove(generation: number): void {
    this.#files.remove(this.file(generation));
    this.#made.delete(generation);
  }

  #open(generation: number): KvMeta | undefined {
    const known = this.#opened.get(generation);
    if (known !== undefined) return known;
    const file = this.file(generation);
    try {
      const meta = file.open()!;
      file.hold();
      this.#opened.set(generation, meta);
      return meta;
    } catch (error) {
      if (error instanceof DiskFullError) return undefined;
      throw error;
    }
  }

  #path(generation: number): string {
    const number = generation === 0 ? "" : `-${generation}`;
    return join(this.#directory, `${this.#name}${number}.db`);
  }

  /** Undefined where the name is not one of this machine's. */
  #generationOf(name: string): number | undefined {
    const match = /^([a-z]+)(?:-([0-9]+))?\.db(?:-wal|-shm)?$/.exec(name);
    return match?.[1] === this.#name ? Number(match[2] ?? 0) : undefined;
  }
}
