/**
 * Who decides, by the configurations along the logs: judges each change of the members as it is appended, and counts majorities, of the old and of
 * the new voters while they change. It shares the encoding of a configuration with the code that it judges, and no more.
 */
import { decodeConfiguration, membersOf } from "../../src/raft/configuration.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { BatchKind, bodyOf, type Batch } from "../../src/wire/batch.ts";
import type { DurableLedger, Shadow } from "./durable-ledger.ts";

/** A configuration and the batch that it came with. */
export interface Standing {
  readonly index: number;
  readonly crc: number;
  readonly configuration: Configuration;
}

type Holds = (nodeId: number) => boolean;

export class Electorate {
  readonly #ledgers: ReadonlyMap<number, DurableLedger>;
  /** All that were ever in a log, by the crc of their batch, which names what is before it too. */
  readonly #known = new Map<number, Standing>();
  /** Those that were applied, in order. */
  readonly #committed: Standing[] = [];
  /** Where there are any; ascending. */
  #indexes: number[] = [];

  /** Nodes may come back that were members before. */
  readonly #idsReturn: boolean;

  constructor(ledgers: ReadonlyMap<number, DurableLedger>, idsReturn: boolean) {
    this.#ledgers = ledgers;
    this.#idsReturn = idsReturn;
  }

  /** A batch comes into a log for the first time. Returns what is wrong with it. */
  appended(batch: Batch, log: Shadow): string | undefined {
    if (batch.kind !== BatchKind.configuration || this.#known.has(batch.crc)) return undefined;
    const configuration = decodeConfiguration(bodyOf(batch));
    if (configuration === undefined) return `the configuration at ${batch.firstIndex} is malformed`;
    const before = this.at(log, batch.firstIndex - 1);
    const { firstIndex: index, crc } = batch;
    this.#known.set(crc, { index, crc, configuration });
    if (!this.#indexes.includes(index)) {
      this.#indexes = [...this.#indexes, index].sort((a, b) => a - b);
    }
    return before === undefined ? undefined : this.#wrongStep(before, configuration, index);
  }

  #wrongStep(before: Standing, next: Configuration, index: number): string | undefined {
    const what = `the configuration at ${index} (${rolesOf(next)}) after ${shown(before)}`;
    const { voters, outgoing, removed = [] } = before.configuration;
    const same = (some: readonly number[], others: readonly number[]): boolean =>
      some.join() === others.join();
    const fits =
      outgoing.length > 0
        ? next.outgoing.length === 0 && same(next.voters, voters)
        : same(next.outgoing.length > 0 ? next.outgoing : next.voters, voters);
    if (!fits) return `${what}: voters change only into a joint state and out of it`;
    const empty = next.voters.find(
      (id) => !voters.includes(id) && this.#ledgers.get(id)!.durable.lastIndex === 0,
    );
    if (empty !== undefined) return `${what}: ${empty} becomes a voter and has nothing`;
    const back = [...next.voters, ...next.learners].find((id) => removed.includes(id));
    if (back !== undefined && !this.#idsReturn) return `${what}: removed node ${back} is back`;
    if (!this.isHeld(before)) return `${what}, which is not committed`;
    return undefined;
  }

  /** The configuration in force where a log ends at `index`. */
  at(log: Shadow, index: number): Standing | undefined {
    for (let at = this.#indexes.length - 1; at >= 0; at--) {
      const candidate = this.#indexes[at]!;
      if (candidate > index) continue;
      const entry = log.at(candidate);
      const standing = entry === undefined ? undefined : this.#known.get(entry.crc);
      if (standing !== undefined) return standing;
    }
    // Where a log begins, all before is committed.
    const first = log.log[0]?.firstIndex ?? 1;
    return this.#committed.findLast(
      (standing) => standing.index <= index && standing.index < first,
    );
  }

  /** Somebody applies a batch, as the first one to do so. */
  applied({ crc }: Batch): void {
    const standing = this.#known.get(crc);
    if (standing !== undefined) this.#committed.push(standing);
  }

  /** A quorum of it has the configuration itself durably. */
  isHeld({ index, crc, configuration }: Standing): boolean {
    return decides(configuration, (id) => this.#ledgers.get(id)!.holds(index, crc));
  }

  /** Behind `index` a quorum has members without that node: committed, though nobody may have applied it yet. */
  decidedWithout(nodeId: number, index: number): boolean {
    return [...this.#known.values()].some(
      (standing) =>
        standing.index > index &&
        !membersOf(standing.configuration).includes(nodeId) &&
        this.isHeld(standing),
    );
  }

  /**
   * Those who have a batch suffice to commit it. What was appended under a joint configuration may be decided by the new voters alone once the joint
   * state has been left, and that is after it was committed itself.
   */
  commits(log: Shadow, index: number, holds: Holds): boolean {
    const standing = this.at(log, index);
    if (standing === undefined) return false;
    const { configuration } = standing;
    if (decides(configuration, holds)) return true;
    if (configuration.outgoing.length === 0 || standing.index === index) return false;
    const isLeft = [...this.#known.values()].some(
      (later) => later.index > index && later.configuration.outgoing.length === 0,
    );
    return isLeft && this.isHeld(standing) && isMajority(configuration.voters, holds);
  }
}

/** A majority of the voters, and while they change one of the old ones too. */
export function decides({ voters, outgoing }: Configuration, holds: Holds): boolean {
  return isMajority(voters, holds) && (outgoing.length === 0 || isMajority(outgoing, holds));
}

function isMajority(voters: readonly number[], holds: Holds): boolean {
  return voters.filter(holds).length * 2 > voters.length;
}

/** For people. */
export function shown(standing: Standing | undefined): string {
  if (standing === undefined) return "no configuration";
  return `the configuration at ${standing.index} (${rolesOf(standing.configuration)})`;
}

function rolesOf({ voters, outgoing, learners }: Configuration): string {
  const was = outgoing.length > 0 ? `, until now ${outgoing.join(" ")}` : "";
  return `voters ${voters.join(" ")}${was}, learners ${learners.join(" ") || "none"}`;
}
