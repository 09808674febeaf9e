/**
 * Administration on this node: checks a request, hands it to the leader where that has to answer, and to its handler here otherwise. What
 * operations there are is in wire/admin.ts; to add one, give it a handler below. Nothing in here waits: a handler calls the waiter when it is done.
 */
import { BargeError, errorCodeOf, errorTable } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { Transport } from "../net/transport.ts";
import { membersOf } from "../raft/configuration.ts";
import type { MemberChange } from "../raft/membership.ts";
import type { AdminWaiter } from "../server/groups.ts";
import { checkAdminBody, type CheckedAdminBody } from "../wire/admin-bodies.ts";
import {
  type AdminAnswers,
  type AdminRow,
  adminOperations,
  type AdminOperation,
  type GroupEntry,
  isAdminOperation,
  type SilentMember,
} from "../wire/admin.ts";
import { defaultGroup, type RegistryEntry, systemGroup } from "../wire/registry.ts";
import type { ScrubStatus } from "../wire/status.ts";
import { Consistency, type AdminReplyMessage, type AdminRequestMessage } from "../wire/messages.ts";
import { version } from "../version.ts";
import { compactionProblem } from "./compaction.ts";
import type { Examine } from "./examine.ts";
import type { Group } from "./group.ts";
import { noRegistry, type Registry } from "./registry.ts";
import { leavingProblem } from "./registry-changes.ts";
import type { ScrubPolicy } from "./scrubber.ts";
import { openSession, useSession } from "./session-calls.ts";

/** One checked request on the node that answers it. */
export interface AdminCall<O extends AdminOperation> {
  readonly body: CheckedAdminBody<O>;
  /** On the clock of the turn. Past it nobody listens any more. */
  readonly deadlineMs: number;
  answer(answer: AdminAnswers[O]): void;
  fail(error: BargeError): void;
}

/** What makes a node one of this cluster. */
export interface ClusterIdentity {
  readonly clusterId: string;
  readonly tokenHash: string;
  /** The data folder that this node has met under a member's id, or is itself; undefined = none yet. */
  incarnationOf(nodeId: number): string | undefined;
  /** Without it nobody looks who is at the address of a new member. */
  readonly examine?: Examine;
}

type Handler<O extends AdminOperation> = (
  group: Group,
  call: AdminCall<O>,
  context: AdminContext,
) => void;

/** What a handler may need besides the group. */
interface AdminContext {
  readonly identity: ClusterIdentity | undefined;
  readonly limits: Limits;
  readonly scrubber: ScrubControl | undefined;
  readonly registry: Registry | undefined;
  /** One operation leads to another one, which may be for another node to answer. */
  readonly ask: (operation: AdminOperation, body: object, waiter: AdminWaiter) => void;
}

/** Reads the disk of this node through. */
export interface ScrubControl {
  set(policy: ScrubPolicy): void;
  status(): ScrubStatus;
}

