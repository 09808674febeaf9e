/** Nodes that talk over real sockets: up and down, what travels where, and peers that are not what they say. */
import { expect, test } from "bun:test";
import { defaultLimits, type Limits } from "../../src/limits.ts";
import type { Connection } from "../../src/net/connection.ts";
import type { Listener } from "../../src/net/listener.ts";
import { TcpTransport } from "../../src/net/tcp-transport.ts";
import { BatchKind } from "../../src/wire/batch.ts";
import { encodeAccepted, encodeHello } from "../../src/wire/hello.ts";
import type {
  AppendMessage,
  HeartbeatMessage,
  Hello,
  PeerMessage,
} from "../../src/wire/messages.ts";
import { encodePeerMessage } from "../../src/wire/peer-messages.ts";
import { Feature } from "../../src/wire/versions.ts";
import { chain } from "../wire/messages.ts";
import {
  clientHello,
  clock,
  dial,
  drive,
  listening,
  type Probe,
  replyOf,
  undrive,
  until,
} from "./loopback.ts";

interface TestNode {
  readonly id: number;
  listener: Listener;
  transport: TcpTransport;
  readonly received: PeerMessage[];
  /** "up 2", "down 2", in order. */
  readonly changes: string[];
  readonly problems: string[];
}

function listenerOf(node: TestNode, port = 0, limits: Limits = defaultLimits): Listener {
  return listening({
    port,
    limits,
    decideHello: () => replyOf(node.id),
    onConnection: (connection, hello) => node.transport.accept(connection, hello),
  });
}

function transportOf(
  node: TestNode,
  members: Map<number, string>,
  change: Partial<ConstructorParameters<typeof TcpTransport>[0]> = {},
): TcpTransport {
  let random = node.id / 10;
  return drive(
    new TcpTransport({
      nodeId: node.id,
      clusterId: "cluster",
      incarnation: `i${node.id}`,
      software: "test",
      members,
      limits: defaultLimits,
      events: {
        message: (message) => void node.received.push(message),
        peerUp: (id) => void node.changes.push(`up ${id}`),
        peerDown: (id) => void node.changes.push(`down ${id}`),
      },
      random: () => (random = (random * 7 + 0.3) % 1),
      onProblem: (id, message) => void node.problems.push(`${id}: ${message}`),
      ...change,
    }),
  );
}

function nodes(count: number): { all: TestNode[]; members: Map<number, string> } {
  const all = Array.from({ length: count }, (_, i): TestNode => {
    const node = { id: i + 1, received: [], changes: [], problems: [] } as unknown as TestNode;
    node.listener = listenerOf(node);
    return node;
  });
  const members = new Map(all.map(({ id, listener }) => [id, `127.0.0.1:${listener.port}`]));
  return { all, members };
}

function heartbeat(from: number, to: number, readSeq: number): HeartbeatMessage {
  return {
    type: "heartbeat",
    group: 0,
    from,
    to,
    term: 1,
    commit: 0,
    readSeq,
    freshStamp: 0,
    minMatch: 0,
  };
}

function appendOf(from: number, to: number, bodyBytes: number): AppendMessage {
  const body = {
    body: new Uint8Array(bodyBytes).fill(7),
    count: 2,
    kind: BatchKind.commands,
    termStep: 0,
  };
  const batches = chain({ group: 0, index: 5, term: 1, crc: 9 }, [body, body], 1);
  return {
    type: "append",
    group: 0,
    from,
    to,
    term: 1,
    prevIndex: 5,
    prevTerm: 1,
    prevCrc: 9,
    commit: 5,
    fromIndex: 6,
    toIndex: 9,
    batches,
  };
}

