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
import { type Batch, batchHeaderBytes, lastIndexOf } from "../wire/batch.ts";
import { SectionKind, SectionReader, sectionHeaderBytes } from "../wire/section.ts";
import { SectionResults } from "../wire/section-results.ts";
import { readSessionCommand } from "../wire/session-commands.ts";
import { ResultCode, type ResultSink } from "./machine.ts";
import { RequestIds } from "./request-ids.ts";
import { BytesReader, BytesWriter } from "./saved-bytes.ts";
import { SessionTable } from "./session-table.ts";

/** From this apply version on there are sessions; below it, sections of every kind are plain, as they were. */
export const sessionsVersion = 2;

/** What applies the commands of one section. */
export interface SectionRunner {
  /**
   * The commands lie from `at` up to `end`, each behind its length, and begin at log index `first`; only those from index `from` on are to be
   * applied. Total: bad bytes become results.
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
  ): void;
}

const savedFormat = 1;
const nothing = new Uint8Array(0);

export class Sessions implements ResultSink {
  readonly #runner: SectionRunner;
  readonly #resultBytesMax: number;
  readonly #table: SessionTable;
  readonly #requestIds: RequestIds;
  readonly #section = new SectionReader();
  #version: number;
  /** Of the section that runs: where its results go, and what they are. */
  #sink: ResultSink | undefined;
  #first = 0;
  readonly #results = new SectionResults();
  /** Since the process began. */
  #repeated = 0;
  #refused = 0;

  constructor(runner: SectionRunner, limits: Limits, version: number) {
    this.#runner = runner;
    this.#resultBytesMax = limits.resultBytesMax;
    this.#table = new SessionTable(limits);
    this.#requestIds = new RequestIds(limits);
    this.#version = version;
  }

  /** How commands take effect in this group. */
  get version(): number {
    return this.#version;
  }

  /** The log says so: never lowered. */
  raise(version: number): void {
    this.#version = Math.max(this.#version, version);
  }

  /** Applies the commands of `batch` from index `from` on. */
  apply(batch: Batch, from: number, results: ResultSink): void {
    const { bytes, timeMs } = batch;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    // A command takes four bytes and more, so a larger count is a lie, and the work stays bounded by the bytes that came.
    const last = Math.min(lastIndexOf(batch), batch.firstIndex + bytes.byteLength);
    const hasSessions = this.#version >= sessionsVersion;
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
        this.#runner.run(bytes, view, bodyAt, at, index, sectionLast, from, results);
      } else if (index >= from) {
        this.#guarded(bytes, view, bodyAt, at, index, sectionLast, timeMs, results);
      }
      index = sectionLast + 1;
    }
  }

  #guarded(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    timeMs: number,
    results: ResultSink,
  ): void {
    const { kind } = this.#section;
    if (kind === SectionKind.session) {
      this.#ofSession(bytes, view, at, end, first, last, timeMs, results);
    } else if (kind === SectionKind.keyed) {
      this.#ofRequest(bytes, view, at, end, first, last, timeMs, results);
    } else this.#control(view, at, end, first, last, timeMs, results);
  }

  #ofSession(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    timeMs: number,
    results: ResultSink,
  ): void {
    const { session: id, firstSeq, count, crc, doneUpTo } = this.#section;
    const session = this.#table.use(id, timeMs);
    if (session === undefined) return this.#refuse(first, count, "session_expired", results);
    this.#table.confirm(session, doneUpTo);
    if (firstSeq === session.nextSeq && Number.isSafeInteger(firstSeq + count)) {
      const kept = this.#run(bytes, view, at, end, first, last, results);
      return this.#table.applied(session, {
        firstSeq,
        count,
        crc,
        firstIndex: first,
        results: kept,
      });
    }
    if (firstSeq > session.nextSeq) return this.#refuse(first, count, "sequence_gap", results);
    const known = this.#table.find(session, firstSeq);
    if (known === undefined) {
      const oldest = session.window[0]?.firstSeq ?? session.nextSeq;
      const trimmed = firstSeq > 0 && firstSeq + count <= oldest;
      return this.#refuse(first, count, trimmed ? "result_forgotten" : "session_mismatch", results);
    }
    this.#again(known.crc === crc && known.count === count, known, first, count, results);
  }

  #ofRequest(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    timeMs: number,
    results: ResultSink,
  ): void {
    const { session, firstSeq, doneUpTo, count, crc } = this.#section;
    const id = { session, firstSeq, doneUpTo };
    const known = this.#requestIds.find(id);
    if (known !== undefined) return this.#again(known.crc === crc, known, first, count, results);
    if (this.#requestIds.full) return this.#refuse(first, count, "request_ids_full", results);
    const kept = this.#run(bytes, view, at, end, first, last, results);
    this.#requestIds.add(id, crc, first, timeMs, kept ?? nothing);
  }

  /** The section was applied before, if it is the same. */
  #again(
    same: boolean,
    { firstIndex, results: kept }: { firstIndex: number; results: Uint8Array | undefined },
    first: number,
    count: number,
    results: ResultSink,
  ): void {
    if (!same) return this.#refuse(first, count, "session_mismatch", results);
    if (kept === undefined) return this.#refuse(first, count, "result_forgotten", results);
    this.#repeated++;
    results.repeated(first, count, firstIndex, kept);
  }

  #refuse(first: number, count: number, code: ErrorCode, results: ResultSink): void {
    this.#refused++;
    results.refused(first, count, code);
  }

  /** Runs a section; returns a copy of its results, undefined where they are over the bound. */
  #run(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    results: ResultSink,
  ): Uint8Array | undefined {
    this.#sink = results;
    this.#first = first;
    this.#results.reset();
    this.#runner.run(bytes, view, at, end, first, last, first, this);
    this.#sink = undefined;
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

  #control(
    view: DataView,
    at: number,
    end: number,
    first: number,
    last: number,
    timeMs: number,
    results: ResultSink,
  ): void {
    const length = view.getUint32(at, true);
    const whole = first === last && at + 4 + length === end;
    const command = whole ? readSessionCommand(view, at + 4, length) : undefined;
    if (command === undefined) {
      for (let index = first; index <= last; index++) {
        results.result(index, ResultCode.malformed, undefined);
      }
      return;
    }
    if (command.op === "open") {
      const opened = this.#table.open(first, command.ttlMs, command.principal, timeMs);
      if (!opened) this.#refuse(first, 1, "sessions_full", results);
    } else if (command.op === "close") {
      this.#table.close(command.session);
    } else if (this.#table.use(command.session, timeMs) === undefined) {
      this.#refuse(first, 1, "session_expired", results);
    }
  }

  #sweep(timeMs: number): void {
    this.#table.sweep(timeMs);
    this.#requestIds.sweep(timeMs);
  }

  /** All that is to be saved with the data; empty where there is nothing. */
  save(): Uint8Array {
    if (this.#version < sessionsVersion) return nothing;
    const out = new BytesWriter();
    out.u32(savedFormat);
    this.#table.save(out);
    this.#requestIds.save(out);
    return out.end();
  }

  load(version: number, saved: Uint8Array): void {
    this.#version = version;
    this.#table.clear();
    this.#requestIds.clear();
    if (saved.byteLength === 0) return;
    const reader = new BytesReader(saved);
    const format = reader.u32();
    if (format !== savedFormat) throw new Error(`sessions: saved in the unknown format ${format}`);
    this.#table.load(reader);
    this.#requestIds.load(reader);
    if (!reader.ended) throw new Error("sessions: there is more than was saved");
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