const handlers: { readonly [O in AdminOperation]: Handler<O> } = {
  transferLeader: (group, call) => {
    const { to = 0, from = 0 } = call.body;
    group.transferLeader(to, from, call.deadlineMs, {
      done: (leader, changed) => call.answer({ group: group.id, leader, changed }),
      failed: (error) => call.fail(error),
    });
  },
  snapshot: (group, call) => {
    group.cutLog(call.body.tailBytes, call.deadlineMs, {
      done: () => {
        const { id, nodeId: node, raft, machine } = group;
        const { firstIndex, lastIndex, logBytes } = raft;
        const index = machine.durableIndex;
        call.answer({ group: id, node, index, firstIndex, lastIndex, logBytes });
      },
      failed: (error) => call.fail(error),
    });
  },
  compaction: (group, call) => {
    const { entries, bytes, tailBytes } = call.body;
    const wanted = {
      entries: entries ?? group.compaction.entries,
      bytes: bytes ?? group.compaction.bytes,
      tailBytes: tailBytes ?? group.compaction.tailBytes,
    };
    const problem = compactionProblem(wanted);
    if (problem !== undefined) return call.fail(new BargeError("bad_request", problem));
    group.changeCompaction(wanted);
    call.answer({ group: group.id, node: group.nodeId, ...wanted });
  },
  scrub: (group, call, { scrubber }) => {
    if (scrubber === undefined) {
      return call.fail(new BargeError("bad_request", "This node has no disk to read."));
    }
    scrubber.set(call.body);
    call.answer({ node: group.nodeId, ...scrubber.status() });
  },
  backupOpen: (group, call, { identity, limits }) => {
    group.openBackup(call.body.backup, call.body.local, call.deadlineMs, {
      opened: ({ index, bytes }) => {
        const { id, nodeId: node, raft, machine, machineKind } = group;
        call.answer({
          group: id,
          node,
          clusterId: identity?.clusterId ?? "",
          machine: machineKind,
          index,
          term: raft.term,
          applyVersion: machine.applyVersion,
          bytes,
          chunkBytes: limits.snapshotChunkBytes,
          software: version,
        });
      },
      failed: (error) => call.fail(error),
    });
  },
  backupRead: (group, call) => {
    group.backups.read(call.body.backup, call.body.offset, {
      read: (bytes) => call.answer({ bytes }),
      failed: (error) => call.fail(error),
    });
  },
  backupClose: (group, call) => {
    group.backups.close(call.body.backup);
    call.answer({});
  },
  members: (group, call) => {
    group.read(Consistency.linearizable, 0, call.deadlineMs, {
      ready: () => call.answer(group.memberList()),
      failed: (error) => call.fail(error),
    });
  },
  changeMembers: (group, call, { identity, registry, ask }) => {
    const { changes, force } = call.body;
    if (group.id !== defaultGroup) return changeHosts(group, call, ask);
    const newcomers = force ? [] : newcomersOf(changes, group);
    const held = holding(changes, registry, call);
    const isSafe = stillSafe(group, registry, call.body);
    whenHosted(group, registry, held, ask, () => {
      examineAll(newcomers, identity, (refused, silent) => {
        if (refused !== undefined) return held.fail(refused);
        change(group, changes, force, held, identity, silent, isSafe);
      });
    });
  },
  join: (group, call, { identity }) => {
    const refused = refuseJoin(call.body, identity);
    if (refused !== undefined) return call.fail(new BargeError("unauthorised", refused));
    const { id, address, incarnation } = call.body;
    const { learners, voters } = group.raft.configuration;
    // Added by hand before, as whatever it is to be, and where whoever added it looks for it: it may have more names than the one that it gives itself.
    const isMember = learners.includes(id) || voters.includes(id);
    const add = { op: "add" as const, id, address, learner: call.body.learner, incarnation };
    const bind = { op: "bind" as const, id, incarnation };
    change(group, isMember ? [bind] : [add], false, call, identity);
  },
  sessionOpen: (group, call, { limits }) => openSession(group, limits, call.body.ttlMs, call),
  sessionKeepAlive: (group, call) => useSession(group, "keepAlive", call.body.session, call),
  sessionClose: (group, call) => useSession(group, "close", call.body.session, call),
  groups: (_, call, { registry }) =>
    registry!.list({
      ...callOf(call),
      answer: (entries) => call.answer({ groups: entries.map(entryOf) }),
    }),
  createGroups: (_, call, { registry }) => {
    const { request, count, id, name, replicas, members, logBytesMax } = call.body;
    const { applyVersion } = registry!;
    const machine = call.body.machine ?? registry!.machineKind;
    const wanted = { request, count, id, name, machine, replicas, members, logBytesMax };
    registry!.create(
      { ...wanted, applyVersion },
      { ...callOf(call), answer: (entries) => call.answer({ groups: entries.map(entryOf) }) },
    );
  },
  removeGroups: (_, call, { registry }) =>
    registry!.remove(call.body.groups, {
      ...callOf(call),
      answer: (removed) => call.answer({ removed }),
    }),
  moveGroup: (_, call, { registry }) => {
    const { id, members, add = [], remove = [] } = call.body;
    const wish = (before: readonly number[]): readonly number[] =>
      members ?? [...before.filter((node) => !remove.includes(node)), ...add];
    registry!.move(id, wish, {
      ...callOf(call),
      answer: ({ entry, changed }) => call.answer({ ...entryOf(entry), changed }),
    });
  },
  settleGroups: (_, call, { registry }) =>
    registry!.settle(call.body.settled, { ...callOf(call), answer: () => call.answer({}) }),
  dropGroups: (_, call, { registry }) =>
    registry!.dropped(call.body.node, call.body.dropped, {
      ...callOf(call),
      answer: () => call.answer({}),
    }),
  releaseNodes: (_, call, { registry }) =>
    registry!.release(call.body, { ...callOf(call), answer: (answer) => call.answer(answer) }),
  keepNodes: (_, call, { registry }) =>
    registry!.keep(call.body, { ...callOf(call), answer: () => call.answer({}) }),
};