test("three nodes find each other and talk, each message once, in order", async () => {
  const { all, members } = nodes(3);
  for (const node of all) node.transport = transportOf(node, members);
  await until("all up", () => all.every((node) => node.changes.length === 2));
  expect(all.map((node) => [...node.changes].sort())).toEqual([
    ["up 2", "up 3"],
    ["up 1", "up 3"],
    ["up 1", "up 2"],
  ]);
  const [one, two, three] = all as [TestNode, TestNode, TestNode];
  expect(one.transport.connected(2)).toBe(true);
  expect(one.transport.connected(9)).toBe(false);
  for (let i = 0; i < 50; i++) {
    for (const node of all) {
      for (const other of all) {
        if (node !== other) node.transport.send(heartbeat(node.id, other.id, i));
      }
    }
    one.transport.send(appendOf(1, 2, 100_000));
    for (const node of all) node.transport.flush();
  }
  await until("all there", () => two.received.length === 150 && three.received.length === 100);
  const seen = (node: TestNode, from: number) =>
    node.received.filter((m) => m.from === from && m.type === "heartbeat");
  const expected = Array.from({ length: 50 }, (_, i) => heartbeat(1, 3, i));
  expect(seen(three, 1)).toEqual(expected);
  const appends = two.received.filter((message) => message.type === "append");
  expect(appends.length).toBe(50);
  expect(appends[0]).toEqual(appendOf(1, 2, 100_000));
  const figures = one.transport.figures(2)!;
  expect(figures.framesSent).toBe(100);
  expect(figures.framesReceived).toBe(50);
  expect(figures.framesDropped).toBe(0);
  expect(figures.bytesSent).toBeGreaterThan(50 * 200_000);
  expect(all.flatMap((node) => node.problems)).toEqual([]);
});

test("a peer that goes is down, messages to it are dropped, and when it is back it is up again", async () => {
  const { all, members } = nodes(2);
  const [one, two] = all as [TestNode, TestNode];
  for (const node of all) node.transport = transportOf(node, members);
  await until("up", () => all.every((node) => node.changes.length === 1));
  const { port } = two.listener;
  undrive(two.listener);
  undrive(two.transport);
  await until("down", () => one.changes.at(-1) === "down 2");
  expect(one.transport.connected(2)).toBe(false);
  one.transport.send(heartbeat(1, 2, 1));
  one.transport.flush();
  await until("refused", () =>
    one.problems.some((problem) => problem.includes("Failed to connect")),
  );
  const again: TestNode = { ...two, received: [], changes: [] };
  again.transport = transportOf(again, members);
  again.listener = listenerOf(again, port);
  clock.speed = 5;
  await until("up again", () => one.changes.at(-1) === "up 2" && again.changes.at(-1) === "up 1");
  one.transport.send(heartbeat(1, 2, 2));
  one.transport.flush();
  await until("talks", () => again.received.length === 1);
  expect(again.received).toEqual([heartbeat(1, 2, 2)]);
  expect(one.changes).toEqual(["up 2", "down 2", "up 2"]);
  expect(one.transport.figures(2)!.framesDropped).toBe(1);
  // The log tells each problem once, not at each attempt.
  expect(new Set(one.problems).size).toBe(one.problems.length);
});

test("members come, go and move while those that stay notice nothing", async () => {
  const { all, members } = nodes(3);
  const [one, two, three] = all as [TestNode, TestNode, TestNode];
  const pair = new Map([...members].filter(([id]) => id !== 3));
  for (const node of all) node.transport = transportOf(node, node === three ? members : pair);
  await until("the first two are up", () => one.changes.includes("up 2"));
  expect(one.transport.peerIds).toEqual([2]);
  expect(three.changes.filter((change) => change === "up 1").length).toBeLessThan(2);

  one.transport.setMembers(members);
  two.transport.setMembers(members);
  await until("the third is up", () => one.transport.connected(3) && three.transport.connected(1));
  one.transport.send(heartbeat(1, 3, 1));
  one.transport.flush();
  await until("it hears", () => three.received.length === 1);

  // The third moves; then it goes.
  const moved: TestNode = { ...three, received: [], changes: [] };
  moved.listener = listenerOf(moved);
  moved.transport = transportOf(moved, members);
  one.transport.setMembers(new Map([...members, [3, `127.0.0.1:${moved.listener.port}`]]));
  expect(one.transport.connected(3)).toBe(false);
  await until("up at the new address", () => one.transport.connected(3));
  one.transport.send(heartbeat(1, 3, 2));
  one.transport.flush();
  await until("it hears there", () => moved.received.length === 1);
  one.transport.setMembers(pair);
  expect(one.transport.peerIds).toEqual([2]);
  expect(one.changes).toEqual(["up 2", "up 3", "down 3", "up 3", "down 3"]);
  await until("its connections are closed", () => moved.changes.at(-1) === "down 1");
  expect(two.changes).not.toContain("down 1");

  one.transport.setMembers(new Map([...pair, [4, "nowhere"]]));
  expect(one.problems.at(-1)).toBe('4: its address "nowhere" is not HOST:PORT');
});

