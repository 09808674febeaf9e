/** Child process of file-syncer.test.ts: `file-syncer-fixture.ts HOW FILE…` */

import { openSync, writeSync } from "node:fs";
import { FileSyncer } from "../../src/storage/file-syncer.ts";
import { isLatched } from "../../src/storage/sync-latch.ts";

const [how = "", ...paths] = process.argv.slice(2);
const descriptors = paths.map((path) => openSync(path, "r"));
const say = (text: string): void => void writeSync(1, text);

const syncer = new FileSyncer();
switch (how) {
  case "idle":
    break;
  case "sync":
    syncer.sync(descriptors, () => say("done"));
    break;
  case "exit":
    syncer.sync(descriptors, () => say("done"));
    process.exit(5);
  case "bad-descriptor":
    syncer.sync([987_654], () => say("done"));
    break;
  case "second-syncer": {
    const second = new FileSyncer();
    syncer.sync(descriptors, () => say("done"));
    // The loop does not hear of the failure before the other Worker is asked.
    while (!isLatched());
    second.sync(descriptors, () => say("done"));
    break;
  }
  default:
    throw new Error(`unknown: ${how}`);
}
