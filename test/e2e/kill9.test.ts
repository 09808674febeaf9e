/**
 * `kill -9` at random moments under load: nothing that was acknowledged is lost, nothing that was reported as not applied appears, and
 * nobody has to help. `BARGE_E2E_SEED` repeats the choices; the longer run is soak-kill9.ts.
 */
import { test } from "bun:test";
import { Random } from "../sim/random.ts";
import { withCluster } from "./cluster.ts";
import { killRound } from "./kill-round.ts";
import { Workload } from "./workload.ts";

const rounds = 20;
const seed = Number(process.env["BARGE_E2E_SEED"] ?? Date.now() % 1_000_000);

test(`${rounds} kills under load lose nothing (BARGE_E2E_SEED=${seed})`, async () => {
  const random = new Random(seed);
  const done: string[] = [];
  try {
    await withCluster({}, async (cluster) => {
      await using workload = new Workload(cluster);
      for (let round = 1; round <= rounds; round++) {
        const { what, servingMs } = await killRound(cluster, workload, random);
        done.push(`${round}: ${what}, all served again after ${servingMs} ms`);
      }
      await workload.verify("all");
    });
  } catch (error) {
    throw new Error(`seed ${seed}, after these rounds:\n${done.join("\n")}`, { cause: error });
  }
}, 120_000);
