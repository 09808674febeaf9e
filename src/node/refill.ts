/**
 * The application of this node has lost what its log does not hold any more: the state comes from another member, as a backup of it does, while log, votes and
 * match stay as they are [31]. One part is asked for at a time and written as it comes, so that memory does not grow with the state; whatever
 * goes wrong, the next member is asked, after a while.
 */
import { crc32 } from "node:zlib";
import type { Limits } from "../limits.ts";
import type { IncomingSnapshot, StateMachine } from "../machine/machine.ts";
import type { AdminWaiter } from "../server/groups.ts";
import type { AdminOperation } from "../wire/admin.ts";
import { nextDigest } from "../wire/snapshot-messages.ts";

export interface RefillOptions {
  readonly group: number;
  readonly machine: StateMachine;
  readonly limits: Limits;
  readonly applyVersionMax: number;
  /** Members that could be asked. */
  readonly members: () => readonly number[];
  readonly ask: (to: number, operation: AdminOperation, body: unknown, waiter: AdminWaiter) => void;
  /** Never the same twice. */
  readonly newId: () => number;
  /** Asks for a turn. */
  readonly wake: () => void;
  readonly info: (fields: Record<string, unknown>, message: string) => void;
}

interface Coming {
  readonly from: number;
  readonly id: number;
  index: number;
  bytes: number;
  chunkBytes: number;
  incoming: IncomingSnapshot | undefined;
  next: number;
  digest: number;
}

/** Between two times that a member is asked. */
export const refillRetryMs = 1_000;

export class Refill {
  readonly #options: RefillOptions;
  #coming: Coming | undefined;
  #retryAtMs = -Infinity;
  #nowMs = 0;
  /** Who was asked last. */
  #asked = 0;

  constructor(options: RefillOptions) {
    this.#options = options;
  }

  /** Some times a second. */
  work(nowMs: number): void {
    this.#nowMs = nowMs;
    const isNeeded = this.#options.machine.lacksStateAt !== undefined;
    if (!isNeeded) {
      if (this.#coming !== undefined) this.#giveUp(this.#coming, "it is not needed any more");
    } else if (this.#coming === undefined && nowMs >= this.#retryAtMs) this.#begin();
  }

  /** The group leaves this node. */
  stop(): void {
    if (this.#coming !== undefined) this.#giveUp(this.#coming, "the group left this node");
  }

  #begin(): void {
    const members = this.#options.members();
    const to = members.find((id) => id > this.#asked) ?? members[0];
    this.#retryAtMs = this.#nowMs + refillRetryMs;
    if (to === undefined) return;
    this.#asked = to;
    const id = this.#options.newId();
    const coming: Coming = {
      from: to,
      id,
      index: 0,
      bytes: 0,
      chunkBytes: 0,
      incoming: undefined,
      next: 0,
      digest: 0,
    };
    this.#coming = coming;
    const { snapshotStallMs: timeoutMs } = this.#options.limits;
    // Whatever it has applied by now: one that is behind, or hears of no leader, says so at once, and the next one is asked.
    const body = { timeoutMs, local: true };
    this.#ask(coming, "backupOpen", body, (answer) => this.#opened(coming, answer));
  }

  #ask(
    coming: Coming,
    operation: AdminOperation,
    body: Record<string, unknown>,
    answered: (answer: Readonly<Record<string, unknown>>) => void,
  ): void {
    const { group, ask } = this.#options;
    ask(
      coming.from,
      operation,
      { group, backup: coming.id, ...body },
      {
        answered: (answer) => {
          if (this.#coming !== coming) return;
          const isObject = typeof answer === "object" && answer !== null;
          answered(isObject ? (answer as Record<string, unknown>) : {});
        },
        failed: (error) => {
          if (this.#coming === coming) this.#giveUp(coming, error.message);
        },
      },
    );
  }

  #opened(coming: Coming, answer: Readonly<Record<string, unknown>>): void {
    const { machine, applyVersionMax, group, info, limits } = this.#options;
    const { index, bytes, chunkBytes, machine: kind, applyVersion } = answer;
    const isWhole =
      isCount(index) && isCount(bytes) && isCount(chunkBytes) && isCount(applyVersion);
    if (!isWhole || chunkBytes > limits.frameBytesMax || kind !== "http") {
      return this.#giveUp(coming, "its answer makes no sense");
    }
    if (index < (machine.lacksStateAt ?? 0) || applyVersion > applyVersionMax) {
      return this.#giveUp(coming, `what it has, as of ${index}, is of no use here`);
    }
    const incoming = machine.receiveSnapshot(bytes);
    if (incoming === undefined) return this.#giveUp(coming, "there is no room for it on the disk");
    const { from } = coming;
    info({ group, from, index, bytes }, "fetching the state for the application");
    this.#coming = Object.assign(coming, { index, bytes, chunkBytes, incoming });
    this.#read(coming);
  }

  #read(coming: Coming): void {
    const { incoming, next: offset, bytes } = coming;
    if (offset >= bytes) return this.#finish(coming);
    this.#ask(coming, "backupRead", { offset }, ({ bytes: part }) => {
      const length = Math.min(coming.chunkBytes, bytes - offset);
      if (!(part instanceof Uint8Array) || part.byteLength !== length) {
        return this.#giveUp(coming, "a part of it has another length than it should have");
      }
      coming.digest = nextDigest(coming.digest, crc32(part));
      coming.next += length;
      incoming!.write(offset, part, (ok) => {
        if (this.#coming !== coming) return;
        if (ok) this.#read(coming);
        else this.#giveUp(coming, "the disk is full");
        this.#options.wake();
      });
    });
  }

  #finish(coming: Coming): void {
    const { incoming, index, bytes, chunkBytes, digest } = coming;
    const { applyVersionMax, machine } = this.#options;
    incoming!.finish({ index, bytes, chunkBytes, digest, applyVersionMax }, (ok) => {
      if (this.#coming !== coming) return;
      const isNeeded = machine.lacksStateAt !== undefined;
      if (!ok || !isNeeded || incoming!.open() !== "opened") {
        return this.#giveUp(
          coming,
          isNeeded ? "it is no sound state" : "it is not needed any more",
        );
      }
      this.#close(coming);
      machine.refill!(incoming!);
      this.#options.wake();
    });
  }

  #giveUp(coming: Coming, why: string): void {
    const { group, info } = this.#options;
    const { from } = coming;
    coming.incoming?.discard();
    info({ group, from }, `the state for the application was not fetched: ${why}`);
    this.#close(coming);
  }

  #close(coming: Coming): void {
    this.#coming = undefined;
    this.#retryAtMs = this.#nowMs + refillRetryMs;
    const { group, ask } = this.#options;
    const nobody: AdminWaiter = { answered: () => {}, failed: () => {} };
    ask(coming.from, "backupClose", { group, backup: coming.id }, nobody);
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}