function callOf<O extends AdminOperation>(
  call: AdminCall<O>,
): Pick<AdminCall<O>, "deadlineMs" | "fail"> {
  return { deadlineMs: call.deadlineMs, fail: (error) => call.fail(error) };
}

function entryOf(entry: RegistryEntry): GroupEntry {
  const { id, name, machine, members, leaving, replicas, logBytesMax, version: rising } = entry;
  return {
    id,
    ...(name === undefined ? {} : { name }),
    machine,
    members: members.map((member) => member.id),
    leaving: leaving.map((member) => member.id),
    replicas,
    ...(logBytesMax === undefined ? {} : { logBytesMax }),
    version: rising,
  };
}

/** Which nodes host a group the registry says: so it is asked, and the group follows. */
function changeHosts(
  group: Group,
  call: AdminCall<"changeMembers">,
  ask: AdminContext["ask"],
): void {
  if (group.id === systemGroup) {
    const text = "The members of system are those of the cluster: change them without --group.";
    return call.fail(new BargeError("bad_request", text));
  }
  const add: number[] = [];
  const remove: number[] = [];
  for (const wish of call.body.changes) {
    if (wish.op === "add" && !wish.learner) add.push(wish.id);
    else if (wish.op === "remove") remove.push(wish.id);
    else if (wish.op === "replace") {
      add.push(wish.by);
      remove.push(wish.id);
    } else {
      const text = `A group's members are voters, at the addresses that the cluster knows: ${wish.op} is for the members of the cluster, without --group.`;
      return call.fail(new BargeError("bad_request", text));
    }
  }
  const body = {
    id: group.id,
    ...(add.length > 0 ? { add: [...new Set(add)] } : {}),
    ...(remove.length > 0 ? { remove: [...new Set(remove)] } : {}),
  };
  ask("moveGroup", body, {
    answered: (answer) => {
      const { changed } = answer as AdminAnswers["moveGroup"];
      call.answer({ ...group.memberList(), changed });
    },
    failed: (error) => call.fail(error),
  });
}

/** From `hold` on until it is answered, nobody takes back that these go. */
interface HeldCall extends AdminCall<"changeMembers"> {
  hold(): void;
}

function holding(
  changes: readonly MemberChange[],
  registry: Registry | undefined,
  call: AdminCall<"changeMembers">,
): HeldCall {
  let letGo: (() => void) | undefined;
  return {
    body: call.body,
    deadlineMs: call.deadlineMs,
    hold: () => {
      letGo ??= registry?.places.hold(goingBy(changes));
    },
    answer: (answer) => {
      letGo?.();
      call.answer(answer);
    },
    fail: (error) => {
      letGo?.();
      call.fail(error);
    },
  };
}

/** What was made sure of before members go holds in that term alone, and as long as there is not more of a registry than there was. */
function stillSafe(
  group: Group,
  registry: Registry | undefined,
  { changes, force }: CheckedAdminBody<"changeMembers">,
): () => BargeError | undefined {
  const { term } = group.raft;
  const hadRegistry = registry?.system !== undefined;
  const depends = registry !== undefined && !force && goingBy(changes).length > 0;
  return () => {
    if (!depends) return undefined;
    if (group.raft.term !== term) return refusal("not_leader");
    return !hadRegistry && group.mayHaveRegistry ? registryBegins() : undefined;
  };
}

function registryBegins(): BargeError {
  return new BargeError(
    "change_in_progress",
    "The registry of groups is about to begin, and is to know of those that go: try again in a moment, or force it.",
  );
}

function goingBy(changes: readonly MemberChange[]): number[] {
  return changes.flatMap(({ op, id }) => (op === "remove" || op === "replace" ? [id] : []));
}

/**
 * Goes on once it is sure that no group loses its majority with those that go: the registry's own, whose members follow those of the cluster, lets them
 * go first, as they end once the cluster has. Who keeps its place until another can take it is looked at once more by then: see places.ts.
 */
