/**
 * The nodes that a client knows, and its connections to them: one set for all groups that it uses. Learns from each node who the others are,
 * which groups there are and who leads them; hands what arrives to the router that asked.
 */
import { defaultLimits } from "../limits.ts";
import { parseAddress } from "../net/address.ts";
import type { Dial } from "../net/socket.ts";
import type { GroupLeaders } from "../wire/group-leaders.ts";
import type { HelloReply, Notice, ServerReply } from "../wire/messages.ts";
import { Channel, type ChannelEvents, type ChannelOptions } from "./channel.ts";
import { GroupDirectory } from "./group-directory.ts";
import { NodeLink } from "./node-link.ts";
import type { Settings } from "./options.ts";
import type { Outgoing } from "./outgoing.ts";
import type { SectionBounds } from "./write-section.ts";

/**
 * A connection stops reading above this much unsent. Never reached: little is laid out ahead, and a client that does not read while the
 * node waits to be read would stand still with it.
 */
const clientSendQueueBytesMax = 16 * 1024 * 1024;
/** Members that a node names beyond this are not learned. */
const nodesMax = 64;

/** What the connections have to say to those who use them. */
export interface NodesEvents {
  /** Something may be sent that could not be before. */
  changed(nowMs: number): void;
  /** No connection to the node is left; calls for that very node do not wait for it. */
  lost(node: NodeLink): void;
  /** The directory knows more of these groups. */
  learned(groups: readonly number[]): void;
}

/** Which groups a client wants to be told of. */
export interface Interest {
  readonly all: boolean;
  /** The one, where it is not all. */
  readonly group: number;
}

export class Nodes implements ChannelEvents {
  readonly #settings: Settings;
  readonly #bounds: SectionBounds;
  readonly #channelOptions: ChannelOptions;
  readonly #events: NodesEvents;
  readonly #list: NodeLink[] = [];
  readonly directory = new GroupDirectory();
  /** `host:port` by the ids of the members of the cluster, as the newest word has it. */
  #members: Record<string, string> = {};
  #configurationIndex = -1;
  /** Undefined while only group 0 is used, of which the nodes tell anyway. */
  #interest: Interest | undefined;
  #isClosed = false;

  constructor(settings: Settings, bounds: SectionBounds, dial: Dial, events: NodesEvents) {
    this.#settings = settings;
    this.#bounds = bounds;
    this.#events = events;
    const { attemptTimeoutMs } = settings;
    const limits = {
      ...defaultLimits,
      helloTimeoutMs: attemptTimeoutMs,
      sendQueueBytesMax: clientSendQueueBytesMax,
    };
    this.#channelOptions = { dial, limits, attemptTimeoutMs, events: this };
    for (const endpoint of settings.endpoints) this.#list.push(this.#link(endpoint));
  }

  get list(): readonly NodeLink[] {
    return this.#list;
  }

