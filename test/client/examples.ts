/** The examples of src/client/README.md, to be run as they stand there. */
import { join } from "node:path";

export const readmePath: string = join(import.meta.dir, "../../src/client/README.md");

/** What each prints, by its name. */
export const printed: Readonly<Record<string, string>> = {
  first: "hello true",
  counter: "100",
  errors: "unreachable not-applied true",
  lock: "mine true",
  txn: "true 2",
  scan: "a b c",
  watch: "2",
  batch: "20000",
  groups: "4 bob",
  backup: "true",
  abort: "true",
};

export async function readExamples(): Promise<Map<string, string>> {
  const text = await Bun.file(readmePath).text();
  const examples = new Map<string, string>();
  for (const match of text.matchAll(/<!-- example: (\w+) -->\s+```js\n([\s\S]*?)```/g)) {
    examples.set(match[1]!, match[2]!);
  }
  return examples;
}
