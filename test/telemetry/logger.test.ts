import { expect, test } from "bun:test";
import { createLogger, formatLine } from "../../src/telemetry/logger.ts";

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
