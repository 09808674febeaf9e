/** Who may talk to a node, as its configuration moves: members at their addresses, each with its own folder, guests, and those that have left. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultLimits } from "../../src/limits.ts";
import { hasOtherVoters, Peers, type PeerRefusal } from "../../src/node/peers.ts";
import type { Raft } from "../../src/raft/raft.ts";
import type { Configuration } from "../../src/raft/ready.ts";
import { DiskFullError } from "../../src/storage/disk.ts";
import { PeerLedger } from "../../src/storage/peer-ledger.ts";
import type { Hello } from "../../src/wire/messages.ts";

const { electionTicksMax, tickMs } = defaultLimits;
const graceMs = 5 * electionTicksMax * tickMs;

function members(ids: readonly number[], more: Partial<Configuration> = {}): Configuration {
  const addresses = Object.fromEntries(ids.map((id) => [id, `host-${id}:1`]));
  return { voters: ids, outgoing: [], learners: [], addresses, ...more };
}

/** Node 1 with a log of configurations, the last of which may not be committed. */
class World {
  readonly log: { readonly index: number; readonly configuration: Configuration }[] = [];
  commit = 0;
  dialled: Record<number, string> = {};
  formed = 0;
  readonly elsewhere: [number, string][] = [];
  isLost = true;
  readonly peers: Peers;
  readonly ledger = new PeerLedger(mkdtempSync(join(tmpdir(), "barge-peers-")));

  constructor(
    initial: readonly number[],
    joined = false,
    contacts: Readonly<Record<number, string>> = {},
  ) {
    const initialMembers = new Map(
      joined ? [] : Object.entries(members(initial).addresses).map(([id, at]) => [Number(id), at]),
    );
    if (!joined) this.append(1, members(initial));
    // Of the core only what the configuration is, and how far it is committed.
    const at = (index: number): Configuration =>
      this.log.findLast((entry) => entry.index <= index)?.configuration ?? members([]);
    const log = this.log;
    const committed = (): number => this.commit;
    const raft = {
      get configuration() {
        return at(Infinity);
      },
      get configurationIndex() {
        return log.at(-1)?.index ?? 0;
      },
      get configurationCommitted() {
        return (log.at(-1)?.index ?? 0) <= committed();
      },
      get commit() {
        return committed();
      },
      configurationAt: at,
    } as unknown as Raft;
    this.peers = new Peers({
      nodeId: 1,
      incarnation: "folder-1",
      limits: defaultLimits,
      raft,
      ledger: this.ledger,
      initialMembers,
      contacts: new Map(Object.entries(contacts).map(([id, at]) => [Number(id), at])),
      isLost: () => this.isLost,
      setMembers: (addresses) => (this.dialled = Object.fromEntries(addresses)),
      formed: () => this.formed++,
      elsewhere: (id, message) => void this.elsewhere.push([id, message]),
    });
    this.peers.refresh(0);
  }

  append(index: number, configuration: Configuration, commit = true): void {
    this.log.push({ index, configuration });
    if (commit) this.commit = index;
  }

  hello(id: number, more: Partial<Hello> = {}, nowMs = 0): PeerRefusal | undefined {
    const hello = { role: "peer-control" as const, nodeId: id, incarnation: `folder-${id}` };
    const version = { versionMin: 1, versionMax: 1, features: 0, software: "test" };
    return this.peers.refuse({ ...hello, ...version, address: `host-${id}:1`, ...more }, nowMs);
  }
}

describe("the first members", () => {
  test("are those with the folders that were met first, and all must accept ours", () => {
    const world = new World([1, 2, 3]);
    expect(world.dialled).toEqual({ 1: "host-1:1", 2: "host-2:1", 3: "host-3:1" });
    expect(world.hello(2)).toBeUndefined();
    expect(world.hello(2, { incarnation: "wiped" })?.code).toBe("wrong_incarnation");
    expect(world.hello(2, { incarnation: "wiped", configurationIndex: 99 })?.code).toBe(
      "wrong_incarnation",
    );
    expect(world.peers.meet(2, "wiped")).toContain("barge member replace 2 --by 4=host-2:1");
    expect(world.peers.meet(2, "folder-2")).toBeUndefined();
    expect([world.peers.absent, world.formed]).toEqual([[3], 0]);
    expect(world.peers.meet(3, "folder-3")).toBeUndefined();
    expect(world.formed).toBe(1);
  });

  test("of one alone is formed from the start, and binds its own folder", () => {
    const world = new World([1]);
    expect(world.peers.incarnationOf(1)).toBe("folder-1");
    expect(world.peers.absent).toEqual([]);
    expect(world.hello(1, { incarnation: "twin" })?.message).toContain("This is node 1 itself");
  });
});

