/**
 * Queries on their way to the application: so many at once, the others wait. Each is asked once the application has all that was applied when it came, so that
 * one that has forgotten something since answers nothing older; and each is answered, within a bound of time.
 */
import type { Limits } from "../../limits.ts";
import { type AnswerSink, ResultCode } from "../machine.ts";
import type { AppLink } from "./app-link.ts";
import type { AppTraffic } from "./app-traffic.ts";
import { bytesType } from "./contract.ts";

interface Read {
  readonly query: Uint8Array;
  readonly answers: AnswerSink;
  /** Not before this is applied. */
  readonly index: number;
  /** Undefined until the next turn. */
  untilMs: number | undefined;
}

export class AppReads {
  readonly #link: AppLink;
  readonly #limits: Limits;
  readonly #traffic: AppTraffic;
  #waiting: Read[] = [];
  readonly #asked = new Set<Read>();
  #waitingBytes = 0;
  /** Since the process began. */
  answered = 0;
  failed = 0;

  constructor(link: AppLink, limits: Limits, traffic: AppTraffic) {
    this.#traffic = traffic;
    this.#link = link;
    this.#limits = limits;
  }

  get size(): number {
    return this.#waiting.length + this.#asked.size;
  }

  /** `query` may be used again by the caller. */
  add(query: Uint8Array, index: number, answers: AnswerSink): void {
    const { appReadWaitersMax, appReadWaiterBytesMax } = this.#limits;
    const isCrowded =
      this.#waiting.length >= appReadWaitersMax ||
      this.#waitingBytes + query.byteLength > appReadWaiterBytesMax;
    if (isCrowded) return this.#fail(answers, "too many reads wait for it");
    this.#waitingBytes += query.byteLength;
    this.#waiting.push({
      query: query.slice(),
      answers,
      index,
      untilMs: undefined,
    });
  }

  /** `appliedIndex`: the application has everything up to there, or -1 while that is not known. */
  work(nowMs: number, appliedIndex: number): void {
    if (this.#waiting.length === 0) return;
    const kept: Read[] = [];
    for (const read of this.#waiting) {
      read.untilMs ??= nowMs + this.#limits.appTimeoutMs;
      if (nowMs >= read.untilMs) {
        this.#waitingBytes -= read.query.byteLength;
        this.#fail(read.answers, this.#link.waitsFor ?? "it had too much else to answer");
      } else if (this.#mayAsk && this.#link.isOpen && appliedIndex >= read.index) {
        this.#waitingBytes -= read.query.byteLength;
        this.#ask(read);
      } else kept.push(read);
    }
    this.#waiting = kept;
  }

  get #mayAsk(): boolean {
    const { size } = this.#asked;
    if (size === 0) return true;
    return size < this.#limits.appReadsMax && this.#traffic.hasRoomForReads;
  }

  #ask(read: Read): void {
    this.#asked.add(read);
    this.#traffic.reads(1);
    const { query } = read;
    this.#link.ask(
      { name: "Read", contentType: bytesType, body: query },
      {
        replied: ({ body }) => {
          this.#ended(read);
          this.answered++;
          read.answers.answer(ResultCode.ok, body);
        },
        failed: (reason) => {
          this.#ended(read);
          this.#fail(read.answers, reason);
        },
      },
    );
  }

  #ended(read: Read): void {
    this.#asked.delete(read);
    this.#traffic.reads(-1);
  }

  /** What is under way has no answer. It is asked again: whoever has forgotten something since must not answer. */
  closed(): void {
    this.#traffic.reads(-this.#asked.size);
    for (const read of this.#asked) {
      this.#waitingBytes += read.query.byteLength;
      this.#waiting.push(read);
    }
    this.#asked.clear();
  }

  #fail(answers: AnswerSink, reason: string): void {
    this.failed++;
    answers.answer(ResultCode.applicationFailed, new TextEncoder().encode(reason));
  }

  close(): void {
    this.#traffic.reads(-this.#asked.size);
    for (const { answers } of [...this.#waiting, ...this.#asked])
      this.#fail(answers, "this node stops, or has the group no more");
    this.#waiting = [];
    this.#asked.clear();
  }
}
