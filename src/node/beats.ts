/**
 * The beats of a node: to each other node one frame per heartbeat interval in place of the heartbeats of all groups that this one leads there, and
 * with it the answer to the other's last beat [34]. Groups without anything new thus cost nothing on the wire, and there is no state in which a group
 * sleeps: each beat says to each replica all that a heartbeat would, and each leader hears of each member that it was so.
 *
 * Nothing is trusted to have stayed the same. Before each beat every leader says anew whether a beat can speak for it, and in which term and with what
 * commit index; after each, every replica says whether it stands by that. What did not change is only not sent again: both sides hold the set of claims,
 * and compare it. A read round, a follower that has to catch up, a term that is not durable go by the group's own messages, as ever.
 *
 * A replica that rests, and stands by a claim as before, is not told of each beat, but of the newest one before anything else that comes for it, and before
 * its time-out ends: to its core it is as if it had been told in time.
 *
 * No clock and no promise: ticks come in, and one beat per node goes out at the end of a turn.
 */
import type { Limits } from "../limits.ts";
import type { Transport } from "../net/transport.ts";
import type { Raft } from "../raft/raft.ts";
import { type BeatClaim, type BeatMessage, ClaimDigest } from "../wire/beat-message.ts";

/** What beats have to do with a group. */
export interface BeatGroup {
  readonly id: number;
  readonly nodeId: number;
  readonly raft: Raft;
  /** It takes part in nothing any more. */
  readonly stopped: string | undefined;
  /** It has a part in each turn: it is told of each beat at once. */
  readonly isActive: boolean;
  /** This node's tick up to which its core has had all of them. */
  readonly tickedTo: number;
}

export interface BeatsOptions<G extends BeatGroup> {
  readonly limits: Limits;
  readonly transport: Transport;
  readonly groups: ReadonlyMap<number, G>;
  /** Random, below 2^48: where this life's beats and stamps begin to be numbered. */
  readonly first: number;
  /** Gives the group the ticks up to that one of this node's that it has not had. */
  readonly tickTo: (group: G, tick: number) => void;
  /** A group's core has something to do. */
  readonly activate: (group: G) => void;
}

/** What another node said of itself with its newest beat. */
export interface PeerLoad {
  /** Groups that it leads. */
  readonly leads: number;
  readonly preferred: boolean;
  readonly reluctant: boolean;
}

/** What the other was told of a group. */
interface Said {
  claim: BeatClaim;
  /** The first beat from which on it was told this term without a break. */
  sinceSeq: number;
  /** The newest beat that speaks for the group. */
  seq: number;
}

/** What the other claims of a group here. */
interface Heard {
  readonly claim: BeatClaim;
  /** The newest beat that the group was told of, 0 = none since the claim is as it is, and whether it stood by it. */
  toldSeq: number;
  stands: boolean;
}

interface Stamped {
  readonly stamp: number;
  readonly tick: number;
}

/** Beats that may still be answered, and stamps that are remembered; both some seconds' worth. */
const historyMax = 64;

/** Another node that is connected. */
class Pair {
  readonly id: number;

  /** The newest beat to it, and when it left. */
  seq: number;
  sentTick = -Infinity;
  /** When there was nothing to send. */
  lookedTick = -Infinity;
  isDue = false;
  readonly said = new Map<number, Said>();
  readonly saidDigest = new ClaimDigest();
  /** It has not been told anything, or lost it. */
  tellsWhole = true;
  /** When the newest beats left, the last one last. */
  readonly sentTicks: number[] = [];

  /** The newest beat from it, and what it claims. */
  heardSeq = 0;
  readonly heard = new Map<number, Heard>();
  readonly heardDigest = new ClaimDigest();
  /** The newest that was believed, when it came, and a tick at which the other surely led all of these groups; -Infinity = not known. */
  believedSeq = 0;
  believedTick = 0;
  freshTick = -Infinity;
  /** The beat that an answer is due to, 0 = none, and the groups that do not stand by it. */
  answerSeq = 0;
  refused: number[] = [];
  asksWhole = false;

  load: PeerLoad = { leads: 0, preferred: false, reluctant: false };
  loadTick = -Infinity;
  /** What it said of its own time, the newest last. */
  readonly stamps: Stamped[] = [];

  constructor(id: number, first: number) {
    this.id = id;
    this.seq = first;
  }

  /** When that beat left; undefined where it is not known any more, or never was. */
  sentTickOf(seq: number): number | undefined {
    return this.sentTicks[this.sentTicks.length - 1 - (this.seq - seq)];
  }

  sent(seq: number, tick: number): void {
    this.seq = seq;
    this.sentTick = tick;
    this.sentTicks.push(tick);
    if (this.sentTicks.length > historyMax) this.sentTicks.shift();
  }

