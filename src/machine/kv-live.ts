/** The file that is a machine's state, the snapshots that are sent from it, and how another one that was received takes its place [25]. */
import type { KvFile, KvMeta } from "./kv-file.ts";
import type { Limits } from "../limits.ts";
import type { KvFolder } from "./kv-folder.ts";
import { KvSnapshots } from "./kv-snapshots.ts";
import type { IncomingSnapshot } from "./machine.ts";
import { isSoundMeta, unsoundMeta } from "./sound-meta.ts";

export interface KvLiveOptions {
  readonly file: KvFile;
  /** Which generation `file` is; 0 where it is not said. */
  readonly generation?: number | undefined;
  /** Where others come to lie. Without it no snapshot is received. */
  readonly folder?: KvFolder | undefined;
}

export class KvLive {
  readonly #folder: KvFolder | undefined;
  #file: KvFile;
  #snapshots: KvSnapshots;
  #generation: number;
  /** Those before, until nobody can come back to them. */
  #former: number[] = [];

  constructor({ file, folder, generation = 0 }: KvLiveOptions) {
    this.#folder = folder;
    this.#file = file;
    this.#snapshots = new KvSnapshots(file);
    this.#generation = generation;
  }

  get file(): KvFile {
    return this.#file;
  }

  get snapshots(): KvSnapshots {
    return this.#snapshots;
  }

  /** What the last life left; undefined where it left nothing. Throws where that is not what a machine has saved. */
  open(limits: Limits): KvMeta | undefined {
    const meta = this.#file.open();
    if (meta !== undefined && !isSoundMeta(meta, limits)) throw new Error(unsoundMeta);
    return meta;
  }

  receive(bytes: number, limits: Limits): IncomingSnapshot | undefined {
    const incoming = this.#folder?.receive(bytes);
    if (incoming === undefined) return undefined;
    return {
      ...incoming,
      open: () => {
        const meta = incoming.open();
        if (meta === undefined) return "noSpace";
        return isSoundMeta(meta, limits) ? "opened" : "unusable";
      },
    };
  }

  /** Leaves the file and opens the one that was received; returns what it says of itself. */
  goOver({ generation }: IncomingSnapshot): KvMeta {
    this.#snapshots.refuse();
    this.#file.close();
    this.#former.push(this.#generation);
    this.#generation = generation;
    this.#file = this.#folder!.file(generation);
    this.#snapshots = new KvSnapshots(this.#file);
    const meta = this.#file.open();
    if (meta === undefined) throw new Error(`kv: snapshot ${generation} is not there`);
    return meta;
  }

  /** The log's pointer to it is durable. */
  settle(): void {
    for (const generation of this.#former.splice(0)) this.#folder!.remove(generation);
  }
}
