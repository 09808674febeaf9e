/**
 * On the leader of group 0: no node leaves the cluster before the registry has noted it, and has answered in this term that nothing is lost with it. Who is replaced keeps
 * its place until then; who goes at once is held by the request that asks for it. What is noted of others is taken back here. See departures.ts.
 */
import { isJoint, membersOf } from "../raft/configuration.ts";
import type { Configuration } from "../raft/ready.ts";
import type { AdminWaiter } from "../server/groups.ts";
import type { AdminAnswers, AdminBody, ReleasedAnswer } from "../wire/admin.ts";
import { defaultGroup, systemGroup } from "../wire/registry.ts";
import type { Group } from "./group.ts";
import type { RegistryView } from "./registry-view.ts";

export interface PlacesOptions {
  readonly view: RegistryView;
  readonly group: (id: number) => Group | undefined;
  readonly askLeader: RegistryAsk;
  readonly askAt: (to: number, ...asked: Parameters<RegistryAsk>) => void;
}

type RegistryAsk = <O extends "releaseNodes" | "keepNodes">(
  operation: O,
  body: AdminBody<O>,
  waiter: AdminWaiter,
) => void;

/** Between two times that the same is asked. */
const askEveryMs = 500;
/** Told at once. */
const nodesPerMessage = 64;

/** A place that is asked for. */
interface Place {
  readonly term: number;
  /** Of this leader: see GoingNode in wire/registry.ts. */
  readonly word: number;
  askedMs: number;
  isAsking: boolean;
  isFree: boolean;
  waitsFor: NonNullable<ReleasedAnswer["waitsFor"]>;
}

export class Places {
  readonly #options: PlacesOptions;
  readonly #places = new Map<number, Place>();
  /** How many requests that are not answered would have them go. */
  readonly #held = new Map<number, number>();
  #lastWord = 0;
  /** Whom to ask: 0 = who leads the registry as far as this node knows, else one of the cluster. Who has answered is asked again. */
  #askedAt = 0;
  #isTelling = false;
  #tellMs = -Infinity;

  constructor(options: PlacesOptions) {
    this.#options = options;
  }

  /** The next word of this node about nodes that go. */
  word(): number {
    return ++this.#lastWord;
  }

  /** These are about to go: nothing is taken back until that is over. */
  hold(nodes: readonly number[]): () => void {
    for (const id of nodes) this.#held.set(id, (this.#held.get(id) ?? 0) + 1);
    return () => {
      for (const id of nodes) {
        const left = this.#held.get(id)! - 1;
        if (left === 0) this.#held.delete(id);
        else this.#held.set(id, left);
      }
    };
  }

  /** After each turn. */
  keep(): void {
    const cluster = this.#cluster;
    if (cluster === undefined) return this.#places.clear();
    const { raft } = cluster;
    // As good as always.
    const isAny = raft.configuration.promotions !== undefined || raft.keptPlaces.size > 0;
    if (!isAny && this.#places.size === 0) return;
    const taken = placesTaken(raft.configuration);
    // Should another one come for it later, that is another matter: it may have been taken back meanwhile.
    for (const id of this.#places.keys()) if (!taken.has(id)) this.#places.delete(id);
    const kept = new Map<number, Place["waitsFor"]>();
    const system = this.#options.group(systemGroup);
    // One that has just begun counts on all who were there, and one that has stopped for good would keep their places for ever.
    if (system === undefined ? cluster.mayHaveRegistry : system.stopped === undefined) {
      for (const id of taken) {
        const place = this.#places.get(id);
        const isFree = place?.term === raft.term && place.isFree;
        if (!isFree) kept.set(id, place?.waitsFor ?? "system");
      }
    }
    raft.keptPlaces = kept;
  }

  /** Some times a second. */
  step(nowMs: number): void {
    const cluster = this.#cluster;
    if (cluster === undefined) return;
    for (const id of cluster.raft.keptPlaces.keys()) this.#askFor(cluster, id, nowMs);
    if (nowMs - this.#tellMs >= askEveryMs) this.#takeBack(cluster, nowMs);
  }

  #askFor(cluster: Group, id: number, nowMs: number): void {
    const { term } = cluster.raft;
    let place = this.#places.get(id);
    if (place?.term !== term) {
      const { waitsFor = "system" } = place ?? {};
      const asked = { askedMs: -Infinity, isAsking: false, isFree: false };
      place = { term, word: this.word(), waitsFor, ...asked };
      this.#places.set(id, place);
    }
    if (place.isAsking || nowMs - place.askedMs < askEveryMs) return;
    const asked = place;
    asked.askedMs = nowMs;
    asked.isAsking = true;
    const body = { nodes: [id], term, word: asked.word, replaced: true };
    this.#ask(cluster, "releaseNodes", body, (answer) => {
      asked.isAsking = false;
      if (answer === undefined) return;
      asked.isFree = answer.waitsFor === undefined;
      asked.waitsFor = answer.waitsFor ?? asked.waitsFor;
      this.keep();
    });
  }

