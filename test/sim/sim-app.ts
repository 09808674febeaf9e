/**
 * A simulated application behind the seam AppCalls: the keys and values that the clients write, kept as its author was told to (src/machine/http/README.md). A process
 * of its own beside the daemon: it outlives that, is killed alone or with it, forgets what it has not synced, is slow, hangs, refuses and breaks off. What it
 * is asked is judged here: each command that the model says runs comes once, in order, with nothing left out.
 *
 * Updates and what excludes them are worked off in the order in which they arrived, those of a daemon that is gone too.
 */
import { crc32 } from "node:zlib";
import type {
  AppCalls,
  AppEvents,
  AppExchange,
  AppRequest,
} from "../../src/machine/http/app-calls.ts";
import { ResultCode, type StateMachine } from "../../src/machine/machine.ts";
import { KvCommandReader, KvOp, KvQuery, readKvQuery } from "../../src/wire/kv.ts";
import { readUpdate, type UpdateReply, updateReply } from "../machine/http/update-bodies.ts";
import { appFaults, type AppFault, type AppSwarm } from "./app-swarm.ts";
import { Violation } from "./invariants.ts";
import type { Held, Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Tally } from "./tally.ts";

export interface SimAppOptions {
  readonly node: number;
  readonly swarm: AppSwarm;
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly oracle: Oracle;
  readonly tally: Tally;
  /** Entries up to there are given: the node's own log must be durable that far [23]. */
  readonly given: (index: number) => void;
  /** Runs on the daemon, unless that is not the one of that life any more. */
  readonly deliver: (life: number, event: () => void) => void;
}

interface State {
  /** Of the last entry. */
  readonly index: number;
  readonly entries: Map<string, Held>;
}

interface Call {
  readonly life: number;
  readonly request: AppRequest;
  readonly headers: Readonly<Record<string, string>>;
  readonly events: AppEvents;
  readonly parts: Uint8Array[];
  isCancelled: boolean;
  isPaused: boolean;
  /** What is still to be streamed. */
  rest: Uint8Array | undefined;
}

type Reply = Pick<UpdateReply, "body"> & { readonly status: number };

/** Those that may run beside anything. */
const besides: ReadonlySet<string> = new Set(["Ready", "Read", "SaveSnapshot", "ReleaseSnapshot"]);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const nothing = (): State => ({ index: 0, entries: new Map() });

export class SimApp {
  readonly #options: SimAppOptions;
  readonly #random: Random;
  readonly #reader = new KvCommandReader();
  #durable = nothing();
  #state = nothing();
  /** Entries above what is durable. */
  #unsynced: { readonly index: number; readonly command: Uint8Array }[] = [];
  readonly #handles = new Map<string, Uint8Array>();
  #handleNumber = 0;
  readonly #open = new Set<Call>();
  /** The first one is under way. */
  #queue: Call[] = [];
  /** Counts its own starts. */
  #start = 1;
  readonly #saysInstance: boolean;
  #isUp = true;
  #isCalm = false;
  /** It has lost all, and was not given it again. */
  #isWiped = false;

  constructor(options: SimAppOptions) {
    this.#options = options;
    const { swarm, random } = options;
    this.#random = random;
    this.#saysInstance = swarm.sync || swarm.wipeShare > 0 || random.chance(0.5);
  }

  get entries(): ReadonlyMap<string, Held> {
    return this.#state.entries;
  }

  /** Entries that it cannot lose any more, and all. */
  get durableIndex(): number {
    return this.#durable.index;
  }

  get storedIndex(): number {
    return this.#state.index;
  }

  /** Nothing fails or is slow any more. */
  calm(): void {
    this.#isCalm = true;
    this.#isUp = true;
  }

