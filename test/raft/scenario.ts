/**
 * A small language over real cores, for scenarios that can be read (after etcd/raft's data-driven tests). A scenario is a text file of steps: commands,
 * a line `----`, and the trace that they print, which is the expectation. Nothing moves unless a command says so.
 *
 *     quiet                       of the rest of this step only changes of the nodes are printed, no messages
 *     nodes 3 [learners 4 5]      begins with these members, all empty; `small nodes 3`: one batch a frame, one frame at a time
 *     propose 1 [x]               a leader appends a command
 *     tick 1 [20]                 time goes by for a node, and what it sends waits
 *     run 20                      time goes by for all, and everything arrives at once
 *     campaign 1                  as many ticks as its election takes
 *     deliver [1>2] [append]      messages arrive: those of a link, of a type, or all that wait, once
 *     drop [1>2] [append]         they are lost
 *     settle                      everything arrives until nothing moves
 *     cut 1 2 | 3 4 5             nothing passes between these sides, or one way: `cut 1 > 2`; `heal` ends all cuts
 *     crash 1, restart 1          what was synced stays; messages to and from it are lost
 *     hold 1, sync 1              its disk syncs no more; all at once, and from then on at once
 *     change 1 add 4              the leader plans a change of members and proposes what it comes to; several with commas
 *     transfer 1 2                the leader hands over
 *     damage 1 3, rot 1 3         the batch at an index is damaged: found while running, or at the next start
 *     status [1 2], logs          who is what; terms by index, those that are committed in brackets
 */
import { checkLimits } from "../../src/limits.ts";
import { isVoter } from "../../src/raft/configuration.ts";
import type { MemberChange } from "../../src/raft/membership.ts";
import type { RaftMessage } from "../../src/wire/messages.ts";
import { configurationOf, TestNode, testLimits } from "./harness.ts";

export interface Step {
  readonly comment: string;
  readonly commands: string;
  readonly expected: string;
}

