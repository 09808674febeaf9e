/**
 * The HTTP door: keys and values, status, health and metrics. For people, scripts and probes; bulk goes through the binary port.
 * Bounded like everything else: the body of one request, the bodies of all together, and the time that a body may take.
 */
import { BargeError } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { ListenError } from "../net/listener.ts";
import type { Tallies } from "../telemetry/metrics.ts";
import type { Groups } from "./groups.ts";
import { elsewhereAnswer, errorAnswer, jsonAnswer, refusal, textAnswer } from "./http-answers.ts";
import { backupParameters, backupPath, streamBackup } from "./http-backup.ts";
import { type BodyBounds, ByteBudget, withBody } from "./http-body.ts";
import { HttpCalls } from "./http-calls.ts";
import { HttpKv } from "./http-kv.ts";
import { HttpWatches } from "./http-watch.ts";
import {
  answerAdmin,
  membersBodyBytesMax,
  adminRoute,
  parseBody,
  snapshotPath,
} from "./http-members.ts";
import { checkStatusRequest } from "../wire/status-request.ts";
import { HttpParameters } from "./http-parameters.ts";
import { HttpRaft, raftPath, raftRoutes } from "./http-raft.ts";
import { txnBodyBytesMax } from "./http-txn.ts";
import { requestIdOf } from "./request-ids.ts";
import { decodeEscapes, type RequestTarget, splitTarget } from "./request-target.ts";

export interface HttpAddress {
  readonly host: string;
  readonly port: number;
}

export interface HttpServerOptions {
  readonly groups: Groups;
  readonly listen: HttpAddress;
  /** A listener of its own for /metrics, besides the one above. */
  readonly metricsListen?: HttpAddress | undefined;
  readonly metricsText: () => Promise<string>;
  readonly limits: Limits;
  readonly tallies: Tallies;
}

export interface HttpServer {
  /** The port that was bound. */
  readonly port: number;
  readonly metricsPort: number | undefined;
  /** Refuses new requests, lets those under way finish for at most `graceMs`, then closes. */
  stop(graceMs?: number): Promise<void>;
}

/** A connection without a request under way, or whose request does not get on. */
const idleSeconds = 15;
/** Beyond the time-out of a request, so that its own answer comes first. */
const answerSlackSeconds = 10;
const idleSecondsMax = 255;
const metricsType = "text/plain; version=0.0.4; charset=utf-8";

type BunServer = Bun.Server<undefined>;

/** Throws ListenError. */
export function startHttpServer(options: HttpServerOptions): HttpServer {
  const door = new HttpDoor(options);
  const server = listen(options.listen, options.limits, (request, bun) =>
    door.handle(request, bun),
  );
  let metrics: BunServer | undefined;
  try {
    if (options.metricsListen !== undefined) {
      metrics = listen(options.metricsListen, options.limits, (request) =>
        door.handleMetrics(request),
      );
    }
  } catch (error) {
    void server.stop(true);
    throw error;
  }
  return {
    port: server.port!,
    metricsPort: metrics?.port,
    async stop(graceMs = 1_000): Promise<void> {
      door.stopping = true;
      await Promise.all([stopServer(server, graceMs), metrics && stopServer(metrics, graceMs)]);
    },
  };
}

function listen(
  { host, port }: HttpAddress,
  limits: Limits,
  handle: (request: Request, server: BunServer) => Promise<Response>,
): BunServer {
  try {
    return Bun.serve({
      hostname: host,
      port,
      idleTimeout: idleSeconds,
      development: false,
      // Said aloud: without development mode Bun shares the port with whoever else asks for it.
      reusePort: false,
      // Clear text by prior knowledge, on the same port; who speaks HTTP/1.1 notices nothing.
      http2: true,
      // A little more than is accepted, so that the refusal is ours and says why.
      maxRequestBodySize: Math.max(limits.valueBytesMax, txnBodyBytesMax(limits)) * 2,
      fetch: handle,
      error: (error) => errorAnswer(new BargeError("internal", error.message)),
    });
  } catch (error) {
    throw new ListenError(`${host}:${port}`, error);
  }
}

async function stopServer(server: BunServer, graceMs: number): Promise<void> {
  const finished = server.stop(false);
  server.closeIdleConnections();
  const grace = Promise.withResolvers<void>();
  const timer = setTimeout(grace.resolve, graceMs);
  await Promise.race([finished, grace.promise]);
  clearTimeout(timer);
  await server.stop(true);
}

