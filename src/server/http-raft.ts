/**
 * The API of raftd, for applications that keep their own data behind the daemon (machine/http): opaque commands in, the application's bytes out. Any node takes any
 * request; `?group=` chooses a group, `?timeoutMs=` how long it may take.
 *
 *     POST /raft/update            a command; answered with what the application answered, once it has applied it beside this node. A request with the
 *                                  header barge-request-id is applied once, however often it is sent, and always answered with the same
 *     POST /raft/read              a query; answered with what the application beside this node answers, ?consistency=linearizable|lease|local, maxStalenessMs
 *     GET  /raft/snapshot          the state, as the file that barge restore takes (/v1/backup)
 *     POST /raft/snapshot          this node makes its state durable and cuts its log (/v1/snapshot)
 *     GET  /raft/membership_info   {"ShardID","leader","members":[{"nodeID","addr","role",…}],…}, linearizably
 *     POST /raft/recruit_replica   {"ReplicaAddr","ReplicaID","ShardID"}   202; adds a member, which votes once it has caught up. Done already: 202 too
 *     POST /raft/remove_replica    {"ReplicaID","ShardID"}                 202; removes one
 *     POST /raft/new_shard         {"ShardID"}                             202; makes a group whose state machine is the application. There already: 202 too
 *
 * The header `barge-index` says at which log index an update was applied, and up to which one the state held all that a read has seen.
 */
import * as v from "valibot";
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import type { AdminAnswers, AdminBody, AdminOperation } from "../wire/admin.ts";
import type { Groups } from "./groups.ts";
import { jsonAnswer } from "./http-answers.ts";
import type { HttpCalls } from "./http-calls.ts";
import type { HttpParameters } from "./http-parameters.ts";

export const raftPath = "/raft/";

const common = ["group", "timeoutMs"];

export interface RaftRoute {
  /** For the header `allow`. */
  readonly methods: string;
  readonly parameters: readonly string[];
}

/** Undefined where there is nothing at that path. The snapshots have doors of their own. */
export const raftRoutes: Readonly<Record<string, RaftRoute>> = {
  "/raft/update": { methods: "POST", parameters: common },
  "/raft/read": {
    methods: "GET, POST",
    parameters: [...common, "consistency", "maxStalenessMs"],
  },
  "/raft/membership_info": { methods: "GET, HEAD", parameters: common },
  "/raft/recruit_replica": { methods: "POST", parameters: ["timeoutMs"] },
  "/raft/remove_replica": { methods: "POST", parameters: ["timeoutMs"] },
  "/raft/new_shard": { methods: "POST", parameters: ["timeoutMs"] },
};

/** Codes of machine.ResultCode, which the server may not import; others are plain answers. */
const code = { malformed: 1, tooLarge: 4, applicationFailed: 6 } as const;

const idMax = 0xffff_fffe;

/** Larger numbers of raftd have no place here, and those above 2^53 - 1 would not even arrive as they were sent. */
function idSchema(min: number, what: string) {
  const text = `must be a whole number from ${min} to ${idMax}, ${what}`;
  return v.pipe(v.number(text), v.integer(text), v.minValue(min, text), v.maxValue(idMax, text));
}

/** A body of these fields and no others. */
function bodySchema<const Fields extends v.ObjectEntries>(fields: Fields) {
  return v.strictObject(fields, ({ expected, received }) => {
    if (expected === "never") return "is unknown";
    return received === "undefined" ? "is missing" : "must be a JSON object";
  });
}

const replicaIdSchema = idSchema(1, "a node's id");
const shardIdSchema = v.optional(idSchema(0, "a group's id"), 0);

const recruitSchema = bodySchema({
  ReplicaID: replicaIdSchema,
  ReplicaAddr: v.string("must be HOST:PORT, where the new node listens for its peers"),
  ShardID: shardIdSchema,
});
const removeSchema = bodySchema({ ReplicaID: replicaIdSchema, ShardID: shardIdSchema });
const shardSchema = bodySchema({ ShardID: idSchema(0, "a group's id") });

export class HttpRaft {
  readonly #groups: Groups;
  readonly #calls: HttpCalls;
  readonly #limits: Limits;

  constructor(groups: Groups, calls: HttpCalls, limits: Limits) {
    this.#groups = groups;
    this.#calls = calls;
    this.#limits = limits;
  }

  /** Of the body of a request. */
  bodyBytesMax(path: string): number {
    return path === "/raft/update" || path === "/raft/read" ? this.#limits.valueBytesMax : 65_536;
  }

