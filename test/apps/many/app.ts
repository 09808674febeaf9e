/**
 * An application with a state machine of its own for each group, in memory, to show that one which fails harms no other. Commands are words, which it lists.
 * `POST /mode {"group": 7, "mode": "hang"}` on MODE_PORT makes one path hang, or refuse, until it is "well" again.
 */
import { type Machine, type MachineEntry, serveMachine } from "../../../src/client/index.ts";

type Mode = "well" | "hang" | "refuse";

class Words implements Machine {
  #words: string[] = [];
  #index = 0;
  #mode: Mode = "well";
  #goOn: () => void = () => {};
  #released: Promise<void> = Promise.resolve();

  set mode(mode: Mode) {
    this.#goOn();
    this.#mode = mode;
    this.#released =
      mode === "hang" ? new Promise((resolve) => (this.#goOn = resolve)) : Promise.resolve();
  }

  async #can(): Promise<void> {
    await this.#released;
    if (this.#mode === "refuse") throw new Error("this path is out of order");
  }

  lastIndex(): number {
    return this.#index;
  }

  async apply(entries: readonly MachineEntry[], lastIndex: number): Promise<string[]> {
    await this.#can();
    this.#index = lastIndex;
    return entries.map(({ command }) =>
      String(this.#words.push(new TextDecoder().decode(command))),
    );
  }

  async read(): Promise<string> {
    await this.#can();
    return this.#words.join(" ");
  }

  snapshot() {
    const text = JSON.stringify([this.#index, this.#words]);
    return { save: () => [text] };
  }

  async recover(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const text = await new Response(chunks as unknown as ReadableStream).text();
    [this.#index, this.#words] = JSON.parse(text) as [number, string[]];
  }
}

const { PORT = "8080", MODE_PORT = "8081" } = process.env;
const groups = new Map<number, Words>();

function wordsOf(group: number): Words {
  const known = groups.get(group) ?? new Words();
  groups.set(group, known);
  return known;
}

Bun.serve({
  port: Number(MODE_PORT),
  hostname: "127.0.0.1",
  async fetch(request) {
    const { group, mode } = (await request.json()) as { group: number; mode: Mode };
    wordsOf(group).mode = mode;
    return new Response("ok");
  },
});
await serveMachine({ port: Number(PORT), machine: wordsOf });
