/** What people are told of work that takes long. */
import { expect, test } from "bun:test";
import { catchUpNote, notesOn } from "../../src/cli/status-notes.ts";
import type { MemberEntry, NodeStatus } from "../../src/client/index.ts";

const size = (bytes: number): string => `${bytes} bytes`;

test("of a member that is waited for: what keeps it, and how far it has come", () => {
  const member: MemberEntry = {
    id: 4,
    address: "a:1",
    role: "learner",
    promotion: true,
    leader: false,
    connected: true,
    matchIndex: 7,
    bound: true,
  };
  const note = (more: Partial<MemberEntry>): string => catchUpNote({ ...member, ...more }, 9, size);
  expect(note({})).toBe("node 4 catches up: 7 of 9");
  expect(note({ connected: false })).toBe("node 4 is not connected");
  expect(note({ bound: false })).toContain("start it with --node-id 4 --join");
  expect(note({ snapshot: { sentBytes: 0, bytes: 0 } })).toBe("node 4 is about to get a snapshot");
  expect(note({ snapshot: { sentBytes: 41, bytes: 100 } })).toBe(
    "node 4 gets a snapshot: 41 % of 100 bytes",
  );
  const kept = { replaces: 3, promotionWaitsFor: "system" } as const;
  expect(note(kept)).toBe("node 4 catches up: 7 of 9");
  expect(note({ ...kept, matchIndex: 9 })).toContain(
    "node 4 takes the place of node 3 once the group system",
  );
  expect(note({ ...kept, promotionWaitsFor: "groups", matchIndex: 9 })).toContain(
    "node 4 takes the place of node 3 once no group would be lost",
  );
  expect(note({ ...kept, matchIndex: 9, connected: false })).toBe("node 4 is not connected");
});

test("of snapshots on their way, and of one that is being prepared", () => {
  const sending = [
    { to: 4, index: 0, sentBytes: 0, bytes: 0 },
    { to: 5, index: 80, sentBytes: 50, bytes: 200 },
  ];
  const receiving = { from: 3, index: 80, receivedBytes: 10, bytes: 100 };
  const group = { snapshots: { sending, receiving } } as unknown as NodeStatus["groups"][number];
  expect(notesOn(1, group, size)).toEqual([
    "node 1 prepares a snapshot for node 4",
    "node 1 sends a snapshot as of 80 to node 5: 25 % of 200 bytes",
    "node 1 receives a snapshot as of 80 from node 3: 10 % of 100 bytes",
  ]);
});

test("of members that nobody can dial: on the leader alone, how they are reached", () => {
  const members = [
    { id: 1, address: "a:1", voter: true, connected: true },
    { id: 2, address: "b:1", voter: true, connected: true, dialsIn: true },
  ];
  const notes = (role: string): readonly string[] =>
    notesOn(1, { role, members } as unknown as NodeStatus["groups"][number], size);
  expect(notes("leader")).toEqual([
    "node 2 is reached over its own connection: nobody answers for it at b:1",
  ]);
  expect(notes("follower")).toEqual([]);
});
