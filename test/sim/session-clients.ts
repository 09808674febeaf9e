/**
 * Simulated clients with sessions: they pipeline sections, send them again to any node whatever happened, now and then though they have their
 * answer, change nodes, forget to confirm, fall asleep for longer than their session lasts. And clients that put a request id on each write. What they
 * are told must be the same however often they ask, and in their order.
 */
import type { BargeError, ErrorCode } from "../../src/errors.ts";
import { checkLimits, type Limits } from "../../src/limits.ts";
import { SessionGaps } from "../../src/server/session-gaps.ts";
import type { SessionAnswer } from "../../src/wire/admin.ts";
import {
  layOutSection,
  readSectionHeader,
  type SectionHeader,
  sectionHeaderBytes,
  SectionKind,
} from "../../src/wire/section.ts";
import { type ClientNode, isResultLost, mayFailWith } from "./clients.ts";
import { answersOf, commandOf, type Draft, mustBeApplied, settleDone } from "./drafts.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

/** Drawn apart, so that other seeds do as before. */
export interface SessionSwarm {
  readonly random: Random;
  /** Clients with a session, and with request ids; 0 = none. */
  readonly sessionClients: number;
  readonly requestClients: number;
  /** Of the cluster's time. */
  readonly ttlMs: number;
  /** Chance that a client falls asleep for longer than that. */
  readonly sleepChance: number;
  /** Sections under way at once, at most. */
  readonly pipeline: number;
  readonly limits: Limits;
}

export interface SessionClientOptions extends SessionSwarm {
  readonly group: number;
  readonly scheduler: Scheduler;
  readonly nodes: readonly ClientNode[];
  readonly oracle: Oracle;
  readonly thinkMs: number;
  readonly timeoutMs: number;
  readonly sectionCommandsMax: number;
  readonly draft: (client: number) => Draft;
  readonly history: Draft[];
  readonly moment: () => number;
  readonly told: (drafts: readonly Draft[]) => void;
}

export function drawSessions(
  random: Random,
  { limits }: { readonly limits: Limits },
  without: boolean,
): SessionSwarm {
  const electionMs = limits.electionTicksMax * limits.tickMs;
  const drawn = {
    sessionClients: random.pick([0, 1, 2, 3]),
    requestClients: random.pick([0, 0, 1]),
    ttlMs: Math.max(limits.sessionTtlMsMin, Math.ceil(electionMs * random.pick([2, 5, 100]))),
    sleepChance: random.pick([0, 0.02, 0.1]),
    pipeline: random.pick([1, 3, 6]),
  };
  return { random, limits, ...drawn, ...(without ? { sessionClients: 0, requestClients: 0 } : {}) };
}

/** Bounds of sessions at which rare paths become common. */
export function sessionLimits(random: Random, limits: Limits): Limits {
  return checkLimits({
    ...limits,
    sessionsMax: random.pick([limits.sessionsMax, 2, 3]),
    sessionTtlMsMin: 1,
    sessionSweepMs: random.pick([limits.sessionSweepMs, 1, 50]),
    sessionWindowSections: random.pick([limits.sessionWindowSections, 1, 3]),
    requestIdsMax: random.pick([limits.requestIdsMax, 20]),
  });
}

/** There may be too many; or none yet, as a member is away whom the apply version waits for. */
const refusedOpens: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "sessions_full",
  "version_mismatch",
]);
const refusedRequests: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "request_ids_full",
  "version_mismatch",
]);

export class SessionClients {
  readonly #options: SessionClientOptions;
  readonly #clients: readonly SessionClient[];
  readonly #requests: readonly RequestClient[];
  readonly #calls = new Set<Call>();
  #requestIds = 0;
  stopped = false;
  /** Nobody answers any more. */
  abandoned = false;

