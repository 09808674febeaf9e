/** Child process of sqlite.test.ts: writes to a database, then ends in the way that its second argument says. */

import { writeSync } from "node:fs";
import { FileSyncer } from "../../src/storage/file-syncer.ts";
import { openDatabase } from "../../src/storage/sqlite.ts";

const [path = "", ending = ""] = process.argv.slice(2);

const database = openDatabase(path, {
  cacheKiB: 256,
  schema: "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, value TEXT)",
});
const insert = database.prepare<unknown, [string]>("INSERT INTO rows (value) VALUES (?1)");
const select = database.prepareRead<{ value: string }, []>("SELECT value FROM rows");
for (let i = 0; i < 50; i++) {
  database.begin();
  insert.run(`value ${i}`);
  database.commit();
}
process.stdout.write(`${select.all().length}`);

const syncer = new FileSyncer();

function mark(name: string): void {
  writeSync(2, `mark ${name}\n`);
}

switch (ending) {
  case "leave":
    mark("ending");
    database.leave();
    break;
  case "return":
    mark("ending");
    break;
  case "exit":
    mark("ending");
    process.exit(3);
  case "throw":
    mark("ending");
    throw new Error("uncaught");
  case "exit-in-transaction":
    database.begin();
    insert.run("never committed");
    mark("ending");
    process.exit(3);
  case "sync":
    mark("ending");
    syncer.sync([database.walDescriptor], () => {
      process.stdout.write(" synced");
      // What a node would do next; after a failed sync none of it may reach the disk.
      insert.run("after");
      syncer.sync([database.walDescriptor], () => process.exit(0));
    });
    break;
  default:
    throw new Error(`unknown ending ${ending}`);
}
