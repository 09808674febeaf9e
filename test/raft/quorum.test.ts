/** The quorum rules against a brute-force twin that looks at every subset of voters. */
import { describe, expect, test } from "bun:test";
import { quorumValue, voteResult } from "../../src/raft/quorum.ts";
import { configurationOf, randomFrom } from "./harness.ts";

/** True when `members` hold a majority of `voters`. */
function isMajority(voters: readonly number[], members: ReadonlySet<number>): boolean {
  return voters.filter((id) => members.has(id)).length * 2 > voters.length;
}

/** Every subset of nodes 1 to 7. */
const subsets = Array.from(
  { length: 128 },
  (_, mask) => new Set([1, 2, 3, 4, 5, 6, 7].filter((id) => mask & (1 << (id - 1)))),
);

describe("quorum", () => {
  test("values: the best that all members of some quorum have reached", () => {
    const random = randomFrom(1);
    for (let round = 0; round < 500; round++) {
      const draw = (most: number): number[] =>
        [1, 2, 3, 4, 5, 6, 7].filter(() => random() < 0.6).slice(0, most);
      const voters = draw(7);
      const outgoing = round % 2 === 0 ? [] : draw(7);
      if (voters.length === 0) voters.push(1);
      const values = new Map([1, 2, 3, 4, 5, 6, 7].map((id) => [id, Math.floor(random() * 5)]));
      let expected = 0;
      for (const subset of subsets) {
        const quorum =
          isMajority(voters, subset) && (outgoing.length === 0 || isMajority(outgoing, subset));
        if (quorum) {
          const lowest = Math.min(...[...subset].map((id) => values.get(id)!));
          expected = Math.max(expected, lowest);
        }
      }
      const value = quorumValue(configurationOf(voters, [], outgoing), (id) => values.get(id)!);
      expect({ round, voters, outgoing, value }).toEqual({
        round,
        voters,
        outgoing,
        value: expected,
      });
    }
  });

  test("votes: won or lost as soon as the rest cannot change it", () => {
    const random = randomFrom(2);
    for (let round = 0; round < 500; round++) {
      const draw = (): number[] => [1, 2, 3, 4, 5, 6, 7].filter(() => random() < 0.6);
      const voters = draw();
      const outgoing = round % 2 === 0 ? [] : draw();
      if (voters.length === 0) voters.push(1);
      const votes = new Map<number, boolean>();
      for (const id of [1, 2, 3, 4, 5, 6, 7]) if (random() < 0.6) votes.set(id, random() < 0.6);
      // Some and all completions of the open votes.
      const wins = subsets
        .filter((granted) =>
          [1, 2, 3, 4, 5, 6, 7].every(
            (id) => (votes.get(id) ?? granted.has(id)) === granted.has(id),
          ),
        )
        .map(
          (granted) =>
            isMajority(voters, granted) && (outgoing.length === 0 || isMajority(outgoing, granted)),
        );
      const expected = wins.every(Boolean) ? "won" : wins.some(Boolean) ? "pending" : "lost";
      const result = voteResult(configurationOf(voters, [], outgoing), (id) => votes.get(id));
      expect({ round, result }).toEqual({ round, result: expected });
    }
  });

  test("without voters nothing is reached and nothing is won", () => {
    expect(quorumValue(configurationOf([]), () => 9)).toBe(0);
    expect(voteResult(configurationOf([]), () => true)).not.toBe("won");
  });
});
