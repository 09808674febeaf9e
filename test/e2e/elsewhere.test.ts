/** A node without a replica of a group leads whoever asks it over HTTP to one that has it. */
import { expect, test } from "bun:test";
import { type TestNode, until, withCluster } from "./cluster.ts";
import { createGroups } from "./groups.ts";

test(
  "the answer says where the group is asked, and there it is",
  () =>
    withCluster({ nodes: 4 }, async (cluster) => {
      const four = cluster.nodes[3] as TestNode;
      const [group] = await createGroups(cluster.nodes[0]!, { members: [1, 2, 3] });
      const put = (url: string): Promise<Response> =>
        fetch(url, { method: "PUT", body: "v", signal: AbortSignal.timeout(5_000) });
      const path = `/v1/kv/k?group=${group!.id}`;
      let asked: Response | undefined;
      await until("node 4 knows where the group is", async () => {
        asked = await put(`http://${four.http}${path}`);
        return asked.status === 421;
      });
      const location = asked!.headers.get("location")!;
      const members = cluster.nodes.slice(0, 3).map(({ http }) => `http://${http}${path}`);
      expect(members).toContain(location);
      expect(await asked!.json()).toMatchObject({
        error: { code: "group_elsewhere", leaderHttp: new URL(location).host },
      });
      await until("it is written there", async () => (await put(location)).ok);
    }),
  60_000,
);
