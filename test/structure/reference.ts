/**
 * The reference of the outside, rendered from the tables that the code runs on: `bun test/structure/reference.ts` writes it, a test keeps it fresh.
 */
import { join } from "node:path";
import { exitStatus } from "../../src/cli/exit-status.ts";
import { optionsMarkdown } from "../../src/config.ts";
import { errorTable } from "../../src/errors.ts";
import { fatalTable } from "../../src/fatal.ts";
import { Metrics, metricsMarkdown } from "../../src/telemetry/metrics.ts";

export const referencePath: string = join(import.meta.dir, "..", "..", "src", "README.md");

const appliedText = { applied: "yes", "not-applied": "no", unknown: "unknown" } as const;

export async function renderReference(): Promise<string> {
  return `# Reference

Generated from the tables in the code by \`bun run docs\`; do not edit. What each room is for stands at the head of its files.

## Options of a node

Precedence: flag, environment, file (\`--config\`, TOML, keys are the flags without dashes), default. Anything unknown or invalid ends the
start with status 2 and touches nothing.

${optionsMarkdown()}

## Errors

Every error of the binary protocol, the SDK (\`error.code\`), HTTP (\`error.code\` of the answer, with this status) and the CLI has one of these
codes, and says whether the write was applied: in \`error.outcome\`, which is \`applied\`, \`not-applied\`, or \`unknown\` when nobody can tell. It is the one
below, but where more is known: a read that ran out of time was not applied.

| code | number | HTTP | what it means | what to do | applied? | retry helps |
| --- | --- | --- | --- | --- | --- | --- |
${Object.entries(errorTable)
  .map(
    ([code, { number, httpStatus, outcome, retryable, means, todo }]) =>
      `| \`${code}\` | ${number} | ${httpStatus} | ${means} | ${todo} | ${appliedText[outcome]} | ${retryable ? "yes" : "no"} |`,
  )
  .join("\n")}

## Exit statuses

Of the client commands: ${Object.entries(exitStatus)
    .map(([name, status]) => `${status} ${name}`)
    .join(
      ", ",
    )}. Of a daemon, and of the commands on a data folder (\`verify\`, \`restore\`, \`recover\`) where they say why:

| status | reason | what it means, what to do |
| --- | --- | --- |
| 0 | | Stopped by SIGTERM or SIGINT. |
| 2 | usage | A wrong or unknown option; the message names it. Nothing was touched. |
${Object.entries(fatalTable)
  .map(([reason, { status, help }]) => `| ${status} | \`${reason}\` | ${help} |`)
  .join("\n")}

## Metrics

At \`/metrics\`, in the text format of Prometheus.

${await metricsMarkdown(new Metrics())}
`;
}

if (import.meta.main) await Bun.write(referencePath, await renderReference());
