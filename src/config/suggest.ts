/** "Did you mean": the nearest of the allowed words to what was typed. */

const DISTANCE_MAX = 3;
const SHARE_MAX = 0.45;

/** Letters from which on the beginning of a word may stand for it. */
const PREFIX_MIN = 4;

/** The allowed word with the smallest edit distance, if it is near enough to be what was meant, or one that begins so. */
export function nearestWord(typed: string, allowed: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = DISTANCE_MAX + 1;
  for (const word of allowed) {
    const distance = editDistance(typed.toLowerCase(), word.toLowerCase());
    if (distance >= bestDistance || distance > Math.max(typed.length, word.length) * SHARE_MAX) continue;
    best = word;
    bestDistance = distance;
  }
  if (best !== undefined || typed.length < PREFIX_MIN) return best;
  return allowed.find((word) => word.toLowerCase().startsWith(typed.toLowerCase()));
}

/** `(did you mean X?)` with a leading space, or nothing. */
export function didYouMean(typed: string, allowed: readonly string[]): string {
  const nearest = nearestWord(typed, allowed);
  return nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment distance). */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let distance = Math.min(
        previous[column]! + 1,
        current[column - 1]! + 1,
        previous[column - 1]! + (same ? 0 : 1),
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) distance = Math.min(distance, beforePrevious[column - 2]! + 1);
      current.push(distance);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}
