/**
 * Which data folder this node has met under each other member's id, durably [36]. A member whose folder was lost or wiped comes back with
 * another incarnation: it has forgotten its votes and what it acknowledged, so taking it for the old one could elect a leader that
 * lacks committed entries. It is refused, for ever, and has to be replaced as a member.
 *
 *     peers.json   {"formed": true, "incarnations": {"2": "…", "3": "…"}}
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FatalError } from "../fatal.ts";
import { writeFileDurably } from "./durable-file.ts";

export class PeerLedger {
  readonly #path: string;
  readonly #incarnations = new Map<number, string>();
  #formed = false;

  /** Reads the ledger of a data folder. Throws FatalError where it is damaged. */
  constructor(folder: string) {
    this.#path = join(folder, "peers.json");
    if (existsSync(this.#path)) this.#read();
  }

  /** All initial members have accepted this folder once; from then on a majority suffices for everything. */
  get formed(): boolean {
    return this.#formed;
  }

  /** Undefined when this is the folder that was met before under that id, or the first one: then it is remembered, durably. */
  refusal(nodeId: number, incarnation: string): string | undefined {
    const known = this.#incarnations.get(nodeId);
    if (known === incarnation) return undefined;
    if (known !== undefined) {
      return (
        `Node ${nodeId} is known here with another data folder (incarnation ${known}, this one is ${incarnation}): ` +
        "its folder was wiped, lost or swapped, and with it its votes. Bring the old folder back; a replaced member has to join under a new node id."
      );
    }
    this.#incarnations.set(nodeId, incarnation);
    this.#write();
    return undefined;
  }

  form(): void {
    if (this.#formed) return;
    this.#formed = true;
    this.#write();
  }

  #read(): void {
    let value: unknown;
    try {
      value = JSON.parse(readFileSync(this.#path, "utf8"));
    } catch (error) {
      throw this.#damaged(String(error));
    }
    const { formed, incarnations } = (value ?? {}) as Record<string, unknown>;
    if (typeof formed !== "boolean" || typeof incarnations !== "object" || incarnations === null) {
      throw this.#damaged("it is incomplete");
    }
    for (const [id, incarnation] of Object.entries(incarnations)) {
      if (typeof incarnation !== "string" || !/^[1-9][0-9]*$/.test(id)) {
        throw this.#damaged(`entry ${id} is malformed`);
      }
      this.#incarnations.set(Number(id), incarnation);
    }
    this.#formed = formed;
  }

  #write(): void {
    const content = { formed: this.#formed, incarnations: Object.fromEntries(this.#incarnations) };
    writeFileDurably(this.#path, `${JSON.stringify(content, undefined, 2)}\n`);
  }

  #damaged(why: string): FatalError {
    return new FatalError(
      "wrong_data_dir",
      `${this.#path}: ${why}; bring it back from a copy, or take this node out of the cluster`,
    );
  }
}