const kvPath = "/v1/kv";
const txnPath = "/v1/txn";
const watchPath = "/v1/watch";
const common = ["group", "timeoutMs"];
const reading = [...common, "consistency", "maxStalenessMs"];
const keyMethods = "GET, HEAD, PUT, DELETE";

class HttpDoor {
  readonly #groups: Groups;
  readonly #limits: Limits;
  readonly #tallies: Tallies;
  readonly #metricsText: () => Promise<string>;
  readonly #calls: HttpCalls;
  readonly #kv: HttpKv;
  readonly #raft: HttpRaft;
  readonly #watches: HttpWatches;
  /** Bodies being received or waiting for their write. */
  readonly #bodies: ByteBudget;
  stopping = false;

  constructor({ groups, limits, tallies, metricsText }: HttpServerOptions) {
    this.#groups = groups;
    this.#limits = limits;
    this.#tallies = tallies;
    this.#metricsText = metricsText;
    this.#calls = new HttpCalls(groups, limits);
    this.#kv = new HttpKv(this.#calls, limits);
    this.#raft = new HttpRaft(groups, this.#calls, limits);
    this.#watches = new HttpWatches({ groups, limits, tallies });
    this.#bodies = new ByteBudget(limits.inboxBytesMax);
  }

  async handle(request: Request, server: BunServer): Promise<Response> {
    this.#tallies.httpRequests++;
    this.#tallies.httpRequestsUnderWay = server.pendingRequests;
    try {
      const target = splitTarget(request.url);
      if (target === undefined) throw new BargeError("bad_request", "A parameter is there twice.");
      const fixed = this.#fixed(request, target);
      if (fixed !== undefined) return await fixed;
      if (this.stopping) throw new BargeError("shutting_down", "This node is stopping.");
      // An answer counts until the client has taken it: who asks and does not read fills this up, not the memory.
      if (server.pendingRequests > this.#limits.httpRequestsMax) {
        throw new BargeError("overloaded", "Too many HTTP requests at once; try again.");
      }
      return await this.#route(request, target, server);
    } catch (error) {
      return this.#failed(error, request.url);
    }
  }

  /** The listener that serves metrics alone. */
  async handleMetrics(request: Request): Promise<Response> {
    const target = splitTarget(request.url);
    if (target?.path !== "/metrics") return noSuchPath(target?.path ?? "");
    return wrongMethod(request, "GET, HEAD") ?? (await this.#metrics());
  }

  #failed(error: unknown, url: string): Response {
    const known =
      error instanceof BargeError
        ? error
        : new BargeError("internal", error instanceof Error ? error.message : String(error));
    this.#tallies.refuse(known.code);
    const { code, leaderHint } = known;
    const http = leaderHint === undefined ? undefined : this.#groups.httpOf(leaderHint);
    if (http !== undefined && code === "group_elsewhere") return elsewhereAnswer(known, http, url);
    return errorAnswer(known, http);
  }

