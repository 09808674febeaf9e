/**
 * Groups over HTTP: which there are, and changes of them. Any node takes a request, and the leader of the registry answers it. Shapes and answers are those of
 * wire/admin.ts.
 *
 *     GET    /v1/groups                            all groups, linearizably
 *     POST   /v1/groups       {"count"?,"id"?,"name"?,"machine"?,"replicas"?,"members"?,"logBytesMax"?,"request"?}   makes some
 *     GET    /v1/groups/{id}                       one of them
 *     PATCH  /v1/groups/{id}  {"members":[…]}      these nodes are to host it
 *     DELETE /v1/groups/{id}                       removes it, for good
 */
import { BargeError } from "../errors.ts";
import type { GroupsAnswer } from "../wire/admin.ts";
import type { AdminRoute } from "./http-members.ts";

export const groupsPath = "/v1/groups";

/** Undefined where there is nothing at that path. */
export function groupsRoute(path: string): AdminRoute | undefined {
  if (path === groupsPath) {
    return {
      methods: "GET, HEAD, POST",
      parameters: [],
      request: (method, body) => {
        if (method !== "POST") return { operation: "groups", body: {} };
        const given = body === undefined ? {} : objectOf(body);
        return { operation: "createGroups", body: { request: crypto.randomUUID(), ...given } };
      },
    };
  }
  const match = /^\/v1\/groups\/([0-9]{1,10})$/.exec(path);
  if (match === null) return undefined;
  const id = Number(match[1]);
  return {
    methods: "GET, HEAD, PATCH, DELETE",
    parameters: [],
    request: (method, body) => {
      if (method === "DELETE") return { operation: "removeGroups", body: { groups: [id] } };
      if (method === "PATCH") return { operation: "moveGroup", body: { ...objectOf(body), id } };
      return { operation: "groups", body: {}, pick: (answer) => oneOf(answer as GroupsAnswer, id) };
    },
  };
}

function oneOf({ groups }: GroupsAnswer, id: number): object {
  const found = groups.find((group) => group.id === id);
  if (found !== undefined) return found;
  throw new BargeError("unknown_group", `There is no group ${id}.`);
}

function objectOf(body: unknown): Record<string, unknown> {
  if (typeof body === "object" && body !== null && !Array.isArray(body)) {
    return body as Record<string, unknown>;
  }
  throw new BargeError("bad_request", "The body must be a JSON object.");
}
