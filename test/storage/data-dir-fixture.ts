/** Child process of data-dir.test.ts: holds a data folder until it is killed. */

import { writeSync } from "node:fs";
import { openDataDir } from "../../src/storage/data-dir.ts";

openDataDir(process.argv[2] ?? "", { clusterId: "cluster", nodeId: 1 });
writeSync(1, "open");
setInterval(() => {}, 1_000);
