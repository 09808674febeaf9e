/**
 * Administration over HTTP: who the members are, changes of them, and who leads. Any node takes a request, and the leader answers it. Shapes and answers are those of
 * wire/admin.ts.
 *
 *     GET    /v1/members                                   the members, linearizably
 *     POST   /v1/members          {"id","address","learner"?}      adds one
 *     PATCH  /v1/members          {"changes":[…],"force"?}         several changes, which take effect together
 *     PATCH  /v1/members/{id}     {"role":"voter"|"learner"}       promotes or demotes
 *     PATCH  /v1/members/{id}     {"address":"host:port"}          the same node is to be reached there from now on
 *     DELETE /v1/members/{id}     ?force=true                      removes
 *     POST   /v1/members/{id}/replace  {"id","address"}            another node takes its place once it has caught up
 *     POST   /v1/transfer-leader  {"to"?,"from"?}                  another voter leads
 *     POST   /v1/snapshot         {"tailBytes"?}                   this node makes its state durable and cuts its log
 *     GET    /v1/compaction                                        when this node cuts its log
 *     PATCH  /v1/compaction       {"entries"?,"bytes"?,"tailBytes"?}   changes that, until this node starts anew
 *     GET    /v1/scrub                                     how far this node has read its disk through, and what it found
 *     POST   /v1/scrub                                     it begins to, at once
 *     PATCH  /v1/scrub            {"bytesPerSecond"?,"paused"?,"now"?}   changes how, until this node starts anew
 */
import { BargeError } from "../errors.ts";
import type { AdminOperation } from "../wire/admin.ts";
import type { Groups } from "./groups.ts";
import { jsonAnswer } from "./http-answers.ts";
import { groupsRoute } from "./http-groups.ts";
import type { HttpParameters } from "./http-parameters.ts";

export const membersPath = "/v1/members";
export const leaderPath = "/v1/transfer-leader";
export const snapshotPath = "/v1/snapshot";
export const compactionPath = "/v1/compaction";
export const scrubPath = "/v1/scrub";
export const membersBodyBytesMax: number = 64 * 1024;

export interface AdminRoute {
  /** For the header `allow`. */
  readonly methods: string;
  /** Parameters besides those that all requests have. */
  readonly parameters: readonly string[];
  /** What to ask for, given the parsed body. */
  readonly request: (method: string, body: unknown, parameters: HttpParameters) => AdminRequest;
}

interface AdminRequest {
  readonly operation: AdminOperation;
  readonly body: object;
  /** What of the answer is wanted; all of it, if nothing is said. Throws a BargeError where there is no such thing. */
  readonly pick?: (answer: unknown) => object;
}

/** Undefined where there is nothing at that path. */
export function adminRoute(path: string): AdminRoute | undefined {
  if (path === leaderPath) {
    return {
      methods: "POST",
      parameters: [],
      request: (_, body) => ({
        operation: "transferLeader",
        body: body === undefined ? {} : objectOf(body),
      }),
    };
  }
  if (path === snapshotPath) {
    return {
      methods: "POST",
      parameters: [],
      request: (_, body) => ({
        operation: "snapshot",
        body: body === undefined ? {} : objectOf(body),
      }),
    };
  }
  if (path === compactionPath) {
    return {
      methods: "GET, HEAD, PATCH",
      parameters: [],
      request: (method, body) => ({
        operation: "compaction",
        body: method === "PATCH" ? objectOf(body) : {},
      }),
    };
  }
  if (path === scrubPath) {
    return {
      methods: "GET, HEAD, PATCH, POST",
      parameters: [],
      request: (method, body) => {
        const given = body === undefined ? {} : objectOf(body);
        if (method === "PATCH") return { operation: "scrub", body: given };
        return { operation: "scrub", body: { now: method === "POST" } };
      },
    };
  }
  if (path === membersPath) {
    return {
      methods: "GET, HEAD, POST, PATCH",
      parameters: [],
      request: (method, body) => {
        if (method === "PATCH") return { operation: "changeMembers", body: objectOf(body) };
        if (method !== "POST") return { operation: "members", body: {} };
        return changing({ op: "add", ...objectOf(body) });
      },
    };
  }
  const match = /^\/v1\/members\/([0-9]{1,10})(\/replace)?$/.exec(path);
  if (match === null) return groupsRoute(path);
  const id = Number(match[1]);
  if (match[2] !== undefined) {
    return {
      methods: "POST",
      parameters: [],
      request: (_, body) => {
        const { id: by, ...rest } = objectOf(body);
        return changing({ op: "replace", id, by, ...rest });
      },
    };
  }
  return {
    methods: "PATCH, DELETE",
    parameters: ["force"],
    request: (method, body, parameters) => {
      const force = parameters.choice("force", { true: true, false: false }) ?? false;
      if (method === "DELETE") return changing({ op: "remove", id }, force);
      return changing(wantedOf(id, objectOf(body)), force);
    },
  };
}

function changing(change: object, force = false): AdminRequest {
  return { operation: "changeMembers", body: { changes: [change], force } };
}

/** One of the two; what an address must look like is said where all are checked. */
function wantedOf(id: number, { role, address, ...rest }: Record<string, unknown>): object {
  const [other] = Object.keys(rest);
  if (other !== undefined)
    throw new BargeError("bad_request", `${other}: is unknown; known here: role, address`);
  if (address !== undefined) {
    if (role === undefined) return { op: "move", id, address };
    throw new BargeError("bad_request", "role, address: only one of them in one request");
  }
  if (role === "voter") return { op: "promote", id };
  if (role === "learner") return { op: "demote", id };
  throw new BargeError("bad_request", 'role: must be "voter" or "learner"');
}

function objectOf(body: unknown): Record<string, unknown> {
  if (typeof body === "object" && body !== null && !Array.isArray(body)) {
    return body as Record<string, unknown>;
  }
  throw new BargeError("bad_request", "The body must be a JSON object.");
}

/** Undefined for an empty body. */
export function parseBody(bytes: Uint8Array): unknown {
  if (bytes.byteLength === 0) return undefined;
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new BargeError("bad_request", "The body is not JSON.");
  }
}

/** One operation of administration as an answer. */
export function answerAdmin(
  groups: Groups,
  { operation, body, pick }: AdminRequest,
): Promise<Response> {
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  groups.admin(operation, body, {
    answered: (answer) => {
      try {
        resolve(jsonAnswer(pick === undefined ? answer : pick(answer)));
      } catch (error) {
        reject(error);
      }
    },
    failed: reject,
  });
  return promise;
}
