/**
 * The calls that make bytes durable, behind one latch. After the first that fails nothing may be synced any more, by no thread: the kernel
 * drops dirty pages once it has reported an error, so a later "success" would vouch for bytes that are gone [D9, 17].
 * The latch is shared memory: a Worker adopts that of the thread that started it.
 */

import { closeSync, constants, fdatasyncSync, fsyncSync, openSync } from "node:fs";

let latch = new Int32Array(new SharedArrayBuffer(4));

/** The memory behind the latch, to hand to a Worker. */
export function latchMemory(): SharedArrayBuffer {
  return latch.buffer;
}

/** A Worker's first act. */
export function adoptLatch(memory: SharedArrayBuffer): void {
  latch = new Int32Array(memory);
}

export function isLatched(): boolean {
  return Atomics.load(latch, 0) !== 0;
}

/** A sync failed or was refused because an earlier one had failed. The process has to end. */
export class SyncError extends Error {
  override readonly name: string = "SyncError";
}

/** Trips the latch; every failure of storage that cannot be undone comes through here. */
export function tripLatch(): void {
  Atomics.store(latch, 0, 1);
}

export function fdatasyncFile(descriptor: number): void {
  refuseIfLatched();
  try {
    fdatasyncSync(descriptor);
  } catch (error) {
    tripLatch();
    throw new SyncError(`fdatasync of a log or data file failed: ${reason(error)}`);
  }
}

export function fsyncFile(descriptor: number): void {
  refuseIfLatched();
  try {
    fsyncSync(descriptor);
  } catch (error) {
    tripLatch();
    throw new SyncError(`fsync failed: ${reason(error)}`);
  }
}

/** Makes created, renamed and removed names of a directory durable [D13]. */
export function fsyncDirectory(path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function refuseIfLatched(): void {
  if (isLatched()) throw new SyncError("an earlier sync failed; nothing is synced after it");
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
