/**
 * What sessions cost where they stand before a machine: sections of one command each, plain and of a session, over a machine that does nothing; and
 * what it takes to save and to load all that may be known at once.
 */
import { bench, group, run as runSuite } from "mitata";
import { checkLimits, defaultLimits } from "../src/limits.ts";
import { type SectionRunner, Sessions } from "../src/machine/sessions.ts";
import { BatchKind, batchHeaderBytes, sealBatch, type Batch } from "../src/wire/batch.ts";
import { encodeKvPut } from "../src/wire/kv.ts";
import { layOutSection, plainSection, SectionKind } from "../src/wire/section.ts";
import { sessionCommandSection } from "../src/wire/session-commands.ts";

const sectionsPerBatch = 100;
const nothingToRun: SectionRunner = { run: () => undefined };
const sink = { result: () => undefined, repeated: () => undefined, refused: () => undefined };
const command = encodeKvPut(new Uint8Array(8), new Uint8Array(16));
const firstVersion = 2;

export async function run(small: boolean): Promise<void> {
  const limits = checkLimits({ ...defaultLimits });
  const batches = small ? 10 : 1_000;

  group(`apply ${batches} batches of ${sectionsPerBatch} sections of one command`, () => {
    for (const kind of ["plain", "of a session"] as const) {
      bench(kind, function* () {
        yield {
          [0]: () => {
            const log = new Log();
            const sessions = new Sessions(nothingToRun, limits, firstVersion);
            const opened = log.add([openSection()]);
            sessions.apply(opened, opened.firstIndex, sink);
            const section = (seq: number): Uint8Array =>
              kind === "plain" ? plainSection([command]) : inSession(opened.firstIndex, seq);
            const work = Array.from({ length: batches }, (_, batch) =>
              log.add(
                Array.from({ length: sectionsPerBatch }, (_none, at) =>
                  section(batch * sectionsPerBatch + at + 1),
                ),
              ),
            );
            return { sessions, work };
          },
          bench: ({ sessions, work }: { sessions: Sessions; work: readonly Batch[] }) => {
            for (const batch of work) sessions.apply(batch, batch.firstIndex, sink);
          },
        };
      });
    }
  });

  const full = small ? 64 : limits.sessionsMax;
  const ids = small ? 1_000 : limits.requestIdsMax;
  const sessions = filled(full, ids);
  const saved = sessions.save();
  group(`${full} sessions with whole windows, ${ids} request ids: ${saved.byteLength} B`, () => {
    bench("save", () => sessions.save());
    bench("load", () => new Sessions(nothingToRun, limits, firstVersion).load(2, saved));
  });
  await runSuite({ format: small ? "quiet" : "mitata" });
}

/** As many as there may be, none of whose results is confirmed. */
function filled(count: number, ids: number): Sessions {
  const log = new Log();
  const sessions = new Sessions(nothingToRun, defaultLimits, firstVersion);
  for (let session = 0; session < count; session++) {
    const opened = log.add([openSection()]);
    sessions.apply(opened, opened.firstIndex, sink);
    const sections = Array.from({ length: defaultLimits.sessionWindowSections }, (_, at) =>
      inSession(opened.firstIndex, at + 1, 0),
    );
    const batch = log.add(sections);
    sessions.apply(batch, batch.firstIndex, sink);
  }
  for (let id = 0; id < ids; id++) {
    const identity = { kind: SectionKind.keyed, session: id, firstSeq: 1, doneUpTo: 1 };
    const batch = log.add([layOutSection([command], identity)]);
    sessions.apply(batch, batch.firstIndex, sink);
  }
  return sessions;
}

function openSection(): Uint8Array {
  return sessionCommandSection({ op: "open", ttlMs: 600_000, principal: new Uint8Array(0) });
}

/** Confirms what is a few sections old, unless told otherwise. */
function inSession(
  session: number,
  firstSeq: number,
  doneUpTo = Math.max(0, firstSeq - 8),
): Uint8Array {
  return layOutSection([command], { kind: SectionKind.session, session, firstSeq, doneUpTo });
}

/** Batches one behind the other, of sections of one command each. */
class Log {
  #next = 1;

  add(sections: readonly Uint8Array[]): Batch {
    const body = Buffer.concat(sections);
    const bytes = new Uint8Array(batchHeaderBytes + body.byteLength);
    bytes.set(body, batchHeaderBytes);
    const firstIndex = this.#next;
    const count = sections.length;
    this.#next += count;
    const head = { group: 0, kind: BatchKind.commands, firstIndex, count, term: 1, prevCrc: 0 };
    return sealBatch({ ...head, timeMs: firstIndex }, bytes);
  }
}

if (import.meta.main) await run(process.argv.includes("--small"));