function whenHosted(
  group: Group,
  registry: Registry | undefined,
  call: HeldCall,
  ask: AdminContext["ask"],
  done: () => void,
): void {
  const { changes, force } = call.body;
  const going = goingBy(changes);
  if (going.length === 0 || registry === undefined) return done();
  if (registry.system === undefined) {
    return !force && group.mayHaveRegistry ? call.fail(registryBegins()) : done();
  }
  const nodes = goingAtOnce(changes, group);
  const said = (): { term: number; word: number } => ({
    term: group.raft.term,
    word: registry.places.word(),
  });
  if (force) {
    const replaced = going.filter((id) => !nodes.includes(id));
    const heard = { answered: () => {}, failed: () => {} };
    // Nor is it waited for: the registry may be what cannot answer. Should it not hear it, whoever asks for it once more says it once more.
    if (replaced.length > 0) {
      call.hold();
      ask("releaseNodes", { nodes: replaced, ...said(), replaced: true, force }, heard);
    }
    return done();
  }
  registry.list({
    ...callOf(call),
    answer: (entries) => {
      const { raft, nodeId } = group;
      const heard = raft.progress().flatMap(({ id, active }) => (active ? [id] : []));
      const alive = new Set([nodeId, ...heard]);
      // Who is replaced goes too, before long.
      for (const id of Object.values(raft.configuration.promotions ?? {})) alive.delete(id);
      const isAlive = (id: number): boolean => alive.has(id);
      const problem = leavingProblem(entries, new Set(going), isAlive, raft.isNewLeader);
      if (problem !== undefined) return call.fail(problem);
      if (nodes.length === 0) return done();
      // Noted, they are looked at once more: a group may have come meanwhile, and none does from then on to where it would be lost with them.
      call.hold();
      ask("releaseNodes", { nodes, ...said() }, { answered: done, failed: (e) => call.fail(e) });
    },
  });
}

/** Not those that stay until another one can take their place: a learner has none, nor has who is made one by the same request. */
function goingAtOnce(changes: readonly MemberChange[], { raft }: Group): number[] {
  const { voters } = raft.configuration;
  const holdsPlace = (id: number): boolean =>
    voters.includes(id) && !changes.some(({ op, id: of }) => of === id && op === "demote");
  const goes = ({ op, id }: MemberChange): boolean =>
    op === "remove" || (op === "replace" && !holdsPlace(id));
  return [...new Set(changes.filter(goes).map(({ id }) => id))];
}

interface Newcomer {
  readonly id: number;
  readonly address: string;
}

/** Whoever would be new, as far as that makes sense; the rest is for the group to refuse. */
function newcomersOf(changes: readonly MemberChange[], group: Group): Newcomer[] {
  const { addresses, removed = [] } = group.raft.configuration;
  const taken = new Set(Object.values(addresses));
  return changes.flatMap((wish) => {
    if (wish.op !== "add" && wish.op !== "replace") return [];
    const id = wish.op === "add" ? wish.id : wish.by;
    const isKnown = id in addresses || removed.includes(id) || taken.has(wish.address);
    return isKnown ? [] : [{ id, address: wish.address }];
  });
}

/** All at once; `done` hears of the first who is refused, or of those where nobody answers. */
function examineAll(
  newcomers: readonly Newcomer[],
  identity: ClusterIdentity | undefined,
  done: (refused: BargeError | undefined, silent: readonly SilentMember[]) => void,
): void {
  const examine = identity?.examine;
  if (examine === undefined || newcomers.length === 0) return done(undefined, []);
  const silent: SilentMember[] = [];
  let refused: BargeError | undefined;
  let left = newcomers.length;
  for (const { id, address } of newcomers) {
    examine(id, address, (finding) => {
      if ("refused" in finding) refused ??= finding.refused;
      if ("silent" in finding) silent.push({ id, address, why: finding.silent });
      if (--left === 0) done(refused, silent);
    });
  }
}

function change(
  group: Group,
  changes: readonly MemberChange[],
  force: boolean,
  call: AdminCall<"changeMembers" | "join">,
  identity: ClusterIdentity | undefined,
  silent: readonly SilentMember[] = [],
  isSafe: () => BargeError | undefined = () => undefined,
): void {
  group.changeMembers({
    changes: [...bindings(group, identity), ...changes],
    refusal: isSafe,
    force,
    deadlineMs: call.deadlineMs,
    waiter: {
      done: (changed) =>
        call.answer({
          ...group.memberList(),
          changed,
          ...(silent.length === 0 ? {} : { silent }),
        }),
      failed: (error) => call.fail(error),
    },
  });
}