test("what a node says of itself is asked anew at each connection", async () => {
  const heard: (number | undefined)[] = [];
  const listener = listening({
    decideHello: (hello) => {
      heard.push(hello.configurationIndex);
      return { ...replyOf(2), error: { code: "shutting_down", message: "later" } };
    },
    onConnection: () => {},
  });
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  let configurationIndex = 0;
  const members = new Map([[2, `127.0.0.1:${listener.port}`]]);
  transportOf(node, members, {
    introduction: () => ({ address: "127.0.0.1:1", configurationIndex: ++configurationIndex }),
  });
  clock.speed = 20;
  await until("several hellos", () => heard.length >= 4);
  expect(new Set(heard).size).toBe(heard.length);
});

test("a peer that answers no ping is down, though TCP says nothing", async () => {
  const { all, members } = nodes(2);
  const [one, two] = all as [TestNode, TestNode];
  for (const node of all) node.transport = transportOf(node, members);
  await until("up", () => all.every((node) => node.changes.length === 1));
  // The other accepts from now on, but neither reads nor answers.
  two.transport.close();
  const accepted: unknown[] = [];
  two.transport.accept = (connection) => {
    accepted.push(connection);
    connection.handler = { frame: () => {}, closed: () => {} };
    connection.pause();
  };
  await until("accepted mutely", () => accepted.length === 2 && one.changes.at(-1) === "up 2");
  clock.speed = 20;
  await until("down", () => one.changes.at(-1) === "down 2");
  expect(one.problems.some((problem) => problem.endsWith("lost: silent"))).toBe(true);
});

test("heartbeats pass by a bulk connection that is full, whose queue is bounded", async () => {
  const { all, members } = nodes(2);
  const [one, two] = all as [TestNode, TestNode];
  const limits = { ...defaultLimits, inflightBytesMax: 1 << 18, frameBytesMax: 2 << 20 };
  for (const node of all) node.transport = transportOf(node, members, { limits });
  const accept = two.transport.accept.bind(two.transport);
  two.transport.accept = (connection, hello) => {
    accept(connection, hello);
    if (hello.role === "peer-bulk") connection.pause();
  };
  await until("up", () => all.every((node) => node.changes.length === 1));
  for (let i = 0; i < 100; i++) one.transport.send(appendOf(1, 2, 250_000));
  one.transport.flush();
  for (let i = 0; i < 100; i++) one.transport.send(appendOf(1, 2, 250_000));
  const { sendQueueBytes, framesDropped } = one.transport.figures(2)!;
  expect(framesDropped).toBeGreaterThan(50);
  expect(sendQueueBytes).toBeLessThan(2 * limits.inflightBytesMax + 2 * limits.frameBytesMax);
  for (let i = 0; i < 10; i++) one.transport.send(heartbeat(1, 2, i));
  one.transport.flush();
  await until("heartbeats", () => two.received.length >= 10);
  expect(two.received.every((message) => message.type === "heartbeat")).toBe(true);
});

