/**
 * Far more writes than a cluster can take: its capacity is measured in a closed loop, then ten times as much is offered, whatever becomes of
 * it, then the closed loop again. Sent as bare frames, past all manners of the SDK. All requests of a run are the same bytes: what is
 * measured is the node, not its tormentor. With groups each of them is written to, in turn, whoever leads it.
 */
import { errorTable } from "../../src/errors.ts";
import { encodeKvPut } from "../../src/wire/kv.ts";
import { FrameType } from "../../src/wire/messages.ts";
import { plainSection } from "../../src/wire/section.ts";
import type { TestCluster, TestNode } from "../e2e/cluster.ts";
import { clientHello, RawClient, repeated, writeFrame } from "./raw-client.ts";

export interface OverloadPlan {
  readonly connections: number;
  /** Requests in flight over all connections, in the closed loop. */
  readonly inFlight: number;
  /** Commands in a request. */
  readonly commands: number;
  readonly valueBytes: number;
  readonly factor: number;
  readonly capacitySeconds: number;
  readonly overloadSeconds: number;
  readonly recoverySeconds: number;
  /** Written to in turn. @default the default one */
  readonly groups?: readonly number[];
}

export interface OverloadResult {
  /** Requests a second, each. */
  readonly peak: number;
  readonly offered: number;
  readonly goodput: number;
  readonly refused: number;
  /** All of them, as overloaded. */
  readonly refusals: number;
  /** Not sent, because the node had stopped reading and the kernel's buffers were full. */
  readonly heldBack: number;
  /** Error numbers other than overloaded, with their counts. */
  readonly otherErrors: Record<string, number>;
  /** Outcome of the refusals, other than not-applied. */
  readonly refusedOtherwise: number;
  readonly goodputShare: number;
  /** From the end of the overload until a tenth of a second brought 80 % of the peak again; Infinity = not in time. */
  readonly normalAfterMs: number;
  readonly termBefore: number;
  readonly termAfter: number;
  readonly rssBytes: number;
  readonly rssPeakBytes: number;
}

const windowMs = 100;
const tickMs = 2;
/** What a connection may have waiting here before more is held back. */
const unsentBytesMax = 1024 * 1024;

export async function overload(cluster: TestCluster, plan: OverloadPlan): Promise<OverloadResult> {
  const leader = await cluster.leader();
  const load = await Load.open(leader, plan);
  try {
    return await load.run(leader);
  } finally {
    load.close();
  }
}

class Load {
  readonly #plan: OverloadPlan;
  /** A request to each group. */
  readonly #frames: readonly Uint8Array[];
  #next = 0;
  readonly #clients: RawClient[] = [];
  /** Of one group, by how many. */
  readonly #pieces = new Map<number, Uint8Array>();
  #closedLoop = true;
  #done = 0;
  /** Since the last piece of input began. */
  #answers = 0;
  #refused = 0;
  #refusedOtherwise = 0;
  readonly #otherErrors: Record<string, number> = {};

  private constructor(plan: OverloadPlan) {
    this.#plan = plan;
    const value = new Uint8Array(plan.valueBytes).fill(0x61);
    const commands = Array.from({ length: plan.commands }, (_, i) =>
      encodeKvPut(Buffer.from(`overload/${i}`), value),
    );
    const section = plainSection(commands);
    this.#frames = (plan.groups ?? [0]).map((group) => writeFrame(1, section, group));
  }

  static async open(node: TestNode, plan: OverloadPlan): Promise<Load> {
    const load = new Load(plan);
    for (let i = 0; i < plan.connections; i++) {
      const client: RawClient = await RawClient.connect(node.binary, {
        hello: clientHello,
        onFrame: (type, payload) => load.#answered(type, payload),
        onRead: () => load.#goOn(client),
      });
      load.#clients.push(client);
    }
    return load;
  }

