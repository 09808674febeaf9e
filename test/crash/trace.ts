/**
 * Runs a program under strace and tells what it did to the files below a folder: every write, change of name and sync, in order, and the marks
 * that it made by writing `mark …` lines to its standard output. Files are told apart by identity, not by name, so that a renamed one stays
 * what it is.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";

/** A file or a directory; the root is 0. */
export type FileId = number;

export type TraceEvent =
  /** A new file or directory of that name. */
  | { readonly kind: "create"; readonly folder: FileId; readonly name: string; readonly id: FileId }
  | { readonly kind: "unlink"; readonly folder: FileId; readonly name: string }
  | {
      readonly kind: "rename";
      readonly folder: FileId;
      readonly name: string;
      readonly toFolder: FileId;
      readonly toName: string;
      readonly id: FileId;
    }
  | {
      readonly kind: "write";
      readonly id: FileId;
      readonly offset: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: "truncate"; readonly id: FileId; readonly bytes: number }
  /** A sync covers what was done before it began, once it has ended. */
  | { readonly kind: "syncBegins"; readonly id: FileId; readonly sync: number }
  | { readonly kind: "syncEnds"; readonly id: FileId; readonly sync: number }
  | { readonly kind: "mark"; readonly text: string };

/** A file that was there before, durably. */
export interface FoundFile {
  readonly id: FileId;
  /** Undefined: a directory. */
  readonly bytes: Uint8Array | undefined;
}

export interface Trace {
  /** By path below the root. */
  readonly found: ReadonlyMap<string, FoundFile>;
  readonly directories: ReadonlySet<FileId>;
  readonly events: readonly TraceEvent[];
}

export interface Recording {
  readonly trace: Trace;
  readonly exitCode: number | null;
  readonly stderr: string;
}

export const hasStrace: boolean = existsSync("/usr/bin/strace");
if (!hasStrace) {
  process.stderr.write("skipped: crash images are rebuilt from a trace, and strace is missing\n");
}

/** No program that is recorded takes so long. */
const recordSecondsMax = 60;
/** How long a sync takes besides, so that something happens meanwhile. */
const syncMicroseconds = 1_000;
/** Now and then strace cannot read all that a call wrote: such a trace is of no use. */
export class TraceCutError extends Error {
  override readonly name: string = "TraceCutError";
}

/** Longer than any single write. */
const stringBytesMax = 4 * 1024 * 1024;
const calls = [
  "open,openat,creat,close,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range",
  "truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,msync,rename,renameat,renameat2",
  "unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat",
].join(",");

