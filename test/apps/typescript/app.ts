/**
 * A replicated store of registers in TypeScript, with no more than a web server and SQLite: `PORT=8080 DATA_DIR=./data bun app.ts`, and beside it
 * `barge serve --app-url http://127.0.0.1:8080`. Commands: `set KEY VALUE`, `append KEY VALUE`, `cas KEY OLD NEW`. Query: `get KEY`.
 */
import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";

const { PORT = "8080", DATA_DIR = "./data" } = process.env;
mkdirSync(DATA_DIR, { recursive: true });

function open(): Database {
  const opened = new Database(`${DATA_DIR}/app.sqlite`);
  opened.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  return opened;
}

const db = open();
db.run("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID");
db.run("CREATE TABLE IF NOT EXISTS applied (one INTEGER PRIMARY KEY, idx INTEGER NOT NULL)");
db.run("INSERT OR IGNORE INTO applied VALUES (1, 0)");
/** Reads go beside updates, and see whole ones alone. */
const reader = open();

type Row = { key: string; value: string };
type Entry = { Index: number; Cmd: string };

function lastIndex(from: Database): number {
  return from.query<{ idx: number }, []>("SELECT idx FROM applied").get()!.idx;
}

function get(from: Database, key: string): string {
  return from.query<Row, [string]>("SELECT * FROM items WHERE key = ?").get(key)?.value ?? "";
}

function put(key: string, value: string): void {
  db.query("INSERT OR REPLACE INTO items VALUES (?, ?)").run(key, value);
}

/** Total: what makes no sense gives a result, as it is in the log of all nodes. */
function apply(command: string): string {
  const [op, key = "", value = "", next = ""] = command.split(" ");
  const found = get(db, key);
  if (op === "cas" && found !== value) return `no ${found}`;
  if (op === "cas") put(key, next);
  else if (op === "set") put(key, value);
  else if (op === "append") put(key, `${found}${value},`);
  else return "error: unknown command";
  return op === "append" ? get(db, key) : "ok";
}

/** The index goes with the data, in one transaction. */
const update = db.transaction((entries: readonly Entry[]) => {
  let index = lastIndex(db);
  const results = entries.map(({ Index, Cmd }) => {
    if (Index <= index) return {};
    index = Index;
    return { Result: btoa(apply(Buffer.from(Cmd, "base64").toString("latin1"))) };
  });
  db.query("UPDATE applied SET idx = ?").run(index);
  return results;
});

/** Open handles: a read transaction each, which keeps its moment. */
const handles = new Map<number, Database>();
let lastHandle = Date.now();

function prepare(): { Handle: number } {
  const own = open();
  own.run("BEGIN");
  // The moment is fixed by the first read.
  lastIndex(own);
  handles.set(++lastHandle, own);
  return { Handle: lastHandle };
}

function release(handle: number): void {
  handles.get(handle)?.close();
  handles.delete(handle);
}

/** A line with the index, then one for each row. */
async function* save(own: Database): AsyncGenerator<string> {
  yield `${lastIndex(own)}\n`;
  const rows = own.query<Row, []>("SELECT * FROM items ORDER BY key");
  for (const row of rows.iterate()) yield `${JSON.stringify(row)}\n`;
}

async function recover(body: AsyncIterable<Uint8Array>): Promise<void> {
  db.run("BEGIN IMMEDIATE");
  try {
    db.run("DELETE FROM items");
    let [rest, count, decoder] = ["", 0, new TextDecoder()];
    for await (const chunk of body) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const row = JSON.parse(line) as number | Row;
        if (typeof row === "number") db.query("UPDATE applied SET idx = ?").run(row);
        else put(row.key, row.value);
        count++;
      }
    }
    if (count === 0 || rest !== "") throw new Error("the snapshot is not whole");
    db.run("COMMIT");
  } catch (error) {
    db.run("ROLLBACK");
    throw error;
  }
}

async function answer(request: Request): Promise<Response> {
  const handle = async () => ((await request.json()) as ReturnType<typeof prepare>).Handle;
  switch (new URL(request.url).pathname.slice(1)) {
    case "Ready":
    case "Sync":
      return new Response("ok");
    case "LastLogIndex":
      return Response.json({ LastLogIndex: lastIndex(db) });
    case "UpdateEntries": {
      // Something between was lost, or this is not the application that the daemon takes it for.
      const previous = Number(request.headers.get("barge-previous-index"));
      if (previous !== lastIndex(db)) return new Response("there is a gap", { status: 409 });
      const { Entries } = (await request.json()) as { Entries: Entry[] };
      return Response.json({ Results: update(Entries) });
    }
    case "Read":
      return new Response(get(reader, (await request.text()).split(" ")[1] ?? ""));
    case "PrepareSnapshot":
      return Response.json(prepare());
    case "SaveSnapshot": {
      const own = handles.get(await handle());
      return own ? new Response(save(own)) : new Response("gone", { status: 404 });
    }
    case "ReleaseSnapshot":
      release(await handle());
      return new Response("released");
    case "RecoverFromSnapshot":
      await recover(request.body ?? new ReadableStream());
      return new Response("recovered");
    default:
      return new Response("no such callback", { status: 404 });
  }
}

// A snapshot is as long as the state, and takes its time.
const bounds = { idleTimeout: 255, maxRequestBodySize: Number.MAX_SAFE_INTEGER };
Bun.serve({ port: PORT, hostname: "127.0.0.1", ...bounds, fetch: answer });
