/**
 * What the cluster has applied, as one log for all nodes, and a key-value store in a few lines that says what each command had to answer. The
 * first node to apply a batch makes it history; every other must apply the very same one.
 */
import { crc32 } from "node:zlib";
import type { Limits } from "../../src/limits.ts";
import { ResultCode } from "../../src/machine/machine.ts";
import { decodeConfiguration, membersOf } from "../../src/raft/configuration.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import {
  applyVersionOf,
  BatchKind,
  batchHeaderBytes,
  bodyOf,
  type Batch,
} from "../../src/wire/batch.ts";
import { KvCommandReader, KvOp } from "../../src/wire/kv.ts";
import {
  KvCompareReader,
  KvOperator,
  KvTarget,
  kvTxnOp,
  KvTxnReader,
  operationEnd,
  operationStart,
} from "../../src/wire/kv-txn.ts";
import {
  readSectionHeader,
  type SectionHeader,
  sectionHeaderBytes,
  SectionKind,
} from "../../src/wire/section.ts";
import { readSessionCommand } from "../../src/wire/session-commands.ts";
import type { Entry } from "./durable-ledger.ts";
import { SessionModel, type Verdict } from "./session-model.ts";

/** A section that did not run: the log has it, and it changed nothing. */
export interface Spared {
  readonly index: number;
  readonly count: number;
  readonly verdict: Exclude<Verdict, "runs">;
}

/** One command as it was applied. */
export interface Applied {
  readonly index: number;
  readonly key: string;
  readonly value: string;
  readonly code: number;
  /** Of a failed compare: the key's revision. */
  readonly met: number;
}

export interface Held {
  readonly value: string;
  readonly revision: number;
}

const decoder = new TextDecoder();

/** Values say which group they belong to, so that one which strays is noticed. */
export function valuePrefixOf(group: number): string {
  return group === 0 ? "v" : `g${group}.v`;
}

export class Oracle {
  /** What each key holds at `lastIndex`. */
  readonly state = new Map<string, Held>();
  /** Commands by index; no-ops and configurations have no entry. */
  readonly commands = new Map<number, Applied>();
  /** Index at which a value was written or tried to be. */
  readonly indexOfValue = new Map<string, number>();
  /** The members as of `lastIndex`. */
  configuration: Configuration | undefined;
  lastIndex = 0;
  lastTerm = 0;
  lastCrc = 0;
  /** Every batch that was applied, in order. */
  readonly batches: Entry[] = [];
  readonly #crcs = new Map<number, number>();
  readonly #configurations: { readonly index: number; readonly body: Uint8Array }[] = [];
  readonly #hashes = new Map<number, number>();
  readonly #reader = new KvCommandReader();
  readonly #sessions: SessionModel;
  #applyVersion = 1;
  /** By the first index of their batch. */
  readonly #spared = new Map<number, readonly Spared[]>();
  readonly #savedSessions = new Map<number, number>();
  readonly #applications = new Map<number, number>();
  /** What is applied is given to an application beside each node: results may be lost on one of them, and say themselves what they are. */
  isOfApplication = false;

  readonly #group: number;

  readonly #limits: Limits;
  readonly #txn = new KvTxnReader();
  readonly #compare = new KvCompareReader();
  /** Hears of each key that a transaction writes, or deletes. */
  onWritten: (key: string, value: Uint8Array | undefined, index: number) => void = () => {};

  constructor(group: number, limits: Limits) {
    this.#group = group;
    this.#limits = limits;
    this.#sessions = new SessionModel(limits);
  }

