/** `barge snapshot`: on the node that is asked, or on all members, also where one of them is down. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { exitStatus } from "../../src/cli/exit-status.ts";
import { withCluster } from "../e2e/cluster.ts";
import { barge } from "./program.ts";

setDefaultTimeout(60_000);

const documentsOf = (text: string): Record<string, unknown>[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

test("the members cut their logs, and are told when to, all with one command", () =>
  withCluster({}, async (cluster) => {
    const [first, second, third] = cluster.nodes;
    const snapshot = (...args: string[]) =>
      barge(["snapshot", ...args, "--endpoints", first!.binary, "--timeout", "2s"]);
    const one = await snapshot("--json");
    expect(documentsOf(one.out)).toMatchObject([{ endpoint: first!.binary, node: 1 }]);

    const all = await snapshot("--all", "--json");
    expect(documentsOf(all.out)).toMatchObject(
      cluster.nodes.map(({ id, binary }) => ({ endpoint: binary, node: id })),
    );
    const changed = await snapshot(
      "--all",
      "--entries",
      "7",
      "--bytes",
      "8192",
      "--tail-bytes",
      "0",
    );
    expect(changed).toMatchObject({ status: 0, err: "" });
    const text = "cuts its log after 7 commands or at 8.0 KiB, and keeps 0 B of its end";
    expect(changed.out.trimEnd().split("\n")).toEqual([1, 2, 3].map((id) => `node ${id} ${text}`));

    await third!.kill();
    await cluster.leader([first!, second!]);
    const shown = await snapshot("--all", "--show", "--json");
    expect(documentsOf(shown.out)).toMatchObject([
      { node: 1, entries: 7, bytes: 8_192, tailBytes: 0 },
      { node: 2, entries: 7, bytes: 8_192, tailBytes: 0 },
    ]);
    expect(shown.status).toBe(exitStatus.unreachable);
    expect(shown.err).toContain(`barge: node 3 at ${third!.binary}: `);
    expect(shown.err).toContain("1 of 3 members did not do it");
  }));
