/**
 * Loaded into a node before its program (`bun --preload`): the moments in the life of a snapshot at which a test wants the node to stand still. It
 * stops itself with SIGSTOP where the file named by `BARGE_TEST_FAILPOINT` says so, once, and renames that file; what then becomes of it is the
 * test's business. The list is imported by the test too, which changes nothing there.
 */
import { readFileSync, renameSync } from "node:fs";
import { KvMachine } from "../../src/machine/kv.ts";
import { TcpTransport } from "../../src/net/tcp-transport.ts";
import { SnapshotReceiver } from "../../src/node/snapshot-receiver.ts";
import { SnapshotSender } from "../../src/node/snapshot-sender.ts";
import { Snapshots } from "../../src/node/snapshots.ts";
import { SnapshotFiles } from "../../src/storage/snapshot-files.ts";

export interface Failpoint {
  readonly name: string;
  readonly side: "sender" | "receiver";
  /** What a receiver that dies here has when it comes back; undefined: either, for its pointer is written and not known to be durable. */
  readonly installed: boolean | undefined;
}

const notYet = { installed: false } as const;

/** In the order in which they are passed. */
export const failpoints = [
  { name: "before the offer", side: "sender", ...notYet },
  { name: "offer queued", side: "sender", ...notYet },
  { name: "offer taken", side: "receiver", ...notYet },
  { name: "first chunk queued", side: "sender", ...notYet },
  { name: "first chunk taken", side: "receiver", ...notYet },
  { name: "middle chunk queued", side: "sender", ...notYet },
  { name: "middle chunk taken", side: "receiver", ...notYet },
  { name: "last chunk queued", side: "sender", ...notYet },
  { name: "last chunk taken", side: "receiver", ...notYet },
  { name: "verification begun", side: "receiver", ...notYet },
  { name: "verified and durable", side: "receiver", ...notYet },
  { name: "before the pointer", side: "receiver", ...notYet },
  { name: "pointer written", side: "receiver", installed: undefined },
  { name: "machine gone over", side: "receiver", installed: undefined },
  { name: "pointer durable", side: "receiver", installed: true },
  { name: "old file going", side: "receiver", installed: true },
  { name: "done heard", side: "sender", installed: true },
] as const satisfies readonly Failpoint[];

type Name = (typeof failpoints)[number]["name"];

/** The test writes the name of a failpoint there; it has this ending once the node stands still. */
export const failpointVariable = "BARGE_TEST_FAILPOINT";
export const reachedSuffix = ".reached";

const path = process.env[failpointVariable];
if (path !== undefined) install(path);

function install(file: string): void {
  const pass = (name: Name): void => {
    if (wanted(file) !== name) return;
    renameSync(file, `${file}${reachedSuffix}`);
    process.kill(process.pid, "SIGSTOP");
  };
  /** Of the stream under way, from its offer. */
  let bytes = 0;
  const chunk = (offset: number, length: number, what: "queued" | "taken"): void => {
    if (offset === 0) pass(`first chunk ${what}`);
    if (offset <= bytes / 2 && offset + length > bytes / 2) pass(`middle chunk ${what}`);
    if (offset + length === bytes) pass(`last chunk ${what}`);
  };

  const { send } = TcpTransport.prototype;
  TcpTransport.prototype.send = function (message, batches) {
    if (message.type === "snapshotOffer") pass("before the offer");
    send.call(this, message, batches);
    if (message.type === "snapshotOffer") {
      bytes = message.bytes;
      pass("offer queued");
    } else if (message.type === "snapshotChunk") {
      chunk(message.offset, message.body.byteLength, "queued");
    }
  };
  const { reply } = SnapshotSender.prototype;
  SnapshotSender.prototype.reply = function (message) {
    if (message.state === "done") pass("done heard");
    reply.call(this, message);
  };

  const { offered, chunk: taken } = SnapshotReceiver.prototype;
  SnapshotReceiver.prototype.offered = function (offer) {
    offered.call(this, offer);
    bytes = offer.bytes;
    if (this.stream() !== undefined) pass("offer taken");
  };
  SnapshotReceiver.prototype.chunk = function (message) {
    const { offset, body } = message;
    const length = body.byteLength;
    taken.call(this, message);
    chunk(offset, length, "taken");
  };
  const { finish, remove } = SnapshotFiles.prototype;
  SnapshotFiles.prototype.finish = function (at, proof, done) {
    finish.call(this, at, proof, (ok) => {
      pass("verified and durable");
      done(ok);
    });
    pass("verification begun");
  };
  let isOver = false;
  SnapshotFiles.prototype.remove = function (at, done) {
    remove.call(this, at, done);
    if (isOver) pass("old file going");
  };
  const { write, written } = Snapshots.prototype;
  Snapshots.prototype.write = function (restore) {
    pass("before the pointer");
    return write.call(this, restore);
  };
  Snapshots.prototype.written = function (restore, appendSeq) {
    pass("pointer written");
    written.call(this, restore, appendSeq);
    isOver = true;
    pass("machine gone over");
  };
  const { snapshotDurable } = KvMachine.prototype;
  KvMachine.prototype.snapshotDurable = function () {
    pass("pointer durable");
    snapshotDurable.call(this);
  };
}

/** The failpoint that is asked for, if any. */
function wanted(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
