/**
 * A network of the kernel's: each node in a network namespace of its own, on one bridge with the clients. A cut link is a wrong hardware
 * address in the sender's neighbour table: packets really leave, nobody gets them, neither side is told, and TCP does what it does. Needs
 * root on Linux; loss, delay and resets are left to the proxy, as not every kernel has netem.
 */
import type { NodePlace } from "../e2e/cluster.ts";
import {
  clientsPlace,
  type Link,
  type LinkFault,
  LinkFaults,
  type Network,
  type Place,
} from "./network.ts";

const binaryPort = 9091;
const httpPort = 9090;
/** The clients' end of the network: the bridge itself. */
const clientsHost = 254;
/** Nobody has it. */
const lostHardware = "02:ba:ff:ff:ff:ff";

export function namespacesAllowed(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  if (Bun.which("ip") === null) return false;
  const bridge = `bt${process.pid}`;
  const made = ip(`link add ${bridge} type bridge`) && ip(`netns add ${bridge}`);
  ip(`netns del ${bridge}`);
  ip(`link del ${bridge}`);
  return made;
}

export class Namespaces implements Network {
  readonly name = "namespaces";
  readonly can = { delay: false, reset: false };
  readonly #faults = new LinkFaults(() => this.#apply());
  readonly #name = `b${process.pid.toString(36)}`;
  /** One subnet for nodes and clients, and one that is never cut, for whoever looks after the nodes. */
  readonly #net = `10.${100 + (process.pid % 100)}`;
  readonly #hosts: number[] = [];
  /** Links that are cut now, as `from to`. */
  readonly #cut = new Set<string>();
  readonly #cleanUp = (): void => this.#remove();

  constructor() {
    process.on("exit", this.#cleanUp);
    must(`link add ${this.#name} address ${hardware(clientsHost)} type bridge`);
    must(`link set ${this.#name} up`);
    must(`addr add ${this.#address(clientsHost)}/24 dev ${this.#name}`);
    must(`addr add ${this.#control(clientsHost)}/24 dev ${this.#name}`);
  }

  place(id: Place): NodePlace {
    const space = this.#space(id);
    const [inner, outer] = [`${this.#name}i${id}`, `${this.#name}o${id}`];
    must(`netns add ${space}`);
    must(`link add ${outer} type veth peer name ${inner}`);
    must(`link set ${outer} master ${this.#name} up`);
    must(`link set ${inner} netns ${space} name eth0 address ${hardware(id)}`);
    must(`-n ${space} link set lo up`);
    must(`-n ${space} link set eth0 up`);
    must(`-n ${space} addr add ${this.#address(id)}/24 dev eth0`);
    must(`-n ${space} addr add ${this.#control(id)}/24 dev eth0`);
    for (const other of this.#hosts) {
      this.#point({ from: id, to: other }, hardware(other));
      this.#point({ from: other, to: id }, hardware(id));
    }
    this.#hosts.push(id);
    this.#point({ from: id, to: clientsPlace }, hardware(clientsHost));
    this.#point({ from: clientsPlace, to: id }, hardware(id));
    const listen = `${this.#address(id)}:${binaryPort}`;
    return {
      listen,
      advertise: listen,
      http: `${this.#control(id)}:${httpPort}`,
      command: ["ip", "netns", "exec", space],
      environment: { BARGE_INSECURE: "true" },
    };
  }

  spoil(links: readonly Link[], fault: LinkFault): () => void {
    return this.#faults.add(links, fault);
  }

  reset(): void {
    throw new Error("connections are only reset by the proxy");
  }

  #apply(): void {
    const places = [clientsPlace, ...this.#hosts];
    for (const from of places) {
      for (const to of places) {
        if (from === to) continue;
        const { cut } = this.#faults.of({ from, to });
        const name = `${from} ${to}`;
        if (cut === this.#cut.has(name)) continue;
        if (cut) this.#cut.add(name);
        else this.#cut.delete(name);
        this.#point({ from, to }, cut ? lostHardware : hardware(hostOf(to)));
      }
    }
  }

  /** Where packets from here to there go. */
  #point({ from, to }: Link, address: string): void {
    const where = from === clientsPlace ? "" : `-n ${this.#space(from)} `;
    const device = from === clientsPlace ? this.#name : "eth0";
    const target = this.#address(hostOf(to));
    must(`${where}neigh replace ${target} lladdr ${address} dev ${device} nud permanent`);
  }

  #space(id: Place): string {
    return `${this.#name}n${id}`;
  }

  #address(host: number): string {
    return `${this.#net}.0.${host}`;
  }

  #control(host: number): string {
    return `${this.#net}.1.${host}`;
  }

  #remove(): void {
    process.off("exit", this.#cleanUp);
    for (const id of this.#hosts) ip(`netns del ${this.#space(id)}`);
    ip(`link del ${this.#name}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#remove();
  }
}

function hostOf(place: Place): number {
  return place === clientsPlace ? clientsHost : place;
}

/** Hardware addresses are ours to choose: the last byte is the host's. */
function hardware(host: number): string {
  return `02:ba:00:00:00:${host.toString(16).padStart(2, "0")}`;
}

function ip(words: string): boolean {
  return Bun.spawnSync(["ip", ...words.split(" ")], { stderr: "ignore" }).success;
}

function must(words: string): void {
  const { success, stderr } = Bun.spawnSync(["ip", ...words.split(" ")], { stderr: "pipe" });
  if (!success) throw new Error(`ip ${words}: ${stderr.toString().trim()}`);
}
