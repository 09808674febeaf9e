/**
 * The network that chaos runs on, as the faults see it: places, directed links between them, and what is wrong with a link. Two kinds
 * stand behind it: a proxy in user space (works everywhere; cuts, loses, delays, reorders between connections, resets) and network
 * namespaces (root on Linux; real packets really lost, and nobody is told).
 */
import type { NodePlace } from "../e2e/cluster.ts";

/** A place on the network: the id of a node, or all clients together. */
export type Place = number;
export const clientsPlace: Place = 0;

/** One direction. */
export interface Link {
  readonly from: Place;
  readonly to: Place;
}

export interface LinkFault {
  /** Nothing gets through, and neither side is told. */
  readonly cut?: boolean;
  /** Chance that a packet is lost: what follows on its connection waits for it to be sent again. */
  readonly loss?: number;
  readonly delayMs?: number;
  /** Up to so much more, drawn for each packet; connections of one link overtake each other, bytes of one never do. */
  readonly jitterMs?: number;
}

/** What a kind of network can do beyond cutting links. */
export interface NetworkAbilities {
  readonly delay: boolean;
  readonly reset: boolean;
}

export interface Network extends AsyncDisposable {
  readonly name: "proxy" | "namespaces";
  readonly can: NetworkAbilities;
  /** Where a node runs. To be asked once for each. */
  place(id: Place): NodePlace;
  /** The links are faulty until what is returned is called. Faults add up. */
  spoil(links: readonly Link[], fault: LinkFault): () => void;
  /** Breaks all connections of a place; what was on its way in them is lost. */
  reset(place: Place): void;
}

/** All links from one of these to one of those. */
export function linksBetween(some: readonly Place[], others: readonly Place[]): Link[] {
  return some.flatMap((from) => others.filter((to) => to !== from).map((to) => ({ from, to })));
}

/** Both directions. */
export function linksAcross(some: readonly Place[], others: readonly Place[]): Link[] {
  return [...linksBetween(some, others), ...linksBetween(others, some)];
}

/** Faults in force, link by link. */
export class LinkFaults {
  readonly #active = new Set<{ readonly links: readonly Link[]; readonly fault: LinkFault }>();
  readonly #byLink = new Map<string, Required<LinkFault>>();
  readonly #changed: () => void;

  /** `changed` is called whenever a link got worse or better. */
  constructor(changed: () => void) {
    this.#changed = changed;
  }

  add(links: readonly Link[], fault: LinkFault): () => void {
    const entry = { links, fault };
    this.#active.add(entry);
    this.#sum();
    return () => {
      if (this.#active.delete(entry)) this.#sum();
    };
  }

  of({ from, to }: Link): Required<LinkFault> {
    return this.#byLink.get(`${from} ${to}`) ?? sound;
  }

  #sum(): void {
    this.#byLink.clear();
    for (const { links, fault } of this.#active) {
      for (const link of links) {
        const { cut, loss, delayMs, jitterMs } = this.of(link);
        this.#byLink.set(`${link.from} ${link.to}`, {
          cut: cut || (fault.cut ?? false),
          loss: Math.max(loss, fault.loss ?? 0),
          delayMs: delayMs + (fault.delayMs ?? 0),
          jitterMs: jitterMs + (fault.jitterMs ?? 0),
        });
      }
    }
    this.#changed();
  }
}

const sound: Required<LinkFault> = { cut: false, loss: 0, delayMs: 0, jitterMs: 0 };