  stamped(stamp: number, tick: number): void {
    this.stamps.push({ stamp, tick });
    if (this.stamps.length > historyMax) this.stamps.shift();
  }

  /** The newest stamp that came before that tick; 0 = none. */
  stampBefore(tick: number): number {
    return this.stamps.findLast((entry) => entry.tick < tick)?.stamp ?? 0;
  }
}

/** The group is to hear of a beat that changed nothing for it. */
function isUntold({ believedSeq }: Pair, { toldSeq }: Heard): boolean {
  return toldSeq > 0 && toldSeq !== believedSeq;
}

export class Beats<G extends BeatGroup> {
  readonly #limits: Limits;
  readonly #transport: Transport;
  readonly #groups: ReadonlyMap<number, G>;
  readonly #first: number;
  readonly #tickTo: (group: G, tick: number) => void;
  readonly #activate: (group: G) => void;
  readonly #pairs = new Map<number, Pair>();
  /** Highest number that a beat may have had, to whomever. */
  #seqMax: number;
  #nowTick = 0;
  #anyDue = false;
  /** Set by the shard: this node would rather not lead. */
  isReluctant = false;

  constructor(options: BeatsOptions<G>) {
    this.#limits = options.limits;
    this.#transport = options.transport;
    this.#groups = options.groups;
    this.#first = this.#seqMax = options.first;
    this.#tickTo = options.tickTo;
    this.#activate = options.activate;
  }

  /** What that node said of itself within the check-quorum time; undefined where it did not. */
  loadOf(nodeId: number): PeerLoad | undefined {
    const pair = this.#pairs.get(nodeId);
    if (pair === undefined || this.#nowTick - pair.loadTick >= this.#limits.checkQuorumTicks)
      return undefined;
    return pair.load;
  }

  /** Those that are connected, and this one. */
  get nodes(): number {
    return this.#pairs.size + 1;
  }

  /** Groups whose heartbeats to that node go by beats. */
  groupsTo(nodeId: number): number {
    return this.#pairs.get(nodeId)?.said.size ?? 0;
  }

  /** What was told over an older connection may be lost. */
  peerUp(nodeId: number): void {
    this.peerDown(nodeId);
    // No answer to what was said before may be taken for one of now.
    this.#seqMax += historyMax;
    this.#pairs.set(nodeId, new Pair(nodeId, this.#seqMax));
  }

  peerDown(nodeId: number): void {
    const pair = this.#pairs.get(nodeId);
    if (pair === undefined) return;
    this.#tellAll(pair);
    this.#pairs.delete(nodeId);
  }

  /** Before the groups have theirs. */
  tick(): void {
    this.#nowTick++;
    const dueTicks = this.#limits.heartbeatTicks + this.#patienceTicks;
    for (const pair of this.#pairs.values()) {
      const sinceTicks = this.#nowTick - Math.max(pair.sentTick, pair.lookedTick);
      if (sinceTicks >= dueTicks) this.#due(pair);
    }
  }

  /** Where several have something to say, the first node begins and the others wait for it, so that each beat is answered by the next. */
  get #patienceTicks(): number {
    const nodeId = this.#nodeId ?? 0;
    for (const { id, heard } of this.#pairs.values()) if (heard.size > 0 && id < nodeId) return 1;
    return 0;
  }

  /** Unless a beat to it left a moment ago, the next may leave with another, or as an answer. */
  #mayBeat({ sentTick }: Pair): boolean {
    return 2 * (this.#nowTick - sentTick) >= this.#limits.heartbeatTicks;
  }

  #due(pair: Pair): void {
    pair.isDue = true;
    this.#anyDue = true;
  }

  /* ---------------------------------------------------------------- what leaves */

