/** What a replica leaves behind when it goes: its files, until its tombstone is durable and nobody writes to them any more. */
import { expect, test } from "bun:test";
import { defaultLimits } from "../../src/limits.ts";
import { Replicas, type ReplicasOptions } from "../../src/node/replicas.ts";
import type { LogStore, RecoveredGroup } from "../../src/storage/log-store.ts";

class Scene {
  readonly store = { appendSeq: 7, syncedSeq: 7, remove: (): void => {} };
  readonly writing = new Set<number>();
  readonly deleted: number[] = [];
  readonly replicas: Replicas;

  constructor(ids: readonly number[]) {
    const options: Partial<ReplicasOptions> = {
      limits: defaultLimits,
      store: this.store as unknown as LogStore,
      logger: { info: () => {}, error: () => {} },
      isWriting: (id) => this.writing.has(id),
      deleteFiles: (id) => void this.deleted.push(id),
    };
    const found = { registryIndex: 1 } as RecoveredGroup;
    this.replicas = new Replicas(options as ReplicasOptions, new Map(ids.map((id) => [id, found])));
  }
}

test("files go once the tombstone is durable", () => {
  const { replicas, store, deleted } = new Scene([5]);
  replicas.remove(5, 9);
  replicas.deleteLeft();
  expect([deleted, replicas.isLeaving(5)]).toEqual([[], true]);
  store.syncedSeq = 8;
  replicas.deleteLeft();
  expect([deleted, replicas.isLeaving(5)]).toEqual([[5], false]);
});

test("and once nobody writes to them: the others do not wait for that", () => {
  const { replicas, store, deleted, writing } = new Scene([5, 6]);
  writing.add(5);
  replicas.remove(5, 9);
  replicas.remove(6, 9);
  store.syncedSeq = 8;
  replicas.deleteLeft();
  expect([deleted, replicas.isLeaving(5)]).toEqual([[6], true]);
  writing.delete(5);
  replicas.deleteLeft();
  expect(deleted).toEqual([6, 5]);
});