  answer(
    path: string,
    body: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Response> {
    switch (path) {
      case "/raft/update":
        return this.#update(body, parameters, requestId);
      case "/raft/read":
        return this.#read(body, parameters);
      case "/raft/membership_info":
        return this.#members(parameters);
      case "/raft/recruit_replica":
        return this.#recruit(parse(recruitSchema, body), parameters);
      case "/raft/remove_replica":
        return this.#remove(parse(removeSchema, body), parameters);
      default:
        return this.#newShard(parse(shardSchema, body), parameters);
    }
  }

  async #update(
    command: Uint8Array,
    parameters: HttpParameters,
    requestId: string | undefined,
  ): Promise<Response> {
    const { index, result } = await this.#calls.write(command, parameters, requestId);
    const bytes = result?.bytes ?? new Uint8Array(0);
    return bytesAnswer(result?.code ?? 0, bytes, index);
  }

  async #read(query: Uint8Array, parameters: HttpParameters): Promise<Response> {
    const { code: read, bytes, index } = await this.#calls.read(query, parameters);
    return bytesAnswer(read, bytes, index);
  }

  async #members(parameters: HttpParameters): Promise<Response> {
    const group = parameters.integer("group") ?? 0;
    const timeoutMs = parameters.integer("timeoutMs") ?? 0;
    const answer = await this.#ask("members", { group, timeoutMs });
    const members = answer.members.map(({ id: nodeID, address: addr, ...rest }) => ({
      nodeID,
      addr,
      ...rest,
    }));
    const leader = members.find(({ nodeID }) => nodeID === answer.leader);
    const { term, commitIndex, configurationIndex, joint, removed } = answer;
    return jsonAnswer({
      ShardID: group,
      leader: leader === undefined ? null : { nodeID: leader.nodeID, addr: leader.addr },
      members,
      term,
      commitIndex,
      configurationIndex,
      joint,
      removed,
    });
  }

  #recruit(body: v.InferOutput<typeof recruitSchema>, parameters: HttpParameters) {
    const { ReplicaID: id, ReplicaAddr: address, ShardID: group } = body;
    return this.#change(group, { op: "add", id, address }, parameters);
  }

  #remove(body: v.InferOutput<typeof removeSchema>, parameters: HttpParameters) {
    return this.#change(body.ShardID, { op: "remove", id: body.ReplicaID }, parameters);
  }

  /** Wishes that hold already are granted. */
  async #change(
    group: number,
    wish: AdminBody<"changeMembers">["changes"][number],
    parameters: HttpParameters,
  ): Promise<Response> {
    const timeoutMs = parameters.integer("timeoutMs") ?? 0;
    await this.#ask("changeMembers", { group, timeoutMs, changes: [wish] });
    return accepted();
  }

  /** The same wish twice is one: it goes by the group's id. */
  async #newShard(
    { ShardID: id }: v.InferOutput<typeof shardSchema>,
    parameters: HttpParameters,
  ): Promise<Response> {
    const { known } = this.#groups;
    if (known.leaderOf(id)?.gone === false) return accepted();
    const timeoutMs = parameters.integer("timeoutMs") ?? 0;
    const request = `new_shard:${id}`;
    await this.#ask("createGroups", { timeoutMs, request, id, machine: "http" });
    return accepted();
  }

  #ask<O extends AdminOperation>(operation: O, body: AdminBody<O>): Promise<AdminAnswers[O]> {
    const { promise, resolve, reject } = Promise.withResolvers<AdminAnswers[O]>();
    this.#groups.admin(operation, body, {
      answered: (answer) => resolve(answer as AdminAnswers[O]),
      failed: reject,
    });
    return promise;
  }
}

/** What the machine said, or the error that it stands for. */
function bytesAnswer(result: number, bytes: Uint8Array, index: number): Response {
  if (result === code.applicationFailed) {
    throw new BargeError("application_failed", new TextDecoder().decode(bytes));
  }
  if (result === code.malformed) {
    const text = "The state machine of this group did not understand it.";
    throw new BargeError("bad_request", text);
  }
  if (result === code.tooLarge) {
    throw new BargeError("too_large", "The command, the query or its answer is over a bound.");
  }
  return new Response(bytes.slice(), {
    headers: { "content-type": "application/octet-stream", "barge-index": String(index) },
  });
}

function accepted(): Response {
  return new Response(null, { status: 202 });
}

/** Throws a BargeError that names the field. */
function parse<S extends v.GenericSchema>(schema: S, bytes: Uint8Array): v.InferOutput<S> {
  let given: unknown;
  try {
    given = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new BargeError("bad_request", "The body must be a JSON object.");
  }
  const result = v.safeParse(schema, given);
  if (result.success) return result.output;
  const [{ path, message }] = result.issues;
  const field = path?.map(({ key }) => String(key)).join(".") ?? "The body";
  throw new BargeError("bad_request", `${field} ${message}`);
}
