/**
 * Apply versions on one node: what this build can, what is in force, and which peers do not fit [16]. The peers say in their hello what they can;
 * nobody who cannot apply what is in force is let in, as its state would part from ours at the next command that it does not understand.
 */
import { applyVersionFirst } from "../wire/versions.ts";

export interface VersionsOptions {
  readonly nodeId: number;
  /** For people. */
  readonly software: string;
  readonly applyVersionMax: number;
  /** The one in force here: applied. */
  readonly applyVersion: () => number;
  /** For the log. */
  readonly tell: (nodeId: number, message: string) => void;
}

/** What a peer says of itself: its hello, or its reply to ours. */
export interface PeerVersions {
  readonly nodeId?: number;
  readonly software: string;
  readonly applyVersion?: number;
  readonly applyVersionMax?: number;
}

export interface Incompatibility {
  readonly nodeId: number;
  readonly message: string;
}

/** Node ids come from outside: no more of them are kept. */
const incompatibleMax = 64;
const saidMax = 64;

export class Versions {
  readonly #options: VersionsOptions;
  readonly #incompatible = new Map<number, string>();
  /** The highest that each peer that fitted could, when it said so last. */
  readonly #said = new Map<number, number>();

  constructor(options: VersionsOptions) {
    this.#options = options;
  }

  /** For our hello, and our reply to one. */
  get own(): { readonly applyVersion: number; readonly applyVersionMax: number } {
    const { applyVersion, applyVersionMax } = this.#options;
    return { applyVersion: applyVersion(), applyVersionMax };
  }

  /** Why a peer and this node cannot be members of one cluster; undefined where they can. */
  refuse(peer: PeerVersions): string | undefined {
    const { nodeId, software } = this.#options;
    const { applyVersion: ours, applyVersionMax: oursMax } = this.own;
    const { nodeId: id = 0, applyVersion: theirs = applyVersionFirst } = peer;
    const theirsMax = peer.applyVersionMax ?? applyVersionFirst;
    let message: string | undefined;
    if (theirsMax < ours) {
      message = tooOld(id, peer.software, theirsMax, ours);
    } else if (theirs > oursMax) {
      message = tooOld(nodeId, software, oursMax, theirs);
    }
    if (message === undefined) {
      this.#incompatible.delete(id);
      if (this.#said.has(id) || this.#said.size < saidMax) this.#said.set(id, theirsMax);
    } else this.note(id, message);
    return message;
  }

  /** The highest that the peer can, as it said when it was last met in this life; 0 where it was not. */
  saidMax(nodeId: number): number {
    return this.#said.get(nodeId) ?? 0;
  }

  /** A peer and this node do not understand each other. Told once, until it changes. */
  note(nodeId: number, message: string): void {
    const known = this.#incompatible.get(nodeId);
    if (known === message) return;
    if (known === undefined && this.#incompatible.size >= incompatibleMax) return;
    this.#incompatible.set(nodeId, message);
    this.#options.tell(nodeId, message);
  }

  /** It is connected, so all is well. */
  met(nodeId: number): void {
    this.#incompatible.delete(nodeId);
  }

  get incompatible(): Incompatibility[] {
    return [...this.#incompatible].map(([nodeId, message]) => ({ nodeId, message }));
  }
}

/** For people: which node is to be upgraded. */
export function tooOld(nodeId: number, software: string, max: number, needed: number): string {
  return (
    `Node ${nodeId} runs barge ${software}, which can apply versions up to ${max}; the cluster applies version ${needed}, ` +
    `and a version is never taken back. Start node ${nodeId} with a newer build; its data folder can stay.`
  );
}