/** Runs `command`; `found` is what lies below `root` before it begins. */
export async function record(
  command: readonly string[],
  root: string,
  found: ReadonlyMap<string, Uint8Array | undefined> = new Map(),
): Promise<Recording> {
  const folder = mkdtempSync(join(tmpdir(), "barge-trace-"));
  try {
    const output = join(folder, "calls");
    const child = Bun.spawn(
      ["/usr/bin/strace", "-f", "-qq", "--seccomp-bpf", "-y", "-xx", "-s", `${stringBytesMax}`]
        .concat(["-e", `trace=${calls}`, "-e", "signal=none"])
        .concat(["-e", `inject=fsync,fdatasync:delay_enter=${syncMicroseconds}`, "-o", output])
        .concat(["/usr/bin/timeout", "--signal=KILL", `${recordSecondsMax}`, ...command]),
      { stdout: "ignore", stderr: "pipe", stdin: "ignore" },
    );
    const [exitCode, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
    const parser = new Parser(root, found);
    parser.read(readFileSync(output));
    return { trace: parser.trace(), exitCode, stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface OpenFile {
  readonly id: FileId;
  position: number;
}

interface Call {
  readonly name: string;
  readonly args: string;
  readonly result: number;
}

const newline = 0x0a;

/** Follows names and descriptors through the calls of a process and its threads. */
class Parser {
  readonly #root: string;
  readonly #found = new Map<string, FoundFile>();
  readonly #directories = new Set<FileId>([0]);
  readonly #events: TraceEvent[] = [];
  /** By absolute path, of what lies below the root. */
  readonly #names = new Map<string, FileId>();
  readonly #open = new Map<number, OpenFile>();
  readonly #unfinished = new Map<string, string>();
  /** Syncs that have begun, by thread. */
  readonly #syncing = new Map<string, { id: FileId; sync: number }>();
  readonly #rootAsTraced: string;
  #nextId: FileId = 1;
  #syncs = 0;

  constructor(root: string, found: ReadonlyMap<string, Uint8Array | undefined>) {
    this.#root = root;
    this.#rootAsTraced = Buffer.from(root)
      .toString("hex")
      .replaceAll(/../g, (byte) => `\\x${byte}`);
    this.#names.set(root, 0);
    for (const [path, bytes] of found) {
      const id = this.#nextId++;
      if (bytes === undefined) this.#directories.add(id);
      this.#found.set(path, { id, bytes });
      this.#names.set(join(root, path), id);
    }
  }

  trace(): Trace {
    return { found: this.#found, directories: this.#directories, events: this.#events };
  }

  read(output: Buffer): void {
    for (let at = 0; at < output.byteLength;) {
      let end = output.indexOf(newline, at);
      if (end < 0) end = output.byteLength;
      this.#line(output.toString("latin1", at, end));
      at = end + 1;
    }
  }

  #line(line: string): void {
    const space = line.indexOf(" ");
    const thread = line.slice(0, space);
    let body = line.slice(space).trimStart();
    const cut = " <unfinished ...>";
    if (body.endsWith(cut)) {
      const begun = body.slice(0, -cut.length);
      this.#unfinished.set(thread, begun);
      this.#begins(thread, begun);
      return;
    }
    if (body.startsWith("<... ")) {
      const begun = this.#unfinished.get(thread) ?? "";
      this.#unfinished.delete(thread);
      body = begun + body.slice(body.indexOf(" resumed>") + " resumed>".length);
    } else {
      this.#begins(thread, body);
    }
    const call = parseCall(body);
    if (call !== undefined) this.#ends(thread, call);
  }

  /** What counts from the moment in which a call begins: a descriptor that is closed, a sync. */
  #begins(thread: string, text: string): void {
    if (text.startsWith("close(")) this.#open.delete(descriptorOf(text.slice(6)));
    if (!text.startsWith("fsync(") && !text.startsWith("fdatasync(")) return;
    const file = this.#openFile(text.slice(text.indexOf("(") + 1));
    if (file === undefined) return;
    const sync = ++this.#syncs;
    this.#syncing.set(thread, { id: file.id, sync });
    this.#events.push({ kind: "syncBegins", id: file.id, sync });
  }

  #ends(thread: string, { name, args, result }: Call): void {
    if (name === "fsync" || name === "fdatasync") {
      const syncing = this.#syncing.get(thread);
      this.#syncing.delete(thread);
      if (syncing !== undefined && result === 0) {
        this.#events.push({ kind: "syncEnds", ...syncing });
      }
      return;
    }
    if (result < 0) return;
    const strings = stringsOf(args);
    switch (name) {
      case "open":
      case "openat":
      case "creat":
        return this.#opened(pathIn(args, strings[0]!, name === "openat"), args, result);
      case "write":
        return this.#written(args, strings[0]!, result);
      case "pwrite64": {
        const file = this.#openFile(args);
        const offset = Number(args.slice(args.lastIndexOf(",") + 1));
        if (file !== undefined) this.#write(file.id, offset, bytesOf(strings[0]!, result));
        return;
      }
      case "ftruncate": {
        const file = this.#openFile(args);
        const bytes = Number(args.slice(args.lastIndexOf(",") + 1));
        if (file !== undefined) this.#events.push({ kind: "truncate", id: file.id, bytes });
        return;
      }
      case "mkdir":
      case "mkdirat":
        return this.#create(pathIn(args, strings[0]!, name === "mkdirat"), true);
      case "unlink":
      case "rmdir":
      case "unlinkat":
        return this.#unlink(pathIn(args, strings[0]!, name === "unlinkat"));
      case "rename":
      case "renameat":
      case "renameat2":
        return this.#rename(textOf(strings[0]!), textOf(strings[1]!));
      case "close":
      case "sync_file_range":
        return;
      default:
        this.#refuse(name, args, strings);
    }
  }

  #opened(path: string, args: string, descriptor: number): void {
    if (!this.#isBelow(path)) {
      this.#open.delete(descriptor);
      return;
    }
    let id = this.#names.get(path);
    if (id === undefined) {
      if (!args.includes("O_CREAT")) throw new Error(`trace: ${path} came from nowhere`);
      this.#create(path, false);
      id = this.#names.get(path)!;
    } else if (args.includes("O_TRUNC")) {
      this.#events.push({ kind: "truncate", id, bytes: 0 });
    }
    if (args.includes("O_APPEND")) throw new Error(`trace: ${path} is appended to`);
    this.#open.set(descriptor, { id, position: 0 });
  }

  #written(args: string, data: string, result: number): void {
    const file = this.#openFile(args);
    if (file !== undefined) {
      this.#write(file.id, file.position, bytesOf(data, result));
      file.position += result;
      return;
    }
    if (descriptorOf(args) !== 1) return;
    for (const line of textOf(data).split("\n")) {
      if (line.startsWith("mark ")) this.#events.push({ kind: "mark", text: line.slice(5) });
    }
  }

  #write(id: FileId, offset: number, data: Uint8Array): void {
    this.#events.push({ kind: "write", id, offset, data });
  }

  #create(path: string, isDirectory: boolean): void {
    if (!this.#isBelow(path)) return;
    const id = this.#nextId++;
    if (isDirectory) this.#directories.add(id);
    this.#names.set(path, id);
    this.#events.push({ kind: "create", ...this.#place(path), id });
  }

  #unlink(path: string): void {
    if (!this.#isBelow(path)) return;
    this.#names.delete(path);
    this.#events.push({ kind: "unlink", ...this.#place(path) });
  }

  #rename(from: string, to: string): void {
    if (!this.#isBelow(from) && !this.#isBelow(to)) return;
    const id = this.#names.get(from);
    if (id === undefined || !this.#isBelow(to)) throw new Error(`trace: ${from} moved to ${to}`);
    const { folder: toFolder, name: toName } = this.#place(to);
    this.#events.push({ kind: "rename", ...this.#place(from), toFolder, toName, id });
    this.#names.delete(from);
    this.#names.set(to, id);
  }

  /** The descriptor may have been that of another process, which is gone. */
  #openFile(args: string): OpenFile | undefined {
    if (!fileOf(args).startsWith(this.#rootAsTraced)) return undefined;
    return this.#open.get(descriptorOf(args));
  }

  #isBelow(path: string): boolean {
    return path === this.#root || path.startsWith(`${this.#root}/`);
  }

  #place(path: string): { folder: FileId; name: string } {
    const folder = this.#names.get(dirname(path));
    if (folder === undefined) throw new Error(`trace: ${path} lies nowhere`);
    return { folder, name: basename(path) };
  }

  /** Calls that this does not know how to follow must not be about our files. */
  #refuse(name: string, args: string, strings: readonly string[]): void {
    const isOurs =
      this.#openFile(args) !== undefined ||
      strings.some((text) => text.length < 8_192 && this.#isBelow(textOf(text)));
    if (isOurs) throw new Error(`trace: ${name} is not followed`);
  }
}

