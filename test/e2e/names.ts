/**
 * Names for machines, as a DNS would give them: a hosts file that only the nodes of one test see, in a mount namespace of each. What stands in it
 * can be changed while they run. Needs root on Linux.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export class Names {
  readonly #path: string;
  readonly #others: string;
  readonly #addresses = new Map<string, string>();

  constructor(dir: string) {
    this.#path = join(dir, "hosts");
    this.#others = readFileSync("/etc/hosts", "utf8");
    this.#write();
  }

  /** `name` is that machine from now on. */
  point(name: string, address: string): void {
    this.#addresses.set(name, address);
    this.#write();
  }

  /** Starts a program which knows the names. */
  get command(): readonly string[] {
    const script = 'mount --bind "$0" /etc/hosts && exec "$@"';
    return ["unshare", "--mount", "sh", "-c", script, this.#path];
  }

  /** In place, as the file itself is mounted. */
  #write(): void {
    const lines = [...this.#addresses].map(([name, address]) => `${address} ${name}\n`);
    writeFileSync(this.#path, `${this.#others}\n${lines.join("")}`);
  }
}

/** Why there can be no names of one's own here; undefined where there can. */
export function namesRefused(): string | undefined {
  try {
    const { success, stderr } = Bun.spawnSync(
      ["unshare", "--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"],
      { stderr: "pipe" },
    );
    return success ? undefined : stderr.toString().trim();
  } catch (error) {
    return String(error);
  }
}
