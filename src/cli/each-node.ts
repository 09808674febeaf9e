/** Commands that are for nodes rather than for their cluster: those of `--endpoints`, or all members. */
import type { Client } from "../client/index.ts";
import { type ClientFlags, withClient } from "./client-options.ts";

export interface EachNodeFlags extends ClientFlags {
  readonly all?: boolean;
}

interface Target {
  readonly name: string;
  readonly endpoint: string;
}

/** One after the other; of all members, one that does not answer keeps nobody from the others. */
export async function eachNode(
  flags: EachNodeFlags,
  use: (client: Client, endpoint: string) => Promise<void>,
): Promise<void> {
  await withClient(flags, async (client, answered) => {
    let failed = 0;
    const targets = await targetsOf(client, flags);
    for (const { name, endpoint } of targets) {
      try {
        await use(client, endpoint);
      } catch (error) {
        if (flags.all !== true) throw error;
        failed++;
        const words = error instanceof Error ? error.message : String(error);
        process.stderr.write(`barge: ${name} at ${endpoint}: ${words}\n`);
      }
      answered();
    }
    if (failed > 0) throw new Error(`${failed} of ${targets.length} members did not do it`);
  });
}

async function targetsOf(client: Client, { all, endpoints }: EachNodeFlags): Promise<Target[]> {
  if (all !== true) {
    return endpoints.split(",").map((endpoint) => ({ name: "node", endpoint: endpoint.trim() }));
  }
  const { members } = await client.members();
  return members.map(({ id, address }) => ({ name: `node ${id}`, endpoint: address }));
}