  constructor(options: SessionClientOptions) {
    this.#options = options;
    const { sessionClients, requestClients } = options;
    this.#clients = Array.from(
      { length: sessionClients },
      (_, at) => new SessionClient(this, options, 1_000 + at),
    );
    this.#requests = Array.from(
      { length: requestClients },
      (_, at) => new RequestClient(this, options, 2_000 + at),
    );
  }

  /** Nothing new; what is under way goes on until its end is known. */
  stop(): void {
    this.stopped = true;
  }

  /** The group is gone: what became of what is under way will never be known. */
  abandon(): void {
    this.stopped = true;
    this.abandoned = true;
  }

  /** Waiters that nobody has called on nodes that live. */
  get unanswered(): number {
    return this.#calls.size;
  }

  get unfinished(): number {
    let unfinished = 0;
    if (this.abandoned) return unfinished;
    for (const client of this.#clients) unfinished += client.unfinished;
    for (const client of this.#requests) unfinished += client.unfinished;
    return unfinished;
  }

  crashed(node: ClientNode): void {
    for (const call of this.#calls) if (call.node === node) this.#calls.delete(call);
  }

  nextRequestId(): number {
    return ++this.#requestIds;
  }

  /** A node that is up, in most cases; in the end one of the members, as others need not serve. */
  someNode(): ClientNode {
    const { random, nodes, oracle } = this.#options;
    const { voters = [] } = (this.stopped && oracle.configuration) || {};
    const members = nodes.filter(({ id }) => voters.includes(id));
    const able = members.length === 0 ? nodes : members;
    const node = random.pick(able);
    return node.door === undefined ? random.pick(able) : node;
  }

  /** One request to one node, which answers it at most once. */
  call(node: ClientNode): Call {
    const call = new Call(node, (ended) => this.#calls.delete(ended));
    this.#calls.add(call);
    return call;
  }

  /** True where the answer is one that may be; the sender tries again. */
  mayFail(node: ClientNode, { code, message }: BargeError): void {
    if (!mayFailWith(this.#options.group, code)) {
      throw new Violation(`node ${node.id} answers ${code}: ${message}`);
    }
  }
}

class Call {
  readonly node: ClientNode;
  readonly #life: number;
  readonly #ended: (call: Call) => void;
  #answered = false;

  constructor(node: ClientNode, ended: (call: Call) => void) {
    this.node = node;
    this.#life = node.life;
    this.#ended = ended;
  }

  /** Runs where the node is up; else it is as if the connection were refused. */
  send(request: () => void): void {
    if (this.node.door === undefined) return this.#ended(this);
    this.node.deliver(() => {
      if (this.node.life === this.#life) request();
    });
  }

  /** The node calls the waiter: exactly once. False where the client cannot hear it any more. */
  answered(): boolean {
    if (this.#answered) throw new Violation(`node ${this.node.id} answers a request twice`);
    this.#answered = true;
    this.#ended(this);
    return this.node.life === this.#life;
  }
}

/** A section on its way, with what came of it. */
interface Sent {
  readonly bytes: Uint8Array;
  readonly header: SectionHeader;
  readonly drafts: readonly Draft[];
  answer: { readonly firstIndex: number; readonly results: Uint8Array } | undefined;
  /** It is applied, and that is all that was said of it. */
  isLost?: boolean;
}

/** Notes an answer; a second one must be the same. */
function noteAnswer(
  options: SessionClientOptions,
  node: ClientNode,
  sent: Sent,
  firstIndex: number,
  results: Uint8Array,
): void {
  const { oracle, moment, told } = options;
  const done = answersOf(node.id, sent.drafts, firstIndex, results, oracle);
  const { answer } = sent;
  if (answer === undefined) {
    sent.answer = { firstIndex, results: results.slice() };
    settleDone(sent.drafts, done, moment);
    return told(sent.drafts);
  }
  const isSame = answer.firstIndex === firstIndex && Buffer.compare(answer.results, results) === 0;
  if (!isSame) {
    throw new Violation(
      `node ${node.id} answers ${sent.drafts[0]!.value} with index ${firstIndex}, it had ${answer.firstIndex} before`,
    );
  }
}

function isWaiting({ answer, isLost = false }: Sent): boolean {
  return answer === undefined && !isLost;
}

/** One connection to a node: what the front door does with the order of sections. */
class Connection {
  readonly node: ClientNode;
  readonly #gaps = new SessionGaps();
  /** Number of the first command that was refused here and not sent again since. */
  #refusedSeq = Infinity;

  constructor(node: ClientNode) {
    this.node = node;
  }

  /** False where the door refuses the section. */
  lets({ session, firstSeq }: SectionHeader, isNew: boolean): boolean {
    if (firstSeq <= this.#refusedSeq) this.#refusedSeq = Infinity;
    const lets = this.#gaps.lets(0, session, firstSeq);
    if (lets && isNew && firstSeq > this.#refusedSeq) {
      throw new Violation(
        `the door of node ${this.node.id} takes ${firstSeq} of session ${session}, having refused ${this.#refusedSeq}`,
      );
    }
    return lets;
  }

  refused({ session, firstSeq }: SectionHeader): void {
    this.#gaps.refused(0, session, firstSeq);
    this.#refusedSeq = Math.min(this.#refusedSeq, firstSeq);
  }
}

/** Nobody need ask again, though another node may still know the results. */
function noteLost({ oracle }: SessionClientOptions, node: ClientNode, sent: Sent): void {
  mustBeApplied(node, sent.drafts, oracle);
  sent.isLost = true;
}

/** At once: each sends all that waits, and each of that may fail. */
const reconnectsMax = 6;

class SessionClient {
  readonly #all: SessionClients;
  readonly #options: SessionClientOptions;
  readonly #number: number;
  /** 0 = none. */
  #session = 0;
  #isOpening = false;
  #nextSeq = 1;
  /** Told to the cluster with the next section: it may forget the results up to here. */
  #doneUpTo = 0;
  /** In order: what has no answer yet, and what has one that was not confirmed. */
  #window: Sent[] = [];
  #connection: Connection;
  #lastSentMs = 0;
  #asleepUntilMs = 0;
  /** That are to come. */
  #reconnects = 0;

  constructor(all: SessionClients, options: SessionClientOptions, number: number) {
    this.#all = all;
    this.#options = options;
    this.#number = number;
    this.#connection = new Connection(all.someNode());
    this.#think();
  }

  get unfinished(): number {
    return this.#window.filter(isWaiting).length;
  }

  #think(): void {
    const { scheduler, random, thinkMs } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * thinkMs, () => this.#act());
  }

  #act(): void {
    if (this.#all.abandoned) return;
    const { random, scheduler, timeoutMs, sleepChance, ttlMs } = this.#options;
    this.#think();
    if (!this.#all.stopped && scheduler.nowMs < this.#asleepUntilMs) return;
    if (random.chance(sleepChance)) {
      this.#asleepUntilMs = scheduler.nowMs + ttlMs * (1 + random.float());
      return;
    }
    if (this.#session === 0) {
      if (!this.#all.stopped && !this.#isOpening) this.#open();
      return;
    }
    const isSilent = scheduler.nowMs - this.#lastSentMs > 1.5 * timeoutMs;
    if (this.unfinished > 0 && (isSilent || this.#all.stopped)) return this.#reconnect();
    if (this.#all.stopped) return;
    const choice = random.float();
    if (choice < 0.6) this.#write();
    else if (choice < 0.75) this.#again();
    else if (choice < 0.85) this.#reconnect();
    else if (choice < 0.95) this.#control("sessionKeepAlive");
    else if (choice < 0.97 && this.unfinished === 0) this.#control("sessionClose");
  }

  #open(): void {
    const { ttlMs, timeoutMs, scheduler } = this.#options;
    this.#isOpening = true;
    const node = this.#all.someNode();
    const call = this.#all.call(node);
    let isOver = false;
    const over = (): void => {
      if (!isOver) this.#isOpening = false;
      isOver = true;
    };
    scheduler.after(2 * timeoutMs, over);
    call.send(() =>
      node.door!.admin(
        "sessionOpen",
        { group: this.#options.group, ttlMs, timeoutMs: Math.ceil(timeoutMs) },
        {
          answered: (answer) => {
            if (!call.answered() || isOver) return;
            over();
            this.#begin((answer as SessionAnswer).session);
          },
          failed: (error) => {
            if (!refusedOpens.has(error.code)) this.#all.mayFail(node, error);
            if (call.answered()) over();
          },
        },
      ),
    );
  }

  #begin(session: number): void {
    this.#session = session;
    this.#nextSeq = 1;
    this.#doneUpTo = 0;
    this.#window = [];
    this.#connection = new Connection(this.#all.someNode());
  }

  /** The session is gone, or closed: what has no answer will have none. */
  #end(session: number): void {
    if (this.#session !== session) return;
    this.#session = 0;
    this.#window = [];
  }

  #control(operation: "sessionKeepAlive" | "sessionClose"): void {
    const session = this.#session;
    const node = this.#connection.node;
    const call = this.#all.call(node);
    if (operation === "sessionClose") this.#end(session);
    call.send(() =>
      node.door!.admin(
        operation,
        { group: this.#options.group, session, timeoutMs: Math.ceil(this.#options.timeoutMs) },
        {
          answered: () => call.answered(),
          failed: (error) => {
            if (error.code === "session_expired") this.#end(session);
            else this.#all.mayFail(node, error);
            call.answered();
          },
        },
      ),
    );
  }

  #write(): void {
    const { random, pipeline, limits, sectionCommandsMax, draft, history, moment } = this.#options;
    const confirmed = this.#window.findIndex(isWaiting);
    const answered = confirmed < 0 ? this.#window.length : confirmed;
    const isFull = this.#window.length >= limits.sessionWindowSections;
    // Mostly it confirms what it has; it must where the window is full.
    if (answered > 0 && (isFull || random.chance(0.7))) {
      const { firstSeq, count } = this.#window[answered - 1]!.header;
      this.#doneUpTo = firstSeq + count - 1;
      this.#window.splice(0, answered);
    }
    if (this.#window.length >= limits.sessionWindowSections) return;
    if (this.unfinished >= pipeline) return;
    const drafts = Array.from({ length: random.between(1, sectionCommandsMax) }, () =>
      draft(this.#number),
    );
    // What no inbox can ever take would be sent for ever.
    while (drafts.length > 1 && sectionBytesOf(drafts) > limits.inboxBytesMax) drafts.pop();
    for (const each of drafts) {
      each.call = moment();
      each.session = this.#session;
    }
    history.push(...drafts);
    const bytes = layOutSection(drafts.map(commandOf), {
      kind: SectionKind.session,
      session: this.#session,
      firstSeq: this.#nextSeq,
      doneUpTo: this.#doneUpTo,
    });
    this.#nextSeq += drafts.length;
    const sent = { bytes, header: readSectionHeader(bytes, 0)!, drafts, answer: undefined };
    this.#window.push(sent);
    this.#send(sent, this.#connection, true);
  }

  /** Once more, though nothing says that it has to be, and to any node. */
  #again(): void {
    const { random } = this.#options;
    if (this.#window.length === 0) return;
    this.#send(random.pick(this.#window), new Connection(this.#all.someNode()), false);
  }

  /** All that has no answer, in order, on a new connection. */
  #reconnect(): void {
    if (this.#all.abandoned) return;
    this.#connection = new Connection(this.#all.someNode());
    for (const sent of this.#window) {
      if (isWaiting(sent)) this.#send(sent, this.#connection, false);
    }
  }

  #send(sent: Sent, connection: Connection, isNew: boolean): void {
    const { timeoutMs, scheduler } = this.#options;
    const { bytes, header } = sent;
    const { node } = connection;
    const call = this.#all.call(node);
    this.#lastSentMs = scheduler.nowMs;
    call.send(() => {
      if (!connection.lets(header, isNew)) {
        connection.refused(header);
        return void call.answered();
      }
      node.door!.write(this.#options.group, bytes, header, timeoutMs, {
        applied: (firstIndex, results) => {
          if (call.answered()) this.#applied(node, sent, firstIndex, results);
        },
        failed: (error) => {
          if (error.outcome === "not-applied" && error.retryable) connection.refused(header);
          if (call.answered()) this.#failed(node, sent, error);
          else this.#mayFail(node, sent, error);
        },
      });
    });
  }

  #applied(node: ClientNode, sent: Sent, firstIndex: number, results: Uint8Array): void {
    noteAnswer(this.#options, node, sent, firstIndex, results);
    let last = 0;
    for (const { answer } of this.#window) {
      if (answer === undefined) continue;
      if (answer.firstIndex < last) {
        throw new Violation(
          `session ${sent.header.session} is applied out of order: ${answer.firstIndex} after ${last}`,
        );
      }
      last = answer.firstIndex;
    }
  }

  #mayFail(node: ClientNode, { header, answer }: Sent, error: BargeError): void {
    const { code } = error;
    if (code === "session_expired" || code === "sequence_gap") return;
    // Confirmed before this copy of it arrived.
    const isConfirmed = header.session !== this.#session || header.firstSeq <= this.#doneUpTo;
    if (code === "result_forgotten" && isConfirmed && answer !== undefined) return;
    if (isResultLost(error, this.#options.oracle)) return;
    this.#all.mayFail(node, error);
  }

  #failed(node: ClientNode, sent: Sent, error: BargeError): void {
    this.#mayFail(node, sent, error);
    if (isResultLost(error, this.#options.oracle)) return noteLost(this.#options, node, sent);
    if (error.code === "session_expired") return this.#end(sent.header.session);
    const { random, scheduler, limits } = this.#options;
    if (this.unfinished > 0 && random.chance(0.5)) {
      const delayMs = random.float() * limits.tickMs * 4;
      if (this.#reconnects >= reconnectsMax) return;
      this.#reconnects++;
      scheduler.after(delayMs, () => {
        this.#reconnects--;
        this.#reconnect();
      });
    }
  }
}

function sectionBytesOf(drafts: readonly Draft[]): number {
  return drafts.reduce((sum, draft) => sum + 4 + commandOf(draft).byteLength, sectionHeaderBytes);
}

/** Each write has an id of its own, and is sent until it is answered. */
class RequestClient {
  readonly #all: SessionClients;
  readonly #options: SessionClientOptions;
  readonly #number: number;
  #current: Sent | undefined;
  #last: Sent | undefined;

  constructor(all: SessionClients, options: SessionClientOptions, number: number) {
    this.#all = all;
    this.#options = options;
    this.#number = number;
    this.#think();
  }

  get unfinished(): number {
    return this.#current === undefined ? 0 : 1;
  }

  #think(): void {
    const { scheduler, random, thinkMs } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * thinkMs, () => this.#act());
  }

  #act(): void {
    if (this.#all.abandoned) return;
    this.#think();
    const { random } = this.#options;
    if (this.#current === undefined) {
      if (this.#all.stopped) return;
      if (this.#last !== undefined && random.chance(0.3)) return this.#send(this.#last);
      this.#current = this.#next();
    }
    const sent = this.#current;
    this.#send(sent);
    if (random.chance(0.3)) this.#send(sent);
  }

  #next(): Sent {
    const { draft, history, moment } = this.#options;
    const drafts = [draft(this.#number)];
    drafts[0]!.call = moment();
    history.push(...drafts);
    const id = this.#all.nextRequestId();
    const bytes = layOutSection(drafts.map(commandOf), {
      kind: SectionKind.keyed,
      session: id,
      firstSeq: 0,
      doneUpTo: this.#number,
    });
    return { bytes, header: readSectionHeader(bytes, 0)!, drafts, answer: undefined };
  }

  #send(sent: Sent): void {
    const { timeoutMs } = this.#options;
    const node = this.#all.someNode();
    const call = this.#all.call(node);
    call.send(() =>
      node.door!.write(this.#options.group, sent.bytes, sent.header, timeoutMs, {
        applied: (firstIndex, results) => {
          if (!call.answered()) return;
          noteAnswer(this.#options, node, sent, firstIndex, results);
          this.#over(sent);
        },
        failed: (error) => {
          const heard = call.answered();
          if (isResultLost(error, this.#options.oracle)) {
            noteLost(this.#options, node, sent);
            return heard ? this.#over(sent) : undefined;
          }
          if (!refusedRequests.has(error.code)) return this.#all.mayFail(node, error);
          // No room comes while the run lasts, and maybe no request ids either.
          if (heard) this.#over(sent);
        },
      }),
    );
  }

  #over(sent: Sent): void {
    if (this.#current !== sent) return;
    this.#last = sent;
    this.#current = undefined;
  }
}
