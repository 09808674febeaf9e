/**
 * Who answers at an address that is to become a member's: looked at before the member is added, so that a slip is told at once, and not by a
 * learner that never catches up. That nobody answers is no fault: a new node may be started later, and with --join it opens its port only once it
 * is a member.
 */
import { BargeError, type ErrorCode } from "../errors.ts";
import type { Limits } from "../limits.ts";
import { parseAddress } from "../net/address.ts";
import { Dialer } from "../net/dialer.ts";
import { version } from "../version.ts";
import type { HelloReply } from "../wire/messages.ts";
import { versionsSpoken } from "../wire/versions.ts";

export type Finding =
  /** Somebody who cannot be that member. */
  | { readonly refused: BargeError }
  /** Nobody, and how that shows. */
  | { readonly silent: string }
  /** That very node. */
  | { readonly fine: true };

/** Calls `done` once, later. */
export type Examine = (id: number, address: string, done: (finding: Finding) => void) => void;

const waitMsMax = 1_000;
const tickMs = 50;

export function examiner(clusterId: string, limits: Limits): Examine {
  return (id, address, done) => {
    const parsed = parseAddress(address);
    if (parsed === undefined) return done({ silent: `${address} is not HOST:PORT` });
    let isConnected = false;
    let isOver = false;
    const end = (finding: Finding): void => {
      if (isOver) return;
      isOver = true;
      clearInterval(timer);
      // Not within the dialer's own call.
      setImmediate(() => {
        dialer.close();
        done(finding);
      });
    };
    const dialer = new Dialer({
      address: parsed,
      limits,
      // Asked for as soon as there is a connection.
      hello: () => {
        isConnected = true;
        return {
          role: "client",
          ...versionsSpoken,
          features: 0,
          software: version,
        };
      },
      expectation: "client",
      refuse: () => undefined,
      silenceMsMax: waitMsMax,
      random: Math.random,
      events: {
        up: (_connection, reply) => end(judge(reply, id, address, clusterId)),
        down: () => {},
        refused: ({ code, message }) =>
          end(
            code === "version_mismatch"
              ? mismatch(id, address, message)
              : { silent: `${code}: ${message}` },
          ),
        mismatch: (message) => end(mismatch(id, address, message)),
        problem: (message) => end(isConnected ? strange(address, message) : { silent: message }),
      },
    });
    const startMs = performance.now();
    const timer = setInterval(() => {
      const nowMs = performance.now();
      dialer.checkTimeouts(nowMs);
      if (nowMs - startMs >= waitMsMax) end({ silent: "no answer in time" });
    }, tickMs);
    dialer.checkTimeouts(startMs);
  };
}

function judge(reply: HelloReply, id: number, address: string, clusterId: string): Finding {
  if (reply.clusterId !== clusterId) {
    return refusal(
      "unauthorised",
      `At ${address} node ${reply.nodeId} of another cluster answers, ${reply.clusterId}; this one is ${clusterId}. Start node ${id} with --join and an empty data folder, or compare the address.`,
    );
  }
  if (reply.nodeId === id) return { fine: true };
  return refusal(
    "member_exists",
    `At ${address} node ${reply.nodeId} of this cluster answers, not node ${id}: compare the address.`,
  );
}

function mismatch(id: number, address: string, message: string): Finding {
  return refusal(
    "version_mismatch",
    `Node ${id} cannot be added: at ${address} the answer is: ${message}`,
  );
}

function strange(address: string, message: string): Finding {
  return refusal(
    "bad_request",
    `What answers at ${address} is no node of Barge (${message}): give its binary port, not its HTTP port.`,
  );
}

function refusal(code: ErrorCode, message: string): Finding {
  return { refused: new BargeError(code, `${message} With force it is added all the same.`) };
}