  /** The end of a turn, whose transaction has been committed [20]. */
  send(): void {
    if (!this.#anyDue) return;
    this.#anyDue = false;
    const led: G[] = [];
    for (const group of this.#groups.values()) {
      if (group.raft.role !== "leader" || group.stopped !== undefined) continue;
      this.catchUp(group);
      led.push(group);
    }
    // To all at once, so that the groups are gone over once.
    for (const pair of this.#pairs.values())
      if (pair.isDue || this.#mayBeat(pair)) this.#beat(pair, led);
  }

  #beat(pair: Pair, led: readonly G[]): void {
    pair.isDue = false;
    pair.lookedTick = this.#nowTick;
    if (!this.#transport.takesBeats(pair.id)) return;
    const { beatGroupsMin } = this.#limits;
    const seq = pair.seq + 1;
    const claims: BeatClaim[] = [];
    const ledTick = this.#claim(pair, seq, led.length < beatGroupsMin ? [] : led, claims);
    const isEmpty = pair.said.size === 0 && claims.length === 0;
    if (isEmpty && pair.answerSeq === 0 && !pair.asksWhole) return;
    const nodeId = this.#nodeId;
    if (nodeId === undefined) return;
    const message: BeatMessage = {
      type: "beat",
      from: nodeId,
      to: pair.id,
      seq,
      whole: pair.tellsWhole,
      claims: pair.tellsWhole ? [...pair.said.values()].map(({ claim }) => claim) : claims,
      count: pair.said.size,
      digest: pair.saidDigest.value,
      answered: pair.answerSeq,
      refused: pair.refused,
      asksWhole: pair.asksWhole,
      preferred: this.#isPreferred,
      reluctant: this.isReluctant,
      leads: led.length,
      stamp: this.#first + this.#nowTick,
      freshStamp: pair.stampBefore(ledTick),
    };
    pair.sent(seq, this.#nowTick);
    this.#seqMax = Math.max(this.#seqMax, seq);
    pair.tellsWhole = false;
    pair.answerSeq = 0;
    pair.refused = [];
    pair.asksWhole = false;
    this.#transport.send(message);
  }

  /** Of any group: it is the same node. */
  get #nodeId(): number | undefined {
    for (const group of this.#groups.values()) return group.nodeId;
    return undefined;
  }

  get #isPreferred(): boolean {
    for (const group of this.#groups.values()) return group.raft.isPreferred;
    return false;
  }

  /**
   * Brings the set up to what is so now, and says what of it changed. Returns a tick of this node's at which it surely led all groups of the set; what of
   * them was committed then is no more than is claimed.
   */
  #claim(pair: Pair, seq: number, led: readonly G[], changed: BeatClaim[]): number {
    const { said, saidDigest } = pair;
    let ageTicks = 0;
    let claims = 0;
    for (const { id, raft } of led) {
      if (claims >= this.#limits.beatGroupsMax || !raft.joinsBeat(pair.id)) continue;
      claims++;
      ageTicks = Math.max(ageTicks, raft.ledAgeTicks);
      const { term, commit } = raft;
      const minMatch = raft.minMatch();
      const known = said.get(id);
      if (known !== undefined) {
        known.seq = seq;
        const before = known.claim;
        if (before.term === term && before.commit === commit && before.minMatch === minMatch)
          continue;
        saidDigest.remove(before);
        if (before.term !== term) known.sinceSeq = seq;
      }
      const claim = { group: id, term, commit, minMatch };
      saidDigest.add(claim);
      changed.push(claim);
      if (known === undefined) said.set(id, { claim, sinceSeq: seq, seq });
      else known.claim = claim;
    }
    if (said.size > claims) this.#withdraw(pair, seq, changed);
    return this.#nowTick - ageTicks;
  }

  /** Groups that this beat does not speak for. */
  #withdraw({ id, said, saidDigest }: Pair, seq: number, changed: BeatClaim[]): void {
    for (const { claim, seq: newestSeq } of said.values()) {
      if (newestSeq === seq) continue;
      const { group } = claim;
      said.delete(group);
      saidDigest.remove(claim);
      this.#groups.get(group)?.raft.leavesBeat(id);
      changed.push({ group, term: 0, commit: 0, minMatch: 0 });
    }
  }

  /* ---------------------------------------------------------------- what arrives */

  received(beat: BeatMessage): void {
    const pair = this.#pairs.get(beat.from);
    if (pair === undefined) return;
    const { leads, preferred, reluctant } = beat;
    pair.load = { leads, preferred, reluctant };
    pair.loadTick = this.#nowTick;
    pair.stamped(beat.stamp, this.#nowTick);
    if (beat.asksWhole) {
      pair.tellsWhole = true;
      this.#due(pair);
    }
    if (beat.answered > 0) this.#answered(pair, beat);
    this.#hear(pair, beat);
  }

  /** Every claim that the answered beat made stands, but for those that are refused. */
  #answered(pair: Pair, { answered, refused, preferred }: BeatMessage): void {
    const sentTick = pair.sentTickOf(answered);
    if (sentTick === undefined) return;
    const standsNot = refused.length === 0 ? undefined : new Set(refused);
    for (const { claim, sinceSeq } of pair.said.values()) {
      const { group: id, term } = claim;
      const group = this.#groups.get(id);
      if (group === undefined || sinceSeq > answered || group.stopped !== undefined) continue;
      const { raft } = group;
      const isRefused = standsNot?.has(id) === true;
      // Else there is nothing that an answer could bring about.
      const mayAct = isRefused || raft.readsWaiting > 0;
      if (mayAct) this.catchUp(group);
      if (isRefused) raft.beatRefused(pair.id, term);
      else raft.beatAnswered(pair.id, term, group.tickedTo - sentTick, preferred);
      if (mayAct && raft.hasReady()) this.#activate(group);
    }
  }

  #hear(pair: Pair, beat: BeatMessage): void {
    if (!this.#takeClaims(pair, beat)) return this.#askWhole(pair);
    const { heard } = pair;
    // Nothing is claimed, so there is nothing to answer.
    if (heard.size === 0) return;
    pair.believedSeq = beat.seq;
    pair.believedTick = this.#nowTick;
    pair.freshTick = this.#tickOf(beat.freshStamp);
    const refused: number[] = [];
    for (const [id, each] of heard) {
      const group = this.#groups.get(id);
      if (group === undefined || group.stopped !== undefined) refused.push(id);
      else if (!this.#standsAsBefore(pair, each, group)) {
        this.catchUp(group);
        if (each.toldSeq !== beat.seq) this.#tell(pair, each, group);
        if (!each.stands) refused.push(id);
      }
    }
    pair.answerSeq = beat.seq;
    pair.refused = refused;
    if (this.#mayBeat(pair)) this.#due(pair);
  }

  /** It says so without being told of the beat, which only says that its leader was heard; that is told before anything else is. */
  #standsAsBefore({ id }: Pair, { claim, toldSeq }: Heard, { isActive, raft }: G): boolean {
    return toldSeq > 0 && !isActive && raft.standsBy(id, claim.term, claim.commit);
  }

  /** Before anything is asked of a group, or comes for it: it has had its ticks, and the newest beat that it was not told of. */
  catchUp(group: G): void {
    const pair = this.#pairs.get(group.raft.leader);
    const heard = pair?.heard.get(group.id);
    if (pair !== undefined && heard !== undefined && isUntold(pair, heard)) {
      // Its leader was heard: no moment before that makes it campaign.
      this.#tickTo(group, Math.min(pair.believedTick, group.tickedTo + group.raft.idleTicks));
      this.#tell(pair, heard, group);
    }
    this.#tickTo(group, this.#nowTick);
  }

  #tell(pair: Pair, heard: Heard, group: G): void {
    const { raft } = group;
    const { term, commit, minMatch } = heard.claim;
    const { leader, commit: before } = raft;
    heard.toldSeq = pair.believedSeq;
    heard.stands = raft.heardBeat(pair.id, term, commit, minMatch, group.tickedTo - pair.freshTick);
    // Where it says nothing new there is nothing to do.
    if (!heard.stands || (leader === pair.id && raft.commit === before)) return;
    if (raft.hasReady()) this.#activate(group);
  }

  /** Before what was heard of them is forgotten. */
  #tellAll({ heard }: Pair): void {
    for (const id of heard.keys()) this.#catchUpTo(id);
  }

  #catchUpTo(id: number): void {
    const group = this.#groups.get(id);
    if (group !== undefined) this.catchUp(group);
  }

