/**
 * Simulated clients: they lay out real sections, send them to any node through the door that the servers use, and write down what they saw.
 * A crash of the node, or silence for too long, leaves the outcome of what was under way unknown.
 */
import type { BargeError, ErrorCode } from "../../src/errors.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import type { Groups, ReadSource } from "../../src/server/groups.ts";
import { encodeKvGet, readKvEntry } from "../../src/wire/kv.ts";
import { Consistency } from "../../src/wire/messages.ts";
import { plainSection, readSectionHeader } from "../../src/wire/section.ts";
import type { OperationKind } from "../checker/history.ts";
import { answersOf, commandOf, type Draft, mustBeApplied, settleDone } from "./drafts.ts";
import { Violation } from "./invariants.ts";
import { type Oracle, valuePrefixOf } from "./oracle.ts";
import type { Random } from "./random.ts";
import { readAppAnswer } from "./sim-app.ts";
import type { Scheduler } from "./scheduler.ts";
import { SessionClients, type SessionSwarm } from "./session-clients.ts";
import type { Tally } from "./tally.ts";

/** A node as its clients see it. */
export interface ClientNode {
  readonly id: number;
  readonly life: number;
  readonly clockRate: number;
  /** Undefined while it is down. */
  readonly door: Pick<Groups, "write" | "read" | "admin"> | undefined;
  /** In force there. */
  readonly applyVersion: number;
  /** Runs now, or when the node is no longer paused, or never when it crashes before. */
  deliver(request: () => void): void;
}

export interface ClientOptions {
  /** That they write to and read from. */
  readonly group: number;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly nodes: readonly ClientNode[];
  readonly oracle: Oracle;
  /** A node answers a local read with what it has applied up to an index, which is to be no older than so long on its clock. */
  readonly answeredLocally: (node: ClientNode, appliedIndex: number, boundMs: number) => void;
  readonly tally: Tally;
  readonly clients: number;
  /** Time between an answer and the next request, on average. */
  readonly thinkMs: number;
  readonly timeoutMs: number;
  readonly keys: number;
  /** Operations after which the clients go on to fresh keys. */
  readonly keyLife: number;
  readonly sectionCommandsMax: number;
  /** Shares of requests: linearizable reads, local reads; the rest are writes. */
  readonly readShare: number;
  readonly localShare: number;
  readonly staleMsMax: number;
  readonly peekEveryMs: number;
  /** Length to which values are padded, at most. */
  readonly valueBytes: number;
  /** Clients with sessions, besides. */
  readonly sessions: SessionSwarm;
}

interface Request {
  readonly node: ClientNode;
  readonly life: number;
  readonly drafts: readonly Draft[];
  /** The client goes on: answered, given up or lost. */
  settled: boolean;
  /** The node called the waiter. */
  answered: boolean;
  readonly resume: () => void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a client may be told by a cluster in trouble; anything else is a bug. */
const expectedErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "not_leader",
  "no_leader",
  "wounded",
  "overloaded",
  "timeout",
  "disk_full",
  "outcome_unknown",
  "application_unavailable",
]);
/** Groups other than the default one may be elsewhere, not yet there, or gone. */
const strayErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "unknown_group",
  "group_elsewhere",
  "registry_behind",
]);

/** Whether a node may answer that to a client of a group. */
export function mayFailWith(group: number, code: ErrorCode): boolean {
  return expectedErrors.has(code) || (group !== 0 && strayErrors.has(code));
}

/** Whether that is what is said of a write which an application has, while its answer was lost. */
export function isResultLost({ code }: BargeError, { isOfApplication }: Oracle): boolean {
  return isOfApplication && code === "result_forgotten";
}

/** Requests of a burst that share a key. */
const burstPerKey = 8;

