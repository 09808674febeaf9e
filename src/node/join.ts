/**
 * `serve --join`: a new node with an empty folder asks a running cluster to be added. It asks any member, under an incarnation that it has
 * written down first, until it is told that the change is committed; only then its folder belongs to the cluster, and it starts with an
 * empty log, as a learner. So whatever crashes in between, to start again comes to the same, and no vote is ever given by a folder that the
 * cluster does not know [36].
 */
import { FatalError } from "../fatal.ts";
import type { Limits } from "../limits.ts";
import { BargeError, errorCodeOf, errorTable } from "../errors.ts";
import { Dialer } from "../net/dialer.ts";
import { parseAddress } from "../net/address.ts";
import { joiningIncarnation, storedIdentity } from "../storage/data-dir.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { AdminBody } from "../wire/admin.ts";
import { decodeServerReply, encodeControl } from "../wire/client-messages.ts";
import { applyVersionFirst, applyVersionMax, versionsSpoken } from "../wire/versions.ts";
import { version } from "../version.ts";
import { tokenHashOf } from "./bootstrap.ts";
import { tooOld } from "./versions.ts";

export interface JoinOptions {
  readonly nodeId: number;
  readonly dataDir: string;
  /** `host:port` under which the members will reach this node. */
  readonly advertise: string;
  readonly clusterToken: string | undefined;
  readonly join: JoinTarget | undefined;
  readonly applyVersionMax?: number | undefined;
  readonly limits: Limits;
  readonly logger: Logger;
}

export interface JoinTarget {
  /** `host:port` of members; one that runs is enough. */
  readonly endpoints: readonly string[];
  /** Stay a learner; else become a voter once caught up. */
  readonly learner: boolean;
}

/** What makes a folder that of a node which joined. */
export interface JoinedCluster {
  readonly clusterId: string;
  readonly incarnation: string;
  readonly tokenHash: string;
  /** The members when it joined: until its log says who they are, it finds them there. */
  readonly contacts: Readonly<Record<string, string>>;
}

/** The answer of a cluster that has added this node. */
interface Added {
  readonly clusterId: string;
  readonly members: Readonly<Record<string, string>>;
}

const attemptMsMax = 5_000;
const pauseMsMin = 200;
const pauseMsMax = 2_000;
const tickMs = 50;

/** Undefined where this node did not join, but formed its cluster with others. Throws FatalError where the cluster refuses it. */
export async function joinCluster(options: JoinOptions): Promise<JoinedCluster | undefined> {
  const { dataDir, nodeId, clusterToken, join } = options;
  const identity = storedIdentity(dataDir);
  const tokenHash = tokenHashOf(clusterToken ?? "");
  if (identity !== undefined) {
    // Where it was added, and with which token, is known for good: --join has nothing to say any more.
    if (identity.tokenHash === undefined) return undefined;
    if (clusterToken !== undefined && tokenHash !== identity.tokenHash) {
      throw new FatalError(
        "wrong_data_dir",
        `${dataDir} joined its cluster with another --cluster-token: give that one or none, or another --data-dir`,
      );
    }
    const { clusterId, incarnation, contacts = {} } = identity;
    return { clusterId, incarnation, tokenHash: identity.tokenHash, contacts };
  }
  if (join === undefined) return undefined;
  const incarnation = joiningIncarnation(dataDir, nodeId);
  const { clusterId, members } = await askUntilAdded(options, join, { incarnation, tokenHash });
  const { [nodeId]: _self, ...contacts } = members;
  return { clusterId, incarnation, tokenHash, contacts };
}

async function askUntilAdded(
  { nodeId, advertise, limits, logger, applyVersionMax: given }: JoinOptions,
  { endpoints, learner }: JoinTarget,
  folder: { readonly incarnation: string; readonly tokenHash: string },
): Promise<Added> {
  const ownMax = Math.min(given ?? applyVersionMax, applyVersionMax);
  const body = { id: nodeId, address: advertise, learner, ...folder, applyVersionMax: ownMax };
  let lastProblem = "";
  for (let attempt = 0; ; attempt++) {
    const endpoint = endpoints[attempt % endpoints.length]!;
    const answer = await ask(endpoint, body, limits);
    if (!(answer instanceof BargeError)) {
      const { clusterId } = answer;
      logger.info({ clusterId, through: endpoint }, "the cluster has added this node");
      return answer;
    }
    // Members that are down now may come back, as after a power cut of them all.
    if (!answer.retryable && answer.code !== "no_live_majority") {
      throw new FatalError("join_refused", `${endpoint}: ${answer.message}`);
    }
    const problem = `${endpoint}: ${answer.message}`;
    if (problem !== lastProblem) logger.warn({ join: endpoints }, `not added yet: ${problem}`);
    lastProblem = problem;
    // All that were named are asked before there is a pause.
    const round = Math.floor((attempt + 1) / endpoints.length);
    const pauseMs = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(round - 1, 8));
    if ((attempt + 1) % endpoints.length === 0) await Bun.sleep(pauseMs);
  }
}

type JoinBody = Omit<AdminBody<"join">, "clusterId"> & { readonly applyVersionMax: number };

/** The cluster that has added this node; or why it has not, where a retryable one may yet change. */
function ask(
  endpoint: string,
  { applyVersionMax: ownMax, ...body }: JoinBody,
  limits: Limits,
): Promise<Added | BargeError> {
  const address = parseAddress(endpoint);
  if (address === undefined) {
    return Promise.resolve(new BargeError("bad_request", `"${endpoint}" is not HOST:PORT`));
  }
  const { promise, resolve, reject } = Promise.withResolvers<Added | BargeError>();
  const unreachable = (message: string): void => resolve(new BargeError("unreachable", message));
  const dialer = new Dialer({
    address,
    limits,
    hello: () => ({
      role: "client",
      ...versionsSpoken,
      // Nothing is wanted but the answer.
      features: 0,
      software: version,
    }),
    expectation: "client",
    refuse: () => undefined,
    silenceMsMax: limits.peerSilenceMs,
    random: Math.random,
    events: {
      up: (connection, { clusterId, members, applyVersion = applyVersionFirst }) => {
        if (applyVersion > ownMax) {
          const message = tooOld(body.id, version, ownMax, applyVersion);
          return reject(new FatalError("build_too_old", message));
        }
        connection.handler = {
          frame: (_connection, type, payload, fieldsBytes) => {
            const reply = decodeServerReply(type, payload, fieldsBytes);
            if (reply?.type === "controlReply") resolve({ clusterId, members });
            else if (reply?.type === "errorReply") {
              resolve(new BargeError(errorCodeOf(reply.error), reply.message));
            } else unreachable("its answer is malformed");
          },
          closed: (_connection, reason) => unreachable(reason),
        };
        const timeoutMs = attemptMsMax;
        encodeControl(connection.out, 1, "join", { ...body, clusterId, timeoutMs });
        connection.flush();
      },
      down: unreachable,
      refused: ({ code, message }) => resolve(new BargeError(knownCode(code), message)),
      problem: unreachable,
    },
  });
  const startMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    dialer.checkTimeouts(nowMs);
    if (nowMs - startMs > attemptMsMax) unreachable("it did not answer in time");
  }, tickMs);
  dialer.checkTimeouts(startMs);
  return promise.finally(() => {
    clearInterval(timer);
    dialer.close();
  });
}

/** Refusals of a hello are words; what is not in the table may pass. */
function knownCode(code: string): keyof typeof errorTable {
  return Object.hasOwn(errorTable, code) ? (code as keyof typeof errorTable) : "unreachable";
}