/** Comments and blank lines before a step belong to it. */
export function parseScenario(text: string): { steps: Step[]; rest: string } {
  const steps: Step[] = [];
  const pattern = /((?:^(?:#.*)?\n)*)((?:^(?!----$|#).+\n)+)^----\n((?:^.+\n)*)/gm;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index !== end) throw new Error(`not a step: ${text.slice(end, match.index)}`);
    end = match.index + match[0].length;
    steps.push({ comment: match[1]!, commands: match[2]!, expected: match[3]! });
  }
  return { steps, rest: text.slice(end) };
}

export function formatScenario(steps: readonly Step[], rest: string): string {
  return (
    steps
      .map(({ comment, commands, expected }) => `${comment}${commands}----\n${expected}`)
      .join("") + rest
  );
}

interface Shown {
  role: string;
  term: number;
  commit: number;
  lastIndex: number;
  wounded: boolean;
}

export class Scenario {
  readonly #nodes = new Map<number, TestNode>();
  readonly #down = new Set<number>();
  readonly #held = new Set<number>();
  readonly #shown = new Map<number, Shown>();
  #wire: RaftMessage[] = [];
  /** Directions in which nothing passes. */
  #cuts = new Set<string>();
  #trace: string[] = [];
  #quiet = false;
  #limits = testLimits;

  /** Performs the commands of a step; what happened, line by line. */
  run(commands: string): string {
    this.#trace = [];
    this.#quiet = false;
    for (const command of commands.trim().split("\n")) this.#perform(command.trim().split(/\s+/));
    return this.#trace.map((line) => `${line}\n`).join("");
  }

  #perform([name, ...words]: readonly string[]): void {
    const id = Number(words[0]);
    switch (name) {
      case "quiet":
        this.#quiet = true;
        return;
      case "nodes":
        return this.#begin(words);
      case "small":
        this.#limits = checkLimits({ ...testLimits, appendBytesMax: 1, inflightFramesMax: 1 });
        return this.#begin(words.slice(1));
      case "propose":
        if (this.#node(id).propose(1, words[1] ?? "x") === undefined)
          this.#say(id, "does not lead");
        return this.#turns();
      case "tick":
        return this.#tick([id], Number(words[1] ?? 1));
      case "run":
        for (let done = 0; done < id; done++) {
          this.#tick([...this.#nodes.keys()], 1);
          this.#settle();
        }
        return;
      case "campaign":
        return this.#campaign(this.#node(id));
      case "deliver":
        return this.#move(words, true);
      case "drop":
        return this.#move(words, false);
      case "settle":
        return this.#settle();
      case "cut":
        return this.#cut(words);
      case "heal":
        this.#cuts.clear();
        return;
      case "crash":
        this.#down.add(id);
        this.#wire = this.#wire.filter(({ from, to }) => from !== id && to !== id);
        return;
      case "restart":
        this.#down.delete(id);
        this.#wire = this.#wire.filter(({ from, to }) => from !== id && to !== id);
        this.#node(id).restart();
        for (const [other, node] of this.#nodes) if (other !== id) node.raft.peerReset(id);
        return this.#turns();
      case "rot":
        this.#down.delete(id);
        this.#node(id).restartRotten(Number(words[1]) - 1);
        for (const [other, node] of this.#nodes) if (other !== id) node.raft.peerReset(id);
        return this.#turns();
      case "damage":
        this.#node(id).findDamage(Number(words[1]));
        return this.#turns();
      case "hold":
        this.#held.add(id);
        return;
      case "sync":
        this.#held.delete(id);
        this.#node(id).sync();
        return this.#turns();
      case "change":
        return this.#change(id, words.slice(1).join(" "));
      case "transfer": {
        const { target, refusal } = this.#node(id).raft.transferLeadership(Number(words[1] ?? 0));
        this.#say(id, refusal === undefined ? `hands over to ${target}` : `refuses: ${refusal}`);
        return this.#turns();
      }
      case "status":
        for (const one of words.length > 0 ? words.map(Number) : this.#nodes.keys())
          this.#tell(one);
        return;
      case "logs":
        for (const one of this.#nodes.keys()) this.#say(one, this.#logOf(this.#node(one)));
        return;
      default:
        throw new Error(`no command ${name}`);
    }
  }

  #begin(words: readonly string[]): void {
    const learners = words.slice(2).map(Number);
    const voters = Array.from({ length: Number(words[0]) }, (_, at) => at + 1);
    const configuration = configurationOf(voters, learners);
    const limits = this.#limits;
    for (const id of [...voters, ...learners])
      this.#add(new TestNode({ id, configuration, limits }));
  }

  #add(node: TestNode): void {
    node.autoConfigure = true;
    this.#nodes.set(node.id, node);
    this.#shown.set(node.id, shownOf(node));
  }

  #node(id: number): TestNode {
    const node = this.#nodes.get(id);
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  #say(id: number, what: string): void {
    this.#trace.push(`${id}: ${what}`);
  }

  /** Turns of all nodes until none has anything to do; what they send waits. */
  #turns(): void {
    for (const [id, node] of this.#nodes) {
      if (this.#down.has(id)) continue;
      for (let turn = node.turn(); turn !== undefined; turn = node.turn()) {
        for (const message of turn.messages) {
          this.#wire.push(message);
          if (!this.#quiet && !isQuiet(message)) this.#trace.push(`${textOf(message)}`);
        }
        if (!this.#held.has(id)) node.sync();
      }
      this.#showChanges(node);
    }
  }

  #showChanges(node: TestNode): void {
    const before = this.#shown.get(node.id)!;
    const now = shownOf(node);
    this.#shown.set(node.id, now);
    if (now.role !== before.role || now.term !== before.term)
      this.#say(node.id, `${now.role} of term ${now.term}`);
    if (now.lastIndex < before.lastIndex) this.#say(node.id, `log ends at ${now.lastIndex}`);
    if (now.commit !== before.commit) this.#say(node.id, `commit ${now.commit}`);
    if (now.wounded !== before.wounded) this.#say(node.id, now.wounded ? "wounded" : "healed");
  }

  #tick(ids: readonly number[], ticks: number): void {
    for (let done = 0; done < ticks; done++) {
      for (const [id, node] of this.#nodes) {
        if (!this.#down.has(id) && ids.includes(id)) node.raft.tick();
      }
      this.#turns();
    }
  }

  #campaign(node: TestNode): void {
    const { term } = node.raft;
    for (let ticks = 0; ticks < 2 * testLimits.electionTicksMax; ticks++) {
      node.raft.tick();
      const { role } = node.raft;
      if (role === "preCandidate" || node.raft.term > term) break;
    }
    this.#turns();
  }

  /** Of what waits now; what it causes waits in its turn. */
  #move(words: readonly string[], arrives: boolean): void {
    const link = words.find((word) => word.includes(">"));
    const type = words.find((word) => !word.includes(">"));
    const chosen = this.#wire.filter(
      (message) =>
        (link === undefined || link === `${message.from}>${message.to}`) &&
        (type === undefined || type === message.type),
    );
    this.#wire = this.#wire.filter((message) => !chosen.includes(message));
    if (arrives) for (const message of chosen) this.#arrive(message);
  }

  #arrive(message: RaftMessage): void {
    const { from, to } = message;
    const node = this.#nodes.get(to);
    if (node === undefined || this.#down.has(to) || this.#cuts.has(`${from}>${to}`)) return;
    node.raft.step(message);
    this.#turns();
  }

  #settle(): void {
    this.#turns();
    for (let moved = 0; moved < 10_000; moved++) {
      const message = this.#wire.shift();
      if (message === undefined) return;
      this.#arrive(message);
    }
    throw new Error("the cluster does not settle");
  }

  #cut(words: readonly string[]): void {
    const at = words.findIndex((word) => word === "|" || word === ">");
    const one = words.slice(0, at);
    const other = words.slice(at + 1);
    for (const a of one)
      for (const b of other) {
        this.#cuts.add(`${a}>${b}`);
        if (words[at] === "|") this.#cuts.add(`${b}>${a}`);
      }
    this.#wire = this.#wire.filter(({ from, to }) => !this.#cuts.has(`${from}>${to}`));
  }

  #change(id: number, text: string): void {
    const node = this.#node(id);
    const plan = node.raft.planChange(text.split(",").map(changeOf));
    if ("refused" in plan) return this.#say(id, `refuses: ${plan.refused}`);
    if ("unchanged" in plan) return this.#say(id, "unchanged");
    const batch = node.proposeConfiguration(plan.next);
    this.#say(id, `proposes ${membersText(plan.next)} at ${batch.firstIndex}`);
    for (const member of [...plan.next.voters, ...plan.next.learners]) {
      if (this.#nodes.has(member)) continue;
      const configuration = configurationOf([]);
      this.#add(new TestNode({ id: member, configuration, limits: this.#limits }));
    }
    this.#turns();
  }

  #tell(id: number): void {
    const { raft } = this.#node(id);
    const isDown = this.#down.has(id) ? "down, " : "";
    const voter = isVoter(raft.configuration, id) ? "" : ", no voter";
    const wounded = raft.wound === undefined ? "" : `, wounded to ${raft.wound.index}`;
    this.#say(
      id,
      `${isDown}${raft.role} of term ${raft.term}, leader ${raft.leader}, last ${raft.lastIndex}/${raft.lastTerm}, commit ${raft.commit}${voter}${wounded}, members ${membersText(raft.configuration)}`,
    );
  }

  #logOf({ visible, raft }: TestNode): string {
    const terms = visible.batches.map(({ term, firstIndex }) =>
      firstIndex <= raft.commit ? `[${term}]` : ` ${term} `,
    );
    return terms.join("").trimEnd();
  }
}

