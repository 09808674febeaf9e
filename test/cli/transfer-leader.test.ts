/** `barge transfer-leader`, the same over HTTP and in the SDK, and what `barge status` says of it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "../../src/client/index.ts";
import { withCluster } from "../e2e/cluster.ts";
import { barge } from "./program.ts";

setDefaultTimeout(60_000);

test("by hand, through any node, to a node or to whoever fits; repeated it changes nothing", () =>
  withCluster({}, async (cluster) => {
    const first = await cluster.leader();
    const [second, third] = cluster.nodes.filter((node) => node !== first);
    const asked = ["--endpoints", third!.binary];

    const to = await barge(["transfer-leader", "--to", String(second!.id), ...asked]);
    expect([to.status, to.err, to.out]).toEqual([0, "", `node ${second!.id} leads now\n`]);
    expect((await cluster.leader()).id).toBe(second!.id);
    const status = await barge(["status", ...asked]);
    expect(status.out).toMatch(
      new RegExp(
        `node ${first.id} handed leadership over to node ${second!.id} \\d+ s ago: asked by hand`,
      ),
    );

    const again = await barge(["transfer-leader", "--to", String(second!.id), "--json", ...asked]);
    expect(JSON.parse(again.out)).toEqual({ group: 0, leader: second!.id, changed: false });

    const any = await barge(["transfer-leader", "--json", ...asked]);
    const { leader, changed } = JSON.parse(any.out) as Record<string, unknown>;
    expect(changed).toBe(true);
    expect(leader).not.toBe(second!.id);
    expect((await cluster.leader()).id).toBe(Number(leader));

    await using client = connect({ endpoints: cluster.endpoints });
    expect(await client.transferLeader(first.id)).toMatchObject({ leader: first.id });
    const { term } = await first.group();
    expect(await client.transferLeader(first.id)).toMatchObject({ changed: false });
    expect((await first.group()).term).toBe(term);
  }));

test("who could not lead is refused in words, and the leader goes on", () =>
  withCluster({}, async (cluster) => {
    const leader = await cluster.leader();
    const [one, down] = await cluster.followers();
    const { term } = await leader.group();
    const asked = ["--endpoints", one!.binary];
    const unknown = await barge(["transfer-leader", "--to", "9", ...asked]);
    expect(unknown.status).toBe(1);
    expect(unknown.err).toBe(
      "barge: unknown_member: Node 9 is not a member; barge status lists the members. Nothing was changed.\n",
    );
    const usage = await barge(["transfer-leader", "--to", "two", ...asked]);
    expect(usage.status).toBe(2);

    const post = (body: string): Promise<Response> =>
      one!.fetch("/v1/transfer-leader", { method: "POST", body });
    const refused = await post('{"to":9}');
    expect(refused.status).toBe(404);
    expect(await refused.json()).toMatchObject({
      error: { code: "unknown_member", outcome: "not-applied", retryable: false },
    });
    expect((await post('{"to":"1"}')).status).toBe(400);
    expect((await post("[]")).status).toBe(400);
    expect((await one!.fetch("/v1/transfer-leader", {})).status).toBe(405);

    await down!.kill();
    const absent = await barge(["transfer-leader", "--to", String(down!.id), ...asked]);
    expect(absent.err).toMatch(
      /not_transferred: Node \d (does not answer; start it|did not take over in time)/,
    );
    expect(absent.status).toBe(1);
    expect(await leader.group()).toMatchObject({ role: "leader", term });
    // And the one that is left takes over.
    const moved = await post("{}");
    expect(await moved.json()).toEqual({ group: 0, leader: one!.id, changed: true });
  }));
