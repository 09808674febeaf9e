/** The checker of lists: it passes what may be, and names what may not. */
import { expect, test } from "bun:test";
import { type ListOperation, listProblem } from "./append-history.ts";

const op = (
  value: string | undefined,
  callMs: number,
  returnMs: number,
  seen: string,
  outcome: ListOperation["outcome"] = "ok",
): ListOperation => ({ key: "k", value, callMs, returnMs, outcome, seen: [...seen] });

test("what may be", () => {
  const fine = [
    op("a", 0, 5, "a"),
    op("b", 1, 4, "ab"),
    op(undefined, 2, 3, ""),
    op("c", 6, Infinity, "", "unknown"),
    op(undefined, 7, 9, "ab"),
    op(undefined, 8, 10, "abc"),
    op("d", 8, 9, "", "refused"),
    op("e", 11, 12, "abce"),
  ];
  expect(listProblem(fine)).toBeUndefined();
});

test.each([
  ["twice", [op("a", 0, 1, "a"), op(undefined, 2, 3, "aa")]],
  ["never written", [op(undefined, 0, 1, "x")]],
  ["applied, and is not", [op("a", 0, 1, "", "applied"), op(undefined, 2, 3, "")]],
  ["refused", [op("a", 0, 1, "", "refused"), op(undefined, 2, 3, "a")]],
  ["too", [op("a", 0, 9, "a"), op("b", 0, 9, "b")]],
  ["itself last", [op("a", 0, 9, "ab"), op("b", 0, 9, "ab")]],
  ["a read saw 0 values", [op("a", 0, 1, "a"), op(undefined, 2, 3, "")]],
  [
    "b saw 1",
    [op("a", 0, 1, "a"), op(undefined, 0, 1, "ab"), op("b", 0, 9, "ab"), op("c", 2, 3, "a")],
  ],
])("%s", (words, history) => {
  expect(listProblem(history)).toContain(words === "b saw 1" ? "itself" : words);
});
