/**
 * Which data folder this node has met under each other member's id, durably [36]. A member whose folder was lost or wiped comes back with
 * another incarnation: it has forgotten its votes and what it acknowledged, so taking it for the old one could elect a leader that
 * lacks committed entries. It is refused, for ever, and has to be replaced as a member. This is for the first members of a cluster alone: those
 * that join later, and all others from the first change of the members on, are bound to their folders by the configuration.
 *
 * It also says whether there are voters besides this node, as the configuration in force last said: what a damaged log lost they have [22].
 *
 *     peers.json   {"formed": true, "incarnations": {"2": "…", "3": "…"}, "hasOtherVoters": true}
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FatalError } from "../fatal.ts";
import { writeFileDurably } from "./durable-file.ts";

interface Content {
  readonly formed: boolean;
  readonly incarnations: ReadonlyMap<number, string>;
  readonly hasOtherVoters: boolean | undefined;
}

/** Every change is durable once the call returns; it throws DiskFullError where there is no space, and may be tried again. */
export class PeerLedger {
  readonly #path: string;
  #incarnations: ReadonlyMap<number, string> = new Map();
  #formed = false;
  #hasOtherVoters: boolean | undefined;

  /** Reads the ledger of a data folder. Throws FatalError where it is damaged. */
  constructor(folder: string) {
    this.#path = join(folder, "peers.json");
    if (existsSync(this.#path)) this.#read();
  }

  /** All initial members have accepted this folder once; from then on a majority suffices for everything. */
  get formed(): boolean {
    return this.#formed;
  }

  incarnationOf(nodeId: number): string | undefined {
    return this.#incarnations.get(nodeId);
  }

  /** The folder that was met first under that id: this one, where there was none, and then it is remembered, durably. */
  meet(nodeId: number, incarnation: string): string {
    const known = this.#incarnations.get(nodeId);
    if (known !== undefined) return known;
    this.#write({ incarnations: new Map(this.#incarnations).set(nodeId, incarnation) });
    return incarnation;
  }

  form(): void {
    if (!this.#formed) this.#write({ formed: true });
  }

  /** Undefined where nothing was said since the first start. */
  get hasOtherVoters(): boolean | undefined {
    return this.#hasOtherVoters;
  }

  setOtherVoters(hasOtherVoters: boolean): void {
    this.#write({ hasOtherVoters });
  }

  /** The cluster is another one, of this node alone. */
  forget(): void {
    this.#write({ formed: true, incarnations: new Map(), hasOtherVoters: false });
  }

  #read(): void {
    let value: unknown;
    try {
      value = JSON.parse(readFileSync(this.#path, "utf8"));
    } catch (error) {
      throw this.#damaged(String(error));
    }
    const { formed, incarnations, hasOtherVoters } = (value ?? {}) as Record<string, unknown>;
    if (hasOtherVoters !== undefined && typeof hasOtherVoters !== "boolean") {
      throw this.#damaged("hasOtherVoters is malformed");
    }
    if (typeof formed !== "boolean" || typeof incarnations !== "object" || incarnations === null) {
      throw this.#damaged("it is incomplete");
    }
    const known = new Map<number, string>();
    for (const [id, incarnation] of Object.entries(incarnations)) {
      if (typeof incarnation !== "string" || !/^[1-9][0-9]*$/.test(id)) {
        throw this.#damaged(`entry ${id} is malformed`);
      }
      known.set(Number(id), incarnation);
    }
    this.#incarnations = known;
    this.#formed = formed;
    this.#hasOtherVoters = hasOtherVoters;
  }

  /** What is not on the disk is not known: where there is no space for it, all is as before. */
  #write(changed: Partial<Content>): void {
    const next: Content = {
      formed: this.#formed,
      incarnations: this.#incarnations,
      hasOtherVoters: this.#hasOtherVoters,
      ...changed,
    };
    const written = { ...next, incarnations: Object.fromEntries(next.incarnations) };
    writeFileDurably(this.#path, `${JSON.stringify(written, undefined, 2)}\n`);
    this.#formed = next.formed;
    this.#incarnations = next.incarnations;
    this.#hasOtherVoters = next.hasOtherVoters;
  }

  #damaged(why: string): FatalError {
    return new FatalError(
      "wrong_data_dir",
      `${this.#path}: ${why}; bring it back from a copy, or take this node out of the cluster`,
    );
  }
}
