/** Whether something grew over a long run: figures by name, taken at even intervals. */

export type Sample = Readonly<Record<string, number>>;

/** What the last third may have more than the second: memory is given back late, and not all at once. */
const growthMax = 0.15;

/** What grew from the second third to the last by more than that and its slack, in words. */
export function grown(
  taken: readonly Sample[],
  slack: Readonly<Record<string, number>>,
): readonly string[] {
  const third = Math.floor(taken.length / 3);
  const median = (part: readonly Sample[], name: string): number =>
    part.map((sample) => sample[name]!).sort((a, b) => a - b)[Math.floor(part.length / 2)]!;
  const found: string[] = [];
  for (const [name, allowed] of Object.entries(slack)) {
    const [before, after] = [
      median(taken.slice(third, 2 * third), name),
      median(taken.slice(2 * third), name),
    ];
    if (after > before * (1 + growthMax) + allowed) found.push(`${name}: ${before}, then ${after}`);
  }
  return found;
}

/** Of each figure, that of the one with the most. */
export function worst(all: readonly Sample[]): Sample {
  const names = Object.keys(all[0]!);
  return Object.fromEntries(
    names.map((name) => [name, Math.max(...all.map((sample) => sample[name]!))]),
  );
}