  get endpoints(): string[] {
    return this.#list.map((node) => node.endpoint);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  flush(): void {
    for (const node of this.#list) node.flush();
  }

  /** Silent connections, and requests that ran out of time on theirs. */
  sweep(nowMs: number): void {
    for (const node of this.#list) node.sweep(nowMs);
    for (const node of this.#list) {
      for (const channel of node.channels) {
        channel.inFlight.sweep((outgoing) => outgoing.sender!.overdue(outgoing, node, nowMs));
      }
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const node of this.#list) node.close();
  }

  /** From now on the nodes tell of these groups. */
  follow(interest: Interest): void {
    const { all = false, group = -1 } = this.#interest ?? {};
    if (all === interest.all && (all || group === interest.group)) return;
    this.#interest = interest;
    for (const node of this.#list) {
      for (const channel of node.channels) channel.isFollowing = false;
      this.#followAt(node);
    }
  }

  /** One connection to each node is enough. */
  #followAt({ channels }: NodeLink): void {
    if (this.#interest === undefined || channels.some((each) => each.ready && each.isFollowing)) {
      return;
    }
    channels.find((each) => each.ready)?.follow(this.#interest);
  }

  /* ---------------------------------------------------------------- finding and dialling */

  find(endpoint: string | undefined): NodeLink | undefined {
    if (endpoint === undefined) return undefined;
    return this.#list.find((node) => node.endpoint === endpoint);
  }

  /** The node at that address; made where it is not known yet. Undefined where there are too many, or it is no address. */
  findOrAdd(endpoint: string): NodeLink | undefined {
    const known = this.find(endpoint);
    if (known !== undefined) return known;
    if (this.#list.length >= nodesMax || parseAddress(endpoint) === undefined) return undefined;
    const node = this.#link(endpoint);
    this.#list.push(node);
    return node;
  }

  /** Where the node with that id is reached. */
  endpointOf(nodeId: number): string | undefined {
    const node = this.#list.find((each) => each.nodeId === nodeId && each.usable);
    return node?.endpoint ?? this.#members[String(nodeId)];
  }

  /** Those of a group first, as far as that is known; for local reads and watches. */
  endpointsFor(group: number): string[] {
    const there = this.#list.filter((node) => this.directory.mayServe(group, this.#idOf(node)));
    const others = this.#list.filter((node) => !there.includes(node));
    return [...there, ...others].map(({ endpoint }) => endpoint);
  }

  /** It has a copy of the group, as far as is known. */
  serves(group: number, node: NodeLink): boolean {
    return this.directory.mayServe(group, this.#idOf(node));
  }

  /** Dials the next node unless one is being dialled that is not slow about it; one that has the group, if there is such. */
  dialMore(group: number, nowMs: number): void {
    for (const isServing of [true, false]) {
      const nodes = this.#list.filter((node) => this.serves(group, node) === isServing);
      if (nodes.some((node) => node.dialling && !node.slow(nowMs))) return;
      for (const node of nodes) {
        if (!node.retired && !node.usable && !node.dialling && node.connect(nowMs)) return;
      }
    }
  }

  /** 0 = not known. */
  #idOf(node: NodeLink): number {
    if (node.nodeId !== 0) return node.nodeId;
    for (const [id, endpoint] of Object.entries(this.#members)) {
      if (endpoint === node.endpoint) return Number(id);
    }
    return 0;
  }

  #link(endpoint: string): NodeLink {
    const { connectionsPerNode, attemptTimeoutMs } = this.#settings;
    return new NodeLink(
      endpoint,
      connectionsPerNode,
      attemptTimeoutMs,
      (node, nowMs) => new Channel(node, this.#channelOptions, nowMs),
    );
  }

  /* ---------------------------------------------------------------- who is a member */

  /** `members`: `host:port` by the ids of nodes, as one of them names them. */
  learn(members: Record<string, string>): void {
    // The word of a node that may lag: where there was a newer one, it adds to that and changes nothing.
    this.#members =
      this.#configurationIndex < 0
        ? { ...this.#members, ...members }
        : { ...members, ...this.#members };
    for (const [id, endpoint] of Object.entries(members)) {
      // The same node may be reached by another name already.
      const known = this.#list.some(
        (node) => node.endpoint === endpoint || (node.nodeId === Number(id) && node.usable),
      );
      if (!known) this.findOrAdd(endpoint);
    }
  }

  /** Those that the user named are tried again and again, members or not. */
  #retireAllBut(members: Record<string, string>): void {
    const endpoints = new Set([...Object.values(members), ...this.#settings.endpoints]);
    for (const node of this.#list) {
      node.retired = !endpoints.has(node.endpoint) && !(String(node.nodeId) in members);
    }
  }

  /** Those that are no members any more, and owe no answer. */
  dropRetired(): void {
    if (!this.#list.some(({ retired }) => retired)) return;
    for (const node of this.#list.filter(({ retired, inFlight }) => retired && inFlight === 0)) {
      this.#list.splice(this.#list.indexOf(node), 1);
      this.#events.lost(node);
      node.close();
    }
  }

  /* ---------------------------------------------------------------- what connections say */

  ready(channel: Channel, hello: HelloReply): void {
    const { node } = channel;
    const nowMs = performance.now();
    node.connected(hello.nodeId);
    this.#bounds.frameBytesMax = hello.frameBytesMax;
    this.#bounds.sectionBytesMax = hello.sectionBytesMax;
    this.learn(hello.members);
    // The hello knows the leader of group 0 only, and not since when.
    if (this.directory.guess(0, hello.leader)) this.#events.learned([0]);
    this.#settings.logger.debug(`connected to node ${hello.nodeId} at ${node.endpoint}`);
    this.#followAt(node);
    node.connect(nowMs);
    this.#events.changed(nowMs);
    this.flush();
  }

  /** Nodes may be behind each other: only what is newer than all before counts. */
  noticed({ group, term, leader, configurationIndex, members }: Notice): void {
    if (group !== 0) return;
    if (configurationIndex >= this.#configurationIndex) {
      this.#configurationIndex = configurationIndex;
      this.#members = members;
      this.learn(members);
      this.#retireAllBut(members);
    }
    if (this.directory.led(group, term, leader)) this.#events.learned([group]);
  }

  told(leaders: GroupLeaders): void {
    const changed = this.directory.take(leaders);
    if (changed.length > 0) this.#events.learned(changed);
  }

  closed(
    channel: Channel,
    reason: string,
    unsent: readonly Outgoing[],
    sent: readonly Outgoing[],
  ): void {
    const nowMs = performance.now();
    const { node } = channel;
    node.disconnected(channel, reason, nowMs);
    this.#followAt(node);
    if (!this.#isClosed) this.#settings.logger.info(`lost ${node.endpoint}: ${reason}`);
    for (const outgoing of sent) outgoing.sender!.lost(outgoing, node, reason, true, nowMs);
    for (const outgoing of unsent) outgoing.sender!.lost(outgoing, node, reason, false, nowMs);
    // What was for that very node is among those that wait by now.
    if (!node.usable) this.#events.lost(node);
    this.#events.changed(nowMs);
    this.flush();
  }

  answered(channel: Channel, outgoing: Outgoing, reply: ServerReply): boolean {
    return outgoing.sender!.answered(outgoing, channel.node, reply);
  }
}
