/** Flags of the longer runs that are scripts and not tests: `--name N`, numbers only. */
import { parseArgs } from "node:util";

export function numberFlags<Names extends string>(
  defaults: Record<Names, number>,
): Record<Names, number> {
  const names = Object.keys(defaults) as Names[];
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" as const }]));
  const { values } = parseArgs({ args: process.argv.slice(2), options });
  const flags = { ...defaults };
  for (const name of names) {
    const text = (values as Partial<Record<Names, string>>)[name];
    if (text === undefined) continue;
    const value = Number(text);
    if (!(value >= 0)) throw new Error(`--${name} must be a number, not ${text}`);
    flags[name] = value;
  }
  return flags;
}
