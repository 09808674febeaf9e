/**
 * Sits at a member's address and answers the nodes that dial it: with the reply to their hello that the member would give, with a refusal, or with
 * anything else, and then with frames of every kind. Where both sides speak the same version, they may go both ways.
 */
import type { Socket, TCPSocketListener } from "bun";
import { parseAddress } from "../../src/net/address.ts";
import { FrameReader } from "../../src/wire/frame-reader.ts";
import { decodeHello, encodeHelloReply } from "../../src/wire/hello.ts";
import { FrameType, type HelloReply } from "../../src/wire/messages.ts";
import { applyVersionMax, featuresKnown } from "../../src/wire/versions.ts";
import { decodeAny } from "../wire/messages.ts";
import type { Aim, FrameFuzz, Stage } from "./fuzz-frames.ts";
import { frameOf } from "./raw-client.ts";

export interface HostileListenerOptions {
  readonly address: string;
  readonly nodeId: number;
  readonly identity: { readonly clusterId: string; readonly incarnation: string };
  readonly fuzz: FrameFuzz;
  /** Of that node; undefined where nobody has that id. */
  readonly aim: (nodeId: number) => Aim | undefined;
  readonly framesMax: number;
}

/** What is said of those that dial, true or not. */
const refusals = [
  "member_removed",
  "member_removed",
  "wrong_incarnation",
  "unknown_member",
  "version_mismatch",
  "unauthorised",
  "shutting_down",
  "constructor",
] as const;

export class HostileListener {
  readonly #options: HostileListenerOptions;
  readonly #sockets = new Set<Socket<FrameReader>>();
  #server: TCPSocketListener<FrameReader> | undefined;
  connections = 0;
  frames = 0;
  /** What a node sent that is no frame; to be thrown by whoever looks. */
  wrong: string | undefined;

  constructor(options: HostileListenerOptions) {
    this.#options = options;
  }

  open(): void {
    const { host, port } = parseAddress(this.#options.address)!;
    this.#server = Bun.listen<FrameReader>({
      hostname: host,
      port,
      socket: {
        binaryType: "uint8array",
        open: (socket) => {
          this.connections++;
          this.#sockets.add(socket);
          socket.data = new FrameReader(2 ** 30, (type, payload, fieldsBytes) =>
            this.#frame(socket, type, payload, fieldsBytes),
          );
        },
        data: (socket, chunk) => {
          const error = socket.data.push(chunk);
          if (error !== undefined) this.wrong = `a node that dials sent what is no frame: ${error}`;
        },
        close: (socket) => void this.#sockets.delete(socket),
        error: () => {},
      },
    });
  }

  close(): void {
    this.#server?.stop(true);
    this.#server = undefined;
    for (const socket of this.#sockets) socket.terminate();
    this.#sockets.clear();
  }

  #frame(socket: Socket<FrameReader>, type: number, payload: Uint8Array, fields: number): void {
    if (type !== FrameType.hello) {
      const isWhole = decodeAny({ type, payload, fieldsBytes: fields }) !== undefined;
      if (!isWhole) this.wrong = `a node that dials sent what is no frame of type ${type}`;
      return;
    }
    const hello = decodeHello(payload, fields);
    const aim = this.#options.aim(hello?.nodeId ?? 0);
    if (hello === undefined || hello.role === "client" || aim === undefined) return;
    const { fuzz, framesMax } = this.#options;
    const { chance } = fuzz;
    const parts = [this.#answer(hello.role, aim, Math.min(hello.versionMax, 2))];
    for (let i = 0; i <= chance.below(framesMax); i++) {
      this.frames++;
      parts.push(fuzz.bytes(hello.role, aim, chance.one(2)));
    }
    // What the kernel does not take is lost, as from a peer that dies.
    socket.write(Buffer.concat(parts));
    if (chance.one(3)) socket.end();
  }

  #answer(stage: Stage, aim: Aim, version: number): Uint8Array {
    const { fuzz, nodeId, identity } = this.#options;
    const { chance } = fuzz;
    if (chance.one(4)) return fuzz.bytes(chance.one(2) ? "stranger" : stage, aim, false);
    const error = { code: chance.pick(refusals), message: "no" };
    const reply: HelloReply = {
      version,
      features: featuresKnown,
      software: "fuzz",
      nodeId,
      ...identity,
      frameBytesMax: 8 * 2 ** 20,
      sectionBytesMax: 256 * 2 ** 10,
      members: {},
      leader: chance.below(4),
      applyVersion: applyVersionMax,
      applyVersionMax,
      ...(chance.one(3) ? { error } : {}),
    };
    return frameOf((out) => encodeHelloReply(out, reply));
  }
}
