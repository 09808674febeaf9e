"""A replicated store of registers in Python, with no more than its own library: `PORT=8080 DATA_DIR=./data python3 app.py`, and beside it
`barge serve --app-url http://127.0.0.1:8080`. Commands: `set KEY VALUE`, `append KEY VALUE`, `cas KEY OLD NEW`. Query: `get KEY`."""

import base64
import contextlib
import itertools
import json
import os
import sqlite3
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, port = os.environ.get("DATA_DIR", "./data"), int(os.environ.get("PORT", "8080"))
os.makedirs(folder, exist_ok=True)


def connect():
    opened = sqlite3.connect(f"{folder}/app.sqlite", isolation_level=None, check_same_thread=False)
    opened.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    return opened


db = connect()
db.execute("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
db.execute("CREATE TABLE IF NOT EXISTS applied (one INTEGER PRIMARY KEY, idx INTEGER NOT NULL)")
db.execute("INSERT OR IGNORE INTO applied VALUES (1, 0)")
writing = threading.Lock()
# Open handles: a read transaction each, which keeps its moment, and a lock, as one connection serves one thread at a time.
handles = {}


def last_index(connection):
    return connection.execute("SELECT idx FROM applied").fetchone()[0]


def get(connection, key):
    row = connection.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
    return row[0] if row else ""


def put(key, value):
    db.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (key, value))


def apply(command):
    """Total: what makes no sense gives a result, as it is in the log of all nodes."""
    op, key, value, then = (command.decode("latin1").split(" ") + ["", "", ""])[:4]
    found = get(db, key)
    if op not in ("set", "append", "cas"):
        return "error: unknown command"
    if op == "cas" and found != value:
        return f"no {found}"
    put(key, {"set": value, "append": f"{found}{value},", "cas": then}[op])
    return get(db, key) if op == "append" else "ok"


def update(entries):
    """The index goes with the data, in one transaction."""
    index, results = last_index(db), []
    with db:
        db.execute("BEGIN IMMEDIATE")
        for entry in entries:
            result = ""
            if entry["Index"] > index:
                index = entry["Index"]
                result = apply(base64.b64decode(entry["Cmd"]))
            results.append({"Result": base64.b64encode(result.encode("latin1")).decode()})
        db.execute("UPDATE applied SET idx = ?", (index,))
    return {"Results": results}


class Callbacks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # With keep-alive.
    disable_nagle_algorithm = True

    def do_POST(self):
        name, size = self.path[1:], int(self.headers.get("content-length", 0))
        body = b"" if name == "RecoverFromSnapshot" else self.rfile.read(size)
        if name == "Ready":
            self.reply(200, b"ok")
        elif name == "LastLogIndex":
            with writing:
                self.reply(200, {"LastLogIndex": last_index(db)})
        elif name == "UpdateEntries":
            with writing:
                # Something between was lost, or this is not the application that the daemon takes it for.
                if int(self.headers["barge-previous-index"]) != last_index(db):
                    return self.reply(409, b"there is a gap")
                self.reply(200, update(json.loads(body)["Entries"]))
        elif name == "Read":
            # On a connection of its own, which sees whole updates alone.
            with contextlib.closing(connect()) as own:
                self.reply(200, get(own, body[4:].decode("latin1")).encode("latin1"))
        elif name == "PrepareSnapshot":
            own, handle = connect(), uuid.uuid4().hex
            own.execute("BEGIN")
            last_index(own)  # The moment is fixed by the first read.
            handles[handle] = (own, threading.Lock())
            self.reply(200, {"Handle": handle})
        elif name == "SaveSnapshot":
            self.save(*handles[json.loads(body)["Handle"]])
        elif name == "ReleaseSnapshot":
            own, lock = handles.pop(json.loads(body)["Handle"], (connect(), writing))
            with lock:
                own.close()
            self.reply(200, b"released")
        elif name == "RecoverFromSnapshot":
            with writing, db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("DELETE FROM items")
                lines = map(json.loads, self.lines(size))
                db.execute("UPDATE applied SET idx = ?", (next(lines),))
                db.executemany("INSERT INTO items VALUES (?, ?)", lines)
            self.reply(200, b"recovered")
        else:
            self.reply(404, b"no such callback")

    def lines(self, left):
        while left > 0:
            line = self.rfile.readline(left)
            left -= len(line)
            if not line.endswith(b"\n"):
                raise ValueError("the snapshot is not whole")
            yield line

    def save(self, own, lock):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with lock:
            # A line with the index, then one for each row.
            rows = own.execute("SELECT key, value FROM items ORDER BY key")
            for line in itertools.chain([last_index(own)], rows):
                text = (json.dumps(line) + "\n").encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status, answer):
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if body is answer else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    log_message = lambda *_: None  # noqa: E731


ThreadingHTTPServer(("127.0.0.1", port), Callbacks).serve_forever()
