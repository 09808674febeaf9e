/**
 * Bounded staleness of local reads [35]: what was committed longer ago than the bound, on the clock of the node that answers, is in the
 * answer. An index counts as committed from when some node applied it first, which is a little late and so never unjust.
 */
export class Staleness {
  /** Ascending in both. */
  readonly #applied: { readonly lastIndex: number; readonly atMs: number }[] = [];

  /** For the first time, by any node. */
  applied(lastIndex: number, atMs: number): void {
    this.#applied.push({ lastIndex, atMs });
  }

  /** A node answers with all up to `appliedIndex`; what is wrong with that. */
  answered(
    { id, clockRate }: { readonly id: number; readonly clockRate: number },
    appliedIndex: number,
    boundMs: number,
    nowMs: number,
  ): string | undefined {
    const missing = this.#applied.find(({ lastIndex }) => lastIndex > appliedIndex);
    if (missing === undefined) return undefined;
    const ageMs = (nowMs - missing.atMs) * clockRate;
    if (ageMs <= boundMs) return undefined;
    return `node ${id} answers a local read as of ${appliedIndex}; what ends at ${missing.lastIndex} was committed ${ageMs} ms ago on its clock, ${boundMs} ms are allowed`;
  }
}
