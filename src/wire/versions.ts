/**
 * What this build speaks and does, as its hello says. Three numbers that rise for different reasons; a rolling upgrade needs that none of them
 * ever jumps:
 *
 * - The protocol version is that of one connection. Both sides offer a range and take the highest that both have; without one they part, with words.
 * - Features are what may be sent beyond that on one connection, each on its own: what both sides know.
 * - The apply version is that of a group: how commands take effect. It is in the log, so all members change at the same command [16]. The leader raises it
 *   once every member has said that it can. Never lowered: from then on a build that cannot is refused.
 *
 * Pure; a leaf beside wire/batch.
 */

/** Protocol versions. 1: all messages up to 0.1. 2: features are agreed upon, and an errorReply may carry any number of the table. */
export const protocolVersionMin = 1;
export const protocolVersionMax = 2;

/** Apply versions. 1: sections of any kind are plain. 2: those of sessions and keys are applied once. 3: there is a registry, and so more groups. */
export const applyVersionMax = 3;
/** From this version of group 0 on there is the group `system`. */
export const registryVersion = 3;
/** Of a group whose log says nothing else, and of a build that says nothing of it. */
export const applyVersionFirst = 1;

/** What a side of a connection understands beyond its protocol version, one bit each. Append-only. */
export const Feature = {
  /** Frame `notice`: the node tells its clients of new members and leaders. */
  notice: 1,
  /** Frames 72 to 79: changes of keys as they happen. */
  watch: 2,
  /** Control operations `sessionOpen`, `sessionKeepAlive`, `sessionClose`, and sections of sessions. */
  sessions: 4,
  /** Between peers: what the node that was dialled sends may come back over the connection, once the dialler has sent the frame `accepted`. */
  bothWays: 8,
  /** Frames `followGroups` and `groupLeaders`: the node tells who leads which group, and has more than group 0. */
  groups: 16,
  /** Between peers: frame `beat`, the heartbeats of many groups in one. */
  beats: 32,
} as const;

/** What this build understands. */
export const featuresKnown =
  Feature.notice |
  Feature.watch |
  Feature.sessions |
  Feature.bothWays |
  Feature.groups |
  Feature.beats;

/** A range of versions, as a hello offers it. */
export interface VersionRange {
  readonly versionMin: number;
  readonly versionMax: number;
}

/** What this build offers. */
export const versionsSpoken: VersionRange = {
  versionMin: protocolVersionMin,
  versionMax: protocolVersionMax,
};

/** What two sides have agreed upon for one connection. */
export interface Agreement {
  readonly version: number;
  /** Bits of `Feature` that both sides know. */
  readonly features: number;
}

/** The highest version that both have; undefined where there is none. */
export function commonVersion(ours: VersionRange, theirs: VersionRange): number | undefined {
  const version = Math.min(ours.versionMax, theirs.versionMax);
  return version >= Math.max(ours.versionMin, theirs.versionMin) ? version : undefined;
}

/** For people: `2`, or `1 to 2`. */
export function rangeText({ versionMin, versionMax }: VersionRange): string {
  return versionMin === versionMax ? `${versionMin}` : `${versionMin} to ${versionMax}`;
}