  /** False where the set comes out otherwise than with the sender. */
  #takeClaims(pair: Pair, { seq, whole, claims, count, digest }: BeatMessage): boolean {
    const { heard, heardDigest } = pair;
    const follows = seq === pair.heardSeq + 1;
    pair.heardSeq = seq;
    if (whole) {
      this.#tellAll(pair);
      heard.clear();
      heardDigest.clear();
    } else if (claims.length > 0 && !follows) return false;
    // A peer that lies: what it claims takes no more room than what it could.
    const { beatGroupsMax } = this.#limits;
    if (count > beatGroupsMax || claims.length > 2 * beatGroupsMax) return false;
    for (const claim of claims) {
      const known = heard.get(claim.group);
      if (known !== undefined) {
        this.#catchUpTo(claim.group);
        heardDigest.remove(known.claim);
      }
      if (claim.term === 0) heard.delete(claim.group);
      else {
        heard.set(claim.group, { claim, toldSeq: 0, stands: false });
        heardDigest.add(claim);
      }
    }
    return heard.size === count && heardDigest.value === digest;
  }

  #askWhole(pair: Pair): void {
    this.#tellAll(pair);
    pair.heard.clear();
    pair.heardDigest.clear();
    pair.answerSeq = 0;
    pair.refused = [];
    pair.asksWhole = true;
    if (pair.sentTick < this.#nowTick) this.#due(pair);
  }

  /** Of a stamp of this node's; -Infinity where there is none, or it is of an earlier life. */
  #tickOf(stamp: number): number {
    const tick = stamp - this.#first;
    return stamp === 0 || tick < 0 || tick > this.#nowTick ? -Infinity : tick;
  }
}
