import { expect, test } from "bun:test";
import fc from "fast-check";
import { MergeEncoder } from "../../src/text/merge-encoder.ts";
import { rankedMerges, ScoredMerges } from "../../src/text/merge-rules.ts";

/** Merging by the definition: the best pair, leftmost first, until there is none. */
function mergeSlowly(symbols: readonly string[], rankOf: (left: string, right: string) => number): string[] {
  const parts = symbols.slice();
  for (;;) {
    let best = -1;
    for (let at = 0; at + 1 < parts.length; at++) {
      const rank = rankOf(parts[at]!, parts[at + 1]!);
      if (rank < Infinity && (best < 0 || rank < rankOf(parts[best]!, parts[best + 1]!))) best = at;
    }
    if (best < 0) return parts;
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
}

const piece = fc.stringMatching(/^[abc]{2,5}$/);
const vocabularyOf = fc
  .uniqueArray(piece, { minLength: 1, maxLength: 14 })
  .map((pieces) => ["a", "b", "c", ...pieces]);
const wordOf = fc.stringMatching(/^[abc]{1,60}$/);

function mergeFast(encoder: MergeEncoder, tokens: readonly string[], word: string): string[] {
  for (const letter of word) encoder.add(tokens.indexOf(letter));
  const output: number[] = [];
  encoder.finish(output);
  return output.map((token) => tokens[token]!);
}

test("ranked merges, as lines and as pairs, merge as the definition says", () => {
  fc.assert(
    fc.property(vocabularyOf, fc.array(wordOf, { minLength: 1, maxLength: 4 }), (tokens, words) => {
      const idOf = new Map(tokens.map((token, id) => [token, id]));
      const pairs = tokens.flatMap((token): [string, string][] =>
        Array.from({ length: token.length - 1 }, (_, at): [string, string] => [
          token.slice(0, at + 1),
          token.slice(at + 1),
        ]),
      );
      const known = pairs.filter((pair) => pair.every((part) => idOf.has(part)));
      const ranks = new Map(known.map((pair, rank) => [pair.join(" "), rank]));
      const rankOf = (left: string, right: string) => ranks.get(`${left} ${right}`) ?? Infinity;
      const byPair = new MergeEncoder(rankedMerges(tokens, idOf, known));
      const byLine = new MergeEncoder(
        rankedMerges(
          tokens,
          idOf,
          known.map((pair) => pair.join(" ")),
        ),
      );
      for (const word of words) {
        const expected = mergeSlowly([...word], rankOf);
        expect(mergeFast(byPair, tokens, word)).toEqual(expected);
        expect(mergeFast(byLine, tokens, word)).toEqual(expected);
      }
    }),
    { numRuns: 300, seed: 21 },
  );
});

test("scored merges merge the best piece first", () => {
  const scored = vocabularyOf.chain((tokens) =>
    fc.tuple(
      fc.constant(tokens),
      fc.shuffledSubarray(
        tokens.map((_, id) => id),
        { minLength: tokens.length },
      ),
      wordOf,
    ),
  );
  fc.assert(
    fc.property(scored, ([tokens, order, word]) => {
      const idOf = new Map(tokens.map((token, id) => [token, id]));
      const encoder = new MergeEncoder(new ScoredMerges(tokens, idOf, (token) => -order[token]!));
      // Of equal pieces the one with the longer left part comes first.
      const rankOf = (left: string, right: string) => {
        const token = idOf.get(left + right);
        return token === undefined ? Infinity : order[token]! + (9 - left.length) / 10;
      };
      expect(mergeFast(encoder, tokens, word)).toEqual(mergeSlowly([...word], rankOf));
    }),
    { numRuns: 300, seed: 22 },
  );
});

test("runs longer than the scratch that is kept", () => {
  const tokens = ["a", "aa", "aaaa"];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const encoder = new MergeEncoder(rankedMerges(tokens, idOf, ["a a", "aa aa"]));
  for (const length of [200_003, 7, 100_000]) {
    const merged = mergeFast(encoder, tokens, "a".repeat(length));
    expect(merged.length).toBe(Math.floor(length / 4) + [0, 1, 1, 2][length % 4]!);
    expect(merged.join("").length).toBe(length);
  }
});
