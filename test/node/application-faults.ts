/**
 * Three nodes over applications, with writers, while applications crash and forget what was not synced, hang and fail, and nodes start anew: in the end all applications
 * have the same, each acknowledged write is in there once, with the result that was told, and none that was told to be not applied.
 *
 *     bun test/node/application-faults.ts [--seconds 60] [--seed 1]
 */
import { parseArgs } from "node:util";
import { Random } from "../sim/random.ts";
import { AppCluster } from "./app-cluster.ts";

interface Written {
  readonly command: string;
  readonly state: "applied" | "not-applied" | "unknown";
  readonly result: string;
}

const writers = 6;

export async function applicationFaults(seconds: number, seed: number): Promise<string> {
  const random = new Random(seed);
  const sync = random.chance(0.5);
  await using cluster = await AppCluster.of(3, sync);
  const untilMs = performance.now() + seconds * 1_000;
  const isOver = (): boolean => performance.now() >= untilMs;
  const written: Written[] = [];
  const writing = Array.from({ length: writers }, async (_, writer) => {
    for (let number = 0; !isOver(); number++) {
      const command = `w${writer}-${number}`;
      written.push({ command, ...(await write(cluster, random.below(3), command)) });
    }
  });
  const faults: Record<string, number> = {};
  while (!isOver()) {
    const at = random.below(3);
    const fault = random.pick(["crash", "crash", "hang", "fail", "restart", "quiet"] as const);
    faults[fault] = (faults[fault] ?? 0) + 1;
    await meet(cluster, at, fault, random);
  }
  await Promise.all(writing);
  await cluster.until("all are ready", async () => {
    const ready = await Promise.all([0, 1, 2].map((at) => cluster.isReady(at)));
    return ready.every(Boolean);
  });
  await cluster.until("a last write is applied", async () => {
    return (await write(cluster, 0, `last-${random.u32()}`)).state === "applied";
  });
  await cluster.agreed();
  check(cluster, written);
  const count = (state: Written["state"]): number =>
    written.filter((one) => one.state === state).length;
  const told = `${count("applied")} applied, ${count("unknown")} unknown, ${count("not-applied")} not applied`;
  const restores = cluster.apps.reduce((sum, app) => sum + app.count("RecoverFromSnapshot"), 0);
  return `seed ${seed}, ${sync ? "with" : "without"} Sync: ${told}; ${JSON.stringify(faults)}; ${restores} restores`;
}

async function write(
  cluster: AppCluster,
  at: number,
  command: string,
): Promise<Pick<Written, "state" | "result">> {
  try {
    const url = `${cluster.url(at)}/raft/update?timeoutMs=2000`;
    const response = await fetch(url, { method: "POST", body: command });
    const result = await response.text();
    if (response.ok) return { state: "applied", result };
    const { error } = JSON.parse(result) as { error: { outcome: Written["state"] } };
    return { state: error.outcome, result: "" };
  } catch {
    return { state: "unknown", result: "" };
  }
}

async function meet(
  cluster: AppCluster,
  at: number,
  fault: "crash" | "hang" | "fail" | "restart" | "quiet",
  random: Random,
): Promise<void> {
  const app = cluster.apps[at]!;
  const forMs = random.between(50, 1_500);
  switch (fault) {
    case "crash":
      app.crash(random.below(5));
      await Bun.sleep(forMs);
      app.start();
      return;
    case "hang": {
      const hung = Promise.withResolvers<void>();
      app.wait = () => hung.promise;
      await Bun.sleep(forMs);
      app.wait = async () => {};
      hung.resolve();
      return;
    }
    case "fail":
      app.fails = true;
      await Bun.sleep(forMs);
      app.fails = false;
      return;
    case "restart":
      await cluster.restart(at);
      return;
    case "quiet":
      await Bun.sleep(forMs);
  }
}

function check(cluster: AppCluster, written: readonly Written[]): void {
  const times = new Map<string, number>();
  for (const { command } of cluster.apps[0]!.entries) {
    times.set(command, (times.get(command) ?? 0) + 1);
  }
  for (const { command, state, result } of written) {
    const count = times.get(command) ?? 0;
    const isRight =
      state === "applied" ? count === 1 : state === "not-applied" ? count === 0 : count <= 1;
    if (!isRight)
      throw new Error(`${command} was told to be ${state}, and is there ${count} times`);
    if (result !== "" && result !== `did ${command}`) {
      throw new Error(`${command} was told "${result}"`);
    }
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      seed: { type: "string", default: "1" },
    },
  });
  console.log(await applicationFaults(Number(values.seconds), Number(values.seed)));
}