function parseCall(body: string): Call | undefined {
  const begin = body.indexOf("(");
  const equals = body.lastIndexOf(" = ");
  if (begin < 0 || equals < 0) return undefined;
  const result = parseInt(body.slice(equals + 3), 10);
  if (Number.isNaN(result)) return undefined;
  const args = body.slice(begin + 1, body.lastIndexOf(")", equals));
  return { name: body.slice(0, begin), args, result };
}

/** The first argument, as a descriptor. */
function descriptorOf(args: string): number {
  const descriptor = parseInt(args, 10);
  return Number.isNaN(descriptor) ? -1 : descriptor;
}

/** The file that the first argument is open on, by name. */
function fileOf(args: string): string {
  const begin = args.indexOf("<");
  const end = args.indexOf(">");
  return begin >= 0 && end > begin ? args.slice(begin + 1, end) : "";
}

/** What stands between quotation marks: nothing but `\xhh`. */
function stringsOf(args: string): string[] {
  const found: string[] = [];
  for (let at = args.indexOf('"'); at >= 0;) {
    const end = args.indexOf('"', at + 1);
    found.push(args.slice(at + 1, end));
    at = args.indexOf('"', end + 1);
  }
  return found;
}

function bytesOf(text: string, bytes: number): Uint8Array {
  const data = Buffer.from(text.replaceAll("\\x", ""), "hex");
  if (data.byteLength < bytes) throw new TraceCutError();
  return data.subarray(0, bytes);
}

function textOf(text: string): string {
  return Buffer.from(text.replaceAll("\\x", ""), "hex").toString();
}

/** A path that may be relative to the directory before it. */
function pathIn(args: string, text: string, hasDirectory: boolean): string {
  const path = textOf(text);
  if (path.startsWith("/") || !hasDirectory) return path;
  const [, directory = ""] = /<([^>]*)>/.exec(args) ?? [];
  return join(textOf(directory), path);
}