  /** What is answered also while the node stops. */
  #fixed(
    request: Request,
    { path, parameters }: RequestTarget,
  ): Response | Promise<Response> | undefined {
    switch (path) {
      case "/livez":
      case "/hc":
        return wrongMethod(request, "GET, HEAD") ?? textAnswer("ok");
      case "/readyz":
        return wrongMethod(request, "GET, HEAD") ?? this.#readiness();
      case "/rc":
        return wrongMethod(request, "GET, HEAD") ?? this.#raftReadiness(parameters);
      case "/metrics":
        return wrongMethod(request, "GET, HEAD") ?? this.#metrics();
      case "/v1/status":
        return wrongMethod(request, "GET, HEAD") ?? this.#status(parameters);
      default:
        return undefined;
    }
  }

  /** Of its groups those that are asked for: `?groups=1,2`, or `?after=64&limit=64`, and `brief=true` for a line of each. */
  #status(parameters: ReadonlyMap<string, string>): Response {
    const checked = new HttpParameters(parameters, [
      "groups",
      "after",
      "limit",
      "brief",
      "timeoutMs",
    ]);
    const list = parameters.get("groups");
    const asked = checkStatusRequest({
      groups: list?.split(",").map((id) => (/^[0-9]{1,10}$/.test(id) ? Number(id) : -1)),
      after: checked.integer("after"),
      limit: checked.integer("limit"),
      brief: checked.choice("brief", { true: true, false: false }),
    });
    if ("problem" in asked) throw new BargeError("bad_request", asked.problem);
    return jsonAnswer(this.#groups.status(asked));
  }

  #readiness(): Response {
    const missing = this.#groups.notReady();
    if (this.stopping) missing.push("the node is stopping");
    return missing.length === 0 ? textAnswer("ok") : textAnswer(missing.join("\n"), 503);
  }

  /** raftd's: who has stopped never comes back as ready. */
  #raftReadiness(parameters: ReadonlyMap<string, string>): Response {
    if (this.stopping || this.#groups.isLeaving) return textAnswer("shut down", 500);
    const group = new HttpParameters(parameters, ["group"]).integer("group");
    if (group !== undefined && this.#groups.machineKind(group) === undefined) {
      throw new BargeError("unknown_group", `This node has no group ${group}.`);
    }
    const missing = this.#groups.notReady(group);
    return missing.length === 0 ? textAnswer("ready") : textAnswer(missing.join("\n"), 503);
  }

  async #metrics(): Promise<Response> {
    return new Response(await this.#metricsText(), { headers: { "content-type": metricsType } });
  }

  async #route(request: Request, target: RequestTarget, server: BunServer): Promise<Response> {
    const { path, parameters } = target;
    if (path === kvPath && !parameters.has("key")) {
      const refused = wrongMethod(request, "GET, HEAD");
      if (refused !== undefined) return refused;
      const checked = new HttpParameters(parameters, [...reading, "prefix", "after", "limit"]);
      this.#calls.checkKeysAndValues(checked);
      this.#allowTime(request, checked, server);
      return this.#kv.range(checked);
    }
    if (path === kvPath) return this.#key(request, undefined, parameters, server);
    if (path.startsWith(`${kvPath}/`)) {
      const escaped = path.slice(kvPath.length + 1);
      return this.#key(request, escaped, parameters, server);
    }
    if (path === txnPath) return this.#txn(request, parameters, server);
    if (path === backupPath) return this.#backup(request, parameters, server);
    if (path === watchPath) return this.#watch(request, parameters, server);
    if (path.startsWith(raftPath)) return this.#raftd(request, target, server);
    if (adminRoute(path) !== undefined) return this.#admin(request, target, server);
    if (path === "/v1/" || path === "/v1") this.#kv.checkKey(new Uint8Array(0));
    return noSuchPath(path);
  }

  /** A request for one key, which is in the path, or in `?key=` where `escaped` is undefined. */
  async #key(
    request: Request,
    escaped: string | undefined,
    parameters: ReadonlyMap<string, string>,
    server: BunServer,
  ): Promise<Response> {
    const refused = wrongMethod(request, keyMethods);
    if (refused !== undefined) return refused;
    const reads = request.method === "GET" || request.method === "HEAD";
    const allowed = reads ? [...reading] : [...common, "prevRevision"];
    if (escaped === undefined) allowed.push("key");
    const checked = new HttpParameters(parameters, allowed);
    const bytes = escaped === undefined ? checked.bytes("key") : decodeEscapes(escaped, false);
    if (bytes === undefined)
      throw new BargeError("bad_request", "The key has a broken percent escape.");
    this.#calls.checkKeysAndValues(checked);
    const key = this.#kv.checkKey(bytes);
    this.#allowTime(request, checked, server);
    if (reads) return this.#kv.get(key, checked);
    if (request.method === "DELETE") {
      return this.#kv.delete(key, checked, requestIdOf(request.headers));
    }
    return this.#put(request, key, checked);
  }

  #put(request: Request, key: Uint8Array, parameters: HttpParameters): Promise<Response> {
    const bounds = this.#bodyBounds(this.#limits.valueBytesMax);
    const requestId = requestIdOf(request.headers);
    return withBody(request, bounds, this.#bodies, (value) =>
      this.#kv.put(key, value, parameters, requestId),
    );
  }

  async #txn(
    request: Request,
    parameters: ReadonlyMap<string, string>,
    server: BunServer,
  ): Promise<Response> {
    const refused = wrongMethod(request, "POST");
    if (refused !== undefined) return refused;
    const checked = new HttpParameters(parameters, common);
    this.#calls.checkKeysAndValues(checked);
    this.#allowTime(request, checked, server);
    const bounds = this.#bodyBounds(txnBodyBytesMax(this.#limits));
    const requestId = requestIdOf(request.headers);
    return withBody(request, bounds, this.#bodies, (body) =>
      this.#kv.txn(body, checked, requestId),
    );
  }

  #watch(request: Request, parameters: ReadonlyMap<string, string>, server: BunServer): Response {
    const refused = wrongMethod(request, "GET");
    if (refused !== undefined) return refused;
    const checked = new HttpParameters(parameters, ["group", "prefix", "key", "from"]);
    const answer = this.#watches.start(request, checked);
    // It lasts as long as the client wants.
    server.timeout(request, 0);
    return answer;
  }

  async #backup(
    request: Request,
    parameters: ReadonlyMap<string, string>,
    server: BunServer,
  ): Promise<Response> {
    const refused = wrongMethod(request, "GET");
    if (refused !== undefined) return refused;
    // As long as the client reads; where it does not, the node gives the backup up.
    server.timeout(request, 0);
    return streamBackup(this.#groups, new HttpParameters(parameters, backupParameters));
  }

  /** The API of raftd. */
  async #raftd(request: Request, target: RequestTarget, server: BunServer): Promise<Response> {
    const { path, parameters } = target;
    if (path === "/raft/snapshot" && request.method === "GET") {
      return this.#backup(request, parameters, server);
    }
    if (path === "/raft/snapshot") {
      return this.#admin(request, { path: snapshotPath, parameters }, server);
    }
    const route = raftRoutes[path];
    if (route === undefined) return noSuchPath(path);
    const refused = wrongMethod(request, route.methods);
    if (refused !== undefined) return refused;
    if (request.method === "GET" && hasBody(request)) throw bodyOfGet();
    const checked = new HttpParameters(parameters, route.parameters);
    this.#allowTime(request, checked, server);
    const bounds = this.#bodyBounds(this.#raft.bodyBytesMax(path));
    const requestId = requestIdOf(request.headers);
    return withBody(request, bounds, this.#bodies, (body) =>
      this.#raft.answer(path, body, checked, requestId),
    );
  }

  async #admin(
    request: Request,
    { path, parameters }: RequestTarget,
    server: BunServer,
  ): Promise<Response> {
    const route = adminRoute(path);
    if (route === undefined) return noSuchPath(path);
    const refused = wrongMethod(request, route.methods);
    if (refused !== undefined) return refused;
    const checked = new HttpParameters(parameters, [...common, ...route.parameters]);
    this.#allowTime(request, checked, server);
    return withBody(request, this.#bodyBounds(membersBodyBytesMax), this.#bodies, (bytes) => {
      const wanted = route.request(request.method, parseBody(bytes), checked);
      const group = checked.integer("group") ?? 0;
      const timeoutMs = checked.integer("timeoutMs") ?? 0;
      return answerAdmin(this.#groups, { ...wanted, body: { ...wanted.body, group, timeoutMs } });
    });
  }

  #bodyBounds(bytesMax: number): BodyBounds {
    return { bytesMax, durationMsMax: this.#limits.requestTimeoutMsMax };
  }

  /** A request may wait for its answer longer than a silent connection may stay. */
  #allowTime(request: Request, parameters: HttpParameters, server: BunServer): void {
    const timeoutMs = parameters.integer("timeoutMs") ?? this.#limits.requestTimeoutMs;
    const seconds = Math.ceil(timeoutMs / 1_000) + answerSlackSeconds;
    if (seconds > idleSeconds) server.timeout(request, Math.min(seconds, idleSecondsMax));
  }
}

function hasBody({ headers }: Request): boolean {
  return Number(headers.get("content-length") ?? 0) > 0 || headers.has("transfer-encoding");
}

/** To answer as though there were no body would be to answer another question. */
function bodyOfGet(): BargeError {
  return new BargeError("bad_request", "The body of a GET is not read: send it by POST.");
}

function wrongMethod(request: Request, allowed: string): Response | undefined {
  if (allowed.split(", ").includes(request.method)) return undefined;
  return refusal(405, "method_not_allowed", `Not ${request.method} here, but ${allowed}.`, {
    headers: { allow: allowed },
  });
}

function noSuchPath(path: string): Response {
  return refusal(
    404,
    "no_such_path",
    `There is nothing at ${path}; see /v1/kv, /v1/txn, /v1/watch, /v1/members, /v1/groups, /v1/transfer-leader, /v1/snapshot, /v1/compaction, /v1/scrub, /v1/backup, /v1/status and /raft/update, /raft/read, /raft/membership_info.`,
  );
}