test("on a full disk whoever is new is put off, nothing is noted, and all goes on once there is space", () => {
  const world = new World([1, 2]);
  const { ledger } = world;
  const full = (): never => {
    throw new DiskFullError("no space left to write peers.json");
  };
  const written = { meet: ledger.meet, form: ledger.form, setOtherVoters: ledger.setOtherVoters };
  Object.assign(ledger, { meet: full, form: full, setOtherVoters: full });
  expect(world.hello(2)?.code).toBe("disk_full");
  expect(world.peers.meet(2, "folder-2")).toContain("no space left");
  world.append(5, members([1]));
  expect(world.peers.refresh(1)).toBe(true);
  expect(ledger.hasOtherVoters).toBeUndefined();
  expect(world.peers.refresh(2)).toBe(false);
  Object.assign(ledger, written);
  expect(world.peers.refresh(2 + defaultLimits.diskFullRetryMs)).toBe(true);
  expect(ledger.hasOtherVoters).toBe(false);
});

describe("a configuration", () => {
  test("binds a member to its folder, whoever was met before", () => {
    const world = new World([1, 2]);
    world.append(5, members([1, 2, 3], { incarnations: { 3: "folder-3" } }));
    expect(world.peers.refresh(1)).toBe(true);
    expect(world.peers.refresh(2)).toBe(false);
    expect(world.dialled[3]).toBe("host-3:1");
    expect(world.hello(3)).toBeUndefined();
    expect(world.hello(3, { incarnation: "wiped" })?.code).toBe("wrong_incarnation");
    expect(world.peers.incarnationOf(3)).toBe("folder-3");
  });

  test("names a member that has not joined yet: nobody speaks for it, unless he knows more", () => {
    const world = new World([1, 2]);
    world.append(
      5,
      members([1, 2], { learners: [3], addresses: { 1: "a:1", 2: "b:1", 3: "c:1" } }),
    );
    world.peers.refresh(1);
    expect(world.hello(3)?.message).toContain("has not joined yet");
    expect(world.hello(3, { configurationIndex: 5 })?.code).toBe("unknown_member");
    expect(world.hello(3, { configurationIndex: 6 })).toBeUndefined();
    expect(world.dialled[1]).toBe("a:1");
  });

  test("keeps who leaves until that is committed, and a while longer so that it hears of it", () => {
    const world = new World([1, 2, 3]);
    world.append(5, members([1, 2], { removed: [3] }), false);
    world.peers.refresh(1);
    expect(world.dialled[3]).toBe("host-3:1");
    expect(world.hello(3)).toBeUndefined();
    world.commit = 5;
    world.peers.refresh(10);
    expect(world.dialled[3]).toBe("host-3:1");
    expect(world.hello(3, {}, 11)).toBeUndefined();
    expect(world.peers.refresh(9 + graceMs)).toBe(false);
    expect(world.peers.refresh(10 + graceMs)).toBe(true);
    expect(world.dialled).toEqual({ 1: "host-1:1", 2: "host-2:1" });
    // Also with an index beyond ours: it was removed, whatever it has heard since.
    for (const configurationIndex of [1, 5, 99]) {
      expect(world.hello(3, { configurationIndex })?.code).toBe("member_removed");
    }
  });

  test("that is taken back takes its members with it", () => {
    const world = new World([1, 2]);
    world.append(5, members([1, 2, 3], { incarnations: { 3: "folder-3" } }), false);
    world.peers.refresh(1);
    world.log.pop();
    world.peers.refresh(2);
    world.peers.refresh(2 + graceMs);
    expect(world.dialled).toEqual({ 1: "host-1:1", 2: "host-2:1" });
    expect(world.hello(3)?.code).toBe("unknown_member");
  });
});

describe("contacts", () => {
  test("are dialled while the log names nobody, and then only whoever it names", () => {
    const world = new World([], true, { 2: "then-2:1", 3: "then-3:1" });
    expect(world.dialled).toEqual({ 2: "then-2:1", 3: "then-3:1" });
    // They may speak as soon as they bring a configuration.
    expect(world.hello(2, { configurationIndex: 4 })).toBeUndefined();
    expect(world.hello(2)?.code).toBe("unknown_member");
    expect(world.peers.meet(2, "folder-2")).toBeUndefined();
    world.append(4, members([2, 4], { incarnations: { 2: "folder-2" } }));
    world.peers.refresh(1);
    world.peers.refresh(1 + graceMs);
    expect(world.dialled).toEqual({ 2: "host-2:1", 4: "host-4:1" });
  });
});

