/**
 * Whom this node talks to, and who may talk to it: the members of the configuration in force at their addresses in it, each only with the data
 * folder that is bound to it [36].
 *
 * Who has left is kept for a while, so that it hears of it; later it is told at the door. A node that hears of no leader lets in whoever brings
 * a newer configuration than its own, as a guest: all members may have changed while it was away, or it may be new and know none of them yet.
 */
import type { Limits } from "../limits.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration } from "../raft/ready.ts";
import { DiskFullError } from "../storage/disk.ts";
import type { PeerLedger } from "../storage/peer-ledger.ts";
import type { Hello } from "../wire/messages.ts";

export interface PeersOptions {
  readonly nodeId: number;
  readonly incarnation: string;
  readonly limits: Limits;
  readonly raft: Raft;
  readonly ledger: PeerLedger;
  /** With which this node formed the cluster; empty where it joined one. */
  readonly initialMembers: ReadonlyMap<number, string>;
  /** Who is looked for while the log does not say who is a member: a new node may have no address at which it can be found itself. */
  readonly contacts: ReadonlyMap<number, string>;
  /** This node hears of no leader. */
  readonly isLost: () => boolean;
  readonly setMembers: (addresses: ReadonlyMap<number, string>) => void;
  /** All initial members have accepted this node's folder. */
  readonly formed: () => void;
  /** A member says that it is elsewhere than the configuration has it; told once. */
  readonly elsewhere: (id: number, message: string) => void;
}

/** Why somebody is not spoken to; the codes are those of a refused hello. */
export interface PeerRefusal {
  readonly code: "wrong_incarnation" | "member_removed" | "unknown_member" | "disk_full";
  readonly message: string;
}

interface Guest {
  readonly address: string;
  /** Its configuration: once ours is as new, it says whether the guest is a member. */
  readonly configurationIndex: number;
}

/** Guests are nodes of our own cluster; there is no reason for many. */
const guestsMax = 16;
/** Who has left is talked to for so many of the longest election time-outs. */
const leavingElections = 5;

export class Peers {
  readonly #options: PeersOptions;
  readonly #raft: Raft;
  readonly #guests = new Map<number, Guest>();
  /** Former members: where they are, and until when they are talked to. */
  readonly #leaving = new Map<number, { readonly address: string; readonly untilMs: number }>();
  /** Initial members that have accepted this node's folder. */
  readonly #met = new Set<number>();
  #members = new Map<number, string>();
  /** The addresses that members gave for their own, where those are not the known ones. */
  readonly #elsewhere = new Map<number, string>();
  #seenIndex = -1;
  #seenCommitted = false;
  #nextCheckMs = Infinity;

  constructor(options: PeersOptions) {
    this.#options = options;
    this.#raft = options.raft;
  }

