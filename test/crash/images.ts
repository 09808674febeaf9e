/**
 * Crash images: lives of a node's storage are recorded, the folder is rebuilt as a power cut might have left it at any of their moments, and
 * the whole recovery runs on each. A later life begins on an image that an earlier one left. `SOURCE` is where src/ and test/ are: another copy of them
 * has a planted bug.
 */
import type { Subprocess } from "bun";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { Random } from "../sim/random.ts";
import { FileSystem, keptKinds } from "./file-system.ts";
import { type Mark, Promises } from "./promises.ts";
import type { ImageTask, ImageVerdict } from "./recover-images.ts";
import { noStart, stateKey } from "./storage-node.ts";
import { type FileId, record, type Trace, TraceCutError, type TraceEvent } from "./trace.ts";

export interface ImageOptions {
  readonly seed: number;
  readonly images: number;
  /** Lives, one after the other, among which the images are shared out. */
  readonly lives?: number;
  /** Whose lives: the storage alone, which does everything that there is; or a whole daemon, alone in its cluster. */
  readonly of?: Subject;
  /** Things that a life does: writes, where it is a daemon. */
  readonly steps?: number;
  /** Each image in so many has a bit turned in its log besides. */
  readonly rotEach?: number;
  readonly source?: string;
  /** Ends with the first finding. */
  readonly first?: boolean;
}

export type Subject = "storage" | "node";

export interface ImageReport {
  readonly images: number;
  /** Of each kind, by name. */
  readonly kept: ReadonlyMap<string, number>;
  /** What the lives did, and how often. */
  readonly did: ReadonlyMap<string, number>;
  readonly events: number;
  readonly findings: readonly string[];
}

const here = join(import.meta.dir, "../..");
/** After so many its threads are too many. */
const imagesPerProcess = 100;
const triesMax = 3;
/** Memory where there is: a sync costs nothing there. */
const place = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

export async function crashImages(options: ImageOptions): Promise<ImageReport> {
  const { seed, images, lives = 3, steps = 400, rotEach = 0, source = here } = options;
  const subject = options.of ?? "storage";
  const random = new Random(seed);
  const folder = mkdtempSync(join(place, "barge-images-"));
  const recoverer = new Recoverer(source);
  const kept = new Map<string, number>();
  const did = new Map<string, number>();
  const findings: string[] = [];
  const noHardState = { term: 0, votedFor: 0, commit: 0 };
  let promises =
    subject === "node" ? new Promises() : new Promises(stateKey(noHardState, noStart, 0));
  /** What the next life begins on. */
  let found = new Map<string, Uint8Array | undefined>();
  let events = 0;
  let made = 0;
  try {
    lives: for (let life = 1; life <= lives; life++) {
      const root = join(folder, `life-${life}`, "root");
      const trace = await live(source, subject, root, found, seed * 100 + life, steps);
      events += trace.events.length;
      found = new Map();
      const due = Math.round((images * life) / lives) - made;
      const cuts = cutsOf(trace, due, random);
      const fileSystem = new FileSystem(trace);
      // The next life begins on one of these images.
      const heir = random.below(due);
      let after = promises;
      let at = 0;
      for (const [number, cut] of cuts.entries()) {
        while (at < cut) take(fileSystem, promises, trace.events[at++]!);
        const kind = keptKinds[(made + number) % keptKinds.length]!;
        const rots = rotEach > 0 && (made + number) % rotEach === 0;
        const isRotten = rots && number !== heir && promises.hasSynced;
        const name = isRotten ? "all, with a bit turned" : kind;
        add(kept, name, 1);
        const image = fileSystem.image(isRotten ? "all" : kind, random);
        if (isRotten) image.rot(random);
        const path = join(folder, "image");
        mkdirSync(path);
        image.save(path);
        if (number === heir) readBelow(path, "", found);
        const expectation = promises.at(isRotten);
        const verdict = await recoverer.judge({ folder: path, bootId: random.u32(), expectation });
        if (number === heir) after = promises.endedAt(verdict);
        if (verdict.wrong === "") continue;
        findings.push(
          `life ${life}, ${name} at ${cut} of ${trace.events.length}: ${verdict.wrong}`,
        );
        if (options.first === true || number === heir) break lives;
      }
      for (const event of trace.events.slice(at)) take(fileSystem, promises, event);
      for (const [what, count] of promises.counts) add(did, what, count);
      for (const [what, count] of fileChanges(trace)) add(did, what, count);
      promises = after;
      made += due;
    }
  } finally {
    await recoverer.end();
    rmSync(folder, { recursive: true, force: true });
  }
  return { images: made, kept, did, events, findings };
}

function add(counts: Map<string, number>, what: string, count: number): void {
  counts.set(what, (counts.get(what) ?? 0) + count);
}

/** How often the log went on to another segment, and how. */
function fileChanges({ events }: Trace): Map<string, number> {
  const counts = new Map<string, number>();
  for (const event of events) {
    if (event.kind === "create" && /^\d+\.db$/.test(event.name)) add(counts, "segment", 1);
    if (event.kind === "rename" && /^\d+\.db-wal$/.test(event.toName)) add(counts, "recycling", 1);
    if (event.kind === "syncEnds") add(counts, "sync", 1);
  }
  return counts;
}