  /** What a machine takes for durable, its application has for good; but where it has lost that, or is to be given it. */
  keeps({ durableIndex, absence }: Pick<StateMachine, "durableIndex" | "absence">): void {
    const { oracle, node } = this.#options;
    if (this.#isWiped || absence !== undefined) return;
    for (let index = this.#durable.index + 1; index <= durableIndex; index++) {
      if (oracle.commands.has(index)) {
        throw new Violation(`node ${node} takes ${index} for durable in its application`);
      }
    }
  }

  /** For a daemon, until that ends. */
  calls(life: number): AppCalls {
    return {
      begin: (request, events) => this.#begin(life, request, events),
      close: () => {
        for (const call of this.#open) if (call.life === life) call.isCancelled = true;
      },
    };
  }

  /** Killed: some of what it has not synced may be there, but never later entries without earlier ones. */
  crash(downMs: number, isWiped = false): void {
    const { scheduler, tally } = this.#options;
    tally.appCrashes++;
    const kept = this.#unsynced.slice(0, this.#random.below(this.#unsynced.length + 1));
    this.#state = { index: this.#durable.index, entries: new Map(this.#durable.entries) };
    for (const { index, command } of kept) this.#execute(index, command);
    if (isWiped) this.#state = nothing();
    this.#isWiped ||= isWiped;
    this.#settle();
    this.#handles.clear();
    this.#queue = [];
    this.#isUp = false;
    const start = ++this.#start;
    for (const call of this.#open) this.#failed(call, "the connection broke off");
    this.#open.clear();
    scheduler.after(downMs, () => {
      if (this.#start === start) this.#isUp = true;
    });
  }

  /** All that it has is durable. */
  #settle(): void {
    this.#durable = { index: this.#state.index, entries: new Map(this.#state.entries) };
    this.#unsynced = [];
  }

  /* ---------------------------------------------------------------- calls */

  #begin(life: number, request: AppRequest, events: AppEvents): AppExchange {
    const headers = Object.fromEntries(request.headers);
    const parts = request.body instanceof Uint8Array ? [request.body.slice()] : [];
    const state = { isCancelled: false, isPaused: false, rest: undefined };
    const call: Call = { life, request, headers, events, parts, ...state };
    this.#open.add(call);
    let missing = typeof request.body === "number" ? request.body : 0;
    if (!this.#isUp) this.#failed(call, "nobody answers there");
    else if (missing === 0) this.#arrived(call);
    return {
      write: (bytes) => {
        parts.push(bytes.slice());
        missing -= bytes.byteLength;
        if (missing === 0 && !call.isCancelled) this.#arrived(call);
        const isTaken = this.#random.chance(0.5);
        if (!isTaken) this.#tell(call, () => events.drained?.());
        return isTaken;
      },
      pause: () => (call.isPaused = true),
      resume: () => {
        call.isPaused = false;
        if (call.rest !== undefined) this.#stream(call, call.rest);
      },
      cancel: () => {
        call.isCancelled = true;
        this.#open.delete(call);
      },
    };
  }

  get #stepMs(): number {
    return this.#random.float() * (this.#isCalm ? 0.1 : this.#options.swarm.workMs);
  }

  /** What is told to whoever asked, a moment later, if he still listens. */
  #tell(call: Call, event: () => void): void {
    const { scheduler, deliver } = this.#options;
    scheduler.after(this.#stepMs / 4, () =>
      deliver(call.life, () => {
        if (!call.isCancelled) event();
      }),
    );
  }

  #failed(call: Call, reason: string): void {
    this.#open.delete(call);
    this.#tell(call, () => call.events.failed(reason));
  }

  #arrived(call: Call): void {
    if (besides.has(call.request.name)) return this.#work(call, () => {});
    this.#queue.push(call);
    if (this.#queue.length === 1) this.#next();
  }

