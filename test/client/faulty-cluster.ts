/**
 * Nodes that share one log and do all that a network and a failing leader can do to a write: refuse it, lose it, lose its answer, answer late,
 * take it much later than anybody thought, forget the session. What the log does with sections is the real thing (machine/sessions.ts); what was
 * run, and where, is there to compare with what the client was told.
 */
import { BargeError, type ErrorCode } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import { Sessions } from "../../src/machine/sessions.ts";
import { BatchKind, batchHeaderBytes, sealBatch } from "../../src/wire/batch.ts";
import { SectionResults } from "../../src/wire/section-results.ts";
import { readSectionHeader } from "../../src/wire/section.ts";
import { sessionCommandSection } from "../../src/wire/session-commands.ts";
import { encodeWriteReply } from "../../src/wire/client-messages.ts";
import { FakeNode, type Received } from "./fake-node.ts";

/** How likely each misfortune is; the rest goes well. */
export interface Weights {
  refuse: number;
  /** Not applied, no answer; the connection stays. */
  swallow: number;
  /** Applied, no answer. */
  loseAnswer: number;
  /** No answer; applied at some later time. */
  late: number;
  /** Cut before or after it is applied. */
  cut: number;
  unknown: number;
  delay: number;
  expire: number;
}

const ttlMs = 1_000_000;
const refusals = [
  "not_leader",
  "no_leader",
  "overloaded",
  "shutting_down",
  "sequence_gap",
] as const;

type Outcome =
  { readonly firstIndex: number; readonly results: Uint8Array } | { readonly code: ErrorCode };

export class FaultyCluster implements Disposable {
  readonly nodes: FakeNode[];
  /** Commands that were run, as text, in the order of the log, with the index of each. */
  readonly ran: { readonly text: string; readonly index: number }[] = [];
  healthy = false;
  readonly #random: () => number;
  readonly #weights: Weights;
  readonly #sessions: Sessions;
  #nextIndex = 1;
  #timeMs = 1;
  #late: Uint8Array[] = [];