/** The trace of a life; of another one like it, where strace did not see all of the first. */
async function live(...life: Parameters<typeof liveOnce>): Promise<Trace> {
  for (let tries = 1; ; tries++) {
    try {
      return await liveOnce(...life);
    } catch (error) {
      if (!(error instanceof TraceCutError) || tries === triesMax) throw error;
    }
  }
}

async function liveOnce(
  source: string,
  subject: Subject,
  root: string,
  found: ReadonlyMap<string, Uint8Array | undefined>,
  seed: number,
  steps: number,
): Promise<Trace> {
  mkdirSync(root, { recursive: true });
  for (const [path, bytes] of found) {
    if (bytes === undefined) mkdirSync(join(root, path), { mode: 0o700 });
    else writeFileSync(join(root, path), bytes, { mode: 0o600 });
  }
  const program = join(source, `test/crash/${subject}-life.ts`);
  // Killed half-way and started again: then the disk has all, yet not all of it durably.
  const [first, second] = [0, 1].map((part) =>
    [process.execPath, program, join(root, "node"), `${seed * 2 + part}`, `${steps / 2}`].join(" "),
  );
  const command = ["/bin/sh", "-c", `${first} kill; exec ${second}`];
  const { trace, exitCode, stderr } = await record(command, root, found).finally(() =>
    rmSync(join(root, ".."), { recursive: true, force: true }),
  );
  if (exitCode !== 0) throw new Error(`a life of seed ${seed} ended with ${exitCode}: ${stderr}`);
  return trace;
}

/** Moments of a trace, rising: half of them by chance, half around what happens to each kind of file, however seldom that is. */
function cutsOf(trace: Trace, count: number, random: Random): number[] {
  const byKind = [...momentsByKind(trace).values()];
  const { length } = trace.events;
  const cuts = Array.from({ length: count }, (_, number) => {
    if (number % 2 === 0 || byKind.length === 0) return random.between(0, length);
    return Math.min(length, random.pick(random.pick(byKind)) + random.between(0, 3));
  });
  return cuts.sort((a, b) => a - b);
}

/** When names, lengths or what is durable changed, by the name of the file without its number. */
function momentsByKind({ found, events }: Trace): Map<string, number[]> {
  const kinds = new Map<FileId, string>();
  const kindOf = (name: string): string => name.replaceAll(/\d+/g, "N");
  for (const [path, { id }] of found) kinds.set(id, kindOf(basename(path)));
  const moments = new Map<string, number[]>();
  for (const [at, event] of events.entries()) {
    if (event.kind === "write" || event.kind === "mark") continue;
    if (event.kind === "create") kinds.set(event.id, kindOf(event.name));
    if (event.kind === "rename") kinds.set(event.id, kindOf(event.toName));
    const kind = event.kind === "unlink" ? kindOf(event.name) : (kinds.get(event.id) ?? "");
    // It does not outlive the machine.
    if (kind.endsWith("-shm")) continue;
    const known = moments.get(kind);
    if (known === undefined) moments.set(kind, [at]);
    else known.push(at);
  }
  return moments;
}

function take(fileSystem: FileSystem, promises: Promises, event: TraceEvent): void {
  fileSystem.step(event);
  if (event.kind === "mark") promises.take(JSON.parse(event.text) as Mark);
}

/** All that lies below a folder, directories before what is in them. */
function readBelow(path: string, below: string, into: Map<string, Uint8Array | undefined>): void {
  for (const entry of readdirSync(join(path, below), { withFileTypes: true })) {
    const name = join(below, entry.name);
    into.set(name, entry.isDirectory() ? undefined : readFileSync(join(path, name)));
    if (entry.isDirectory()) readBelow(path, name, into);
  }
}

/** Hands folders to a process that recovers them, and starts another one now and then. */
class Recoverer {
  readonly #program: string;
  #child: Subprocess<"pipe", "pipe", "pipe"> | undefined;
  #answers: AsyncIterator<string> | undefined;
  #judged = 0;

  constructor(source: string) {
    this.#program = join(source, "test/crash/recover-images.ts");
  }

  async judge(task: ImageTask): Promise<ImageVerdict> {
    if (this.#judged++ % imagesPerProcess === 0) {
      await this.end();
      this.#start();
    }
    const child = this.#child!;
    void child.stdin.write(`${JSON.stringify(task)}\n`);
    void child.stdin.flush();
    const { value, done } = await this.#answers!.next();
    if (done !== true) return JSON.parse(value) as ImageVerdict;
    // It ended itself, as it does where the disk cannot be trusted.
    const stderr = await new Response(child.stderr).text();
    this.#judged = 0;
    rmSync(task.folder, { recursive: true, force: true });
    return {
      wrong: `ends with ${await child.exited}: ${stderr}`,
      state: "",
      commit: 0,
      generation: 0,
    };
  }

  async end(): Promise<void> {
    void this.#child?.stdin.end();
    await this.#child?.exited;
    this.#child = undefined;
  }

  #start(): void {
    this.#child = Bun.spawn([process.execPath, this.#program], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#answers = linesOf(this.#child.stdout);
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    rest += decoder.decode(bytes, { stream: true });
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      yield rest.slice(0, end);
      rest = rest.slice(end + 1);
    }
  }
}