export class Clients {
  /** Writes and linearizable reads. */
  readonly history: Draft[] = [];
  readonly localReads: Draft[] = [];
  /** Requests that a living node has not answered. */
  readonly #open = new Set<Request>();
  readonly #options: ClientOptions;
  /** Newest revision that the clients were told of, by key: what compares name. */
  readonly #told = new Map<string, number>();
  readonly #sessions: SessionClients;
  #moment = 0;
  #operations = 0;
  #bursts = 0;
  #stopped = false;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#sessions = new SessionClients({
      ...options,
      ...options.sessions,
      draft: (client) => this.#draftWrite(client, options.sessions.random),
      history: this.history,
      moment: () => ++this.#moment,
      told: (drafts) => this.#tell(drafts),
    });
    for (let client = 0; client < options.clients; client++) this.#think(client);
    if (options.peekEveryMs > 0) this.#peekLater();
  }

  /** Local reads with a bound, of any node, for their age alone. */
  #peekLater(): void {
    const { scheduler, random, peekEveryMs, nodes } = this.#options;
    scheduler.after(2 * random.float() * peekEveryMs, () => {
      if (this.#stopped) return;
      this.#peek(random.pick(nodes));
      this.#peekLater();
    });
  }

  #peek(node: ClientNode): void {
    const { random, staleMsMax, tally, answeredLocally, timeoutMs } = this.#options;
    const boundMs = 1 + random.below(Math.ceil(staleMsMax));
    node.deliver(() => {
      node.door?.read(this.#options.group, Consistency.local, boundMs, timeoutMs, {
        ready: (_, appliedIndex) => {
          tally.freshReads++;
          answeredLocally(node, appliedIndex, boundMs);
        },
        failed: ({ code, message }) => {
          tally.staleReads++;
          if (!mayFailWith(this.#options.group, code)) {
            throw new Violation(`node ${node.id} answers ${code}: ${message}`);
          }
        },
      });
    });
  }

  /** No new requests. */
  stop(): void {
    this.#stopped = true;
    this.#sessions.stop();
  }

  /** The group is gone. */
  abandon(): void {
    this.#stopped = true;
    this.#sessions.abandon();
  }

  /** Sections of sessions, and requests with an id, whose senders still want to know. */
  get unfinished(): number {
    return this.#sessions.unfinished;
  }

  /** Waiters that nobody has called on nodes that live. */
  get unanswered(): number {
    return this.#open.size + this.#sessions.unanswered;
  }

  /** The node is gone, with everything that was asked of it. */
  crashed(node: ClientNode): void {
    this.#sessions.crashed(node);
    for (const request of this.#open) {
      if (request.node !== node) continue;
      this.#open.delete(request);
      this.#settle(request);
    }
  }

  /** One request for the end of a run; calls `done` with whether it was done. */
  probe(node: ClientNode, kind: "get" | "put", done: (ok: boolean) => void): void {
    const drafts = [this.#draft(-1, kind)];
    const resume = (): void => done(drafts[0]!.outcome === "ok");
    if (kind === "get") this.#read(node, drafts, false, resume);
    else this.#write(node, drafts, resume);
  }

  /** Many requests to one node within a moment, none waiting for another, on keys of their own: far more than any bound takes. */
  burst(node: ClientNode, requests: number, withinMs: number): void {
    const { scheduler, random, readShare, sectionCommandsMax } = this.#options;
    const burst = ++this.#bursts;
    for (let at = 0; at < requests; at++) {
      const reads = random.chance(readShare / 2);
      const count = reads ? 1 : random.between(1, sectionCommandsMax);
      scheduler.after(random.float() * withinMs, () => {
        if (node.door === undefined) return;
        const key = `b${burst}.${Math.floor(at / burstPerKey)}`;
        const drafts = Array.from({ length: count }, () => {
          const draft = this.#draft(-2, reads ? "get" : "put");
          draft.key = key;
          return draft;
        });
        if (reads) this.#read(node, drafts, false, () => {});
        else this.#write(node, drafts, () => {});
      });
    }
  }

  #think(client: number): void {
    const { scheduler, random, thinkMs } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * thinkMs, () => this.#act(client));
  }

  #act(client: number): void {
    if (this.#stopped) return;
    const { random, nodes, readShare, localShare, sectionCommandsMax } = this.#options;
    const again = (): void => this.#think(client);
    const node = random.pick(nodes);
    if (node.door === undefined) return again();
    const choice = random.float();
    const count = 1 + random.below(sectionCommandsMax);
    if (choice < readShare + localShare) {
      const local = choice >= readShare;
      const drafts = Array.from({ length: Math.min(count, 3) }, () => this.#draft(client, "get"));
      return this.#read(node, drafts, local, again);
    }
    const drafts = Array.from({ length: count }, () => this.#draftWrite(client, random));
    this.#write(node, drafts, again);
  }

  #draftWrite(client: number, random: Random): Draft {
    const kind = random.chance(0.1) ? "delete" : random.chance(0.3) ? "compareAndPut" : "put";
    return this.#draft(client, kind, random);
  }

  #draft(client: number, kind: OperationKind, random: Random = this.#options.random): Draft {
    const { keys, keyLife, valueBytes } = this.#options;
    const number = ++this.#operations;
    const key = `k${Math.floor(number / keyLife)}.${random.below(keys)}`;
    const writes = kind === "put" || kind === "compareAndPut";
    let value = writes ? `${valuePrefixOf(this.#options.group)}${number}` : "";
    if (writes && valueBytes > 0) value = value.padEnd(random.below(valueBytes), "~");
    const expected =
      kind === "compareAndPut" && random.chance(0.8) ? (this.#told.get(key) ?? 0) : 0;
    return {
      client,
      key,
      kind,
      value,
      expected,
      call: 0,
      return: Infinity,
      outcome: "unknown",
      index: 0,
      success: false,
      seenValue: "",
      seenRevision: 0,
    };
  }

  #begin(node: ClientNode, drafts: readonly Draft[], resume: () => void): Request {
    const request = { node, life: node.life, drafts, settled: false, answered: false, resume };
    this.#open.add(request);
    for (const draft of drafts) draft.call = ++this.#moment;
    this.#options.scheduler.after(this.#options.timeoutMs * 1.5, () => this.#settle(request));
    return request;
  }

  /** The client goes on; what the drafts do not say by now stays unknown. */
  #settle(request: Request): boolean {
    if (request.settled) return false;
    request.settled = true;
    request.resume();
    return true;
  }

  /** The node calls the waiter: exactly once. True when the client still waits. */
  #answered(request: Request): boolean {
    if (request.answered) throw new Violation(`node ${request.node.id} answers a request twice`);
    request.answered = true;
    this.#open.delete(request);
    return !request.settled && request.life === request.node.life;
  }

  #failed(request: Request, error: BargeError): void {
    const { code } = error;
    const isLost = isResultLost(error, this.#options.oracle);
    if (isLost) mustBeApplied(request.node, request.drafts, this.#options.oracle);
    if (!isLost && !mayFailWith(this.#options.group, code)) {
      throw new Violation(`node ${request.node.id} answers ${code}: ${error.message}`);
    }
    if (code === "overloaded") {
      this.#options.tally.overloaded++;
      if (error.outcome !== "not-applied") {
        throw new Violation(`node ${request.node.id} is overloaded, outcome ${error.outcome}`);
      }
    }
    if (code === "disk_full") this.#options.tally.diskFull++;
    if (!this.#answered(request)) return;
    for (const draft of request.drafts) {
      if (error.outcome === "not-applied" || draft.kind === "get") draft.outcome = "refused";
      draft.return = ++this.#moment;
      if (draft.outcome === "unknown") draft.return = Infinity;
    }
    this.#settle(request);
  }

  /* ---------------------------------------------------------------- writes */

  #write(node: ClientNode, drafts: readonly Draft[], resume: () => void): void {
    const request = this.#begin(node, drafts, resume);
    this.history.push(...drafts);
    const section = plainSection(drafts.map(commandOf));
    const header = readSectionHeader(section, 0)!;
    node.deliver(() => {
      node.door!.write(this.#options.group, section, header, this.#options.timeoutMs, {
        applied: (firstIndex, results) => this.#applied(request, firstIndex, results),
        failed: (error) => this.#failed(request, error),
      });
    });
  }

  #applied(request: Request, firstIndex: number, bytes: Uint8Array): void {
    const { drafts, node } = request;
    const { oracle } = this.#options;
    const done = answersOf(node.id, drafts, firstIndex, bytes, oracle);
    if (!this.#answered(request)) return;
    settleDone(drafts, done, () => ++this.#moment);
    this.#tell(drafts);
    this.#settle(request);
  }

  #tell(drafts: readonly Draft[]): void {
    for (const { kind, success, key, index } of drafts) {
      if (success && kind !== "delete") this.#told.set(key, index);
    }
  }

  /* ---------------------------------------------------------------- reads */

  #read(node: ClientNode, drafts: readonly Draft[], local: boolean, resume: () => void): void {
    const request = this.#begin(node, drafts, resume);
    (local ? this.localReads : this.history).push(...drafts);
    const consistency = local ? Consistency.local : Consistency.linearizable;
    node.deliver(() => {
      node.door!.read(this.#options.group, consistency, 0, this.#options.timeoutMs, {
        ready: (source, appliedIndex) => this.#ready(request, source, appliedIndex, local),
        failed: (error) => this.#failed(request, error),
      });
    });
  }

  #ready(request: Request, source: ReadSource, appliedIndex: number, local: boolean): void {
    const waits = this.#answered(request);
    if (source.answersLater) return this.#askAll(request, source, appliedIndex, local && waits);
    for (const draft of request.drafts) {
      let answers = 0;
      source.read(encodeKvGet(encoder.encode(draft.key)), {
        answer: (code, bytes) => {
          answers++;
          if (!waits) return;
          this.#got(request, draft, code, bytes);
          draft.index = appliedIndex;
          if (!local && draft.success) this.#told.set(draft.key, draft.seenRevision);
        },
      });
      if (answers !== 1) throw new Violation(`a query got ${answers} answers`);
    }
    if (waits) this.#settle(request);
  }

  /** An application answers, later and in any order. */
  #askAll(request: Request, source: ReadSource, appliedIndex: number, local: boolean): void {
    const { oracle, tally } = this.#options;
    let left = request.drafts.length;
    for (const draft of request.drafts) {
      let answers = 0;
      source.read(encodeKvGet(encoder.encode(draft.key)), {
        answer: (code, bytes = new Uint8Array(0)) => {
          if (++answers > 1) throw new Violation(`a query got ${answers} answers`);
          left--;
          if (request.settled || request.life !== request.node.life) return;
          if (code === ResultCode.applicationFailed) {
            tally.readsFailed++;
            draft.outcome = "refused";
            draft.return = ++this.#moment;
          } else {
            const { index, value, revision } = readAppAnswer(bytes);
            for (let at = index + 1; at <= appliedIndex; at++) {
              if (!oracle.commands.has(at)) continue;
              throw new Violation(
                `node ${request.node.id} answers as of ${index}, and had applied ${at} before it asked`,
              );
            }
            draft.outcome = "ok";
            draft.return = ++this.#moment;
            draft.success = revision !== undefined;
            draft.seenValue = value ?? "";
            draft.seenRevision = revision ?? 0;
            // It may have gone on since it was asked.
            draft.index = Math.max(index, appliedIndex);
            if (!local && draft.success) this.#told.set(draft.key, draft.seenRevision);
          }
          if (left === 0) this.#settle(request);
        },
      });
    }
  }

  #got(request: Request, draft: Draft, code: number, bytes: Uint8Array | undefined): void {
    draft.outcome = "ok";
    draft.return = ++this.#moment;
    draft.success = code === ResultCode.ok;
    if (code === ResultCode.notFound) return;
    const entry = code === ResultCode.ok && bytes !== undefined ? readKvEntry(bytes) : undefined;
    if (entry === undefined) {
      throw new Violation(`node ${request.node.id} answers a get with code ${code}`);
    }
    draft.seenValue = decoder.decode(entry.value);
    draft.seenRevision = entry.revision;
  }
}