describe("guests", () => {
  test("bring a newer configuration, and are judged by it once it is here", () => {
    const world = new World([1, 2]);
    expect(world.hello(7, { configurationIndex: 1 })?.message).toContain("start it with --join");
    world.isLost = false;
    expect(world.hello(7, { configurationIndex: 9 })?.code).toBe("unknown_member");
    world.isLost = true;
    expect(world.hello(7, { configurationIndex: 9 })).toBeUndefined();
    expect(world.dialled[7]).toBe("host-7:1");
    world.append(5, members([1, 2, 4]));
    world.peers.refresh(1);
    expect(world.dialled[7]).toBe("host-7:1");
    world.append(9, members([1, 2, 7], { removed: [4], incarnations: { 7: "folder-7" } }));
    world.peers.refresh(2);
    world.peers.refresh(2 + graceMs);
    expect(world.dialled).toEqual({ 1: "host-1:1", 2: "host-2:1", 7: "host-7:1" });
    expect(world.hello(7, { incarnation: "other", configurationIndex: 99 })?.code).toBe(
      "wrong_incarnation",
    );
  });

  test("that the newer configuration does not name are guests no more", () => {
    const world = new World([1, 2]);
    world.hello(7, { configurationIndex: 9 });
    world.append(9, members([1, 2, 3], { incarnations: { 3: "folder-3" } }));
    world.peers.refresh(1);
    world.peers.refresh(1 + graceMs);
    expect(Object.keys(world.dialled)).toEqual(["1", "2", "3"]);
  });

  test("are let in by a node that has joined and knows nobody; there is no room for many", () => {
    const world = new World([], true);
    expect(world.dialled).toEqual({});
    expect(world.hello(2, { configurationIndex: 4 })).toBeUndefined();
    expect(world.hello(3)?.code).toBe("unknown_member");
    for (let id = 10; id < 50; id++) world.hello(id, { configurationIndex: 4 });
    expect(Object.keys(world.dialled).length).toBe(16);
  });

  test("of a node that is still behind may be members whose folder it does not know yet", () => {
    const world = new World([], true);
    // The first configuration of the cluster, before any member was bound.
    world.append(1, members([2, 3, 4]));
    world.peers.refresh(0);
    expect(world.hello(2, { configurationIndex: 9 })).toBeUndefined();
    expect(world.hello(3, { configurationIndex: 1 })?.code).toBe("unknown_member");
  });
});

describe("other voters, for a log that is damaged later", () => {
  const others = (world: World): boolean | undefined => world.ledger.hasOtherVoters;

  test("are noted as soon as there are any, committed or not, and until there are none", () => {
    const world = new World([1]);
    expect(others(world)).toBe(false);
    world.append(5, members([1], { learners: [2], addresses: { 1: "a:1", 2: "b:1" } }));
    world.peers.refresh(0);
    expect(others(world)).toBe(false);
    world.append(6, members([1, 2], { outgoing: [1] }), false);
    world.peers.refresh(0);
    expect(others(world)).toBe(true);
    world.commit = 6;
    world.append(7, members([1]), false);
    world.peers.refresh(0);
    expect(others(world)).toBe(true);
    world.commit = 7;
    world.peers.refresh(0);
    expect(others(world)).toBe(false);
  });

  test("are there from the start where several formed the cluster, or this node joined one", () => {
    for (const world of [new World([1, 2, 3]), new World([1], true)]) {
      expect(hasOtherVoters(world.ledger, new Map())).toBe(true);
      expect(others(world)).toBeUndefined();
    }
  });
});

test("a member that gives another address than the known one is told of once, and let in", () => {
  const world = new World([1, 2, 3]);
  expect(world.hello(2)).toBeUndefined();
  expect(world.elsewhere).toEqual([]);
  for (let i = 0; i < 2; i++) expect(world.hello(2, { address: "new:1" })).toBeUndefined();
  expect(world.elsewhere).toEqual([[2, expect.stringContaining("barge member move 2=new:1")]]);
  // It is dialled where the members have it until they are told otherwise.
  expect(world.dialled[2]).toBe("host-2:1");
  world.append(5, members([1, 2, 3], { addresses: { 1: "host-1:1", 2: "new:1", 3: "host-3:1" } }));
  world.peers.refresh(0);
  expect(world.dialled[2]).toBe("new:1");
  expect(world.hello(2, { address: "new:1" })).toBeUndefined();
  expect(world.elsewhere).toHaveLength(1);
});