test("who answers at the address is checked: node, cluster, incarnation, refusals", async () => {
  const cases: [ReturnType<typeof replyOf>, string][] = [
    [{ ...replyOf(3) }, "node 3 answers there"],
    [{ ...replyOf(2), clusterId: "other" }, "it belongs to cluster other, we to cluster"],
    [{ ...replyOf(2), incarnation: "wiped" }, "another incarnation"],
    [
      { ...replyOf(2), error: { code: "unauthorised", message: "You are of another cluster." } },
      "unauthorised: You are of another cluster.",
    ],
  ];
  for (const [reply, words] of cases) {
    const listener = listening({
      decideHello: () => reply,
      onConnection: (connection) => {
        connection.handler = { frame: () => {}, closed: () => {} };
      },
    });
    const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
    const members = new Map([
      [1, "127.0.0.1:1"],
      [2, `127.0.0.1:${listener.port}`],
    ]);
    node.transport = transportOf(node, members, {
      refusePeer: ({ incarnation }) => (incarnation === "i2" ? undefined : "another incarnation"),
    });
    await until(words, () => node.problems.some((problem) => problem.includes(words)));
    expect(node.changes).toEqual([]);
    expect(node.transport.connected(2)).toBe(false);
    undrive(node.transport);
  }
});

/** A connection to node 1 that says it is node 2. */
async function impostor(
  port: number,
  role: Hello["role"] = "peer-control",
  features = 0,
): Promise<Probe> {
  const probe = await dial(port);
  const identity = { clusterId: "cluster", nodeId: 2, incarnation: "i2" };
  encodeHello(probe.connection.out, { ...clientHello, ...identity, role, features });
  probe.connection.flush();
  await until("accepted", () => probe.frames.length === 1);
  return probe;
}

test("a message from or to somebody else, or malformed, ends the connection and goes nowhere", async () => {
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  node.listener = listenerOf(node);
  const members = new Map([
    [1, `127.0.0.1:${node.listener.port}`],
    [2, "127.0.0.1:1"],
    [3, "127.0.0.1:1"],
  ]);
  node.transport = transportOf(node, members);
  const wrong: [PeerMessage, string][] = [
    [heartbeat(3, 1, 1), "wrong sender"],
    [heartbeat(2, 3, 1), "wrong sender"],
  ];
  for (const [message, reason] of wrong) {
    const probe = await impostor(node.listener.port);
    encodePeerMessage(probe.connection.out, message);
    encodePeerMessage(probe.connection.out, heartbeat(2, 1, 7));
    probe.connection.flush();
    await until("closed", () => probe.closed.length === 1);
    expect(node.problems.some((problem) => problem.endsWith(`ended: ${reason}`))).toBe(true);
  }
  const broken = appendOf(2, 1, 100);
  broken.batches[1]!.bytes[60]! ^= 1;
  const probe = await impostor(node.listener.port, "peer-bulk");
  encodePeerMessage(probe.connection.out, broken);
  probe.connection.flush();
  await until("closed", () => probe.closed.length === 1);
  expect(node.problems.some((problem) => problem.endsWith("ended: malformed message"))).toBe(true);
  expect(node.received).toEqual([]);
  const stranger = await dial(node.listener.port);
  const identity = { clusterId: "cluster", nodeId: 9, incarnation: "i9" };
  encodeHello(stranger.connection.out, { ...clientHello, ...identity, role: "peer-bulk" });
  stranger.connection.flush();
  await until("not a member", () => stranger.closed.length === 1);
});

test("a newer connection of the same peer and role replaces the older", async () => {
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  node.listener = listenerOf(node);
  node.transport = transportOf(node, new Map([[2, "127.0.0.1:1"]]));
  const control = await impostor(node.listener.port);
  const bulk = await impostor(node.listener.port, "peer-bulk");
  const newer = await impostor(node.listener.port);
  await until("replaced", () => control.closed.length === 1);
  for (const [probe, readSeq] of [
    [newer, 1],
    [bulk, 2],
  ] as const) {
    encodePeerMessage(probe.connection.out, heartbeat(2, 1, readSeq));
    probe.connection.flush();
    await until("heard", () => node.received.length === readSeq);
  }
  expect(bulk.closed.length + newer.closed.length).toBe(0);
});

