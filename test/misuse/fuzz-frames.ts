/**
 * Frames of every kind that there is, well formed and less so: messages as test/wire makes them, aimed at a node by ids and numbers that it knows,
 * then damaged, with every crc made right again, so that the damage is seen by whoever reads the content. All from one seed.
 */
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import { batchHeaderBytes, BatchKind } from "../../src/wire/batch.ts";
import { frameHeaderBytes } from "../../src/wire/frame.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { FrameType, type Hello, type PeerMessage } from "../../src/wire/messages.ts";
import {
  layOutSection,
  plainSection,
  SectionKind,
  sectionHeaderBytes,
} from "../../src/wire/section.ts";
import { type SessionCommand, sessionCommandSection } from "../../src/wire/session-commands.ts";
import {
  type AnyMessage,
  bytesOf,
  chain,
  clientRequest,
  followGroups,
  groupLeaders,
  hello,
  helloReply,
  notice,
  peerMessage,
  serverReply,
  watchMessage,
} from "../wire/messages.ts";
import { rawFrame } from "./raw-client.ts";

/** What a fuzzed connection has said of itself. */
export type Stage = "stranger" | "client" | "peer-control" | "peer-bulk";

/** What an attacker knows of a group on the node that it attacks. */
export interface Aim {
  readonly nodeId: number;
  readonly group: number;
  readonly term: number;
  readonly lastIndex: number;
}

export interface FuzzOptions {
  readonly seed: number;
  /** Id of the node that the attacker poses as. */
  readonly attacker: number;
  /** It may also speak as the leader of a term to come, which contradicts what is committed, and by design stops a group. */
  readonly leads: boolean;
}

const huge = Number.MAX_SAFE_INTEGER;
const poolSize = 400;
/** From so many frames a pool is good for. */
const poolUses = 4_000;

export class Chance {
  #state: number;
  constructor(seed: number) {
    // Neighbouring seeds must not begin alike.
    const mixed = Math.imul(seed ^ (seed >>> 16), 0x45d9f3b);
    this.#state = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b) >>> 0;
  }
  /** In [0, below). */
  below(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * below);
  }
  one(inSoMany: number): boolean {
    return this.below(inSoMany) === 0;
  }
  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

interface Pools {
  readonly peer: readonly PeerMessage[];
  /** What a client sends, and that with what a node sends to it. */
  readonly request: readonly AnyMessage[];
  readonly client: readonly AnyMessage[];
  readonly hello: readonly Hello[];
  readonly any: readonly AnyMessage[];
}

/** Control operations, and fields that any of them may have. */
const operations = [
  "status",
  "members",
  "changeMembers",
  "join",
  "transferLeader",
  "snapshot",
  "compaction",
  "sessionOpen",
  "sessionKeepAlive",
  "sessionClose",
  "constructor",
  "__proto__",
] as const;
const fields = [
  "group",
  "timeoutMs",
  "session",
  "ttlMs",
  "to",
  "from",
  "tailBytes",
  "entries",
  "bytes",
  "clusterId",
  "id",
  "address",
  "tokenHash",
  "changes",
  "force",
  "__proto__",
] as const;

export class FrameFuzz {
  readonly chance: Chance;
  readonly #options: FuzzOptions;
  #pools: Pools | undefined;
  #used = 0;
  #nextSeed: number;
  /** Frames by name of what they began as. */
  readonly counts = new Map<string, number>();

  constructor(options: FuzzOptions) {
    this.#options = options;
    this.chance = new Chance(options.seed);
    this.#nextSeed = options.seed;
  }

  /** One or several frames, for a connection at that stage; `whole`: as they should be, but for what they say. */
  bytes(stage: Stage, aim: Aim, whole: boolean): Uint8Array {
    const { chance } = this;
    if (whole) {
      const message = this.#message(stage, aim, true);
      return this.#count(message.type, bytesOf(message));
    }
    if (chance.one(60)) return this.#count("noise", chance.bytes(1 + chance.below(300)));
    const frame = this.#frame(stage, aim);
    if (chance.one(80)) return frame.subarray(0, chance.below(frame.byteLength));
    if (chance.one(40)) return Buffer.concat(Array.from({ length: 20 }, () => frame));
    return frame;
  }

