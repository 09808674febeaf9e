/**
 * Changes of the registry, on the leader of `system`: one after the other, each as transactions that compare what they rely on. Where something else came in
 * between, the change is planned again, upon what is there by then. Nothing in here waits: `step` goes on once per turn.
 */
import { BargeError, errorTable } from "../errors.ts";
import { ResultCode } from "../machine/machine.ts";
import { encodeKvTxn, KvOperator, type KvOperation, KvTarget } from "../wire/kv-txn.ts";
import { Consistency } from "../wire/messages.ts";
import { plainSection, readSectionHeader } from "../wire/section.ts";
import { readSectionResults } from "../wire/section-results.ts";
import type { Group } from "./group.ts";
import type { RegistryView } from "./registry-view.ts";

/** Keys with the revisions that they must have; 0 = there must be none. */
export interface RegistryWrite {
  readonly compare: readonly { readonly key: Uint8Array; readonly revision: number }[];
  readonly operations: readonly KvOperation[];
  /** It is in the registry. */
  readonly written?: () => void;
}

/** One change, of any number of writes. */
export interface RegistryJob {
  /** What to write next, given what the registry says; undefined = nothing more. Throws a BargeError where it cannot be. */
  readonly plan: (view: RegistryView) => RegistryWrite | undefined;
  readonly deadlineMs: number;
  readonly done: () => void;
  readonly failed: (error: BargeError) => void;
}

/** That wait. */
const jobsMax = 256;
/** Somebody else keeps changing the very same: unlikely, as all changes come through one leader. */
const conflictsMax = 64;

export class RegistryWriter {
  readonly #group: Group;
  readonly #view: RegistryView;
  /** Planned only once this node's state is known to be that of the cluster. */
  #jobs: RegistryJob[] = [];
  #asked = 0;
  #conflicts = 0;
  #isWriting = false;
  /** Of the job at hand: some of it is written. */
  #hasWritten = false;

  constructor(group: Group, view: RegistryView) {
    this.#group = group;
    this.#view = view;
  }

  get idle(): boolean {
    return this.#jobs.length === 0;
  }

  submit(job: RegistryJob): void {
    if (this.#jobs.length + this.#asked >= jobsMax) {
      return job.failed(new BargeError("overloaded", errorTable.overloaded.help));
    }
    this.#asked++;
    this.#group.read(Consistency.linearizable, 0, job.deadlineMs, {
      ready: () => {
        this.#asked--;
        this.#jobs.push(job);
      },
      failed: (error) => {
        this.#asked--;
        job.failed(error);
      },
    });
  }

  /** After a turn. True when there is something for the next one. */
  step(nowMs: number): boolean {
    if (this.#jobs.length === 0 || this.#isWriting) return false;
    this.#view.refresh(this.#group.machine);
    while (this.#jobs.length > 0 && !this.#isWriting) this.#next(this.#jobs[0]!, nowMs);
    return this.#isWriting;
  }

  #next(job: RegistryJob, nowMs: number): void {
    if (nowMs >= job.deadlineMs) return this.#end(() => job.failed(this.#late()));
    let write: RegistryWrite | undefined;
    try {
      write = job.plan(this.#view);
    } catch (error) {
      if (!(error instanceof BargeError)) throw error;
      return this.#end(() => job.failed(error));
    }
    if (write === undefined) return this.#end(job.done);
    if (this.#conflicts > conflictsMax) {
      return this.#end(() => job.failed(new BargeError("overloaded", errorTable.overloaded.help)));
    }
    this.#write(job, write);
  }

  #write(job: RegistryJob, { compare, operations, written }: RegistryWrite): void {
    const command = encodeKvTxn({
      compare: compare.map(({ key, revision }) => ({
        key,
        revision,
        target: KvTarget.revision,
        operator: KvOperator.equal,
      })),
      success: operations,
      failure: [],
    });
    const section = plainSection([command]);
    this.#isWriting = true;
    this.#group.write(section, readSectionHeader(section, 0)!, job.deadlineMs, {
      applied: (_, results) => {
        this.#isWriting = false;
        const code = readSectionResults(results, 1)?.[0]?.code ?? ResultCode.ok;
        if (code === ResultCode.ok) {
          this.#conflicts = 0;
          this.#hasWritten = true;
          written?.();
        } else if (code === ResultCode.failureList) this.#conflicts++;
        else
          this.#end(() => job.failed(new BargeError("internal", `the registry refused: ${code}`)));
      },
      failed: (error) => {
        this.#isWriting = false;
        const { code, message } = error;
        const outcome = this.#hasWritten ? "unknown" : error.outcome;
        this.#end(() => job.failed(new BargeError(code, message, { outcome })));
      },
    });
  }

  #end(tell: () => void): void {
    this.#jobs.shift();
    this.#conflicts = 0;
    this.#hasWritten = false;
    tell();
  }

  #late(): BargeError {
    const outcome = this.#hasWritten ? "unknown" : "not-applied";
    return new BargeError("timeout", "The registry was not written in time.", { outcome });
  }

  failAll(error: BargeError): void {
    const jobs = this.#jobs;
    this.#jobs = [];
    for (const job of jobs) job.failed(error);
  }
}