  close(): void {
    this.#closedLoop = false;
    for (const client of this.#clients) client[Symbol.dispose]();
  }

  async run(leader: TestNode): Promise<OverloadResult> {
    const { factor, capacitySeconds, overloadSeconds, recoverySeconds } = this.#plan;
    const before = await leader.status();
    this.#fill();
    await this.#windows(capacitySeconds / 2);
    const peakWindows = await this.#windows(capacitySeconds);
    const peak = mean(peakWindows);

    this.#closedLoop = false;
    const begin = { done: this.#done, refused: this.#refused };
    const beginMs = performance.now();
    const { sent, heldBack } = await this.#offer(peak * factor, overloadSeconds);
    const seconds = (performance.now() - beginMs) / 1_000;
    const goodput = (this.#done - begin.done) / seconds;
    const refused = (this.#refused - begin.refused) / seconds;

    this.#closedLoop = true;
    const endMs = performance.now();
    this.#fill();
    let normalAfterMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < (recoverySeconds * 1_000) / windowMs; i++) {
      const [rate] = await this.#windows(windowMs / 1_000);
      if (rate! < 0.8 * peak) continue;
      normalAfterMs = performance.now() - endMs;
      break;
    }
    this.#closedLoop = false;
    const after = await leader.status();
    return {
      peak,
      offered: sent / seconds,
      goodput,
      refused,
      refusals: this.#refused,
      heldBack: heldBack / seconds,
      otherErrors: this.#otherErrors,
      refusedOtherwise: this.#refusedOtherwise,
      goodputShare: goodput / peak,
      normalAfterMs,
      termBefore: before.groups[0]!.term,
      termAfter: after.groups[0]!.term,
      rssBytes: before.peakRssBytes,
      rssPeakBytes: after.peakRssBytes,
    };
  }

  #fill(): void {
    const each = Math.ceil(this.#plan.inFlight / this.#clients.length);
    for (const client of this.#clients) client.send(this.#requests(each));
  }

  /** Answers a second, window by window. */
  async #windows(seconds: number): Promise<number[]> {
    const rates: number[] = [];
    for (let i = 0; i < (seconds * 1_000) / windowMs; i++) {
      const from = this.#done;
      const fromMs = performance.now();
      await Bun.sleep(windowMs);
      rates.push(((this.#done - from) * 1_000) / (performance.now() - fromMs));
    }
    return rates;
  }

  async #offer(rate: number, seconds: number): Promise<{ sent: number; heldBack: number }> {
    let due = 0;
    let sent = 0;
    let heldBack = 0;
    const beginMs = performance.now();
    for (;;) {
      const nowMs = performance.now();
      if (nowMs - beginMs >= seconds * 1_000) return { sent, heldBack };
      const each = Math.floor((((nowMs - beginMs) / 1_000) * rate - due) / this.#clients.length);
      if (each > 0) {
        due += each * this.#clients.length;
        for (const client of this.#clients) {
          if (client.unsentBytes > unsentBytesMax) heldBack += each;
          else {
            sent += each;
            client.send(this.#requests(each));
          }
        }
      }
      await Bun.sleep(tickMs);
    }
  }

  /** As many requests as were answered. */
  #goOn(client: RawClient): void {
    if (this.#closedLoop && this.#answers > 0) client.send(this.#requests(this.#answers));
    this.#answers = 0;
  }

  /** The next ones, to one group after the other. */
  #requests(count: number): Uint8Array {
    const groups = this.#frames.length;
    if (groups > 1) {
      const requests = Array.from({ length: count }, () => this.#frames[this.#next++ % groups]!);
      return Buffer.concat(requests);
    }
    let piece = this.#pieces.get(count);
    if (piece === undefined) this.#pieces.set(count, (piece = repeated(this.#frames[0]!, count)));
    return piece;
  }

  #answered(type: number, payload: Uint8Array): void {
    this.#answers++;
    if (type === FrameType.writeReply) {
      this.#done++;
    } else {
      const number = new DataView(payload.buffer, payload.byteOffset).getUint32(8, true);
      if (number === errorTable.overloaded.number) {
        this.#refused++;
        if (payload[12] !== notApplied) this.#refusedOtherwise++;
      } else {
        this.#otherErrors[number] = (this.#otherErrors[number] ?? 0) + 1;
      }
    }
  }
}

/** Place of the outcome in an error reply's row of outcomes. */
const notApplied = 1;

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

export interface Criteria {
  readonly goodputShareMin?: number;
  /** Leaders may move: of many groups one or the other is being handed over at any time. */
  readonly leadersMove?: boolean;
}

/** Of all refusals, by a leader that moves. */
const movedShareMax = 0.01;

/** What of the criteria does not hold, in words. */
export function missed(
  result: OverloadResult,
  { goodputShareMin = 0.8, leadersMove = false }: Criteria = {},
): string[] {
  const wrong: string[] = [];
  const must = (ok: boolean, what: string): void => {
    if (!ok) wrong.push(what);
  };
  const { goodputShare, refused, heldBack, refusedOtherwise } = result;
  const otherErrors = { ...result.otherErrors };
  if (leadersMove) {
    const { not_leader: notLeader, no_leader: noLeader } = errorTable;
    const moved = [notLeader, noLeader].reduce((sum, { number }) => {
      const count = otherErrors[number] ?? 0;
      delete otherErrors[number];
      return sum + count;
    }, 0);
    must(moved <= movedShareMax * result.refusals, `${moved} were refused by leaders that move`);
  }
  must(goodputShare >= goodputShareMin, `goodput is ${Math.round(goodputShare * 100)} % of peak`);
  must(refused > 0, "nobody was told: overloaded");
  must(refused + heldBack > result.peak, "it was no overload");
  must(refusedOtherwise === 0, "a refusal left open whether it was applied");
  must(Object.keys(otherErrors).length === 0, `other errors: ${JSON.stringify(otherErrors)}`);
  must(result.normalAfterMs <= 5_000, `normal again after ${result.normalAfterMs} ms`);
  must(leadersMove || result.termAfter === result.termBefore, "there was an election");
  must(result.rssPeakBytes <= rssBytesMax, `peak memory ${result.rssPeakBytes} bytes`);
  return wrong;
}

/** Two memtables of 64 MiB with their indexes, unapplied log of 64 MiB, inbox, caches; and what the collector has not looked at yet. */
const rssBytesMax = 1024 ** 3;
