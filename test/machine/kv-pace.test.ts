/** Syncs beside a long call, and what becomes of one that fails. In a process of its own: the latch stays tripped. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const directory = mkdtempSync(join(tmpdir(), "barge-pace-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("a file is synced all along while a call goes on, and no more after it; a sync that fails trips the latch and fails the call", async () => {
  const file = join(directory, "file");
  writeFileSync(file, "bytes");
  const fixture = join(import.meta.dir, "kv-pace-fixture.ts");
  const child = Bun.spawn([process.execPath, fixture, file], { stdout: "pipe", stderr: "inherit" });
  const [ok, failed] = (await child.stdout.text()).split("\n");
  expect(ok).toBe("syncing 0 latched false");
  expect(failed).toBe("SyncError: a sync beside a write failed, latched true");
  expect(await child.exited).toBe(0);
});
