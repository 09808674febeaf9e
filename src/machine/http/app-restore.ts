/** Gives an application a snapshot that lies whole on this disk: one body of known length, read part by part as fast as the application takes it. */
import type { Limits } from "../../limits.ts";
import type { AppExchange } from "./app-calls.ts";
import type { AppFolder, ReceivedSnapshot } from "./app-folder.ts";
import type { AppLink } from "./app-link.ts";
import { bytesType } from "./contract.ts";

export class AppRestore {
  readonly #number: number;
  readonly #snapshot: ReceivedSnapshot;
  readonly #folder: AppFolder;
  readonly #partBytes: number;
  #exchange: AppExchange | undefined;
  #next = 0;
  #reading = false;
  #blocked = false;
  /** Of the part that was read last: it is gone, as far as the application is concerned, before the next is read. */
  #memory: Uint8Array<ArrayBuffer> | undefined;

  constructor(number: number, snapshot: ReceivedSnapshot, folder: AppFolder, limits: Limits) {
    this.#number = number;
    this.#snapshot = snapshot;
    this.#folder = folder;
    this.#partBytes = limits.snapshotChunkBytes;
  }

  begin(link: AppLink, timeoutMs: number, ended: (problem: string | undefined) => void): void {
    const { appBytes: body } = this.#snapshot;
    const asking = { name: "RecoverFromSnapshot", contentType: bytesType, body, timeoutMs };
    this.#exchange = link.ask(
      asking,
      {
        replied: () => ended(undefined),
        failed: (reason) => ended(`RecoverFromSnapshot: ${reason}`),
      },
      () => {
        this.#blocked = false;
        this.#read();
      },
    );
    this.#read();
  }

  /** What is read still goes nowhere. */
  stop(): void {
    this.#exchange = undefined;
  }

  #read(): void {
    const { offset, appBytes } = this.#snapshot;
    const exchange = this.#exchange;
    if (exchange === undefined || this.#reading || this.#blocked || this.#next >= appBytes) return;
    const length = Math.min(this.#partBytes, appBytes - this.#next);
    this.#reading = true;
    const read = (bytes: Uint8Array<ArrayBuffer>): void => {
      this.#reading = false;
      if (this.#exchange !== exchange) return;
      this.#next += length;
      this.#memory = bytes;
      if (!exchange.write(bytes)) this.#blocked = true;
      this.#read();
    };
    this.#folder.read(this.#number, offset + this.#next, length, read, this.#memory);
  }
}