test("an address that cannot be dialled is refused at the start", () => {
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  for (const address of ["", "host", "host:", "host:99999", ":1", "a b:1", "::1:80"]) {
    expect(() => transportOf(node, new Map([[2, address]]))).toThrow("node 2");
  }
});

test("who is refused asks again about once a second, not in a loop", async () => {
  let hellos = 0;
  const error = { code: "unauthorised", message: "no" };
  const listener = listening({
    decideHello: () => {
      hellos++;
      return { ...replyOf(2), error };
    },
  });
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  node.transport = transportOf(node, new Map([[2, `127.0.0.1:${listener.port}`]]));
  const start = performance.now();
  clock.speed = 20;
  await until("asked again", () => hellos >= 10);
  // Two connections, each at least half a second after its last attempt.
  const attempts = 2 * (1 + ((performance.now() - start) * 20) / 500);
  expect(hellos).toBeLessThanOrEqual(attempts + 2);
  expect(node.problems.length).toBe(2);
});

/** Nobody listens there. */
async function closedPort(): Promise<number> {
  const listener = listening();
  const { port } = listener;
  undrive(listener);
  return port;
}

/** Node 1, and node 2 that it does not find where it looks: nobody answers there, unless `at` is given. */
async function halfReachable(at?: number): Promise<[TestNode, TestNode]> {
  const { all, members } = nodes(2);
  const [one, two] = all as [TestNode, TestNode];
  const wrong = new Map([...members, [2, `127.0.0.1:${at ?? (await closedPort())}`]]);
  one.transport = transportOf(one, wrong);
  two.transport = transportOf(two, members);
  return [one, two];
}

test("what goes to a peer that cannot be dialled goes over what it dialled", async () => {
  const [one, two] = await halfReachable();
  await until("both up", () => one.changes.length === 1 && two.changes.length === 1);
  expect([one.transport.dialsIn(2), two.transport.dialsIn(1)]).toEqual([true, false]);
  for (let i = 0; i < 20; i++) {
    one.transport.send(heartbeat(1, 2, i));
    one.transport.send(appendOf(1, 2, 100_000));
    two.transport.send(heartbeat(2, 1, i));
    for (const { transport } of [one, two]) transport.flush();
  }
  await until("all there", () => two.received.length === 40 && one.received.length === 20);
  expect(two.received.filter(({ type }) => type === "heartbeat")).toEqual(
    Array.from({ length: 20 }, (_, i) => heartbeat(1, 2, i)),
  );
  expect(one.transport.figures(2)).toMatchObject({ framesSent: 40, framesDropped: 0 });
  expect(one.transport.figures(2)!.bytesSent).toBeGreaterThan(20 * 200_000);

  // With either of the two it is gone; it dials again.
  two.transport.setMembers(new Map());
  await until("down", () => one.changes.at(-1) === "down 2");
  expect(one.transport.dialsIn(2)).toBe(false);
  two.transport.setMembers(new Map([[1, `127.0.0.1:${one.listener.port}`]]));
  await until("up again", () => one.changes.at(-1) === "up 2");
  expect(one.changes).toEqual(["up 2", "down 2", "up 2"]);
});

test("where a peer can be dialled after all, what is in use stays", async () => {
  const port = await closedPort();
  const [one, two] = await halfReachable(port);
  await until("both up", () => one.changes.length === 1 && two.changes.length === 1);
  const later = listenerOf(two, port);
  await until("dialled", () => !one.transport.dialsIn(2));
  expect(one.transport.connected(2)).toBe(true);
  for (let i = 0; i < 5; i++) one.transport.send(heartbeat(1, 2, i));
  one.transport.flush();
  await until("heard", () => two.received.length === 5);
  undrive(later);
  expect(one.changes).toEqual(["up 2"]);
});

