/**
 * Instant snapshots: a store of registers whose snapshot is the main file of its SQLite database as it lies there. What is written goes to the write-ahead log alone, which is
 * folded into the main file in PrepareSnapshot and nowhere else; Sync makes that log durable: run the daemon with RAFT_SYNC=1. Commands and queries as in ../typescript.
 */
import { Database } from "bun:sqlite";
import * as fs from "node:fs";

const { PORT = "8080", DATA_DIR = "./data" } = process.env;
fs.mkdirSync(DATA_DIR, { recursive: true });
const instance = crypto.randomUUID();
type Entry = { Index: number; Cmd: string };
type Handle = { Path: string; Proof: string };

/** The main files in order of their age. No name is used again: an old log is never taken for that of a new file. */
const files = (): string[] => [...new Bun.Glob("*.sqlite").scanSync(DATA_DIR)].toSorted();
const nextFile = (): string =>
  `${String(Number.parseInt(files().at(-1) ?? "0") + 1).padStart(9, "0")}.sqlite`;

let path = "";
let db!: Database;
/** Never writes. While it is open, closing the other folds nothing; nor does a process that is killed, which is how this one ends. */
let reader!: Database;
/** Open as long as the process lives: closing it would drop the locks of SQLite. */
let log = 0;
let held: Handle | undefined;
let streams = 0;

function open(file: string): void {
  path = `${DATA_DIR}/${file}`;
  db = new Database(path);
  db.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0");
  db.run("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID");
  db.run("CREATE TABLE IF NOT EXISTS applied (one INTEGER PRIMARY KEY, idx INTEGER)");
  db.run("INSERT OR IGNORE INTO applied VALUES (1, 0)");
  log = fs.openSync(`${path}-wal`, "r+");
  reader = new Database(path, { readonly: true });
  for (const other of fs.readdirSync(DATA_DIR)) {
    if (!other.startsWith(file)) fs.rmSync(`${DATA_DIR}/${other}`);
  }
}

function sync(name: string): void {
  const fd = fs.openSync(name, "r");
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}

const lastIndex = (): number => (db.query("SELECT idx FROM applied").get() as { idx: number }).idx;
const get = (from: Database, key: string): string =>
  String(from.query("SELECT value FROM items WHERE key = ?").values(key)[0]?.[0] ?? "");

function apply(command: string): string {
  const [op, key = "", value = "", next = ""] = command.split(" ");
  const found = get(db, key);
  if (op === "cas" && found !== value) return `no ${found}`;
  const wanted = new Map([
    ["set", value],
    ["append", `${found}${value},`],
    ["cas", next],
  ]).get(op!);
  if (wanted === undefined) return "error: unknown command";
  db.query("INSERT OR REPLACE INTO items VALUES (?, ?)").run(key, wanted);
  return op === "append" ? wanted : "ok";
}

function update(entries: readonly Entry[]): { Result?: string }[] {
  let index = lastIndex();
  const results = entries.map(({ Index, Cmd }) => {
    if (Index <= index) return {};
    index = Index;
    return { Result: btoa(apply(Buffer.from(Cmd, "base64").toString("latin1"))) };
  });
  db.query("UPDATE applied SET idx = ?").run(index);
  return results;
}

/** Where any of it changes, somebody else has written to the main file. */
function proofOf(name: string): string {
  const { size, mtimeNs } = fs.statSync(name, { bigint: true });
  return `${size}-${mtimeNs}`;
}

/** Durable as a whole: what was lost with the log could not be told from what was never there. */
function prepare(): Response {
  if (streams > 0) return new Response("a snapshot is being sent", { status: 503 });
  const row = db.query("PRAGMA wal_checkpoint(TRUNCATE)").get() as { busy: number };
  if (row.busy !== 0) return new Response("a reader is in the way", { status: 503 });
  held = { Path: path, Proof: proofOf(path) };
  return Response.json(held);
}

/** While it is on its way nothing is folded. */
async function* send(name: string): AsyncGenerator<Uint8Array> {
  streams++;
  try {
    yield* Bun.file(name).stream();
  } finally {
    streams--;
  }
}

async function recover(request: Request): Promise<void> {
  const file = nextFile();
  const size = await Bun.write(`${DATA_DIR}/new`, new Response(request.body));
  if (size !== Number(request.headers.get("content-length"))) throw new Error("it is not whole");
  sync(`${DATA_DIR}/new`);
  fs.renameSync(`${DATA_DIR}/new`, `${DATA_DIR}/${file}`);
  sync(DATA_DIR);
  [db, reader].forEach((each) => each.close());
  fs.closeSync(log);
  open(file);
}

async function answer(name: string, request: Request): Promise<Response> {
  if (name === "LastLogIndex") return Response.json({ LastLogIndex: lastIndex() });
  if (name === "Read") return new Response(get(reader, (await request.text()).slice(4)));
  if (name === "PrepareSnapshot") return prepare();
  if (name === "Sync") fs.fdatasyncSync(log);
  if (name === "RecoverFromSnapshot") await recover(request);
  if (name === "UpdateEntries") {
    const previous = Number(request.headers.get("barge-previous-index"));
    if (previous !== lastIndex()) return new Response("there is a gap", { status: 409 });
    const { Entries } = (await request.json()) as { Entries: Entry[] };
    return Response.json({ Results: db.transaction(() => update(Entries))() });
  }
  if (name === "SaveSnapshot") {
    const { Path, Proof } = (await request.json()) as Handle;
    if (Path !== held?.Path || Proof !== held.Proof) return new Response("gone", { status: 404 });
    if (proofOf(Path) === Proof) return new Response(send(Path));
    return new Response("somebody else has written to the main file", { status: 500 });
  }
  if (name === "ReleaseSnapshot" && ((await request.json()) as Handle).Proof === held?.Proof) {
    held = undefined;
  }
  return new Response("ok");
}

open(files().at(-1) ?? nextFile());
Bun.serve({
  port: PORT,
  hostname: "127.0.0.1",
  idleTimeout: 255,
  maxRequestBodySize: Number.MAX_SAFE_INTEGER,
  fetch: async (request) => {
    const response = await answer(new URL(request.url).pathname.slice(1), request);
    response.headers.set("barge-instance", instance);
    return response;
  },
});