  /** A hello that is one, of whatever content. */
  hello(): Hello {
    return this.chance.pick(this.#pool().hello);
  }

  #frame(stage: Stage, aim: Aim): Uint8Array {
    const { chance } = this;
    // Now and then what belongs to another stage.
    const seems: Stage = chance.one(25)
      ? chance.pick(["stranger", "client", "peer-bulk"] as const)
      : stage;
    const message = this.#message(seems, aim, false);
    const frame = this.#count(message.type, bytesOf(message));
    return chance.one(2) ? frame : this.#damage(frame);
  }

  #message(stage: Stage, aim: Aim, whole: boolean): AnyMessage {
    const { chance } = this;
    const { peer, client, request, any } = this.#pool();
    if (chance.one(80)) return { type: chance.pick(["ping", "pong"] as const), nonce: 1 };
    if (stage === "stranger") {
      return chance.one(3) ? chance.pick(any) : { type: "hello", hello: this.hello() };
    }
    // From then on the node may send its own over this connection.
    if (stage !== "client" && chance.one(25)) return { type: "accepted" };
    if (stage !== "client") return this.#aimed(chance.pick(peer), aim, whole);
    switch (chance.below(6)) {
      case 0:
        return this.#write(aim);
      case 1:
        return this.#control();
      default: {
        const message = chance.pick(whole ? request : client);
        return "group" in message && !chance.one(8) ? { ...message, group: aim.group } : message;
      }
    }
  }

  /** Sections of all kinds, of sessions that may be. */
  #write({ group, lastIndex }: Aim): AnyMessage {
    const { chance } = this;
    const number = (): number =>
      chance.pick([0, 1, 2, 3, chance.below(lastIndex + 2), lastIndex, huge]);
    const put = encodeKvPut(Buffer.from(`fuzz${chance.below(50)}`), chance.bytes(chance.below(40)));
    const commands = Array.from({ length: 1 + chance.below(4) }, () =>
      chance.one(3) ? chance.bytes(chance.below(30)) : put,
    );
    const kind = chance.pick(Object.values(SectionKind));
    const section = chance.one(5)
      ? sessionCommandSection(this.#sessionCommand(number))
      : layOutSection(commands, {
          kind,
          session: number(),
          firstSeq: number(),
          doneUpTo: number(),
        });
    const request = 1 + chance.below(1_000);
    return { type: "write", request, group, timeoutMs: chance.below(2_000), section };
  }

  #sessionCommand(number: () => number): SessionCommand {
    const { chance } = this;
    if (chance.one(2))
      return { op: "open", ttlMs: number() % 2 ** 32, principal: new Uint8Array(0) };
    const session = number();
    return chance.one(2) ? { op: "keepAlive", session } : { op: "close", session };
  }

  /** Never a change of the members that would be one: whoever may ask for that is trusted. */
  #control(): AnyMessage {
    const { chance } = this;
    const value = (): unknown =>
      chance.pick<unknown>([
        0,
        1,
        -1,
        1.5,
        huge,
        2 ** 32,
        "",
        "x".repeat(2_000),
        null,
        true,
        [],
        {},
        [{ op: "remove", id: 900_000_000 }],
        [{ op: "add", id: 1, address: "nowhere", learner: true }],
        [{ op: "promote" }],
      ]);
    const body: Record<string, unknown> = {};
    for (let i = 0; i < chance.below(5); i++) {
      Object.defineProperty(body, chance.pick(fields), {
        value: value(),
        enumerable: true,
        configurable: true,
      });
    }
    const operation = chance.pick(operations);
    return { type: "control", request: 1 + chance.below(1_000), operation, body };
  }

  /** From the attacker to that node, with numbers that mean something there. */
  #aimed(message: PeerMessage, aim: Aim, whole: boolean): PeerMessage {
    const { nodeId, group, term, lastIndex } = aim;
    const { chance } = this;
    const { attacker, leads } = this.#options;
    const near = (): number =>
      chance.pick([0, 1, lastIndex, lastIndex - 1, lastIndex + 1, lastIndex + 2 ** 31, huge]);
    const strange = !whole && chance.one(15);
    const head = {
      group: chance.one(12) && "group" in message ? message.group : group,
      from: strange ? message.from : attacker,
      to: strange ? message.to : nodeId,
    };
    // As the leader of a later term it would be believed.
    const speaksAsLeader = ["append", "heartbeat", "snapshotOffer"].includes(message.type);
    const terms = leads || !speaksAsLeader ? [term, term, term + 1, term + 2, huge] : [term, term];
    const ofTerm = chance.pick([...terms, 0, Math.max(0, term - 1)]);
    if (message.type === "append") return this.#append(head, ofTerm, near());
    const aimed: Record<string, unknown> = { ...message, ...head };
    for (const [name, value] of Object.entries(message)) {
      const isOurs = name in head || name === "error" || name === "timeoutMs" || name === "crc";
      if (typeof value !== "number" || isOurs || !chance.one(2)) continue;
      aimed[name] = name === "digest" ? value : near();
    }
    if ("term" in message) aimed["term"] = ofTerm;
    if (message.type === "adminRequest") Object.assign(aimed, this.#control());
    if (message.type === "adminRequest") aimed["type"] = message.type;
    if (message.type === "forward" && chance.one(2)) {
      const written = this.#write(aim);
      if (written.type === "write") aimed["section"] = written.section;
    }
    return aimed as unknown as PeerMessage;
  }

  #append(
    head: { readonly group: number; readonly from: number; readonly to: number },
    term: number,
    prevIndex: number,
  ): PeerMessage {
    const { chance } = this;
    const prev = Math.min(prevIndex, huge - 1_000);
    const at = {
      group: head.group,
      index: prev,
      term: Math.max(0, term - chance.below(2)),
      crc: 0,
    };
    const version = new Uint8Array(4);
    new DataView(version.buffer).setUint32(0, chance.pick([0, 1, 2, 3, 99, 0xffff_ffff]), true);
    const members = chance.pick([[], [1], [1, 2, 3], [900]]);
    const configuration = encodeConfiguration({
      voters: members,
      outgoing: chance.one(3) ? [1] : [],
      learners: [],
      addresses: Object.fromEntries(members.map((id) => [id, "127.0.0.1:1"])),
    });
    const bodies = Array.from({ length: chance.below(4) }, () => {
      const kind = chance.pick(Object.values(BatchKind));
      const body =
        kind === BatchKind.applyVersion
          ? version
          : kind === BatchKind.configuration
            ? configuration
            : plainSection([chance.bytes(chance.below(30))]);
      return { body, count: 1 + chance.below(3), kind, termStep: chance.below(2) };
    });
    const batches = chain(at, bodies, term);
    const toIndex = batches.reduce((index, { count }) => index + count, prev);
    return {
      type: "append",
      ...head,
      term,
      prevIndex: prev,
      prevTerm: at.term,
      prevCrc: 0,
      commit: chance.pick([0, prev, toIndex, huge]),
      fromIndex: prev + 1,
      toIndex,
      batches,
    };
  }

  #damage(frame: Uint8Array): Uint8Array {
    const { chance } = this;
    const damaged = frame.slice();
    for (let i = 0; i <= chance.below(4); i++) {
      // Mostly the content; also type and lengths in the header.
      const from = chance.one(6) || damaged.byteLength <= frameHeaderBytes ? 3 : frameHeaderBytes;
      const at = from + chance.below(Math.max(1, damaged.byteLength - from));
      damaged[at] = chance.pick([0, 1, 2, 0x7f, 0x80, 0xff, chance.below(256)]);
    }
    if (!this.#options.leads) staysFollower(damaged, frame);
    if (chance.one(12)) return damaged;
    const cut = chance.one(10) ? damaged.subarray(0, chance.below(damaged.byteLength)) : damaged;
    return cut.byteLength < frameHeaderBytes ? cut : reseal(cut);
  }

  #count<T>(what: string, bytes: T): T {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    return bytes;
  }

  #pool(): Pools {
    if (this.#pools !== undefined && this.#used++ < poolUses) return this.#pools;
    this.#used = 0;
    const parameters = (): { numRuns: number; seed: number } => ({
      numRuns: poolSize,
      seed: this.#nextSeed++,
    });
    const peer = fc.sample(peerMessage, parameters());
    const greeting = fc.sample(hello, parameters());
    const watches = fc.sample(watchMessage, parameters());
    const request: AnyMessage[] = [
      ...fc.sample(clientRequest, parameters()),
      ...watches.filter(({ type }) => type !== "watchChanges" && type !== "watchEnded"),
      ...fc.sample(followGroups, parameters()).slice(0, poolSize / 4),
    ];
    const replying = fc.sample(fc.oneof(serverReply, notice, groupLeaders), parameters());
    const client = [...request, ...watches, ...replying];
    const replies = fc.sample(helloReply, parameters());
    const any: AnyMessage[] = [
      ...peer,
      ...client,
      ...replies.map((reply) => ({ type: "helloReply" as const, reply })),
    ];
    return (this.#pools = { peer, request, client, hello: greeting, any });
  }
}

