/**
 * What passes through a node in large pieces, such as snapshots, leaves memory behind that only the collector gives back. It lets some 32 MiB lie, and a multiple
 * of that where it gets no processor beside the load; so it is told to look at what is young once so much has passed. That costs a millisecond.
 *
 * It looks once whoever handles the pieces is done with all that are here: what it still finds in use counts as old, and stays until all is looked through.
 */
import { edenGC } from "bun:jsc";

const collectEveryBytes = 16 * 1_024 * 1_024;
const collect = (): void => void edenGC();

export class SpentMemory {
  #bytes = 0;

  /** So many bytes will soon not be needed any more. */
  spent(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < collectEveryBytes) return;
    this.#bytes = 0;
    queueMicrotask(collect);
  }
}