  /** Who stays after all. What an earlier leader was about to change is void by now, or is changed. */
  #takeBack(cluster: Group, nowMs: number): void {
    const { configuration, configurationCommitted, term } = cluster.raft;
    if (this.#isTelling || !configurationCommitted || isJoint(configuration)) return;
    const taken = placesTaken(configuration);
    const isOver = (id: number): boolean => !taken.has(id) && !this.#held.has(id);
    const mayBeNoted = this.#mayBeNoted(cluster);
    const nodes = membersOf(configuration).filter((id) => isOver(id) && mayBeNoted(id));
    if (nodes.length === 0) return;
    this.#tellMs = nowMs;
    this.#isTelling = true;
    const body = { nodes: nodes.slice(0, nodesPerMessage), term, word: this.word() };
    this.#ask(cluster, "keepNodes", body, () => void (this.#isTelling = false));
  }

  #mayBeNoted({ nodeId }: Group): (id: number) => boolean {
    const { view } = this.#options;
    const system = this.#options.group(systemGroup);
    if (system === undefined || system.stopped !== undefined) return () => false;
    const isMember = membersOf(system.raft.configuration).includes(nodeId);
    if (isMember && system.leader !== 0) return (id) => view.isGoing(id);
    // Where this node itself is out of `system` it does not hear what is noted: so it says it of all.
    return () => true;
  }

  #ask<O extends "releaseNodes" | "keepNodes">(
    { nodeId, raft }: Group,
    operation: O,
    body: AdminBody<O>,
    told: (answer: AdminAnswers[O] | undefined) => void,
  ): void {
    const others = membersOf(raft.configuration).filter((id) => id !== nodeId);
    const to = this.#askedAt;
    const waiter: AdminWaiter = {
      answered: (answer) => told(answer as AdminAnswers[O]),
      failed: () => {
        // Who is out of `system` already hears of no leader of it any more: it asks one after the other.
        if (this.#askedAt === to) this.#askedAt = others.find((id) => id > to) ?? 0;
        told(undefined);
      },
    };
    if (to === 0) this.#options.askLeader(operation, body, waiter);
    else this.#options.askAt(to, operation, body, waiter);
  }

  /** Group 0, where this node leads it. */
  get #cluster(): Group | undefined {
    const cluster = this.#options.group(defaultGroup);
    return cluster?.raft.role === "leader" ? cluster : undefined;
  }
}

/** The places of voters that learners take as soon as they can; of those who come alone. */
export function placesTaken(
  { promotions = {} }: Configuration,
  comes: (id: number) => boolean = () => true,
): Set<number> {
  const taken = Object.entries(promotions).filter(
    ([id, place]) => place !== 0 && comes(Number(id)),
  );
  return new Set(taken.map(([, place]) => place));
}