const leaderTypes: ReadonlySet<number> = new Set<number>([
  FrameType.append,
  FrameType.heartbeat,
  FrameType.snapshotOffer,
]);
const termAt = frameHeaderBytes + 16;

/** Damage makes no leader of a later term. */
function staysFollower(damaged: Uint8Array, frame: Uint8Array): void {
  if (leaderTypes.has(damaged[3]!)) damaged[3] = frame[3]!;
  if (leaderTypes.has(damaged[3]!)) damaged.set(frame.subarray(termAt, termAt + 8), termAt);
}

/** Makes every crc right: of the frame, of a section, of batches, of what is read, of a part of a snapshot. */
export function reseal(frame: Uint8Array): Uint8Array {
  const type = frame[3]!;
  const payload = frame.slice(frameHeaderBytes);
  const claimed = new DataView(frame.buffer, frame.byteOffset).getUint32(4, true);
  const fieldsBytes = Math.min(claimed, payload.byteLength);
  const view = new DataView(payload.buffer);
  const body = payload.subarray(fieldsBytes);
  if (type === FrameType.write || type === FrameType.forward) sealSectionAt(body);
  if (type === FrameType.append) sealBatches(body);
  if (type === FrameType.read && fieldsBytes >= 32) view.setUint32(28, crc32(body), true);
  if (type === FrameType.snapshotChunk && fieldsBytes >= 44) view.setUint32(40, crc32(body), true);
  return rawFrame(type, payload, fieldsBytes);
}

function sealSectionAt(body: Uint8Array): void {
  if (body.byteLength < sectionHeaderBytes) return;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const end = Math.min(body.byteLength, sectionHeaderBytes + view.getUint32(8, true));
  view.setUint32(12, crc32(body.subarray(16, end), crc32(body.subarray(0, 12))), true);
}

function sealBatches(body: Uint8Array): void {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (let at = 0; body.byteLength - at >= batchHeaderBytes;) {
    const end = Math.min(body.byteLength, at + batchHeaderBytes + view.getUint32(at + 36, true));
    const head = crc32(body.subarray(at, at + 44));
    view.setUint32(at + 44, crc32(body.subarray(at + batchHeaderBytes, end), head), true);
    at = end;
  }
}
