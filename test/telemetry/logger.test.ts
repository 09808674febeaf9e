import { expect, test } from "bun:test";
import {
  burstLinesMax,
  createLogger,
  formatLine,
  linesPerSecondMax,
} from "../../src/telemetry/logger.ts";

function lines(text: boolean, level = "info"): [ReturnType<typeof createLogger>, string[]] {
  const written: string[] = [];
  const logger = createLogger({ nodeId: 3, level, text, write: (line) => written.push(line) });
  return [logger, written];
}

test("for machines: one JSON object a line, with node, group and term", () => {
  const [logger, written] = lines(false);
  logger.child({ group: 0 }).info({ term: 5 }, "became leader");
  expect(written).toHaveLength(1);
  expect(written[0]).toEndWith("}\n");
  const { time, ...rest } = JSON.parse(written[0]!) as Record<string, unknown>;
  expect(rest).toEqual({ level: "info", node: 3, group: 0, term: 5, message: "became leader" });
  expect(new Date(String(time)).toISOString()).toBe(String(time));
});

test("for people: one short line, the message before the rest", () => {
  const [logger, written] = lines(true);
  logger.warn({ group: 1, peer: 2, detail: { a: 1 } }, "peer down");
  expect(written[0]).toMatch(
    /^\d\d:\d\d:\d\d\.\d{3} warn  node=3 group=1 peer down peer=2 detail=\{"a":1\}\n$/,
  );
});

test("below the level nothing is written", () => {
  const [logger, written] = lines(false, "warn");
  logger.info("no");
  logger.warn("yes");
  expect(written).toHaveLength(1);
});

test("an error is told with its stack", () => {
  const [logger, written] = lines(true);
  logger.error({ error: new Error("broken") }, "could not");
  expect(written[0]).toMatch(/error node=3 could not \nError: broken\n\s+at /);
  const thrown = { time: "2026-01-01T00:00:00.000Z", level: "error", error: "odd", message: "m" };
  expect(formatLine(JSON.stringify(thrown))).toBe('00:00:00.000 error m error="odd"\n');
});

test("what comes too fast is left out and counted, and the disk does not fill", () => {
  const written: string[] = [];
  let nowMs = 5_000;
  const logger = createLogger({
    nodeId: 3,
    level: "info",
    text: true,
    write: (line) => written.push(line),
    nowMs: () => nowMs,
  });
  for (let i = 0; i < burstLinesMax + 50; i++) logger.warn({ peer: 2 }, "strange");
  expect(written).toHaveLength(burstLinesMax);
  logger.debug("not at this level, and not counted");
  nowMs += 100;
  logger.error({ peer: 2 }, "another");
  expect(written.slice(burstLinesMax).map((line) => line.slice(13).trim())).toEqual([
    "error node=3 50 lines were left out: they came too fast",
    "error node=3 another peer=2",
  ]);

  const before = written.length;
  const seconds = 60;
  for (let i = 0; i < seconds * 1_000; i++, nowMs++) logger.info("strange");
  const count = written.length - before;
  expect(count).toBeLessThan(seconds * linesPerSecondMax * 2 + burstLinesMax);
  expect(count).toBeGreaterThan(seconds * linesPerSecondMax);
});