test("who never answers the hello cannot be dialled either", async () => {
  // Connected, and not a word.
  const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const [one] = await halfReachable(silent.port);
  clock.speed = 20;
  await until("up", () => one.changes.at(-1) === "up 2");
  expect(one.transport.dialsIn(2)).toBe(true);
  silent.stop(true);
});

test("only who has accepted us is answered over what it dialled", async () => {
  const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
  // Who dialled and is silent for long is not cut off for that.
  node.listener = listenerOf(node, 0, { ...defaultLimits, idleTimeoutMs: 3_600_000 });
  let refusal: string | undefined;
  const met: string[] = [];
  node.transport = transportOf(node, new Map([[2, `127.0.0.1:${await closedPort()}`]]), {
    refusePeer: ({ nodeId, incarnation }) => {
      met.push(`${nodeId} ${incarnation}`);
      return refusal;
    },
  });
  await until("it cannot be dialled", () => node.problems.length === 2);
  const accepts = ({ connection }: Probe): void => {
    connection.expect("peer");
    encodeAccepted(connection.out);
    connection.flush();
  };
  const { port } = node.listener;
  const dialBoth = async (features: number): Promise<[Probe, Probe]> => [
    await impostor(port, "peer-control", features),
    await impostor(port, "peer-bulk", features),
  ];

  // A build that does not listen there.
  for (const probe of await dialBoth(0)) {
    accepts(probe);
    await until("it may not", () => probe.closed.length === 1);
  }
  expect(node.problems.at(-1)).toContain("frame not allowed");
  refusal = "another folder";
  const [refused] = await dialBoth(Feature.bothWays);
  accepts(refused);
  await until("refused", () => refused.closed.length === 1);
  expect(node.problems).toContain("2: connection from it: another folder");
  refusal = undefined;

  const [control, bulk] = await dialBoth(Feature.bothWays);
  accepts(control);
  await until("met", () => met.length === 2);
  expect(node.transport.connected(2)).toBe(false);
  accepts(bulk);
  await until("up", () => node.changes.at(-1) === "up 2");
  expect(new Set(met)).toEqual(new Set(["2 i2"]));
  node.transport.send(heartbeat(1, 2, 3));
  node.transport.flush();
  await until("it hears", () => control.frames.length === 2);
  expect(bulk.frames.length).toBe(1);

  // It dials, so it pings: should it not, it is gone.
  clock.speed = 20;
  await until("silent", () => node.changes.at(-1) === "down 2");
  expect(node.problems.at(-1)).toContain("silent");
});

test("a node that is dialled and answers what it must not loses that connection alone", async () => {
  const wrong: [PeerMessage, string][] = [
    [heartbeat(3, 1, 1), "wrong sender"],
    [heartbeat(2, 3, 1), "wrong sender"],
  ];
  for (const [message, reason] of wrong) {
    const dialled = new Map<string, Connection>();
    const listener = listening({
      decideHello: () => replyOf(2),
      onConnection: (connection, { role }) => {
        connection.handler = { frame: () => {}, closed: () => {} };
        dialled.set(role, connection);
      },
    });
    const node = { id: 1, received: [], changes: [], problems: [] } as unknown as TestNode;
    node.transport = transportOf(node, new Map([[2, `127.0.0.1:${listener.port}`]]));
    await until("up", () => node.changes.length === 1);
    const control = dialled.get("peer-control")!;
    encodePeerMessage(control.out, heartbeat(2, 1, 6));
    encodePeerMessage(control.out, message);
    encodePeerMessage(control.out, heartbeat(2, 1, 7));
    control.flush();
    await until("it lost it", () =>
      node.problems.includes(`2: peer-control connection lost: ${reason}`),
    );
    expect(node.received).toEqual([heartbeat(2, 1, 6)]);
    expect(dialled.get("peer-bulk")!.closed).toBe(false);
    await until("up again", () => node.changes.length === 3);
    undrive(node.transport);
  }
});
