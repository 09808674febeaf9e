/** `barge member`: what it prints, what it asks for, and its exit statuses. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { until, withCluster } from "../e2e/cluster.ts";
import { barge } from "./program.ts";

setDefaultTimeout(60_000);

function rowsOf(text: string): string[][] {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => line.trim().split(/ {2,}/));
}

test("members are listed, added, promoted, demoted, replaced and removed", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const member = (...args: string[]) =>
      barge(["member", ...args, "--endpoints", cluster.endpoints]);
    const [first] = cluster.nodes;
    const list = await member("list");
    expect({ status: list.status, err: list.err }).toEqual({ status: 0, err: "" });
    expect(rowsOf(list.out)).toEqual([
      ["id", "address", "role", "match", "lag", "state"],
      ["1", first!.binary, "leader", expect.stringMatching(/^[0-9]+$/), "0", "connected"],
    ]);

    const second = cluster.join();
    const added = await member("add", `2=${second.binary}`);
    expect(added.status).toBe(0);
    expect(rowsOf(added.out)[2]!.slice(0, 3)).toEqual(["2", second.binary, "learner, to be voter"]);
    expect(added.out).toContain(
      "start node 2 with an empty folder: barge serve --node-id 2 --join",
    );
    second.start();
    const waited = await member("promote", "2", "--wait", "--timeout", "20s");
    expect(rowsOf(waited.out)[2]!.slice(0, 3)).toEqual(["2", second.binary, "voter"]);

    const learner = await member("add", "3=127.0.0.1:1", "--learner", "--json");
    expect(JSON.parse(learner.out)).toMatchObject({
      changed: true,
      members: [{ id: 1 }, { id: 2 }, { id: 3, role: "learner", bound: false }],
    });
    const demoted = await member("demote", "2", "--json");
    expect(JSON.parse(demoted.out)).toMatchObject({
      members: [{}, { id: 2, role: "learner" }, {}],
    });
    expect((await member("remove", "3")).status).toBe(0);
    expect((await member("remove", "3")).status).toBe(0);

    const third = cluster.join(["--learner"]);
    const swapped = await member("replace", "2", "--by", `4=${third.binary}`, "--json");
    expect(JSON.parse(swapped.out)).toMatchObject({ removed: [2, 3] });
  }));

test("what makes no sense is refused with words and a status", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const cases: [string[], number, string][] = [
      [["remove", "9"], 1, "unknown_member: Node 9 is not a member"],
      [["add", "2=127.0.0.1:1", "3=127.0.0.1:1"], 1, "member_exists: 127.0.0.1:1 is the address"],
      [["remove", "1"], 2, "bad_request: The last voter stays."],
      [["add", "two"], 2, "It must be ID=HOST:PORT"],
      [["promote", "0"], 2, "It must be a whole number"],
      [["replace", "1"], 2, "required option '--by <member>'"],
      [["list", "--endpoints", "127.0.0.1:1", "--timeout", "200ms"], 3, "unreachable"],
    ];
    for (const [args, status, words] of cases) {
      const given = args.includes("--endpoints") ? [] : ["--endpoints", cluster.endpoints];
      const ran = await barge(["member", ...args, ...given]);
      expect([args, ran.status]).toEqual([args, status]);
      expect(ran.err).toContain(words);
    }
  }));

test("who is somebody else is not added, unless forced; that nobody answers yet is told", () =>
  withCluster({ nodes: 1 }, (cluster) =>
    withCluster({ nodes: 1 }, async (other) => {
      const member = (...args: string[]) =>
        barge(["member", ...args, "--endpoints", cluster.endpoints]);
      const [stranger] = other.nodes;
      const wish = `2=${stranger!.binary}`;
      const refused = await member("add", wish);
      expect([refused.status, refused.out]).toEqual([1, ""]);
      expect(refused.err).toContain("unauthorised: ");
      expect(refused.err).toContain("node 1 of another cluster answers");
      const web = await member("add", `2=${stranger!.http}`);
      expect(web.err).toContain("no node of Barge");
      const forced = await member("add", wish, "--force", "--json");
      expect(JSON.parse(forced.out)).toMatchObject({ changed: true, members: [{}, { id: 2 }] });
      const silent = await member("add", "3=127.0.0.1:1");
      expect(silent.status).toBe(0);
      expect(silent.err).toContain("nobody answers for node 3 at 127.0.0.1:1 yet");
    }),
  ));

test("of a voter that comes for another one the list says whom, and that `system` has to do without that one first", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const [only] = cluster.nodes;
    await using client = connect({ endpoints: only!.binary, timeoutMs: 10_000 });
    await until("there is a registry", async () => (await client.listGroups()).length === 0);
    // Nobody is there yet, so `system` keeps the vote that it has.
    await client.changeMembers([{ op: "replace", id: 1, by: 2, address: "127.0.0.1:1" }]);
    const { members } = await client.members();
    expect(members[1]).toMatchObject({ promotion: true, replaces: 1, promotionWaitsFor: "system" });
    const { out } = await barge(["member", "list", "--endpoints", only!.binary]);
    expect(rowsOf(out)[2]![2]).toBe("learner, to be voter for 1");
    expect(out).toContain("node 2 takes the place of node 1 once the group system");
  }));

test("the list has the same fields over HTTP, in the SDK and on the command line", () =>
  withCluster({ nodes: 1 }, async (cluster) => {
    const [only] = cluster.nodes;
    await using client = connect({ endpoints: only!.binary, timeoutMs: 10_000 });
    await client.changeMembers([{ op: "add", id: 2, address: "127.0.0.1:1" }]);
    const commit = expect.any(Number);
    const golden = {
      group: 0,
      term: commit,
      leader: 1,
      commitIndex: commit,
      configurationIndex: commit,
      joint: false,
      members: [
        {
          id: 1,
          address: only!.binary,
          role: "voter",
          leader: true,
          connected: true,
          matchIndex: commit,
          bound: true,
        },
        {
          id: 2,
          address: "127.0.0.1:1",
          role: "learner",
          promotion: true,
          leader: false,
          connected: false,
          matchIndex: 0,
          bound: false,
        },
      ],
      removed: [],
    };
    const web: unknown = await (await only!.fetch("/v1/members")).json();
    const typed = await barge(["member", "list", "--json", "--endpoints", only!.binary]);
    for (const list of [web, JSON.parse(typed.out), await client.members()]) {
      expect(list).toStrictEqual(golden);
    }
  }));
