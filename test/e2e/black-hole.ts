/**
 * An address that swallows what is sent to it, as behind a firewall that drops: a link of the kernel's whose other end nobody has. Dialling it neither
 * succeeds nor fails. Needs root on Linux.
 */
const lostHardware = "02:ba:ff:ff:ff:ff";

export class BlackHole implements Disposable {
  readonly host: string;
  readonly #device = `h${process.pid.toString(36)}`;
  readonly #cleanUp = (): void => this[Symbol.dispose]();

  private constructor() {
    // Of the range that is for tests of networks.
    const net = `198.18.${process.pid % 256}`;
    this.host = `${net}.2`;
    process.on("exit", this.#cleanUp);
    ip(`link add ${this.#device} type veth peer name ${this.#device}x`);
    ip(`addr add ${net}.1/30 dev ${this.#device}`);
    ip(`link set ${this.#device} up`);
    ip(`link set ${this.#device}x up`);
    ip(`neigh replace ${this.host} lladdr ${lostHardware} dev ${this.#device} nud permanent`);
  }

  /** Undefined where there can be none; the reason is printed. */
  static open(): BlackHole | undefined {
    try {
      return new BlackHole();
    } catch (error) {
      process.stderr.write(`skip: no link of one's own here (${String(error)})\n`);
      return undefined;
    }
  }

  [Symbol.dispose](): void {
    process.off("exit", this.#cleanUp);
    Bun.spawnSync(["ip", "link", "del", this.#device], { stderr: "ignore" });
  }
}

function ip(words: string): void {
  const { success, stderr } = Bun.spawnSync(["ip", ...words.split(" ")], { stderr: "pipe" });
  if (!success) throw new Error(`ip ${words}: ${stderr.toString().trim()}`);
}
