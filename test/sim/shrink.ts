/** Makes a failing run smaller: leaves out kinds of faults and strangeness, and shortens it, as long as the same kind of thing still breaks. */
import { simulate, type RunOptions, type RunResult } from "./simulation.ts";
import { kinds } from "./swarm.ts";

export interface Shrunk {
  readonly options: RunOptions;
  readonly result: RunResult;
  /** Runs that it took. */
  readonly runs: number;
}

const runsMax = 200;
/** Of the events that are left, tried one after the other. */
const shorter = [0.25, 0.5, 0.75, 0.9, 0.97];

/** `options` must fail. */
export function shrink(options: RunOptions): Shrunk {
  let best = options;
  let result = simulate(options);
  let runs = 1;
  const fails = (smaller: RunOptions): boolean => {
    if (runs >= runsMax) return false;
    runs++;
    const tried = simulate(smaller);
    if (tried.failure === undefined || gist(tried.failure) !== gist(result.failure)) return false;
    best = smaller;
    result = tried;
    return true;
  };

  for (let goesOn = true; goesOn;) {
    goesOn = false;
    for (const kind of kinds) {
      const { without = [] } = best;
      if (!without.includes(kind)) fails({ ...best, without: [...without, kind] });
    }
    // Events after the failure do not count.
    const events = Math.min(best.events, result.events);
    if (events < best.events) fails({ ...best, events });
    while (shorter.some((share) => fails({ ...best, events: Math.floor(best.events * share) }))) {
      goesOn = true;
    }
  }
  return { options: best, result, runs };
}

/** The first words of what broke, without numbers: the same break has other numbers in another run. */
function gist(failure: unknown): string {
  const text = failure instanceof Error ? failure.message : String(failure);
  return text.replaceAll(/\d+/g, "").split(/\s+/).slice(0, 4).join(" ");
}

/** The command that repeats a run. */
export function commandOf(
  { seed, events, without = [], wanted = [] }: RunOptions,
  bug?: string,
): string {
  const more = wanted.length === 0 ? "" : ` --with ${wanted.join(",")}`;
  const left = without.length === 0 ? "" : ` --without ${without.join(",")}`;
  const planted = bug === undefined ? "" : ` --bug ${bug}`;
  return `bun test/sim/run.ts --seeds 1 --from ${seed} --events ${events}${more}${left}${planted}`;
}
