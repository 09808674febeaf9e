/**
 * Builds the Go harnesses, each into a cache folder of the user named by all that goes into it, so that a binary is never out of date
 * and nothing is ever written into the tree.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Peer } from "./systems.ts";

export type Built =
  { readonly ok: true; readonly binary: string } | { readonly ok: false; readonly reason: string };

/** Undefined where there is no Go. */
export function goVersion(): string | undefined {
  const go = spawnSync("go", ["env", "GOVERSION"], { encoding: "utf8" });
  return go.status === 0 ? go.stdout.trim() : undefined;
}

export function buildPeer(peer: Peer, go: string): Built {
  const folder = join(import.meta.dir, peer.folder);
  const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "barge", "peers");
  const binary = join(
    cache,
    `${peer.folder}-${fingerprint([folder, join(import.meta.dir, "common")], go)}`,
  );
  if (existsSync(binary)) return { ok: true, binary };
  mkdirSync(cache, { recursive: true });
  // readonly: exactly the versions of go.mod, checked against go.sum. Without cgo, so that no C compiler is needed.
  const build = spawnSync(
    "go",
    ["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", binary, "."],
    {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, CGO_ENABLED: "0" },
    },
  );
  if (build.status === 0) {
    removeOthers(cache, peer, binary);
    return { ok: true, binary };
  }
  const words = (build.stderr ?? "")
    .split("\n")
    .filter((line) => !line.startsWith("go: downloading"));
  return { ok: false, reason: `go build failed: ${words.slice(0, 3).join("; ").trim()}` };
}

/** Builds of what the sources were before. */
function removeOthers(cache: string, peer: Peer, binary: string): void {
  for (const file of readdirSync(cache)) {
    const isOurs = file.startsWith(`${peer.folder}-`) && join(cache, file) !== binary;
    if (isOurs) rmSync(join(cache, file), { force: true });
  }
}

function fingerprint(folders: readonly string[], go: string): string {
  const hash = createHash("sha256").update(`${go} ${process.arch}\n`);
  for (const folder of folders) {
    for (const file of readdirSync(folder).toSorted()) {
      const bytes = readFileSync(join(folder, file));
      hash.update(`${file} ${bytes.length}\n`).update(bytes);
    }
  }
  return hash.digest("hex").slice(0, 16);
}