  constructor(random: () => number, weights: Weights, count = 3) {
    this.#random = random;
    this.#weights = weights;
    this.#sessions = new Sessions(
      {
        run: (bytes, view, at, end, first, last, _from, results) => {
          let next = at;
          for (let index = first; index <= last && next < end; index++) {
            const length = view.getUint32(next, true);
            const text = new TextDecoder().decode(bytes.subarray(next + 4, next + 4 + length));
            this.ran.push({ text, index });
            // Some have results of their own, which a copy must find again.
            if (index % 3 === 0) results.result(index, 7, new TextEncoder().encode(`of ${text}`));
            next += 4 + length;
          }
        },
      },
      defaultLimits,
      2,
    );
    this.nodes = Array.from({ length: count }, (_, i) => {
      const node = new FakeNode(i + 1);
      node.answersControl = true;
      node.answer = (_node, request) => this.#answer(node, request);
      return node;
    });
    const members = Object.fromEntries(this.nodes.map((node) => [node.nodeId, node.endpoint]));
    for (const node of this.nodes) node.hello = { members, leader: 1 };
  }

  get endpoints(): string[] {
    return this.nodes.map(({ endpoint }) => endpoint);
  }

  /** Copies that were still on their way arrive. */
  deliverLate(): void {
    for (const section of this.#late.splice(0)) this.#apply(section);
  }

  [Symbol.dispose](): void {
    for (const node of this.nodes) node[Symbol.dispose]();
  }

  #answer(node: FakeNode, request: Received): void {
    if (request.type === "read") return node.read(request, () => ({ code: 2 }));
    if (request.type === "control") return this.#control(node, request);
    if (this.#late.length > 0 && this.#random() < 0.3) {
      this.#apply(this.#late.splice(Math.floor(this.#random() * this.#late.length), 1)[0]!);
    }
    const misfortune = this.healthy ? undefined : this.#draw();
    const section = request.section.slice();
    switch (misfortune) {
      case "refuse":
        return this.#refuse(node, request);
      case "swallow":
        return;
      case "loseAnswer":
        return void this.#apply(section);
      case "late":
        return void this.#late.push(section);
      case "cut":
        this.#maybeApply(section, 0.75);
        return node.cut();
      case "unknown":
        this.#maybeApply(section, 1);
        return node.refuse(request, new BargeError("outcome_unknown", "lost leadership"));
      case "delay":
        return this.#reply(node, request, this.#apply(section), this.#random() * 60);
      case "expire":
        this.#timeMs += ttlMs + 1;
        return this.#reply(node, request, this.#apply(section), 0);
      default:
        return this.#reply(node, request, this.#apply(section), 0);
    }
  }

  /** Now or later, or, at less than 1, never. */
  #maybeApply(section: Uint8Array, chance: number): void {
    const drawn = this.#random();
    if (drawn < 0.5) this.#apply(section);
    else if (drawn < chance) this.#late.push(section);
  }

  #control(node: FakeNode, request: Received & { readonly type: "control" }): void {
    if (!this.healthy && this.#random() < 0.2) return this.#refuse(node, request);
    if (request.operation === "status") {
      return node.refuse(request, new BargeError("bad_request", "no status here"));
    }
    if (request.operation !== "sessionOpen") return node.control(request, {});
    const section = sessionCommandSection({ op: "open", ttlMs, principal: new Uint8Array(0) });
    const opened = this.#apply(section);
    if (!("firstIndex" in opened)) throw new Error("a session was refused");
    const windowSections = 4;
    node.control(request, { session: opened.firstIndex, ttlMs, windowSections, windowBytes: 1 });
  }

  #refuse(node: FakeNode, request: Received): void {
    const code = refusals[Math.floor(this.#random() * refusals.length)]!;
    const other = this.nodes[Math.floor(this.#random() * this.nodes.length)]!;
    const hint = code === "not_leader" ? { leaderHint: other.endpoint } : {};
    node.refuse(request, new BargeError(code, "not now", hint));
  }

  #draw(): keyof Weights | undefined {
    let drawn = this.#random();
    for (const [name, weight] of Object.entries(this.#weights)) {
      drawn -= weight;
      if (drawn < 0) return name as keyof Weights;
    }
    return undefined;
  }

  #reply(node: FakeNode, request: Received, outcome: Outcome, delayMs: number): void {
    const send = (): void => {
      if (request.connection.closed) return;
      if ("code" in outcome)
        return node.refuse(request, new BargeError(outcome.code, "by the log"));
      const { firstIndex, results } = outcome;
      encodeWriteReply(request.connection.out, request.request, firstIndex, results);
      request.connection.flush();
    };
    if (delayMs === 0) send();
    else setTimeout(send, delayMs);
  }

  /** As one batch of the log. */
  #apply(section: Uint8Array): Outcome {
    const { count } = readSectionHeader(section, 0)!;
    const bytes = new Uint8Array(batchHeaderBytes + section.byteLength);
    bytes.set(section, batchHeaderBytes);
    const firstIndex = this.#nextIndex;
    this.#nextIndex += count;
    const header = { group: 0, kind: BatchKind.commands, firstIndex, count, term: 1, prevCrc: 0 };
    const batch = sealBatch({ ...header, timeMs: this.#timeMs++ }, bytes);
    const results = new SectionResults();
    let outcome: Outcome | undefined;
    this.#sessions.apply(batch, firstIndex, {
      result: (index, code, own) => results.add(index - firstIndex, code, own),
      repeated: (_index, _count, originalIndex, kept) => {
        outcome = { firstIndex: originalIndex, results: kept.slice() };
      },
      refused: (_index, _count, code) => {
        outcome = { code };
      },
    });
    return outcome ?? { firstIndex, results: results.view().slice() };
  }
}