  /** A node applies a batch. True when it is the first one to do so. */
  apply(nodeId: number, batch: Batch): boolean {
    const { firstIndex, count, crc } = batch;
    if (firstIndex <= this.lastIndex) {
      const known = this.#crcs.get(firstIndex);
      if (known !== crc) {
        throw new Error(
          `node ${nodeId} applies another batch at ${firstIndex} (term ${batch.term}) than was applied there before`,
        );
      }
      return false;
    }
    if (firstIndex !== this.lastIndex + 1) {
      throw new Error(
        `node ${nodeId} applies from ${firstIndex}, history ends at ${this.lastIndex}`,
      );
    }
    if (batch.term < this.lastTerm) throw new Error(`applied terms fall at ${firstIndex}`);
    this.#crcs.set(firstIndex, crc);
    const { term } = batch;
    this.batches.push({ firstIndex, lastIndex: firstIndex + count - 1, term, crc });
    this.lastIndex += count;
    this.lastTerm = batch.term;
    this.lastCrc = crc;
    if (batch.kind === BatchKind.commands) this.#replay(batch);
    if (batch.kind === BatchKind.applyVersion) this.#applyVersion = applyVersionOf(batch);
    if (batch.kind === BatchKind.configuration) {
      this.#configurations.push({ index: firstIndex, body: bodyOf(batch).slice() });
      this.configuration = decodeConfiguration(bodyOf(batch));
    }
    return true;
  }

  get configurationCount(): number {
    return this.#configurations.length;
  }

  /** It was no member at some time, the first `count` configurations left aside. */
  hasLeft(nodeId: number, count: number): boolean {
    return this.#configurations
      .slice(count)
      .some(({ body }) => !membersOf(decodeConfiguration(body)!).includes(nodeId));
  }

  /** A node's log begins anew at an index, with these members. */
  members(nodeId: number, index: number, body: Uint8Array): void {
    const known = this.#configurations.findLast((each) => each.index <= index);
    if (known === undefined || Buffer.compare(known.body, body) !== 0) {
      throw new Error(
        `node ${nodeId} takes over other members at ${index} than are committed there`,
      );
    }
  }

  /** A node says what hash it has at an index. */
  hash(nodeId: number, index: number, hash: number): void {
    const known = this.#hashes.get(index);
    if (known === undefined) this.#hashes.set(index, hash);
    else if (known !== hash) {
      throw new Error(
        `node ${nodeId} has state hash ${hash} at ${index}, another node had ${known}`,
      );
    }
  }

  /** A node says what it knows of sessions at an index, as it would save it. */
  savedSessions(nodeId: number, index: number, saved: Uint8Array): void {
    const crc = crc32(saved);
    const known = this.#savedSessions.get(index);
    if (known === undefined) this.#savedSessions.set(index, crc);
    else if (known !== crc) {
      throw new Error(`node ${nodeId} knows other sessions at ${index} than another node knew`);
    }
  }

  /** The application of a node holds something as of its entry at an index. */
  application(nodeId: number, index: number, crc: number): void {
    const known = this.#applications.get(index);
    if (known === undefined) this.#applications.set(index, crc);
    else if (known !== crc) {
      throw new Error(`the application of node ${nodeId} holds at ${index} what no other did`);
    }
  }

  /** The sections of a batch that must not run. */
  sparedIn(batch: Batch): readonly Spared[] {
    return this.#spared.get(batch.firstIndex) ?? [];
  }

  /** The machine answered something else than a plain ok. */
  result(nodeId: number, index: number, code: number): void {
    const command = this.commands.get(index);
    if (command === undefined)
      throw new Error(`node ${nodeId} has a result for index ${index}, which is no command`);
    if (command.code !== code) {
      throw new Error(`node ${nodeId} answers ${code} at ${index}, the model ${command.code}`);
    }
  }