function shownOf({ raft }: TestNode): Shown {
  const { role, term, commit, lastIndex, wound } = raft;
  return { role, term, commit, lastIndex, wounded: wound !== undefined };
}

/** Of the pulse of a cluster only what comes of it is shown. */
function isQuiet({ type }: RaftMessage): boolean {
  return type === "heartbeat" || type === "heartbeatReply";
}

function textOf(message: RaftMessage): string {
  const head = `${message.from}>${message.to} ${message.type} of term ${message.term}`;
  switch (message.type) {
    case "preVote":
    case "vote":
      return `${head}: last ${message.lastIndex}/${message.lastTerm}${message.transfer ? ", by transfer" : ""}`;
    case "preVoteReply":
    case "voteReply":
      return `${head}: ${message.granted ? "granted" : "refused"}`;
    case "append": {
      const span =
        message.toIndex < message.fromIndex ? "none" : `${message.fromIndex}-${message.toIndex}`;
      return `${head}: after ${message.prevIndex}/${message.prevTerm} ${span}, commit ${message.commit}`;
    }
    case "appendReply":
      return `${head}: ${message.accepted ? `has ${message.index}` : `not after ${message.index}, try ${message.hintIndex}/${message.hintTerm}`}${message.wounded ? ", wounded" : ""}`;
    default:
      return head;
  }
}

function membersText({
  voters,
  outgoing,
  learners,
}: {
  readonly voters: readonly number[];
  readonly outgoing: readonly number[];
  readonly learners: readonly number[];
}): string {
  const joint = outgoing.length > 0 ? ` and ${outgoing.join(" ")}` : "";
  const more = learners.length > 0 ? ` learners ${learners.join(" ")}` : "";
  return `${voters.join(" ")}${joint}${more}`;
}

/** `add 4`, `learner 4`, `promote 4`, `demote 4`, `remove 4`, `replace 3 by 4`. */
function changeOf(text: string): MemberChange {
  const [op, first, , last] = text.trim().split(" ");
  const id = Number(first);
  const address = (node: number): string => `node-${node}:9091`;
  switch (op) {
    case "add":
    case "learner":
      return { op: "add", id, address: address(id), learner: op === "learner" };
    case "promote":
    case "demote":
    case "remove":
      return { op, id };
    case "replace": {
      const by = Number(last);
      return { op, id, by, address: address(by) };
    }
    default:
      throw new Error(`no change ${text}`);
  }
}
