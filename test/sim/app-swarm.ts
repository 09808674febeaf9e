/**
 * Runs in which the state machine of the default group is an application: how it stores, how slow it is, and how often it fails. Drawn apart, so that seeds
 * without one do as before.
 */
import { checkLimits, type Limits } from "../../src/limits.ts";
import { refillRetryMs } from "../../src/node/refill.ts";
import type { Random } from "./random.ts";
import { faults, type Swarm } from "./swarm.ts";

/** What becomes of a callback. */
export const appFaults = [
  /** Never answered, and never done. */
  "hang",
  /** Done, and never answered. */
  "mute",
  "refuse",
  /** Broken off before it was done, and after it. */
  "reset",
  "resetAfter",
  /** Done, and answered with what is none. */
  "garbage",
  /** Takes long. */
  "slow",
] as const;
export type AppFault = (typeof appFaults)[number];

export interface AppSwarm {
  readonly isOn: boolean;
  /** It makes durable what it has only when it is asked to sync. */
  readonly sync: boolean;
  readonly shape: "json" | "binary";
  /** Of callbacks, and in the order of `appFaults`. */
  readonly faultShare: number;
  readonly faultWeights: readonly number[];
  /** One of them is killed as often as that; Infinity = none is. */
  readonly crashEveryMs: number;
  /** Some of those that are killed have nothing any more when they come back, of one node alone. */
  readonly wipeShare: number;
  /** Until it is there again, at most. */
  readonly downMs: number;
  /** A callback takes so long, at most, and a slow one so many times as long. */
  readonly workMs: number;
  readonly slowness: number;
  /** Bytes of a stream in one part. */
  readonly partBytes: number;
  readonly saysLength: boolean;
}

/** Of all runs. */
const share = 0.08;

export function drawApps(
  random: Random,
  swarm: Swarm,
  given: { readonly without: boolean; readonly wanted: boolean },
): AppSwarm {
  const isOn = (random.chance(share) || given.wanted) && !given.without;
  const { electionTicksMax, tickMs } = swarm.limits;
  const electionMs = electionTicksMax * tickMs;
  const weights = appFaults.map(() => (random.chance(0.5) ? random.between(1, 5) : 0));
  const rots = swarm.faultWeights[faults.indexOf("rot")]! > 0;
  // The others must be able to give it what it has lost.
  const mayWipe = swarm.nodes >= 3 && swarm.spares === 0 && !rots;
  return {
    isOn,
    sync: random.chance(0.6),
    shape: random.pick(["json", "binary"]),
    faultShare: random.pick([0, 0.02, 0.1]),
    faultWeights: weights.some((weight) => weight > 0) ? weights : appFaults.map(() => 1),
    crashEveryMs: electionMs * random.pick([0.5, 2, Infinity]),
    wipeShare: mayWipe ? random.pick([0, 0, 0.3]) : 0,
    downMs: electionMs * random.pick([0.1, 1, 3]),
    workMs: random.pick([0.1, 1, 5]),
    slowness: random.pick([10, 100]),
    partBytes: random.pick([50, 1_000]),
    saysLength: random.chance(0.5),
  };
}

/** How long peace may take to come to applications: a callback that began before it ends first, and what failed once is asked for again; 0 where there are none. */
export function appPatienceMs({ isOn, workMs, slowness, wipeShare }: AppSwarm): number {
  return isOn ? workMs * slowness + (wipeShare > 0 ? refillRetryMs : 0) : 0;
}

/** On the scale of the elections, which are quicker here; and bounds as small as one entry. */
export function appLimits(random: Random, limits: Limits): Limits {
  const electionMs = limits.electionTicksMax * limits.tickMs;
  const elections = (counts: readonly number[]): number =>
    Math.ceil(electionMs * random.pick(counts));
  const strange = (value: number, odd: readonly number[]): number =>
    random.chance(0.35) ? random.pick(odd) : value;
  return checkLimits({
    ...limits,
    appTimeoutMs: elections([0.5, 2]),
    appSnapshotStallMs: elections([0.5, 2]),
    appRetryMsMin: 5,
    appRetryMsMax: Math.max(5, elections([0.1, 0.5])),
    appPollMs: elections([0.3, 2]),
    appParkMs: elections([0.3, 2]),
    appUpdateBytesMax: strange(limits.appUpdateBytesMax, [1, 200]),
    appUpdateEntriesMax: strange(limits.appUpdateEntriesMax, [1, 5]),
    appReadsMax: strange(limits.appReadsMax, [1]),
    appReadWaitersMax: strange(limits.appReadWaitersMax, [2]),
    appSnapshotStreamsMax: strange(limits.appSnapshotStreamsMax, [1]),
    appFlushLogBytes: strange(limits.appFlushLogBytes, [1, 2_000]),
  });
}
