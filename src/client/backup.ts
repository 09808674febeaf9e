/**
 * A backup on its way from one node: opened there, read part by part with a few requests in flight, closed at the end. A part that is lost on the way
 * is asked for again, so a connection may break meanwhile; a node that starts anew has forgotten it.
 */
import { BargeError } from "../errors.ts";
import type { AdminAnswers, AdminBody, AdminOperation } from "../wire/admin.ts";
import { type BackupHeader, BackupWriter } from "../wire/backup.ts";

/** The state of a group at one index. What one gets by iterating, once, is the file that `barge restore` takes. */
export interface Backup extends AsyncIterable<Uint8Array> {
  readonly header: BackupHeader;
  /** Gives it up; not needed where it was read to its end. */
  close(): Promise<void>;
}

export interface BackupOptions {
  /** @default the client's */
  readonly group?: number | undefined;
  /** The node to read it from. @default the first one that gives it */
  readonly endpoint?: string | undefined;
  /** What that node has applied, also while there is no leader; else all that was acknowledged before is in it. @default false */
  readonly local?: boolean | undefined;
  /** How long it may take to begin: the node writes its state first. @default 60000 */
  readonly timeoutMs?: number | undefined;
}

/** Operations of administration at one node. */
export type AskNode = <O extends AdminOperation>(
  operation: O,
  body: Omit<AdminBody<O>, "group" | "timeoutMs">,
  timeoutMs: number,
) => Promise<AdminAnswers[O]>;

export const openTimeoutMs = 60_000;
const partTimeoutMs = 20_000;
const partsInFlight = 4;

export async function openBackup(
  ask: AskNode,
  { local, timeoutMs }: BackupOptions,
): Promise<Backup> {
  const backup = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
  const body = { backup, local: local ?? false };
  const opened = await ask("backupOpen", body, timeoutMs ?? openTimeoutMs);
  const { node: nodeId, chunkBytes, ...rest } = opened;
  const header: BackupHeader = { ...rest, nodeId, created: new Date().toISOString() };
  let isRead = false;
  const close = async (): Promise<void> => {
    await ask("backupClose", { backup }, partTimeoutMs).catch(() => {});
  };
  return {
    header,
    close,
    [Symbol.asyncIterator]() {
      if (isRead) throw new BargeError("bad_request", "a backup can be read once");
      isRead = true;
      const read = async (offset: number): Promise<Uint8Array> => {
        const { bytes } = await ask("backupRead", { backup, offset }, partTimeoutMs);
        return bytes;
      };
      return partsOf(header, chunkBytes, read, close);
    },
  };
}

async function* partsOf(
  header: BackupHeader,
  chunkBytes: number,
  read: (offset: number) => Promise<Uint8Array>,
  close: () => Promise<void>,
): AsyncGenerator<Uint8Array, void, void> {
  const writer = new BackupWriter();
  const reading: Promise<Uint8Array>[] = [];
  let asked = 0;
  try {
    yield writer.header(header);
    for (let at = 0; at < header.bytes; at += chunkBytes) {
      for (; asked < header.bytes && reading.length < partsInFlight; asked += chunkBytes) {
        const part = read(asked);
        // Where one before it fails, nobody waits for it any more.
        part.catch(() => {});
        reading.push(part);
      }
      const bytes = await reading.shift()!;
      if (bytes.byteLength !== Math.min(chunkBytes, header.bytes - at)) {
        throw new BargeError("internal", `the part at ${at} has ${bytes.byteLength} bytes`);
      }
      yield writer.chunk(bytes);
    }
    yield writer.end();
  } finally {
    await close();
  }
}
