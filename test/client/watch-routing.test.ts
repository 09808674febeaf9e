/** Where a watch goes on, against nodes that serve or refuse it as a test says. */
import { expect, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { errorTable } from "../../src/errors.ts";
import { defaultLimits } from "../../src/limits.ts";
import { type Listener, listen } from "../../src/net/listener.ts";
import { Feature } from "../../src/wire/versions.ts";
import {
  decodeWatchCommand,
  encodeWatchChanges,
  encodeWatchEnded,
} from "../../src/wire/watch-messages.ts";
import { freePorts } from "../e2e/cluster.ts";

const revision = 7;

/** Refuses the first watches for the moment, then says to each that nothing has changed up to `revision`. */
function watchNode(refusals: number, members: Record<string, string> = {}): Listener {
  let left = refusals;
  return listen({
    host: "127.0.0.1",
    port: 0,
    limits: defaultLimits,
    decideHello: () => ({
      version: 1,
      features: Feature.watch,
      software: "fake",
      clusterId: "fake",
      nodeId: 1,
      incarnation: "fake",
      frameBytesMax: defaultLimits.frameBytesMax,
      sectionBytesMax: defaultLimits.sectionBytesMax,
      members,
      leader: 0,
    }),
    onConnection: (connection) => {
      connection.handler = {
        frame: (_, type, payload, fieldsBytes) => {
          const request = decodeWatchCommand(type, payload, fieldsBytes);
          if (request?.type !== "watch") return;
          const { out } = connection;
          const { number, help } = errorTable.shutting_down;
          if (left-- > 0) encodeWatchEnded(out, request.watch, 0, number, help);
          else encodeWatchChanges(out, request.watch, revision, undefined);
          connection.flush();
        },
        closed: () => undefined,
      };
    },
  });
}

test("a node that never comes back does not keep a watch from those that refused it once", async () => {
  const node = watchNode(2);
  const [gone] = freePorts(1);
  const client = connect({ endpoints: `127.0.0.1:${node.port},127.0.0.1:${gone}` });
  try {
    const batches = client.watch({ from: 1 }).batches()[Symbol.asyncIterator]();
    const first = await batches.next();
    expect(first.done).toBe(false);
    expect(first.value?.revision).toBe(revision);
  } finally {
    client.close();
    node.stop();
  }
});

test("the members that a watch hears of are there for calls too", async () => {
  const node = watchNode(0, { "2": "127.0.0.1:20002" });
  const client = connect({ endpoints: `127.0.0.1:${node.port}` });
  try {
    await client.watch({ from: 1 }).batches()[Symbol.asyncIterator]().next();
    expect(client.endpoints()).toEqual([`127.0.0.1:${node.port}`, "127.0.0.1:20002"]);
  } finally {
    client.close();
    node.stop();
  }
});
