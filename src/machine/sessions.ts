/**
 * What stands before every state machine: it walks the sections of a batch and lets those run that are to run. Plain ones always; those of a
 * session each once and in order; those under a request id once [9-12]. What it knows is saved with the machine's data, in the same
 * transaction [15], and depends on the log alone.
 *
 *     section ─┬─ plain ───────────────────────────────▶ run
 *              ├─ session: its number is due ──────────▶ run, keep the results
 *              │           it was applied, same bytes ─▶ the results of then
 *              │           neither ────────────────────▶ refused, in words of errors.ts
 *              ├─ keyed: as a session of one section, for as long as an id is kept
 *              └─ control: opens, keeps alive or closes a session
 */
import type { ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import {
  applyVersionOf,
  type Batch,
  batchHeaderBytes,
  lastIndexOf,
  raisedWith,
} from "../wire/batch.ts";
import { systemSeedBytesMax } from "../wire/registry.ts";
import { seal, sealBroken, sealBytes } from "../wire/sealed-bytes.ts";
import { SectionKind, SectionReader, sectionHeaderBytes } from "../wire/section.ts";
import { SectionResults } from "../wire/section-results.ts";
import { principalBytesMax, readSessionCommand } from "../wire/session-commands.ts";
import { registryVersion } from "../wire/versions.ts";
import { ResultCode, type ResultSink } from "./machine.ts";
import { RequestIds } from "./request-ids.ts";
import { BytesReader, BytesWriter, SavedBytesError } from "./saved-bytes.ts";
import { type AppliedSection, SessionTable } from "./session-table.ts";

/** From this apply version on there are sessions; below it, sections of every kind are plain, as they were. */
export const sessionsVersion = 2;

/** What applies the commands of one section. */
export interface SectionRunner {
  /**
   * The commands lie from `at` up to `end`, each behind its length, and begin at log index `first`; only those from index `from` on are to be
   * applied. Total: bad bytes become results. Returns false where all of it was applied before and what came of it is not known: then it has told no
   * result.
   */
  run(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    from: number,
    results: ResultSink,
  ): void | false;
}

export interface SessionsOptions {
  /** Results come from an application and may differ from node to node: nothing but what is answered depends on them [15]. */
  readonly resultsDiffer?: boolean;
}

/** Of what is saved: a session with its principal, and each section of its window, but for results. */
const sessionHeadBytesMax = principalBytesMax + 256;
const sectionHeadBytesMax = 64;
const nothing = new Uint8Array(0);
const viewOfNothing = new DataView(nothing.buffer);

export class Sessions implements ResultSink {
  readonly #runner: SectionRunner;
  readonly #resultBytesMax: number;
  readonly #table: SessionTable;
  readonly #requestIds: RequestIds;
  #version: number;
  /** Carried by the entry that raised the version. */
  #seed: Uint8Array = nothing;
  /** The section at hand: its commands, the log index of the first one, and the cluster's time. */
  readonly #section = new SectionReader();
  #bytes: Uint8Array = nothing;
  #view: DataView = viewOfNothing;
  #at = 0;
  #end = 0;
  #first = 0;
  #timeMs = 0;
  /** While it runs: where its results go, and what they are. */
  #sink: ResultSink | undefined;
  readonly #results = new SectionResults();
  #isKnown = true;
  /** Since the process began. */
  #repeated = 0;
  #refused = 0;

  constructor(
    runner: SectionRunner,
    limits: Limits,
    version: number,
    { resultsDiffer = false }: SessionsOptions = {},
  ) {
    this.#runner = runner;
    this.#resultBytesMax = limits.resultBytesMax;
    this.#table = new SessionTable(limits);
    this.#requestIds = new RequestIds(limits, resultsDiffer);
    this.#version = version;
  }

  /** How commands take effect in this group. */
  get version(): number {
    return this.#version;
  }

  /** The first members of `system` (wire/registry.ts); empty where the log has not said any. */
  get systemSeed(): Uint8Array {
    return this.#seed;
  }

  /** The log says so: never lowered. */
  raise(batch: Batch): void {
    const version = applyVersionOf(batch);
    const seed = raisedWith(batch);
    if (version < this.#version) return;
    this.#version = version;
    if (seed.byteLength > 0 && seed.byteLength <= systemSeedBytesMax) this.#seed = seed.slice();
  }

  /** Applies the commands of `batch` from index `from` on. */
  apply(batch: Batch, from: number, results: ResultSink): void {
    this.#apply(batch, from, results);
    // Nothing keeps the batch, and the frame that it came in, in memory.
    this.#bytes = nothing;
    this.#view = viewOfNothing;
  }

  #apply(batch: Batch, from: number, results: ResultSink): void {
    const { bytes, timeMs } = batch;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    // A command takes four bytes and more, so a larger count is a lie, and the work stays bounded by the bytes that came.
    const last = Math.min(lastIndexOf(batch), batch.firstIndex + bytes.byteLength);
    const hasSessions = this.#version >= sessionsVersion;
    this.#bytes = bytes;
    this.#view = view;
    this.#timeMs = timeMs;
    if (hasSessions) this.#sweep(timeMs);
    const section = this.#section;
    const kindMax = hasSessions ? SectionKind.control : SectionKind.keyed;
    let index = batch.firstIndex;
    let at = batchHeaderBytes;
    while (index <= last) {
      const readable = section.read(view, at) && section.kind <= kindMax;
      if (!readable || section.count > last - index + 1) {
        for (let each = Math.max(index, from); each <= last; each++) {
          results.result(each, ResultCode.malformed, undefined);
        }
        return;
      }
      const bodyAt = at + sectionHeaderBytes;
      const sectionLast = index + section.count - 1;
      at = bodyAt + section.bodyBytes;
      if (section.kind === SectionKind.plain || !hasSessions) {
        const isKnown = this.#runner.run(
          bytes,
          view,
          bodyAt,
          at,
          index,
          sectionLast,
          from,
          results,
        );
        if (isKnown === false) results.refused(index, section.count, "result_forgotten");
      } else if (index >= from) {
        this.#at = bodyAt;
        this.#end = at;
        this.#first = index;
        this.#guarded(results);
      }
      index = sectionLast + 1;
    }
  }

  /** The section lies where the fields say. */
  #guarded(results: ResultSink): void {
    const { kind } = this.#section;
    if (kind === SectionKind.session) this.#ofSession(results);
    else if (kind === SectionKind.keyed) this.#ofRequest(results);
    else this.#control(results);
  }

  #ofSession(results: ResultSink): void {
    const { session: id, firstSeq, count, crc, doneUpTo } = this.#section;
    const session = this.#table.use(id, this.#timeMs);
    if (session === undefined) return this.#refuse("session_expired", results);
    this.#table.confirm(session, doneUpTo);
    if (firstSeq === session.nextSeq && Number.isSafeInteger(firstSeq + count)) {
      const kept = this.#run(results);
      const applied = { firstSeq, count, crc, firstIndex: this.#first, results: kept };
      return this.#table.applied(session, applied);
    }
    if (firstSeq > session.nextSeq) return this.#refuse("sequence_gap", results);
    const known = this.#table.find(session, firstSeq);
    if (known !== undefined) {
      return this.#again(known.crc === crc && known.count === count, known, results);
    }
    const oldest = session.window[0]?.firstSeq ?? session.nextSeq;
    const isForgotten = firstSeq > 0 && firstSeq + count <= oldest;
    this.#refuse(isForgotten ? "result_forgotten" : "session_mismatch", results);
  }

  #ofRequest(results: ResultSink): void {
    const { session, firstSeq, doneUpTo, crc } = this.#section;
    const id = { session, firstSeq, doneUpTo };
    const known = this.#requestIds.find(id);
    if (known !== undefined) return this.#again(known.crc === crc, known, results);
    if (this.#requestIds.full) return this.#refuse("request_ids_full", results);
    const kept = this.#run(results) ?? (this.#isKnown ? nothing : undefined);
    this.#requestIds.add(id, crc, this.#first, this.#timeMs, kept);
  }

  #control(results: ResultSink): void {
    const view = this.#view;
    const { count } = this.#section;
    const length = view.getUint32(this.#at, true);
    const isWhole = count === 1 && this.#at + 4 + length === this.#end;
    const command = isWhole ? readSessionCommand(view, this.#at + 4, length) : undefined;
    if (command === undefined) {
      for (let at = 0; at < count; at++) {
        results.result(this.#first + at, ResultCode.malformed, undefined);
      }
    } else if (command.op === "open") {
      const { ttlMs, principal } = command;
      const isOpen = this.#table.open(this.#first, ttlMs, principal, this.#timeMs);
      if (!isOpen) this.#refuse("sessions_full", results);
    } else if (command.op === "close") {
      this.#table.close(command.session);
    } else if (this.#table.use(command.session, this.#timeMs) === undefined) {
      this.#refuse("session_expired", results);
    }
  }

  /** The section was applied before, if it is the same. */
  #again(
    isSame: boolean,
    { firstIndex, results: kept }: Pick<AppliedSection, "firstIndex" | "results">,
    results: ResultSink,
  ): void {
    if (!isSame) return this.#refuse("session_mismatch", results);
    if (kept === undefined) return this.#refuse("result_forgotten", results);
    this.#repeated++;
    results.repeated(this.#first, this.#section.count, firstIndex, kept);
  }

  #refuse(code: ErrorCode, results: ResultSink): void {
    this.#refused++;
    results.refused(this.#first, this.#section.count, code);
  }

  /** Runs the section; returns a copy of its results, undefined where they are over the bound, or not known. */
  #run(results: ResultSink): Uint8Array | undefined {
    const first = this.#first;
    const last = first + this.#section.count - 1;
    this.#sink = results;
    this.#results.reset();
    const ran = this.#runner.run(
      this.#bytes,
      this.#view,
      this.#at,
      this.#end,
      first,
      last,
      first,
      this,
    );
    this.#sink = undefined;
    this.#isKnown = ran !== false;
    if (!this.#isKnown) {
      results.refused(first, this.#section.count, "result_forgotten");
      return undefined;
    }
    const { byteLength } = this.#results;
    if (byteLength === 0) return nothing;
    return byteLength <= this.#resultBytesMax ? this.#results.view().slice() : undefined;
  }

  result(index: number, code: ResultCode, bytes: Uint8Array | undefined): void {
    if (this.#results.byteLength <= this.#resultBytesMax) {
      this.#results.add(index - this.#first, code, bytes);
    }
    this.#sink!.result(index, code, bytes);
  }

  repeated(): void {
    throw new Error("sessions: a section within a section");
  }

  refused(): void {
    throw new Error("sessions: a section within a section");
  }

  #sweep(timeMs: number): void {
    this.#table.sweep(timeMs);
    this.#requestIds.sweep(timeMs);
  }

  /** All that is to be saved with the data; empty where there is nothing. */
  save(): Uint8Array {
    if (this.#version < sessionsVersion) return nothing;
    const out = new BytesWriter();
    out.bytes(new Uint8Array(sealBytes));
    // Builds that know no seed read what is saved below this version.
    if (this.#version >= registryVersion) {
      out.u32(this.#seed.byteLength);
      out.bytes(this.#seed);
    }
    this.#table.save(out);
    this.#requestIds.save(out);
    const saved = out.end();
    seal(saved);
    return saved;
  }

  load(version: number, saved: Uint8Array): void {
    this.#version = version;
    this.#seed = nothing;
    this.#table.clear();
    this.#requestIds.clear();
    if (saved.byteLength === 0) return;
    const broken = sealBroken(saved);
    if (broken !== undefined) throw new SavedBytesError(broken);
    const reader = new BytesReader(saved.subarray(sealBytes));
    const seedBytes = version < registryVersion ? 0 : reader.u32();
    if (seedBytes > systemSeedBytesMax) throw new SavedBytesError("its seed is too long");
    this.#seed = reader.bytes(seedBytes);
    this.#table.load(reader);
    this.#requestIds.load(reader);
    if (!reader.ended) throw new SavedBytesError("there is more than was saved");
  }

  figures(): Record<string, number> {
    return {
      sessions: this.#table.count,
      requestIds: this.#requestIds.count,
      sessionBytes: this.#table.resultBytes + this.#requestIds.byteLength,
      sectionsRepeated: this.#repeated,
      sectionsRefused: this.#refused,
    };
  }
}

/** Whether they can be loaded. */
export function areSessions(version: number, saved: Uint8Array, limits: Limits): boolean {
  try {
    new Sessions({ run: () => undefined }, limits, version).load(version, saved);
    return true;
  } catch (error) {
    if (error instanceof SavedBytesError) return false;
    throw error;
  }
}

/** What is saved is below that, however much clients keep open. */
export function sessionsBytesMax(limits: Limits): number {
  const { sessionsMax, sessionWindowSections, sessionResultBytesMax, requestIdBytesMax } = limits;
  const heads = sessionsMax * (sessionHeadBytesMax + sessionWindowSections * sectionHeadBytesMax);
  // Each session's own share of the results comes on top of what all have.
  return heads + 2 * sessionResultBytesMax + requestIdBytesMax + systemSeedBytesMax;
}
