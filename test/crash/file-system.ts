/**
 * What a file system may have kept at a moment of a trace when the power goes. The rules: what a file held when a sync of it began is there once that sync
 * has ended, and what a directory listed likewise; of everything later any part may be there or not, down to single sectors. A file system with a
 * journal brings changes of names to the disk in their order; `scattered` names ask for more than that.
 */
import { mkdirSync, openSync, closeSync, ftruncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../sim/random.ts";
import type { FileId, Trace, TraceEvent } from "./trace.ts";

export const keptKinds = [
  /** What was synced, nothing else. */
  "none",
  /** Everything: the process died, the machine did not. */
  "all",
  /** All changes up to some moment, of files and names. */
  "prefix",
  /** Any of the writes, whole; of the names, all up to some moment. */
  "subset",
  /** Any sectors of the writes; of the names, all up to some moment. */
  "torn",
  /** All names, and nothing of what was not synced. */
  "names",
  /** All that was written, and no name that was not synced. */
  "contents",
  /** Any of the writes, any of the changes of names. */
  "scattered",
] as const;
export type Kept = (typeof keptKinds)[number];

const pageBytes = 4_096;
const sectorBytes = 512;

/** The bytes of one file, by page, as most of the watermark's file is a hole. */
class Content {
  readonly pages = new Map<number, Uint8Array>();
  size = 0;

  copy(): Content {
    const copy = new Content();
    for (const [at, page] of this.pages) copy.pages.set(at, page);
    copy.size = this.size;
    return copy;
  }

  write(offset: number, data: Uint8Array): void {
    for (let done = 0; done < data.byteLength;) {
      const at = Math.floor((offset + done) / pageBytes);
      const within = offset + done - at * pageBytes;
      const length = Math.min(pageBytes - within, data.byteLength - done);
      // Pages are shared between copies, so they are never written to again.
      const page = new Uint8Array(pageBytes);
      const old = this.pages.get(at);
      if (old !== undefined && length < pageBytes) page.set(old);
      page.set(data.subarray(done, done + length), within);
      this.pages.set(at, page);
      done += length;
    }
    this.size = Math.max(this.size, offset + data.byteLength);
  }

  truncate(bytes: number): void {
    for (const at of this.pages.keys()) {
      if (at * pageBytes >= bytes) this.pages.delete(at);
    }
    const last = this.pages.get(Math.floor(bytes / pageBytes));
    if (last !== undefined) {
      const page = last.slice();
      page.fill(0, bytes % pageBytes);
      this.pages.set(Math.floor(bytes / pageBytes), page);
    }
    this.size = bytes;
  }

  save(path: string): void {
    const file = openSync(path, "w", 0o600);
    for (const [at, page] of this.pages) {
      writeSync(file, page, 0, Math.min(pageBytes, this.size - at * pageBytes), at * pageBytes);
    }
    ftruncateSync(file, this.size);
    closeSync(file);
  }
}

type DataEvent = Extract<TraceEvent, { readonly kind: "write" | "truncate" }>;
type NameEvent = Extract<TraceEvent, { readonly kind: "create" | "unlink" | "rename" }>;

interface Numbered<Event> {
  /** When it happened. */
  readonly at: number;
  readonly event: Event;
}

/** Names in a directory. */
type Listing = Map<string, FileId>;

/** What is durable, and what is not yet, at one moment of a trace. Goes forward only. */
export class FileSystem {
  readonly #directories: ReadonlySet<FileId>;
  readonly #durable = new Map<FileId, Content>();
  readonly #listings = new Map<FileId, Listing>();
  readonly #pendingData = new Map<FileId, Numbered<DataEvent>[]>();
  #pendingNames: Numbered<NameEvent>[] = [];
  /** When each sync under way began. */
  readonly #syncs = new Map<number, number>();
  #at = 0;

  constructor({ found, directories }: Trace) {
    this.#directories = directories;
    for (const id of directories) this.#listings.set(id, new Map());
    const ids = new Map<string, FileId>([["", 0]]);
    // Directories come before what lies in them.
    for (const [path, { id, bytes }] of found) {
      const slash = path.lastIndexOf("/");
      const folder = ids.get(path.slice(0, Math.max(0, slash)))!;
      ids.set(path, id);
      this.#listings.get(folder)!.set(path.slice(slash + 1), id);
      if (bytes === undefined) continue;
      const content = new Content();
      content.write(0, bytes);
      this.#durable.set(id, content);
    }
  }

  /** Takes the next event. */
  step(event: TraceEvent): void {
    const at = ++this.#at;
    switch (event.kind) {
      case "create":
        if (!this.#directories.has(event.id)) this.#durable.set(event.id, new Content());
        this.#pendingNames.push({ at, event });
        break;
      case "unlink":
      case "rename":
        this.#pendingNames.push({ at, event });
        break;
      case "write":
      case "truncate": {
        const pending = this.#pendingData.get(event.id);
        if (pending === undefined) this.#pendingData.set(event.id, [{ at, event }]);
        else pending.push({ at, event });
        break;
      }
      case "syncBegins":
        this.#syncs.set(event.sync, at);
        break;
      case "syncEnds":
        this.#synced(event.id, this.#syncs.get(event.sync)!);
        this.#syncs.delete(event.sync);
        break;
      case "mark":
        break;
    }
  }

  #synced(id: FileId, before: number): void {
    if (this.#directories.has(id)) {
      this.#pendingNames = this.#pendingNames.filter((pending) => {
        const { event } = pending;
        const isHere = event.folder === id || (event.kind === "rename" && event.toFolder === id);
        if (!isHere || pending.at > before) return true;
        changeName(this.#listings, event);
        return false;
      });
      return;
    }
    const pending = this.#pendingData.get(id) ?? [];
    const content = this.#durable.get(id)!;
    let covered = 0;
    for (; covered < pending.length && pending[covered]!.at < before; covered++) {
      changeData(content, pending[covered]!.event);
    }
    pending.splice(0, covered);
  }

  /** What would be found below the root. */
  image(kept: Kept, random: Random): Image {
    const moment = random.between(0, this.#at);
    const share = random.pick([0.1, 0.5, 0.9]);
    const namesUntil = this.#someMomentOfNames(random);
    const listings = new Map([...this.#listings].map(([id, listing]) => [id, new Map(listing)]));
    for (const { at, event } of this.#pendingNames) {
      if (keepsName(at)) changeName(listings, event);
    }
    const contents = new Map<FileId, Content>();
    for (const [id, durable] of this.#durable) {
      const content = durable.copy();
      contents.set(id, content);
      for (const { at, event } of this.#pendingData.get(id) ?? []) {
        if (kept === "torn" && event.kind === "write") tear(content, event, share, random);
        else if (keepsData(at)) changeData(content, event);
      }
    }
    return new Image(listings, contents);

    function keepsName(at: number): boolean {
      if (kept === "all" || kept === "names") return true;
      if (kept === "prefix") return at <= moment;
      if (kept === "scattered") return random.chance(share);
      return (kept === "subset" || kept === "torn") && at <= namesUntil;
    }

    function keepsData(at: number): boolean {
      if (kept === "all" || kept === "contents") return true;
      if (kept === "prefix") return at <= moment;
      return kept !== "none" && kept !== "names" && random.chance(share);
    }
  }

  /** Before the first, after the last, or between two changes that wait. */
  #someMomentOfNames(random: Random): number {
    const count = random.between(0, this.#pendingNames.length);
    return count === 0 ? 0 : this.#pendingNames[count - 1]!.at;
  }
}

export class Image {
  readonly #listings: ReadonlyMap<FileId, Listing>;
  readonly #contents: ReadonlyMap<FileId, Content>;

  constructor(listings: ReadonlyMap<FileId, Listing>, contents: ReadonlyMap<FileId, Content>) {
    this.#listings = listings;
    this.#contents = contents;
  }

  /** Writes it into an empty directory. Shared memory of SQLite does not outlive the machine. */
  save(path: string, directory: FileId = 0): void {
    for (const [name, id] of this.#listings.get(directory)!) {
      if (name.endsWith("-shm")) continue;
      const below = join(path, name);
      if (this.#listings.has(id)) {
        mkdirSync(below, { mode: 0o700 });
        this.save(below, id);
      } else {
        this.#contents.get(id)!.save(below);
      }
    }
  }

  /** Turns one bit that a write-ahead log of the log holds; false where there is none. */
  rot(random: Random): boolean {
    const pages: [Content, number][] = [];
    for (const listing of this.#listings.values()) {
      for (const [name, id] of listing) {
        const content = this.#contents.get(id);
        if (content === undefined || !/^\d+\.db-wal$/.test(name)) continue;
        for (const at of content.pages.keys()) pages.push([content, at]);
      }
    }
    if (pages.length === 0) return false;
    const [content, at] = random.pick(pages);
    const page = content.pages.get(at)!.slice();
    page[random.below(pageBytes)]! ^= 1 << random.below(8);
    content.pages.set(at, page);
    return true;
  }
}

function changeName(listings: ReadonlyMap<FileId, Listing>, event: NameEvent): void {
  const listing = listings.get(event.folder)!;
  if (event.kind === "create") listing.set(event.name, event.id);
  else listing.delete(event.name);
  if (event.kind === "rename") listings.get(event.toFolder)!.set(event.toName, event.id);
}

function changeData(content: Content, event: DataEvent): void {
  if (event.kind === "write") content.write(event.offset, event.data);
  else content.truncate(event.bytes);
}

/** Each sector is as before or as written; the file may have its new length already. */
function tear(
  content: Content,
  { offset, data }: Extract<DataEvent, { readonly kind: "write" }>,
  share: number,
  random: Random,
): void {
  for (let done = 0; done < data.byteLength;) {
    const length = Math.min(sectorBytes - ((offset + done) % sectorBytes), data.byteLength - done);
    if (random.chance(share)) content.write(offset + done, data.subarray(done, done + length));
    done += length;
  }
  if (random.chance(share)) content.size = Math.max(content.size, offset + data.byteLength);
}
