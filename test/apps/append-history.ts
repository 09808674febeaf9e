/**
 * Is a history of appends and reads linearizable? Each of them saw its whole list, so the check is simple and complete: of one key all that was seen are beginnings of
 * one list; each append is in it at most once, where it was acknowledged exactly where it saw itself, where it was refused never; and whoever began after another had
 * ended saw at least as much.
 */
export interface ListOperation {
  readonly key: string;
  /** What is appended, unique over all; undefined for a read. */
  readonly value: string | undefined;
  readonly callMs: number;
  /** Infinity while nobody knows what became of it. */
  readonly returnMs: number;
  /** `applied`: it was, and what it saw is lost. */
  readonly outcome: "ok" | "applied" | "refused" | "unknown";
  /** The list right after it; `ok` only. */
  readonly seen: readonly string[];
}

/** What is wrong with the history, in words; undefined where nothing is. */
export function listProblem(history: readonly ListOperation[]): string | undefined {
  for (const [key, operations] of Map.groupBy(history, (operation) => operation.key)) {
    const problem = keyProblem(operations);
    if (problem !== undefined) return `${key}: ${problem}`;
  }
  return undefined;
}

function keyProblem(operations: readonly ListOperation[]): string | undefined {
  const done = operations.filter(({ outcome }) => outcome === "ok");
  const list = done.reduce<readonly string[]>(
    (longest, { seen }) => (seen.length > longest.length ? seen : longest),
    [],
  );
  if (new Set(list).size !== list.length) return `something was appended twice: ${list.join(" ")}`;
  const written = new Map(operations.map((operation) => [operation.value, operation]));
  for (const value of list) {
    const writer = written.get(value);
    if (writer === undefined) return `${value} was never written`;
    if (writer.outcome === "refused") return `${value} was refused, and is there`;
  }
  for (const { outcome, value } of operations) {
    if (outcome === "applied" && !list.includes(value!))
      return `${value} was applied, and is not there`;
  }
  for (const { seen, value } of done) {
    const at = seen.findIndex((each, i) => each !== list[i]);
    if (at >= 0) return `${seen.join(" ")} was seen, and ${list.join(" ")} too`;
    if (value !== undefined && seen.at(-1) !== value) return `${value} did not see itself last`;
  }
  // By their calls: what the longest list was that somebody had seen before.
  const returns = done.toSorted((a, b) => a.returnMs - b.returnMs);
  let ended = 0;
  let least = 0;
  for (const { callMs, seen, value } of done.toSorted((a, b) => a.callMs - b.callMs)) {
    for (; ended < returns.length && returns[ended]!.returnMs < callMs; ended++) {
      least = Math.max(least, returns[ended]!.seen.length);
    }
    const needed = value === undefined ? least : least + 1;
    if (seen.length < needed) {
      return `${value ?? "a read"} saw ${seen.length} values, though ${least} had been seen before it began`;
    }
  }
  return undefined;
}