  #next(): void {
    const call = this.#queue[0];
    if (call === undefined) return;
    this.#work(call, () => {
      this.#queue.shift();
      this.#next();
    });
  }

  #work(call: Call, done: () => void): void {
    const { scheduler, swarm } = this.#options;
    const start = this.#start;
    const fault = this.#fault();
    const ms = this.#stepMs * (fault === "slow" ? swarm.slowness : 1);
    scheduler.after(ms, () => {
      if (start !== this.#start) return;
      this.#answer(call, fault);
      done();
    });
  }

  #fault(): AppFault | undefined {
    const { swarm, tally } = this.#options;
    if (this.#isCalm || !this.#random.chance(swarm.faultShare)) return undefined;
    tally.appFaults++;
    return appFaults[this.#random.weighted(swarm.faultWeights)];
  }

  #answer(call: Call, fault: AppFault | undefined): void {
    const { name } = call.request;
    if (fault === "hang") return;
    if (fault === "reset") return this.#failed(call, "the connection broke off");
    if (fault === "refuse") return this.#reply(call, { status: 500, body: "it is broken" });
    const reply = this.#do(call);
    if (fault === "mute") return;
    if (fault === "resetAfter") return this.#failed(call, "the connection broke off");
    // Of what is only bytes to a daemon anything makes sense.
    const isOpaque = name === "Read" || name === "SaveSnapshot";
    const isGarbage = fault === "garbage" && !isOpaque;
    this.#reply(call, isGarbage ? { status: 200, body: '{"Results":[{' } : reply);
  }

  #reply(call: Call, { status, body }: Reply): void {
    const { swarm } = this.#options;
    const bytes = typeof body === "string" ? encoder.encode(body) : body;
    const { name } = call.request;
    const isJson = bytes[0] === 0x7b && name !== "Read" && name !== "SaveSnapshot";
    const length = name !== "SaveSnapshot" || swarm.saysLength;
    const headers = new Map([
      ["content-type", isJson ? "application/json" : "application/octet-stream"],
      ...(length ? ([["content-length", `${bytes.byteLength}`]] as const) : []),
      ...(this.#saysInstance ? ([["barge-instance", `start-${this.#start}`]] as const) : []),
    ]);
    this.#tell(call, () => {
      if (!this.#open.has(call)) return;
      call.events.head({ status, headers });
      this.#stream(call, bytes);
    });
  }

  /** On the daemon. */
  #stream(call: Call, bytes: Uint8Array): void {
    call.rest = bytes;
    if (call.isPaused || call.isCancelled || !this.#open.has(call)) return;
    call.rest = undefined;
    const { partBytes } = this.#options.swarm;
    if (bytes.byteLength === 0) {
      this.#open.delete(call);
      return call.events.end();
    }
    const part = bytes.slice(0, partBytes);
    call.events.data(part);
    if (call.request.isCopied === true) part.fill(0xee);
    const rest = bytes.subarray(partBytes);
    if (rest.byteLength === 0) return this.#stream(call, rest);
    this.#tell(call, () => this.#stream(call, rest));
  }

  /* ---------------------------------------------------------------- what it does */

  #do(call: Call): Reply {
    const body = Buffer.concat(call.parts);
    const ok: Reply = { status: 200, body: "" };
    switch (call.request.name) {
      case "Ready":
        return { ...ok, body: JSON.stringify({ Shape: this.#options.swarm.shape }) };
      case "LastLogIndex":
        return { ...ok, body: JSON.stringify({ LastLogIndex: this.#state.index }) };
      case "UpdateEntries":
        return this.#update(call, body);
      case "Sync":
        this.#settle();
        return ok;
      case "Read":
        return { ...ok, body: this.#read(body) };
      case "PrepareSnapshot": {
        const handle = JSON.stringify({ handle: ++this.#handleNumber });
        this.#handles.set(handle, encodeState(this.#state));
        return { ...ok, body: handle };
      }
      case "SaveSnapshot": {
        const bytes = this.#handles.get(body.toString());
        return bytes === undefined
          ? { status: 404, body: "no such handle" }
          : { ...ok, body: bytes };
      }
      case "ReleaseSnapshot":
        this.#handles.delete(body.toString());
        return ok;
      case "RecoverFromSnapshot":
        return this.#recover(body);
      default:
        throw new Violation(`node ${this.#options.node} asks for ${call.request.name}`);
    }
  }

  #update({ headers }: Call, body: Buffer): Reply {
    const { swarm, node } = this.#options;
    if (Number(headers["barge-previous-index"]) !== this.#state.index) {
      return { status: 409, body: `stored is ${this.#state.index}` };
    }
    const { entries, isJson } = readUpdate(body);
    const results = entries.map(({ index, command }) => {
      if (index <= this.#state.index) {
        throw new Violation(`node ${node} gives its application ${index} again`);
      }
      this.#isNext(index);
      const bytes = Buffer.from(command, "latin1");
      this.#unsynced.push({ index, command: bytes });
      return this.#execute(index, bytes);
    });
    this.#compare();
    if (!swarm.sync) this.#settle();
    this.#options.tally.appUpdates++;
    return { status: 200, ...updateReply(isJson, results) };
  }

  /** Everything before it that runs is here. */
  #isNext(index: number): void {
    const { oracle, node, given } = this.#options;
    given(index);
    for (let before = this.#state.index + 1; before < index; before++) {
      if (oracle.commands.has(before)) {
        throw new Violation(
          `node ${node} gives its application ${index}, and never gave ${before}`,
        );
      }
    }
    if (!oracle.commands.has(index)) {
      throw new Violation(`node ${node} gives its application ${index}, which does not run`);
    }
  }

  /** Returns what the key-value machine would: the code and what goes with it, nothing for a plain ok. */
  #execute(index: number, command: Uint8Array): Uint8Array {
    const { oracle, node } = this.#options;
    const reader = this.#reader;
    const view = new DataView(command.buffer, command.byteOffset, command.byteLength);
    if (!reader.read(view, 0, command.byteLength)) throw new Violation(`bad command at ${index}`);
    const { op, keyAt, keyLength, valueAt, valueLength, prevRevision } = reader;
    const key = decoder.decode(command.subarray(keyAt, keyAt + keyLength));
    const value = decoder.decode(command.subarray(valueAt, valueAt + valueLength));
    const truth = oracle.commands.get(index)!;
    if (truth.key !== key || truth.value !== value) {
      throw new Violation(`node ${node} gives its application ${value} at ${index}`);
    }
    const { entries } = this.#state;
    this.#state = { index, entries };
    const held = entries.get(key);
    const revision = held?.revision ?? 0;
    const deletes = op === KvOp.delete || op === KvOp.compareAndDelete;
    if (op >= KvOp.compareAndPut && revision !== prevRevision) {
      return coded(ResultCode.compareFailed, revision);
    }
    if (!deletes) entries.set(key, { value, revision: index });
    else if (!entries.delete(key)) return coded(ResultCode.notFound);
    return new Uint8Array(0);
  }

  #read(query: Uint8Array): Uint8Array {
    const read = readKvQuery(query);
    if (read?.op !== KvQuery.get)
      throw new Violation(`node ${this.#options.node} passes on a bad query`);
    const { entries, index } = this.#state;
    const held = entries.get(decoder.decode(read.key));
    const answer = { index, value: held?.value, revision: held?.revision };
    return encoder.encode(JSON.stringify(answer));
  }

  #recover(body: Buffer): Reply {
    this.#state = decodeState(body);
    this.#isWiped = false;
    this.#compare();
    this.#options.tally.appRestores++;
    if (!this.#options.swarm.sync) this.#settle();
    // Until it syncs, a crash brings back what was there before.
    else this.#unsynced = [];
    return { status: 204, body: "" };
  }

  /** All applications are equal at one index. */
  #compare(): void {
    const { oracle, node } = this.#options;
    oracle.application(node, this.#state.index, crc32(encodeState(this.#state)));
  }
}

/** What it answers to a read: the state as of its entry at `index`. */
export interface AppAnswer {
  readonly index: number;
  /** Undefined where there is no such key. */
  readonly value?: string;
  readonly revision?: number;
}

export function readAppAnswer(bytes: Uint8Array): AppAnswer {
  return JSON.parse(decoder.decode(bytes)) as AppAnswer;
}

function coded(code: number, revision?: number): Uint8Array {
  const bytes = new Uint8Array(revision === undefined ? 1 : 9);
  bytes[0] = code;
  if (revision !== undefined) new DataView(bytes.buffer).setBigUint64(1, BigInt(revision), true);
  return bytes;
}

function encodeState({ index, entries }: State): Uint8Array {
  const sorted = [...entries].toSorted(([one], [other]) => (one < other ? -1 : 1));
  return encoder.encode(JSON.stringify({ index, entries: sorted }));
}

function decodeState(bytes: Buffer): State {
  const { index, entries } = JSON.parse(bytes.toString()) as {
    readonly index: number;
    readonly entries: readonly (readonly [string, Held])[];
  };
  return { index, entries: new Map(entries) };
}
