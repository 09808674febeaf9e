/**
 * Members that come and go during a run: at random times somebody is asked for a random change, wise or not, and what is answered is held against
 * what is committed. Nodes that were none at first have empty disks; some run before they are asked for, some only afterwards.
 */
import type { BargeError, ErrorCode } from "../../src/errors.ts";
import type { MemberChange } from "../../src/raft/membership.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { Violation } from "./invariants.ts";
import type { AdminAnswers } from "../../src/wire/admin.ts";
import type { ChangeWaiter } from "../../src/node/member-changes.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimNode } from "./sim-node.ts";
import type { Swarm } from "./swarm.ts";
import type { Tally } from "./tally.ts";

/** Of runs with groups whose members would change, where it is not asked for: they take long, and there are other things to find. */
const hostsShare = 0.3;
/** A group takes so much longer to get to other nodes. */
const hostsPatience = 8;

/** Nodes come and go while there are groups on them: nobody forces anything, and each change is asked for once the one before is answered. */
export function drawHosts(random: Random, swarm: Swarm, without: boolean, wanted: boolean): Swarm {
  const isOn = random.chance(hostsShare) || wanted;
  if (isOn && swarm.changeEveryMs > 0 && !without)
    return { ...swarm, changeEveryMs: hostsPatience * swarm.changeEveryMs };
  return { ...swarm, spares: 0, changeEveryMs: 0 };
}

export interface MemberChangesOptions {
  /** There are groups on the nodes, and so it is the node's administration that is asked. */
  readonly hosts: boolean;
  /** That node was removed, and ends for good. */
  readonly retire: (node: SimNode) => void;
  /** Of the default group. */
  readonly oracle: Oracle;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly swarm: Swarm;
  readonly nodes: readonly SimNode[];
  readonly tally: Tally;
}

const membersMax = 7;
/** In the order of `#drawOne`: add, add to stay a learner, promote, demote, remove, replace. */
const operationWeights = [4, 1, 2, 2, 3, 3];
/** Share of requests that ask for several changes at once, that are forced, that go to any node, and that ask for nonsense. */
const severalShare = 0.2;
const forcedShare = 0.1;
const anywhereShare = 0.15;
const anybodyShare = 0.1;

const expectedErrors: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "not_leader",
  "no_leader",
  "no_registry",
  "overloaded",
  "disk_full",
  "timeout",
  "outcome_unknown",
  "change_in_progress",
  "no_live_majority",
  "unknown_member",
  "member_exists",
  "member_removed",
  "bad_request",
]);

export class MemberChanges {
  readonly #options: MemberChangesOptions;
  /** Requests that are not answered, by the life of the node that was asked. */
  readonly #open = new Set<{ readonly node: SimNode; readonly life: number }>();
  #stopped = false;

  constructor(options: MemberChangesOptions) {
    this.#options = options;
  }

