/**
 * `GET /v1/backup`: the state of this node at one index, as the file that `barge restore` takes. Streamed as the client reads it; should that fail on
 * the way, the connection breaks, and the file lacks its end, which a restore notices.
 */
import type { AdminAnswers, AdminBody, AdminOperation } from "../wire/admin.ts";
import { BackupWriter } from "../wire/backup.ts";
import type { Groups } from "./groups.ts";
import type { HttpParameters } from "./http-parameters.ts";

export const backupPath = "/v1/backup";
export const backupParameters: readonly string[] = ["group", "timeoutMs", "consistency"];
const consistencies = { linearizable: false, local: true } as const;

export async function streamBackup(groups: Groups, parameters: HttpParameters): Promise<Response> {
  const backup = Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
  const group = parameters.integer("group") ?? 0;
  const timeoutMs = parameters.integer("timeoutMs") ?? 0;
  const local = parameters.choice("consistency", consistencies) ?? false;
  const opened = await ask(groups, "backupOpen", { backup, group, timeoutMs, local });
  const { node: nodeId, chunkBytes, ...rest } = opened;
  const close = (): void => {
    void ask(groups, "backupClose", { backup, group }).catch(() => {});
  };
  const writer = new BackupWriter();
  let at = 0;
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      const created = new Date().toISOString();
      controller.enqueue(writer.header({ ...rest, nodeId, created }));
    },
    pull: async (controller) => {
      try {
        const { bytes } = await ask(groups, "backupRead", { backup, group, offset: at });
        controller.enqueue(writer.chunk(bytes));
        at += chunkBytes;
        if (at < opened.bytes) return;
        controller.enqueue(writer.end());
        controller.close();
        close();
      } catch (error) {
        controller.error(error);
        close();
      }
    },
    cancel: close,
  });
  return new Response(body, {
    headers: {
      "content-type": "application/octet-stream",
      "content-disposition": `attachment; filename="barge-${group}-${opened.index}.backup"`,
      "barge-index": String(opened.index),
    },
  });
}

function ask<O extends AdminOperation>(
  groups: Groups,
  operation: O,
  body: AdminBody<O>,
): Promise<AdminAnswers[O]> {
  const { promise, resolve, reject } = Promise.withResolvers<AdminAnswers[O]>();
  groups.admin(operation, body, {
    answered: (answer) => resolve(answer as AdminAnswers[O]),
    failed: reject,
  });
  return promise;
}