  /** Initial members that have not accepted this node's folder yet. */
  get absent(): number[] {
    const { initialMembers, nodeId } = this.#options;
    return [...initialMembers.keys()].filter((id) => id !== nodeId && !this.#met.has(id));
  }

  /** After each turn: looks whether the members have changed. True when they have, or one more change is committed. */
  refresh(nowMs: number): boolean {
    const { configurationIndex, configurationCommitted } = this.#raft;
    const isSeen =
      configurationIndex === this.#seenIndex && configurationCommitted === this.#seenCommitted;
    if (isSeen && nowMs < this.#nextCheckMs) return false;
    this.#seenIndex = configurationIndex;
    this.#seenCommitted = configurationCommitted;
    this.#update(nowMs);
    return true;
  }

  #update(nowMs: number): void {
    const { configuration, configurationIndex, configurationCommitted, commit } = this.#raft;
    const members = new Map<number, string>();
    // Until a change is committed both sides of it are needed.
    const before = configurationCommitted ? configuration : this.#raft.configurationAt(commit);
    for (const { addresses } of [before, configuration]) {
      for (const [id, address] of Object.entries(addresses)) members.set(Number(id), address);
    }
    if (configuration.voters.length === 0) {
      for (const [id, address] of this.#options.contacts) members.set(id, address);
    }
    for (const [id, { address, configurationIndex: theirs }] of this.#guests) {
      if (members.has(id) || theirs <= configurationIndex) this.#guests.delete(id);
      else members.set(id, address);
    }
    const { electionTicksMax, tickMs } = this.#options.limits;
    const untilMs = nowMs + leavingElections * electionTicksMax * tickMs;
    for (const [id, address] of this.#members) {
      if (!members.has(id) && !this.#leaving.has(id)) this.#leaving.set(id, { address, untilMs });
    }
    const isNoted = this.#noteVoters([before, configuration]);
    this.#members = members;
    this.#nextCheckMs = isNoted ? Infinity : nowMs + this.#options.limits.diskFullRetryMs;
    const addresses = new Map(members);
    for (const [id, { address, untilMs: until }] of this.#leaving) {
      if (members.has(id) || until <= nowMs) this.#leaving.delete(id);
      else {
        addresses.set(id, address);
        this.#nextCheckMs = Math.min(this.#nextCheckMs, until);
      }
    }
    this.#options.setMembers(addresses);
  }

  /** Before a change can be committed: should the log be damaged later, it may not say any more who else there is. False where there is no space for it. */
  #noteVoters(configurations: readonly Configuration[]): boolean {
    const { nodeId, ledger, initialMembers } = this.#options;
    const ids = configurations.flatMap(({ voters, outgoing }) => [...voters, ...outgoing]);
    // A node that has only just joined knows of nobody yet.
    if (ids.length === 0) return true;
    const hasOthers = ids.some((id) => id !== nodeId);
    // That there is nobody else is noted also where it was so from the start: who looks into the folder later does not know the options.
    const isNoted = ledger.hasOtherVoters !== undefined || hasOthers;
    if (isNoted && hasOthers === hasOtherVoters(ledger, initialMembers)) return true;
    return unlessFull(() => ledger.setOtherVoters(hasOthers)) === undefined;
  }

  /** Who says hello to this node, from the same cluster: why it is refused, or undefined. */
  refuse(hello: Hello, nowMs: number): PeerRefusal | undefined {
    const refusal = this.#refuse(hello, nowMs);
    if (refusal === undefined) this.#compareAddress(hello);
    return refusal;
  }

  /** Both may lead to it: so nothing is changed by itself. */
  #compareAddress({ nodeId: id = 0, address }: Hello): void {
    const known = this.#members.get(id);
    if (address === undefined || known === undefined) return;
    if (address === known || address === this.#elsewhere.get(id)) return;
    this.#elsewhere.set(id, address);
    const message = `node ${id} says that it is at ${address}, the members have it at ${known}; if it moved: barge member move ${id}=${address}`;
    this.#options.elsewhere(id, message);
  }

  #refuse(hello: Hello, nowMs: number): PeerRefusal | undefined {
    const id = hello.nodeId ?? 0;
    const incarnation = hello.incarnation ?? "";
    if (id === this.#options.nodeId) {
      const message = `This is node ${id} itself: give each node an id of its own.`;
      return { code: "unknown_member", message };
    }
    if (this.#leaving.has(id)) return undefined;
    if (!this.#members.has(id)) return this.#refuseStranger(hello, nowMs);
    const known = this.incarnationOf(id);
    if (known !== undefined) return this.#refuseFolder(id, known, incarnation);
    // What brings a newer configuration is judged by that one, when it is here.
    if (this.#isNewer(hello)) return undefined;
    const { initialMembers, ledger } = this.#options;
    if (initialMembers.has(id)) {
      const full = unlessFull(() => ledger.meet(id, incarnation));
      return full ?? this.#refuseFolder(id, ledger.incarnationOf(id)!, incarnation);
    }
    const message = `Node ${id} was added but has not joined yet: start it with --join and an empty data folder.`;
    return { code: "unknown_member", message };
  }

  #isNewer({ configurationIndex = 0 }: Hello): boolean {
    return configurationIndex > this.#raft.configurationIndex;
  }

  #refuseStranger(hello: Hello, nowMs: number): PeerRefusal | undefined {
    const { nodeId: id = 0, address, configurationIndex = 0 } = hello;
    const { configuration, commit } = this.#raft;
    if (this.#raft.configurationAt(commit).removed?.includes(id) === true) return removed(id);
    const hasRoom = this.#options.isLost() && this.#guests.size < guestsMax;
    if (this.#isNewer(hello) && address !== undefined && hasRoom) {
      this.#guests.set(id, { address, configurationIndex });
      this.#update(nowMs);
      return undefined;
    }
    const members = Object.keys(configuration.addresses).join(", ");
    const message = `Node ${id} is not a member of this cluster (${members}): start it with --join and an empty data folder.`;
    return { code: "unknown_member", message };
  }

  /** Somebody was reached: why not to speak to it, or undefined. Once all the first members were, this node takes part in elections. */
  meet(id: number, incarnation: string): string | undefined {
    const { ledger, initialMembers, formed } = this.#options;
    if (this.incarnationOf(id) === undefined && initialMembers.has(id)) {
      const full = unlessFull(() => ledger.meet(id, incarnation));
      if (full !== undefined) return full.message;
    }
    const refusal = this.#refuseFolder(id, this.incarnationOf(id), incarnation);
    if (refusal !== undefined) return refusal.message;
    if (ledger.formed || initialMembers.size <= 1) return undefined;
    this.#met.add(id);
    if (this.absent.length > 0) return undefined;
    const full = unlessFull(() => ledger.form());
    if (full !== undefined) return full.message;
    formed();
    return undefined;
  }

  #refuseFolder(
    id: number,
    known: string | undefined,
    incarnation: string,
  ): PeerRefusal | undefined {
    if (known === undefined || known === incarnation) return undefined;
    return this.#wrongFolder(id, known, incarnation);
  }

  #wrongFolder(id: number, known: string, given: string): PeerRefusal {
    const { addresses, removed: former = [] } = this.#raft.configuration;
    const by = Math.max(id, ...Object.keys(addresses).map(Number), ...former) + 1;
    // The machine may keep its name.
    const address = this.#members.get(id) ?? "HOST:PORT";
    const message =
      `Node ${id} is known here with another data folder (incarnation ${known}, this one is ${given}): ` +
      "its folder was wiped, lost or swapped, and with it its votes. Bring the old folder back, or replace the member: " +
      `\`barge member replace ${id} --by ${by}=${address}\`, then start the new node with --node-id ${by} --join and an empty folder.`;
    return { code: "wrong_incarnation", message };
  }

  /** The data folder of a member as far as this node knows it. */
  incarnationOf(id: number): string | undefined {
    const { nodeId, incarnation, ledger } = this.#options;
    if (id === nodeId) return incarnation;
    return this.#raft.configuration.incarnations?.[id] ?? ledger.incarnationOf(id);
  }
}

/** Runs what writes to the ledger. Where there is no space nothing has changed, and whoever was to be noted is put off: it comes again. */
function unlessFull(write: () => void): PeerRefusal | undefined {
  try {
    write();
    return undefined;
  } catch (error) {
    if (!(error instanceof DiskFullError)) throw error;
    return { code: "disk_full", message: `${error.message}; it is tried again` };
  }
}

/** Whether there is anybody who may have what this node has lost, as far as is known without the log. */
export function hasOtherVoters(
  ledger: PeerLedger,
  initialMembers: ReadonlyMap<number, string>,
): boolean {
  return ledger.hasOtherVoters ?? initialMembers.size !== 1;
}

export function removed(id: number): PeerRefusal {
  return {
    code: "member_removed",
    message: `Node ${id} was removed from this cluster. Its id is never used again: to bring the machine back, start it with another --node-id, --join and an empty data folder.`,
  };
}
