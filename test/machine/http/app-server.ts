/** A small application over HTTP, in this process: it keeps a list of entries, and can be stopped, emptied and started anew as a process could. */
import type { Server } from "bun";

interface Entry {
  readonly index: number;
  readonly command: string;
}

export class AppServer implements Disposable {
  entries: Entry[] = [];
  /** With Sync: so many of them a crash leaves. */
  #durable = 0;
  syncs = false;
  /** Instead of answering at once. */
  wait: (name: string) => Promise<void> = async () => {};
  /** Everything is refused. */
  fails = false;
  readonly counts = new Map<string, number>();
  shape = "json";
  /** Of snapshots: what content-length said, and what came. */
  readonly lengths: number[] = [];
  readonly received: Uint8Array[] = [];
  readonly #handles = new Map<number, Entry[]>();
  /** Those besides group 0, each with entries of its own. */
  readonly #groups = new Map<number, AppServer>();
  #lives = 0;
  #server: Server<undefined> | undefined;
  #port = 0;

  /** `listens`: false where another one listens for it. */
  constructor(listens = true) {
    if (listens) this.start();
  }

  /** What it has of another group. */
  group(id: number): AppServer {
    let group = this.#groups.get(id);
    if (group === undefined) {
      group = new AppServer(false);
      group.syncs = this.syncs;
      this.#groups.set(id, group);
    }
    return group;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get storedIndex(): number {
    return this.entries.at(-1)?.index ?? 0;
  }

  get commands(): string[] {
    return this.entries.map(({ command }) => command);
  }

  count(name: string): number {
    return this.counts.get(name) ?? 0;
  }

  start(): void {
    this.#lives++;
    this.#handles.clear();
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: this.#port,
      fetch: (request) => this.#answer(request),
    });
    this.#port = this.#server.port!;
  }

  /** All connections break off. */
  stop(): void {
    void this.#server?.stop(true);
  }

  /** Killed, and what was not synced is gone, but for some of it. */
  crash(kept = 0): void {
    this.stop();
    for (const app of [this, ...this.#groups.values()]) {
      if (app.syncs) app.entries.length = Math.min(app.entries.length, app.#durable + kept);
    }
  }

  [Symbol.dispose](): void {
    this.stop();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const [, id = "", name = ""] = /^(?:\/groups\/([0-9]+))?\/(\w+)$/.exec(pathname) ?? [];
    const response = await (id === "" ? this : this.group(Number(id))).#called(name, request);
    response.headers.set("barge-instance", `life-${this.#lives}`);
    return response;
  }

  async #called(name: string, request: Request): Promise<Response> {
    this.counts.set(name, this.count(name) + 1);
    await this.wait(name);
    return this.fails
      ? new Response("it is broken", { status: 500 })
      : await this.#do(name, request);
  }

  async #do(name: string, request: Request): Promise<Response> {
    switch (name) {
      case "Ready":
        return Response.json({ Shape: this.shape });
      case "LastLogIndex":
        return Response.json({ LastLogIndex: this.storedIndex });
      case "UpdateEntries":
        return this.#update(request);
      case "Sync":
        this.#durable = this.entries.length;
        return new Response(null, { status: 204 });
      case "Read":
        return new Response(`${this.entries.length} ${await request.text()}`);
      case "PrepareSnapshot": {
        const at = this.#handles.size + 1;
        this.#handles.set(at, [...this.entries]);
        return Response.json({ at });
      }
      case "SaveSnapshot": {
        const { at } = (await request.json()) as { at: number };
        const entries = this.#handles.get(at);
        if (entries === undefined) return new Response("no such handle", { status: 404 });
        return new Response(JSON.stringify(entries));
      }
      case "ReleaseSnapshot":
        return new Response("");
      case "RecoverFromSnapshot":
        this.lengths.push(Number(request.headers.get("content-length")));
        this.received.push(await request.bytes());
        this.entries = JSON.parse(Buffer.from(this.received.at(-1)!).toString()) as Entry[];
        return new Response(null, { status: 204 });
      default:
        return new Response("no such callback", { status: 404 });
    }
  }

  async #update(request: Request): Promise<Response> {
    const { Entries } = (await request.json()) as { Entries: { Index: number; Cmd: string }[] };
    if (Number(request.headers.get("barge-previous-index")) !== this.storedIndex) {
      return new Response("there is a gap", { status: 409 });
    }
    const given = Entries.map(({ Index: index, Cmd }) => ({
      index,
      command: Buffer.from(Cmd, "base64").toString(),
    }));
    this.entries.push(...given);
    const Results = given.map(({ command }) => ({
      Result: Buffer.from(`did ${command}`).toString("base64"),
    }));
    return Response.json({ Results });
  }
}
