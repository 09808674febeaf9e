/**
 * The body of one UpdateEntries, written as sections come: runs of commands with consecutive indexes. In the JSON shape a string per command, as base64
 * has it; in the binary one the bytes of each run are copied as they lie in the log. Pure.
 */
import { writeSafe } from "../../wire/batch.ts";
import { bytesType, jsonType, type UpdateShape } from "./contract.ts";

const runHeadBytes = 16;
const jsonHead = '{"Entries":[';
const jsonEnd = "]}";

export interface UpdateBody {
  readonly contentType: string;
  /** Of commands, with their lengths. */
  readonly commandBytes: number;
  readonly entries: number;
  /** Commands at `at` up to `end`, each behind its length, which all fit; the first has log index `index`. Below it nothing comes any more. */
  add(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    count: number,
    index: number,
  ): void;
  /** Nothing is added any more. */
  end(): Uint8Array;
}

export function createUpdateBody(shape: UpdateShape): UpdateBody {
  return shape === "json" ? new JsonBody() : new BinaryBody();
}

class JsonBody implements UpdateBody {
  readonly contentType = jsonType;
  commandBytes = 0;
  entries = 0;
  #text = jsonHead;

  add(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    count: number,
    index: number,
  ): void {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let commandAt = at;
    let text = this.#text;
    for (let position = 0; position < count; position++) {
      const from = commandAt + 4;
      commandAt = from + view.getUint32(commandAt, true);
      if (this.entries + position > 0) text += ",";
      text += `{"Index":${index + position},"Cmd":"${buffer.toString("base64", from, commandAt)}"}`;
    }
    this.#text = text;
    this.entries += count;
    this.commandBytes += end - at;
  }

  end(): Uint8Array {
    return Buffer.from(this.#text + jsonEnd, "latin1");
  }
}

class BinaryBody implements UpdateBody {
  readonly contentType = bytesType;
  commandBytes = 0;
  entries = 0;
  #bytes = new Uint8Array(4_096);
  #view = new DataView(this.#bytes.buffer);
  #length = 4;
  #runs = 0;
  /** The run that the next commands may be of: where its head is, and the index that would be next. */
  #runAt = 0;
  #nextIndex = -1;

  add(
    bytes: Uint8Array,
    _view: DataView,
    at: number,
    end: number,
    count: number,
    index: number,
  ): void {
    const size = end - at;
    this.#makeRoom(runHeadBytes + size);
    if (index !== this.#nextIndex) {
      this.#runs += 1;
      this.#runAt = this.#length;
      writeSafe(this.#view, this.#runAt, index);
      this.#view.setUint32(this.#runAt + 8, 0, true);
      this.#view.setUint32(this.#runAt + 12, 0, true);
      this.#length += runHeadBytes;
    }
    this.#raise(this.#runAt + 8, count);
    this.#raise(this.#runAt + 12, size);
    this.#bytes.set(bytes.subarray(at, end), this.#length);
    this.#length += size;
    this.#nextIndex = index + count;
    this.entries += count;
    this.commandBytes += size;
  }

  end(): Uint8Array {
    this.#view.setUint32(0, this.#runs, true);
    return this.#bytes.subarray(0, this.#length);
  }

  #raise(at: number, by: number): void {
    this.#view.setUint32(at, this.#view.getUint32(at, true) + by, true);
  }

  #makeRoom(size: number): void {
    const needed = this.#length + size;
    if (needed <= this.#bytes.byteLength) return;
    const bytes = new Uint8Array(Math.max(needed, 2 * this.#bytes.byteLength));
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }
}
