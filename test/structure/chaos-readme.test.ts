/** test/chaos/README.md is that of the faults that there are. */
import { expect, test } from "bun:test";
import { readmePath, renderReadme } from "../chaos/readme.ts";

test("test/chaos/README.md is fresh: bun test/chaos/readme.ts writes it", async () => {
  const words = (text: string): string => text.replaceAll(/[\s|-]+/g, " ");
  expect(words(await Bun.file(readmePath).text())).toBe(words(renderReadme()));
});
