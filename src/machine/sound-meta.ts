/** Whether a state file says of itself what a machine can go on from: a damaged one, or one that came from anybody, must not fail once it is live. */
import type { Limits } from "../limits.ts";
import type { KvMeta } from "./kv-file.ts";
import { areSessions } from "./sessions.ts";

export const unsoundMeta =
  "what it says of its state, or the sessions saved with it, fails its check";

export function isSoundMeta(meta: KvMeta, limits: Limits): boolean {
  const { appliedIndex, stateHash, timeMs, applyVersion, sessions } = meta;
  const isHash = isCount(stateHash) && stateHash <= 0xffff_ffff;
  const isBytes = sessions instanceof Uint8Array;
  if (!isCount(appliedIndex) || !isHash || !isCount(timeMs) || !isBytes) return false;
  return isCount(applyVersion) && applyVersion >= 1 && areSessions(applyVersion, sessions, limits);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
