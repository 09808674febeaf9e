/**
 * Groups that come, go and move during a run: at random times somebody asks any node for one of that, wise or not, and what is answered is held against
 * what the registry says.
 */
import type { BargeError, ErrorCode } from "../../src/errors.ts";
import type { AdminAnswers, AdminOperation } from "../../src/wire/admin.ts";
import { type GroupSwarm, hasGroups, pickSome } from "./group-swarm.ts";
import { Violation } from "./invariants.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { RegistryJudge } from "./registry-judge.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import type { Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";

export interface GroupChangesOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly swarm: Swarm;
  readonly groups: GroupSwarm;
  readonly nodes: readonly SimNode[];
  readonly judge: RegistryJudge;
  /** Of the default group: who is in the cluster. */
  readonly oracle: Oracle;
  readonly tally: Tally;
  /** Some are to be of an application; undefined: there is none. */
  readonly applications: Random | undefined;
  /** Some group gets far more requests than the others. */
  readonly heat: () => void;
  /** Somebody else changes that group just now. */
  readonly isTaken: (group: number) => boolean;
}

/** In the order of `#ask`: create, remove, move. */
const operationWeights = [4, 2, 5];
/** Share of requests that ask for nonsense, and of those that ask for several groups at once. */
const anyShare = 0.1;
const severalShare = 0.2;

const expectedErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "not_leader",
  "no_leader",
  "overloaded",
  "timeout",
  "disk_full",
  "wounded",
  "outcome_unknown",
  "no_registry",
  "bad_request",
  "unknown_group",
  "unknown_member",
  "group_exists",
  "too_many_groups",
  "change_in_progress",
]);

export class GroupChanges {
  readonly #options: GroupChangesOptions;
  /** Requests that are not answered, by the life of the node that was asked. */
  readonly #open = new Set<{ readonly node: SimNode; readonly life: number }>();
  #requests = 0;
  #stopped = false;

  constructor(options: GroupChangesOptions) {
    this.#options = options;
  }

  start(): void {
    if (!hasGroups(this.#options.groups)) return;
    this.#wait();
    if (this.#options.groups.hotEveryMs < Infinity) this.#heatLater();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Requests that nobody has answered on nodes that live. */
  get unanswered(): number {
    return [...this.#open].filter(({ node, life }) => node.life === life).length;
  }

  #wait(): void {
    const { scheduler, random, groups } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * groups.changeEveryMs, () => {
      if (this.#stopped) return;
      this.#ask(random.pick(this.#options.nodes));
      this.#wait();
    });
  }

  #heatLater(): void {
    const { scheduler, random, groups, heat } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * groups.hotEveryMs, () => {
      if (this.#stopped) return;
      heat();
      this.#heatLater();
    });
  }

  #ask(node: SimNode): void {
    const { random, judge, groups } = this.#options;
    if (node.door === undefined) return;
    const ids = judge.entries.map(({ id }) => id);
    const drawn = random.weighted(operationWeights);
    const isAny = random.chance(anyShare);
    if (ids.length === 0 || (drawn === 0 && ids.length < groups.groupsMax)) {
      return this.#create(node, groups.groupsMax - ids.length);
    }
    const id = isAny ? random.between(1, 20) : random.pick(ids);
    if (this.#options.isTaken(id)) return;
    if (drawn === 2 && groups.moves) return this.#move(node, id);
    if (drawn === 1) this.askRemove(node, id);
  }

  /** Asks that node. */
  askRemove(node: SimNode, id: number): void {
    const { judge } = this.#options;
    if (node.door === undefined) return;
    this.#send(node, "removeGroups", { groups: [id] }, ({ removed }) => {
      if (judge.entry(id) !== undefined) {
        throw new Violation(`node ${node.id} says that group ${id} is removed, which is there`);
      }
      this.#options.tally.groupsRemoved += removed.length;
    });
  }

  #create(node: SimNode, countMax: number): void {
    const { random, judge, groups } = this.#options;
    const count = random.chance(severalShare) ? random.between(1, countMax) : 1;
    const some = random.pick([1, 2, 3, 3, 3, 5]);
    const members = groups.everywhere ? this.#voters : pickSome(random, this.#voters, some);
    const request = `request ${++this.#requests} ${random.u32()}`;
    // Most let the cluster choose.
    const chooses = groups.everywhere || random.chance(0.5);
    const body = chooses ? { members } : { replicas: Math.min(some, this.#voters.length) };
    const kind = this.#options.applications?.chance(0.5) === true ? { machine: "http" } : {};
    const named = count === 1 && random.chance(0.3) ? { name: `n${this.#requests}` } : {};
    this.#send(node, "createGroups", { request, count, ...body, ...named, ...kind }, (answer) => {
      if (answer.groups.length !== count) {
        throw new Violation(`node ${node.id} makes ${answer.groups.length} groups of ${count}`);
      }
      for (const { id } of answer.groups) {
        if (!judge.wasThere(id)) {
          throw new Violation(`node ${node.id} says that group ${id} is made, which is not there`);
        }
      }
      this.#options.tally.groupsMade += count;
    });
  }

  #move(node: SimNode, id: number): void {
    const { random, judge } = this.#options;
    const before = judge.entry(id)?.members.map((member) => member.id) ?? [];
    const others = this.#voters.filter((voter) => !before.includes(voter));
    let members = pickSome(random, this.#voters, random.between(1, 3));
    // Mostly one takes the place of another.
    if (random.chance(0.6) && others.length > 0 && before.length > 0) {
      members = [...pickSome(random, before, before.length - 1), random.pick(others)];
    }
    this.askMove(node, id, members);
  }

  /** Asks that node. */
  askMove(node: SimNode, id: number, members: readonly number[]): void {
    const { judge } = this.#options;
    if (node.door === undefined) return;
    this.#send(node, "moveGroup", { id, members }, ({ changed }) => {
      if (!judge.wasThere(id)) throw new Violation(`node ${node.id} moves group ${id}`);
      if (changed) this.#options.tally.groupsMoved++;
    });
  }

  /** Nodes that can host groups. */
  get #voters(): readonly number[] {
    return this.#options.oracle.configuration?.voters ?? [];
  }

  #send<O extends AdminOperation>(
    node: SimNode,
    operation: O,
    body: object,
    done: (answer: AdminAnswers[O]) => void,
  ): void {
    const request = { node, life: node.life };
    const { timeoutMs } = this.#options.swarm;
    this.#open.add(request);
    const answered = (): void => {
      if (!this.#open.delete(request)) {
        throw new Violation(`node ${node.id} answers a change of groups twice`);
      }
    };
    node.deliver(() =>
      node.door?.admin(
        operation,
        { ...body, timeoutMs: Math.ceil(2 * timeoutMs) },
        {
          answered: (answer) => {
            answered();
            done(answer as AdminAnswers[O]);
          },
          failed: (error) => {
            answered();
            this.#failed(node, operation, error);
          },
        },
      ),
    );
  }

  #failed(node: SimNode, operation: AdminOperation, { code, message }: BargeError): void {
    this.#options.tally.groupsRefused++;
    if (expectedErrors.has(code)) return;
    throw new Violation(`node ${node.id} answers ${code} to ${operation}: ${message}`);
  }
}
