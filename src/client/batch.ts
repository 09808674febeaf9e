/** The section that a caller fills by hand (api.ts, `WriteBatch`). */
import { BargeError } from "../errors.ts";
import { KvOp } from "../wire/kv.ts";
import type {
  CallOptions,
  CodecName,
  Key,
  ValueInput,
  WriteBatch,
  WriteManyResult,
} from "./api.ts";
import type { ValueCodec } from "./value-codec.ts";
import type { SectionBounds, WriteSection } from "./write-section.ts";

export type SendSection = (
  section: WriteSection,
  options: CallOptions | undefined,
) => Promise<WriteManyResult>;

export class Batch<C extends CodecName> implements WriteBatch<C> {
  /** Undefined once sent: from then on it belongs to the client. */
  #section: WriteSection | undefined;
  readonly #bounds: SectionBounds;
  readonly #codec: ValueCodec;
  readonly #send: SendSection;

  constructor(section: WriteSection, bounds: SectionBounds, codec: ValueCodec, send: SendSection) {
    this.#section = section;
    this.#bounds = bounds;
    this.#codec = codec;
    this.#send = send;
  }

  get count(): number {
    return this.#section?.count ?? 0;
  }

  get byteLength(): number {
    return this.#section?.byteLength ?? 0;
  }

  put(key: Key, value: ValueInput<C>): boolean {
    return this.#filling().addKv(this.#bounds, KvOp.put, key, this.#codec.encode(value), 0);
  }

  delete(key: Key): boolean {
    return this.#filling().addKv(this.#bounds, KvOp.delete, key, undefined, 0);
  }

  command(bytes: Uint8Array): boolean {
    return this.#filling().addCommand(this.#bounds, bytes);
  }

  async send(options?: CallOptions): Promise<WriteManyResult> {
    const section = this.#filling();
    if (section.count === 0) throw new BargeError("bad_request", "the batch is empty");
    this.#section = undefined;
    return this.#send(section, options);
  }

  #filling(): WriteSection {
    if (this.#section !== undefined) return this.#section;
    throw new BargeError("bad_request", "the batch was sent already; take another");
  }
}
