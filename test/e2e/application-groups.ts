/**
 * How much one blocked application path costs the others: `bun test/e2e/application-groups.ts [--groups 50] [--seconds 10] [--clients 8]`. Prints latencies of
 * writes to the others undisturbed, while one path hangs, and while it refuses.
 */
import { ManyApplications, type Mode } from "./application-groups-round.ts";
import { numberFlags } from "./script-flags.ts";

const { groups, seconds, clients } = numberFlags({ groups: 50, seconds: 10, clients: 8 });
const blocked = 1;

await using many = await new ManyApplications(groups).start();
const others = many.groups.filter((group) => group !== blocked);
const millis = (seconds * 1_000) / 4;
await many.load(others, 1_000, clients);

for (const mode of ["well", "hang", "refuse", "well"] satisfies Mode[]) {
  await many.mode(blocked, mode);
  const [node] = many.cluster.nodes;
  const waiting = mode === "well" ? undefined : many.write(node!, blocked);
  const { writes, p50, p99 } = await many.load(others, millis, clients);
  const perSecond = Math.round((writes * 1_000) / millis);
  console.log(
    `${mode.padEnd(6)} ${others.length} other groups: ${perSecond} writes and reads/s, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`,
  );
  await many.mode(blocked, "well");
  await waiting;
}
