/** Documents that come from code are those of this code. */
import { expect, test } from "bun:test";
import packageJson from "../../package.json" with { type: "json" };
import { version } from "../../src/version.ts";
import { referencePath, renderReference } from "./reference.ts";

/** The formatter pads tables; only the words count. */
const words = (text: string): string => text.replace(/ +/g, " ").replace(/-{3,}/g, "---");

test("src/README.md is what `bun run docs` writes", async () => {
  expect(words(await Bun.file(referencePath).text())).toBe(words(await renderReference()));
});

test("the version in the code is that of the package", () => {
  expect(version).toBe(packageJson.version);
});
