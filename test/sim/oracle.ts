/**
 * What the cluster has applied, as one log for all nodes, and a key-value store in a few lines that says what each command had to answer. The
 * first node to apply a batch makes it history; every other must apply the very same one.
 */
import { ResultCode } from "../../src/machine/machine.ts";
import { decodeConfiguration } from "../../src/raft/configuration.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { BatchKind, batchHeaderBytes, bodyOf, type Batch } from "../../src/wire/batch.ts";
import { KvCommandReader, KvOp } from "../../src/wire/kv.ts";
import { readSectionHeader, sectionHeaderBytes } from "../../src/wire/section.ts";
import type { Entry } from "./durable-ledger.ts";

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
    if (batch.kind === BatchKind.configuration) {
      this.#configurations.push({ index: firstIndex, body: bodyOf(batch).slice() });
      this.configuration = decodeConfiguration(bodyOf(batch));
    }
    return true;
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
    while (at < bytes.byteLength) {
      const header = readSectionHeader(bytes, at);
      if (header === undefined)
        throw new Error(`batch at ${batch.firstIndex} holds no section at ${at}`);
      let command = at + sectionHeaderBytes;
      at = command + header.bodyBytes;
      for (let position = 0; position < header.count; position++) {
        const length = view.getUint32(command, true);
        if (!this.#reader.read(view, command + 4, length))
          throw new Error(`bad command at ${index}`);
        this.#execute(index++, bytes);
        command += 4 + length;
      }
    }
    if (index !== batch.firstIndex + batch.count) {
      throw new Error(
        `batch at ${batch.firstIndex} counts ${batch.count} and holds ${index - batch.firstIndex}`,
      );
    }
  }

  #execute(index: number, bytes: Uint8Array): void {
    const { op, keyAt, keyLength, valueAt, valueLength, prevRevision } = this.#reader;
    const key = decoder.decode(bytes.subarray(keyAt, keyAt + keyLength));
    const value = decoder.decode(bytes.subarray(valueAt, valueAt + valueLength));
    if (value !== "") {
      const before = this.indexOfValue.get(value);
      if (before !== undefined)
        throw new Error(`${value} is in the log twice: at ${before} and ${index}`);
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