  #replay(batch: Batch): void {
    const { bytes } = batch;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let index = batch.firstIndex;
    let at = batchHeaderBytes;
    const spared: Spared[] = [];
    while (at < bytes.byteLength) {
      const header = readSectionHeader(bytes, at);
      if (header === undefined)
        throw new Error(`batch at ${batch.firstIndex} holds no section at ${at}`);
      const bodyAt = at + sectionHeaderBytes;
      at = bodyAt + header.bodyBytes;
      const { count, kind } = header;
      const verdict = this.#judge(header, view, bodyAt, index, batch.timeMs);
      if (verdict !== "runs") spared.push({ index, count, verdict });
      else if (kind !== SectionKind.control) this.#run(index, count, view, bodyAt, bytes);
      index += count;
    }
    if (spared.length > 0) this.#spared.set(batch.firstIndex, spared);
    if (index !== batch.firstIndex + batch.count) {
      throw new Error(
        `batch at ${batch.firstIndex} counts ${batch.count} and holds ${index - batch.firstIndex}`,
      );
    }
  }

  #judge(
    header: SectionHeader,
    view: DataView,
    bodyAt: number,
    index: number,
    timeMs: number,
  ): Verdict {
    if (header.kind === SectionKind.plain) return "runs";
    if (this.#applyVersion < 2) throw new Error(`${index} is of a session before there are any`);
    if (header.kind !== SectionKind.control) return this.#sessions.judge(header, index, timeMs);
    const command = readSessionCommand(view, bodyAt + 4, view.getUint32(bodyAt, true));
    if (command === undefined) throw new Error(`${index} is no command of a session`);
    return this.#sessions.control(command, index, timeMs);
  }

  #run(first: number, count: number, view: DataView, bodyAt: number, bytes: Uint8Array): void {
    let at = bodyAt;
    for (let index = first; index < first + count; index++) {
      const length = view.getUint32(at, true);
      if (view.getUint8(at + 4) === kvTxnOp) {
        this.#transact(index, view, at + 4, length, bytes);
        at += 4 + length;
        continue;
      }
      if (!this.#reader.read(view, at + 4, length)) throw new Error(`bad command at ${index}`);
      this.#execute(index, bytes);
      at += 4 + length;
    }
  }

  /** As the registry uses them: compares of revisions, then puts and deletes. */
  #transact(index: number, view: DataView, start: number, length: number, bytes: Uint8Array): void {
    const txn = this.#txn;
    if (!txn.read(bytes, view, start, length, this.#limits)) {
      throw new Error(`bad transaction at ${index}`);
    }
    const compare = this.#compare;
    let holds = true;
    let at = txn.comparesAt;
    for (let number = 0; number < txn.compareCount; number++) {
      at = compare.read(view, at, start + length);
      const { target, operator, keyAt, keyLength, revision } = compare;
      if (target !== KvTarget.revision || operator !== KvOperator.equal) {
        throw new Error(`the model knows no such compare as the one at ${index}`);
      }
      const key = decoder.decode(bytes.subarray(keyAt, keyAt + keyLength));
      if ((this.state.get(key)?.revision ?? 0) !== revision) holds = false;
    }
    const code = holds ? ResultCode.ok : ResultCode.failureList;
    this.commands.set(index, { index, key: "", value: "", code, met: 0 });
    at = txn.successAt;
    for (let number = 0; holds && number < txn.successCount; number++) {
      const end = operationEnd(view, at);
      const operation = operationStart(at);
      const reader = this.#reader;
      if (!reader.read(view, operation, end - operation)) throw new Error(`bad write at ${index}`);
      const { op, keyAt, keyLength, valueAt, valueLength } = reader;
      const key = decoder.decode(bytes.subarray(keyAt, keyAt + keyLength));
      const data = bytes.slice(valueAt, valueAt + valueLength);
      if (op === KvOp.put) this.state.set(key, { value: decoder.decode(data), revision: index });
      else this.state.delete(key);
      this.onWritten(key, op === KvOp.put ? data : undefined, index);
      at = end;
    }
  }

  #execute(index: number, bytes: Uint8Array): void {
    const { op, keyAt, keyLength, valueAt, valueLength, prevRevision } = this.#reader;
    const key = decoder.decode(bytes.subarray(keyAt, keyAt + keyLength));
    const value = decoder.decode(bytes.subarray(valueAt, valueAt + valueLength));
    if (value !== "") {
      if (!value.startsWith(valuePrefixOf(this.#group)))
        throw new Error(`${value} is written to group ${this.#group}`);
      const before = this.indexOfValue.get(value);
      if (before !== undefined)
        throw new Error(`${value} is written twice: at ${before} and ${index}`);
      this.indexOfValue.set(value, index);
    }
    const held = this.state.get(key);
    const revision = held?.revision ?? 0;
    let code: number = ResultCode.ok;
    if (op >= KvOp.compareAndPut && revision !== prevRevision) code = ResultCode.compareFailed;
    else if (op === KvOp.put || op === KvOp.compareAndPut)
      this.state.set(key, { value, revision: index });
    else if (held === undefined) code = ResultCode.notFound;
    else this.state.delete(key);
    this.commands.set(index, { index, key, value, code, met: revision });
  }
}
