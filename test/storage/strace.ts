/** Runs a fixture in a child process under strace and gives the system calls that matter, in order. */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

export const hasStrace = existsSync("/usr/bin/strace");
if (!hasStrace) {
  process.stderr.write("skipped: tests that count system calls, /usr/bin/strace is missing\n");
}

export interface Call {
  readonly name: string;
  /** Base name of the file that the call is about. */
  readonly file: string;
  /** For a rename, the new name. */
  readonly to: string | undefined;
  /** Bytes written, for a write. */
  readonly bytes: number;
  readonly failed: boolean;
}

export interface Traced {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly calls: Call[];
}

const traced =
  "fsync,fdatasync,sync,syncfs,sync_file_range,msync,unlink,unlinkat,rename,renameat,renameat2,pwrite64,write,ftruncate";

/** A fixture marks a moment by writing "mark NAME" to stderr; the call list has it as `{ name: "mark", file: NAME }`. */
export async function trace(
  fixture: string,
  args: readonly string[],
  inject?: string,
): Promise<Traced> {
  const folder = mkdtempSync(join(tmpdir(), "barge-strace-"));
  try {
    const output = join(folder, "calls");
    const injection = inject === undefined ? [] : ["-e", `inject=${inject}`];
    const child = Bun.spawn(
      ["/usr/bin/strace", "-f", "-y", "-s", "64", "-e", `trace=${traced}`, ...injection].concat([
        "-o",
        output,
        process.execPath,
        join(import.meta.dir, fixture),
        ...args,
      ]),
      { stdout: "pipe", stderr: "pipe", stdin: "ignore" },
    );
    const [exitCode, stdout, stderr] = await Promise.all([
      child.exited,
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    return { exitCode, stdout, stderr, calls: parse(readFileSync(output, "utf8")) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function parse(text: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, string>();
  for (const line of text.split("\n")) {
    const start = /^(\d+)\s+(.*)$/.exec(line);
    if (start === null) continue;
    const thread = start[1]!;
    let body = start[2]!;
    if (body.endsWith("<unfinished ...>")) {
      // A call counts from when it begins.
      unfinished.set(thread, body.slice(0, -"<unfinished ...>".length));
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(body);
    if (resumed !== null) body = `${unfinished.get(thread) ?? ""}${resumed[1]!}`;
    const call = parseCall(body);
    if (call !== undefined) calls.push(call);
  }
  return calls;
}

function parseCall(body: string): Call | undefined {
  const match = /^(\w+)\((.*)\)\s+= (-?\d+)/.exec(body);
  if (match === null) return undefined;
  const [, name, args, result] = match;
  const mark = /"mark ([\w-]+)\\n"/.exec(args!);
  if (mark !== null)
    return { name: "mark", file: mark[1]!, to: undefined, bytes: 0, failed: false };
  const paths = [...args!.matchAll(/<([^>]+)>|"([^"]*)"/g)].map((path) => path[1] ?? path[2] ?? "");
  const named = paths.filter((path) => path.startsWith("/"));
  const isWrite = name === "write" || name === "pwrite64";
  return {
    name: name!.replace(/at2?$/, ""),
    file: basename(named[0] ?? ""),
    to: name!.startsWith("rename") ? basename(named.at(-1) ?? "") : undefined,
    bytes: isWrite ? Number(result) : 0,
    failed: Number(result) < 0,
  };
}

export function isSync(call: Call): boolean {
  return call.name.includes("sync");
}

/** The calls after a mark. */
export function after(calls: readonly Call[], mark: string): Call[] {
  const at = calls.findIndex((call) => call.name === "mark" && call.file === mark);
  if (at < 0) throw new Error(`the fixture did not reach the mark ${mark}`);
  return calls.slice(at + 1);
}
