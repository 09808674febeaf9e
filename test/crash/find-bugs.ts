/** Which planted bugs crash images find, and how soon: `bun test/crash/find-bugs.ts [NAME…]`. */
import { crashImages } from "./images.ts";
import { BuggyTree, storageBugs, type StorageBugName } from "./storage-bugs.ts";

const asked = process.argv.slice(2) as StorageBugName[];
let survivors = 0;
for (const name of asked.length > 0 ? asked : (Object.keys(storageBugs) as StorageBugName[])) {
  using tree = new BuggyTree(storageBugs[name]);
  const beganMs = performance.now();
  let found = "";
  let seed = 1;
  for (; seed <= 4 && found === ""; seed++) {
    try {
      const report = await crashImages({
        seed,
        images: 300,
        rotEach: 12,
        source: tree.path,
        first: true,
      });
      found = report.findings[0] ?? "";
    } catch (error) {
      found = String(error);
    }
  }
  if (found === "") survivors++;
  const seconds = ((performance.now() - beganMs) / 1_000).toFixed(1);
  console.log(
    `${name}: ${found === "" ? "SURVIVES" : `seed ${seed - 1}`} in ${seconds} s: ${found.slice(0, 250)}`,
  );
}
process.exit(survivors === 0 ? 0 : 1);
