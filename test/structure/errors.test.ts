/** The table of errors: each has its line for people, its own number, and reaches who asked, over the binary protocol and HTTP, as what it is. */
import { expect, test } from "bun:test";
import { BargeError, type ErrorCode, errorCodeOf, errorTable } from "../../src/errors.ts";
import { errorAnswer } from "../../src/server/http-answers.ts";
import { decodeServerReply, encodeErrorReply } from "../../src/wire/client-messages.ts";
import { SendBuffer } from "../../src/wire/send-buffer.ts";
import { drain, framesOf } from "../wire/messages.ts";

const codes = Object.keys(errorTable) as ErrorCode[];

test("each says what it means, what to do, and whether it was applied", async () => {
  const reference = await Bun.file(new URL("../../src/README.md", import.meta.url)).text();
  const lines = reference.split("\n").map((line) => line.replace(/ +/g, " "));
  const applied = { applied: "yes", "not-applied": "no", unknown: "unknown" };
  for (const code of codes) {
    const { number, httpStatus, means, todo, outcome, retryable } = errorTable[code];
    expect(`${code}: ${means}`).toMatch(/: [A-Z].{15,}\.$/);
    expect(`${code}: ${todo}`).toMatch(/: [A-Z].{10,}\.$/);
    const retry = retryable ? "yes" : "no";
    expect(lines).toContain(
      `| \`${code}\` | ${number} | ${httpStatus} | ${means} | ${todo} | ${applied[outcome]} | ${retry} |`,
    );
  }
});

test("numbers and codes are one to one, and a number of a later build is none of them", () => {
  expect(new Set(codes.map((code) => errorTable[code].number)).size).toBe(codes.length);
  for (const code of codes) expect(errorCodeOf(errorTable[code].number)).toBe(code);
  expect(errorCodeOf(65_000)).toBe("internal");
});

test("who asked gets code, outcome and words, whichever way", async () => {
  for (const code of codes) {
    const error = new BargeError(code, `words about ${code}`, { leaderHint: "127.0.0.1:9091" });
    const { number, outcome, httpStatus, todo, retryable } = errorTable[code];
    expect(error).toMatchObject({ outcome, retryable, todo });

    const out = new SendBuffer();
    encodeErrorReply(out, 7, number, error.outcome, error.message, error.leaderHint!);
    const [frame] = framesOf(drain(out));
    const reply = decodeServerReply(frame!.type, frame!.payload, frame!.fieldsBytes);
    expect(reply).toMatchObject({ type: "errorReply", error: number, outcome });

    const answer = errorAnswer(error);
    expect(answer.status).toBe(httpStatus);
    expect(await answer.json()).toEqual({
      error: { code, message: error.message, outcome, retryable, leader: "127.0.0.1:9091" },
    });
  }
});