  start(): void {
    const { random, swarm, nodes, scheduler } = this.#options;
    for (const node of nodes) {
      if (node.id > swarm.nodes && random.chance(0.5)) {
        scheduler.after(random.float() * swarm.outageMs, () => node.start());
      }
    }
    if (swarm.changeEveryMs > 0) this.#wait();
    if (this.#options.hosts) this.#retireLater();
  }

  /** Who has been removed ends soon; in peace too. */
  #retireLater(): void {
    const { scheduler, random, swarm, nodes, oracle, retire } = this.#options;
    scheduler.after(swarm.outageMs * random.float(), () => {
      const removed = oracle.configuration?.removed ?? [];
      for (const node of nodes) if (removed.includes(node.id) && !node.left) retire(node);
      this.#retireLater();
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Requests that nobody has answered on nodes that live. */
  get unanswered(): number {
    return [...this.#open].filter(({ node, life }) => node.life === life).length;
  }

  #wait(): void {
    const { scheduler, random, swarm } = this.#options;
    scheduler.after(-Math.log(1 - random.float()) * swarm.changeEveryMs, () => {
      if (this.#stopped) return;
      this.#ask();
      this.#wait();
    });
  }

  #ask(): void {
    const { random, nodes, swarm, hosts } = this.#options;
    if (hosts && this.unanswered > 0) return;
    const leader = nodes.find(({ group }) => group?.raft.role === "leader");
    const node = random.chance(anywhereShare) ? random.pick(nodes) : leader;
    const configuration = node?.group?.raft.configuration;
    if (node === undefined || configuration === undefined) return;
    if (hosts && node.door === undefined) return;
    const count = random.chance(severalShare) ? random.between(2, 4) : 1;
    const changes: MemberChange[] = [];
    while (changes.length < count) changes.push(this.#drawOne(configuration));
    for (const change of changes) this.#startJoiner(change);
    const { term } = node.group!.raft;
    const request = { node, life: node.life };
    this.#open.add(request);
    const answered = (): void => {
      if (!this.#open.delete(request))
        throw new Violation(`node ${node.id} answers a change of members twice`);
    };
    const waiter: ChangeWaiter = {
      done: (changed) => {
        answered();
        this.#done(node, term, changes, changed);
      },
      failed: (error) => {
        answered();
        this.#failed(node, error);
      },
    };
    const timeoutMs = swarm.timeoutMs * 2;
    if (hosts) this.#administer(node, changes, timeoutMs, waiter);
    else node.changeMembers(changes, random.chance(forcedShare), timeoutMs, waiter);
  }

  /** As a client asks: what becomes of the groups is looked at first. */
  #administer(
    node: SimNode,
    changes: readonly MemberChange[],
    timeoutMs: number,
    waiter: ChangeWaiter,
  ): void {
    const body = { changes, timeoutMs: Math.ceil(timeoutMs) };
    node.deliver(() =>
      node.door?.admin("changeMembers", body, {
        answered: (answer) => waiter.done((answer as AdminAnswers["changeMembers"]).changed),
        failed: (error) => waiter.failed(error),
      }),
    );
  }

  #drawOne({ voters, learners }: Configuration): MemberChange {
    const { random, nodes } = this.#options;
    const all = nodes.map(({ id }) => id);
    const some = (ids: readonly number[]): number =>
      random.pick(ids.length === 0 || random.chance(anybodyShare) ? all : ids);
    const strangers = all.filter((id) => !voters.includes(id) && !learners.includes(id));
    const members = [...voters, ...learners];
    const joiner = some(strangers);
    const address = `sim:${joiner}`;
    const drawn = random.weighted(operationWeights);
    // One that is full can only lose members.
    const operation = drawn <= 1 && members.length >= membersMax ? 4 : drawn;
    switch (operation) {
      case 0:
        return { op: "add", id: joiner, address, learner: false };
      case 1:
        return { op: "add", id: joiner, address, learner: true };
      case 2:
        return { op: "promote", id: some(learners) };
      case 3:
        return { op: "demote", id: some(voters) };
      case 4:
        return { op: "remove", id: some(members) };
      default:
        return { op: "replace", id: some(members), by: joiner, address };
    }
  }

  /** A node that is to join is there by then, or comes later. */
  #startJoiner(change: MemberChange): void {
    const { scheduler, random, swarm, nodes } = this.#options;
    const id = change.op === "add" ? change.id : change.op === "replace" ? change.by : 0;
    const node = nodes.find((other) => other.id === id);
    if (node?.life === 0) scheduler.after(random.float() * swarm.outageMs, () => node.start());
  }

  /** What was acknowledged is committed; while this leader leads, nobody can have been asked for anything else since. */
  #done(node: SimNode, term: number, changes: readonly MemberChange[], changed: boolean): void {
    const { tally } = this.#options;
    if (changed) tally.membersChanged++;
    const { raft } = node.group!;
    if (raft.term !== term || (this.#options.hosts && raft.role !== "leader")) return;
    const { voters, outgoing, learners, removed = [] } = raft.configuration;
    const broken = (what: string): never => {
      throw new Violation(
        `node ${node.id} says that ${JSON.stringify(changes)} is done; ${what}: voters ${voters.join()}, learners ${learners.join()}`,
      );
    };
    if (!raft.configurationCommitted || outgoing.length > 0) broken("it is not committed");
    // Later changes of one request may undo earlier ones.
    const change = changes.at(-1)!;
    const isMember = (id: number): boolean => voters.includes(id) || learners.includes(id);
    switch (change.op) {
      case "add":
      case "promote":
        return isMember(change.id) ? undefined : broken("it is no member");
      case "demote":
        return voters.includes(change.id) ? broken("it is a voter") : undefined;
      case "remove":
        if (isMember(change.id)) broken("it is a member");
        return removed.includes(change.id) ? undefined : broken("its id may come back");
      case "replace":
        return isMember(change.by) ? undefined : broken("it is no member");
    }
  }

  #failed(node: SimNode, error: BargeError): void {
    const { code, outcome, message } = error;
    this.#options.tally.membersRefused++;
    if (!expectedErrors.has(code))
      throw new Violation(`node ${node.id} answers ${code} to a change of members: ${message}`);
    if (outcome === "applied") throw new Violation(`node ${node.id} refuses a change and makes it`);
  }
}
