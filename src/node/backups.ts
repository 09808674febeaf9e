/**
 * Backups of one group's state, read by clients part by part: each holds a handle of the machine [29], under a number that the client has drawn, so
 * that to ask again for what was lost on the way is harmless. One begins once the machine has made durable all that was acknowledged before it was
 * asked for. Whoever reads none of it for a while, or is in the way of checkpoints for long, has to begin anew.
 */
import { BargeError, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { MachineSnapshot, StateMachine } from "../machine/machine.ts";

export interface BackupWaiter {
  opened(snapshot: MachineSnapshot): void;
  failed(error: BargeError): void;
}

export interface BackupReader {
  /** The bytes are the reader's. */
  read(bytes: Uint8Array): void;
  failed(error: BargeError): void;
}

interface Backup {
  readonly id: number;
  /** The state must have come to here. */
  index: number;
  readonly deadlineMs: number;
  /** Until it is open. */
  waiters: BackupWaiter[];
  preparing: boolean;
  snapshot: MachineSnapshot | undefined;
  usedMs: number;
}

export class Backups {
  readonly #limits: Limits;
  readonly #machine: StateMachine;
  readonly #wake: () => void;
  readonly #backups = new Map<number, Backup>();
  #nowMs = 0;
  bytesRead = 0;

  constructor(limits: Limits, machine: StateMachine, wake: () => void) {
    this.#limits = limits;
    this.#machine = machine;
    this.#wake = wake;
  }

  /** Open, or about to be. */
  get size(): number {
    return this.#backups.size;
  }

  get hasRoom(): boolean {
    return this.#backups.size < this.#limits.backupsMax;
  }

  /** Of the state at `index` or later. The same number gives the same backup. */
  open(id: number, index: number, deadlineMs: number, waiter: BackupWaiter): void {
    const known = this.#backups.get(id);
    if (known?.snapshot !== undefined) return waiter.opened(known.snapshot);
    if (known !== undefined) return void known.waiters.push(waiter);
    if (!this.hasRoom) return waiter.failed(full());
    this.#backups.set(id, {
      id,
      index,
      deadlineMs,
      waiters: [waiter],
      preparing: false,
      snapshot: undefined,
      usedMs: this.#nowMs,
    });
    this.#machine.flush();
    this.#wake();
  }

  read(id: number, offset: number, reader: BackupReader): void {
    const backup = this.#backups.get(id);
    if (backup?.snapshot === undefined) return reader.failed(gone());
    const { bytes } = backup.snapshot;
    if (offset >= bytes) {
      return reader.failed(new BargeError("bad_request", `offset: the backup ends at ${bytes}.`));
    }
    backup.usedMs = this.#nowMs;
    const length = Math.min(this.#limits.snapshotChunkBytes, bytes - offset);
    backup.snapshot.read(offset, length, (part) => {
      if (part === undefined) {
        this.close(id);
        return reader.failed(gone());
      }
      this.bytesRead += part.byteLength;
      reader.read(part);
      this.#wake();
    });
  }

  close(id: number): void {
    const backup = this.#backups.get(id);
    if (backup === undefined) return;
    this.#backups.delete(id);
    backup.snapshot?.release();
    for (const waiter of backup.waiters.splice(0)) waiter.failed(gone());
  }

  /** Some times a second. */
  work(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const backup of this.#backups.values()) {
      if (backup.snapshot === undefined) this.#prepare(backup, nowMs);
      else if (nowMs - backup.usedMs >= this.#limits.snapshotStallMs) this.close(backup.id);
    }
  }

  /** The machine's write-ahead log takes too much of the disk, and cannot be moved while the state is held. */
  giveUp(): void {
    for (const { id, snapshot } of this.#backups.values())
      if (snapshot !== undefined) this.close(id);
  }

  failAll(error: BargeError): void {
    for (const backup of this.#backups.values()) {
      for (const waiter of backup.waiters.splice(0)) waiter.failed(error);
      this.close(backup.id);
    }
  }

  #prepare(backup: Backup, nowMs: number): void {
    if (nowMs >= backup.deadlineMs) {
      const late = new BargeError("timeout", "The state is still being written; ask again.", {
        outcome: "not-applied",
      });
      for (const waiter of backup.waiters.splice(0)) waiter.failed(late);
      return this.close(backup.id);
    }
    if (this.#machine.durableIndex < backup.index) return this.#machine.flush();
    if (backup.preparing) return;
    backup.preparing = true;
    this.#machine.prepareSnapshot((snapshot) => {
      backup.preparing = false;
      const isWanted = this.#backups.get(backup.id) === backup;
      // Older than what was asked for: another that is being sent is shared, and no new one begins before that ends.
      if (!isWanted || snapshot === undefined || snapshot.index < backup.index) {
        return snapshot?.release();
      }
      backup.snapshot = snapshot;
      backup.usedMs = this.#nowMs;
      for (const waiter of backup.waiters.splice(0)) waiter.opened(snapshot);
      this.#wake();
    });
  }
}

function gone(): BargeError {
  return new BargeError("backup_gone", errorTable.backup_gone.help);
}

function full(): BargeError {
  return new BargeError("overloaded", "As many backups are being read as may be; try again.");
}