/**
 * With each change those members are bound whose data folder this node has met: the first ones of a cluster, which were all there before any of
 * them voted. So whoever joins later never takes another folder for theirs.
 */
function bindings(group: Group, identity: ClusterIdentity | undefined): MemberChange[] {
  const { configuration } = group.raft;
  const found: MemberChange[] = [];
  for (const id of membersOf(configuration)) {
    const incarnation = identity?.incarnationOf(id);
    if (configuration.incarnations?.[id] !== undefined || incarnation === undefined) continue;
    found.push({ op: "bind", id, incarnation });
  }
  return found;
}

function refuseJoin(
  { clusterId, tokenHash, id }: CheckedAdminBody<"join">,
  identity: ClusterIdentity | undefined,
): string | undefined {
  if (identity === undefined) return "Nobody can join here.";
  if (clusterId !== identity.clusterId) {
    return `This is cluster ${identity.clusterId}, node ${id} belongs to ${clusterId}: compare --join, and the data folder of node ${id}.`;
  }
  if (tokenHash === identity.tokenHash) return undefined;
  return `Node ${id} was started with another --cluster-token than this cluster: compare the two.`;
}

export interface AdminOptions {
  readonly identity: ClusterIdentity | undefined;
  readonly scrubber: ScrubControl | undefined;
  /** A group that is not here may be elsewhere. */
  readonly unknownGroup: (id: number) => BargeError;
  /** More groups than the first. */
  readonly registry: () => Registry | undefined;
  /** Random, so that an answer to a life before a crash is not taken for one to this. */
  readonly firstRequest: number;
  readonly limits: Limits;
  readonly transport: Transport;
  readonly groups: ReadonlyMap<number, Group>;
  readonly deadlineMs: (timeoutMs: number) => number;
}

/** Requests of this node that the leader has not answered. */
const passedOnMax = 1_024;

interface PassedOn {
  readonly operation: AdminOperation;
  readonly to: number;
  readonly deadlineMs: number;
  readonly waiter: AdminWaiter;
}

export class Admin {
  readonly #options: AdminOptions;
  readonly #passedOn = new Map<number, PassedOn>();
  #lastRequest: number;
  #draining = false;

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#lastRequest = options.firstRequest;
  }

  get idle(): boolean {
    return this.#passedOn.size === 0;
  }

  /** From a door of this node. */
  ask(operation: string, body: unknown, waiter: AdminWaiter): void {
    const checked = this.#check(operation, body);
    if (checked instanceof BargeError) return waiter.failed(checked);
    const { group, name } = checked;
    const row: AdminRow = adminOperations[name];
    if (row.at === "here" || group.raft.role === "leader") {
      return this.#run(group, name, checked.body, waiter);
    }
    const { transport } = this.#options;
    const leader = group.leader;
    if (leader === 0 || !transport.connected(leader)) {
      return waiter.failed(refusal("no_leader"));
    }
    this.#pass(leader, checked, waiter);
  }

  /** Asks that member itself, whoever leads. */
  askAt(to: number, operation: AdminOperation, body: unknown, waiter: AdminWaiter): void {
    const checked = this.#check(operation, body);
    if (checked instanceof BargeError) return waiter.failed(checked);
    if (!this.#options.transport.connected(to)) return waiter.failed(refusal("no_leader"));
    this.#pass(to, checked, waiter);
  }

  #pass<O extends AdminOperation>(
    to: number,
    { group, name: operation, body }: Checked<O>,
    waiter: AdminWaiter,
  ): void {
    const { transport, limits } = this.#options;
    if (this.#passedOn.size >= passedOnMax) return waiter.failed(refusal("overloaded"));
    const timeoutMs = body.timeoutMs || limits.requestTimeoutMs;
    const deadlineMs = this.#options.deadlineMs(timeoutMs);
    const request = ++this.#lastRequest;
    this.#passedOn.set(request, { operation, to, deadlineMs, waiter });
    transport.send({
      type: "adminRequest",
      group: group.id,
      to,
      from: group.nodeId,
      request,
      timeoutMs,
      operation,
      body,
    });
  }

  /** From another node, which takes this one for the leader, or asks for what this one has itself. */
  requested(message: AdminRequestMessage): void {
    const { transport } = this.#options;
    const { group, from: to, to: from, request } = message;
    const head = { type: "adminReply" as const, group, from, to, request };
    const waiter: AdminWaiter = {
      answered: (body) =>
        transport.send({ ...head, error: 0, outcome: "applied", message: "", body }),
      failed: ({ code, outcome, message: text }) => {
        const error = errorTable[code].number;
        transport.send({ ...head, error, outcome, message: text, body: undefined });
      },
    };
    const checked = this.#check(message.operation, message.body);
    if (checked instanceof BargeError) return waiter.failed(checked);
    const row: AdminRow = adminOperations[checked.name];
    const leads = checked.group.raft.role === "leader";
    if (row.at === "leader" && !leads) return waiter.failed(refusal("not_leader"));
    this.#run(checked.group, checked.name, checked.body, waiter);
  }

  replied({ request, from, error, outcome, message, body }: AdminReplyMessage): void {
    const passed = this.#passedOn.get(request);
    if (passed === undefined || passed.to !== from) return;
    this.#passedOn.delete(request);
    if (error === 0) return passed.waiter.answered(body);
    passed.waiter.failed(new BargeError(errorCodeOf(error), message, { outcome }));
  }

  /** Requests on their way to that node may or may not have arrived. */
  peerDown(nodeId: number): void {
    this.#failWhere(({ to }) => to === nodeId, lost);
  }

  expire(nowMs: number): void {
    this.#failWhere(({ deadlineMs }) => deadlineMs <= nowMs, late);
  }

  drain(): void {
    this.#draining = true;
  }

  failAll(): void {
    this.#failWhere(() => true, lost);
  }

  #check<O extends AdminOperation>(operation: string, body: unknown): Checked<O> | BargeError {
    if (this.#draining) return refusal("shutting_down");
    if (!isAdminOperation(operation)) {
      return new BargeError("bad_request", `This node knows no operation "${operation}".`);
    }
    const checked = checkAdminBody(operation, body);
    if ("problem" in checked) return new BargeError("bad_request", checked.problem);
    const isOfRegistry = adminOperations[operation].at === "registry";
    const id = isOfRegistry ? systemGroup : checked.body.group;
    const group = this.#options.groups.get(id);
    if (group === undefined) {
      if (!isOfRegistry) return this.#options.unknownGroup(id);
      return noRegistry(this.#options.groups.get(defaultGroup));
    }
    return { group, name: operation as O, body: checked.body as CheckedAdminBody<O> };
  }

  #run<O extends AdminOperation>(
    group: Group,
    name: O,
    body: CheckedAdminBody<O>,
    waiter: AdminWaiter,
  ): void {
    const deadlineMs = this.#options.deadlineMs(body.timeoutMs);
    const call: AdminCall<O> = {
      body,
      deadlineMs,
      answer: (answer) => waiter.answered(answer),
      fail: (error) => waiter.failed(error),
    };
    const { identity, limits, scrubber, registry } = this.#options;
    handlers[name](group, call, {
      identity,
      limits,
      scrubber,
      registry: registry(),
      ask: (operation, asked, told) => this.ask(operation, asked, told),
    });
  }

  #failWhere(
    applies: (passed: PassedOn) => boolean,
    error: (operation: AdminOperation) => BargeError,
  ): void {
    for (const [request, passed] of this.#passedOn) {
      if (!applies(passed)) continue;
      this.#passedOn.delete(request);
      passed.waiter.failed(error(passed.operation));
    }
  }
}

interface Checked<O extends AdminOperation> {
  readonly group: Group;
  readonly name: O;
  readonly body: CheckedAdminBody<O>;
}

function refusal(code: "no_leader" | "not_leader" | "overloaded" | "shutting_down"): BargeError {
  return new BargeError(code, errorTable[code].help);
}

function lost(operation: AdminOperation): BargeError {
  if (!adminOperations[operation].changes) return refusal("no_leader");
  return new BargeError(
    "outcome_unknown",
    "Contact with the leader was lost: the change may have been made or not. Ask again; to repeat it does no harm.",
  );
}

function late(operation: AdminOperation): BargeError {
  if (!adminOperations[operation].changes) {
    return new BargeError("timeout", "The leader did not answer in time.", {
      outcome: "not-applied",
    });
  }
  return new BargeError(
    "timeout",
    "The leader did not answer in time: the change may be made yet. Look with `barge member list`, or ask again; to repeat it does no harm.",
  );
}
