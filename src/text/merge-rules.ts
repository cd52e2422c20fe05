/**
 * Which two neighbouring tokens merge into which token, and how early: the two ways vocabularies say it. Owns
 * the lookup and its memo; the order of merging belongs to the encoder.
 */

/** Slots of the direct-mapped memo; a power of two. Pairs repeat heavily, so collisions cost little. */
const MEMO_SLOTS = 1 << 16;

/**
 * Answers for a pair of token ids, memoised. After `find` returned true, `merged`, `priority` and `tie` hold the
 * answer: the pair with the smallest (priority, tie, position) merges first.
 */
export abstract class MergeRules {
  merged = -1;
  priority = 0;
  tie = 0;

  private readonly memoLeft = new Int32Array(MEMO_SLOTS).fill(-1);
  private readonly memoRight = new Int32Array(MEMO_SLOTS);
  private readonly memoMerged = new Int32Array(MEMO_SLOTS);
  private readonly memoTie = new Int32Array(MEMO_SLOTS);
  private readonly memoPriority = new Float64Array(MEMO_SLOTS);

  /** Looks the pair up without the memo and sets the answer; false when the pair does not merge. */
  protected abstract resolve(left: number, right: number): boolean;

  find(left: number, right: number): boolean {
    const slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 16;
    if (this.memoLeft[slot] !== left || this.memoRight[slot] !== right) {
      if (!this.resolve(left, right)) this.merged = -1;
      this.memoLeft[slot] = left;
      this.memoRight[slot] = right;
      this.memoMerged[slot] = this.merged;
      this.memoTie[slot] = this.tie;
      this.memoPriority[slot] = this.priority;
      return this.merged >= 0;
    }
    this.merged = this.memoMerged[slot]!;
    this.tie = this.memoTie[slot]!;
    this.priority = this.memoPriority[slot]!;
    return this.merged >= 0;
  }
}

/** Merges written as "left right" lines, most important first (GGUF metadata, older tokenizer.json files). */
class LineMerges extends MergeRules {
  private readonly rankOf = new Map<string, number>();

  constructor(
    private readonly tokens: readonly (string | undefined)[],
    private readonly idOf: ReadonlyMap<string, number>,
    merges: readonly string[],
  ) {
    super();
    for (let rank = 0; rank < merges.length; rank++) this.rankOf.set(merges[rank]!, rank);
  }

  protected override resolve(left: number, right: number): boolean {
    const leftText = this.tokens[left]!;
    const rightText = this.tokens[right]!;
    const rank = this.rankOf.get(`${leftText} ${rightText}`);
    const merged = rank === undefined ? undefined : this.idOf.get(leftText + rightText);
    if (rank === undefined || merged === undefined) return false;
    this.merged = merged;
    this.priority = rank;
    return true;
  }
}

/** Merges written as [left, right] pairs, most important first; the parts may contain spaces. */
class PairMerges extends MergeRules {
  /** Open addressing: the rank + 1 of the pair whose ids hash to the slot or before it; 0 is free. */
  private readonly slots: Int32Array;
  private readonly lefts: Int32Array;
  private readonly rights: Int32Array;

  constructor(
    private readonly tokens: readonly (string | undefined)[],
    private readonly idOf: ReadonlyMap<string, number>,
    merges: readonly (readonly [string, string])[],
  ) {
    super();
    this.lefts = new Int32Array(merges.length);
    this.rights = new Int32Array(merges.length);
    this.slots = new Int32Array(1 << (33 - Math.clz32(merges.length)));
    for (let rank = 0; rank < merges.length; rank++) {
      const [leftText, rightText] = merges[rank]!;
      const left = idOf.get(leftText);
      const right = idOf.get(rightText);
      if (left === undefined || right === undefined) continue;
      this.lefts[rank] = left;
      this.rights[rank] = right;
      this.slots[this.slotOf(left, right)] = rank + 1;
    }
  }

  protected override resolve(left: number, right: number): boolean {
    const rank = this.slots[this.slotOf(left, right)]! - 1;
    const merged = rank < 0 ? undefined : this.idOf.get(this.tokens[left]! + this.tokens[right]!);
    if (merged === undefined) return false;
    this.merged = merged;
    this.priority = rank;
    return true;
  }

  /** The slot of this pair, or the free one where it would go. */
  private slotOf(left: number, right: number): number {
    const { slots, lefts, rights } = this;
    const mask = slots.length - 1;
    const hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (;;) {
      const rank = slots[slot]! - 1;
      if (rank < 0 || (lefts[rank] === left && rights[rank] === right)) return slot;
      slot = (slot + 1) & mask;
    }
  }
}

/** Merges written out as a ranked list: `merges` of a tokenizer.json or of GGUF metadata. */
export function rankedMerges(
  tokens: readonly (string | undefined)[],
  idOf: ReadonlyMap<string, number>,
  merges: readonly string[] | readonly (readonly [string, string])[],
): MergeRules {
  return isLines(merges) ? new LineMerges(tokens, idOf, merges) : new PairMerges(tokens, idOf, merges);
}

function isLines(
  merges: readonly string[] | readonly (readonly [string, string])[],
): merges is readonly string[] {
  return merges.length === 0 || typeof merges[0] === "string";
}

/**
 * SentencePiece's rule: two pieces merge when their concatenation is a piece, best score first. Equal scores are
 * settled as in Hugging Face's conversion of such a vocabulary to a list of merges: longer left part, then
 * longer right part.
 */
export class ScoredMerges extends MergeRules {
  constructor(
    private readonly tokens: readonly (string | undefined)[],
    private readonly idOf: ReadonlyMap<string, number>,
    private readonly scoreOf: (token: number) => number,
  ) {
    super();
  }

  protected override resolve(left: number, right: number): boolean {
    const leftText = this.tokens[left]!;
    const rightText = this.tokens[right]!;
    const merged = this.idOf.get(leftText + rightText);
    if (merged === undefined) return false;
    const score = this.scoreOf(merged);
    if (Number.isNaN(score)) return false;
    this.merged = merged;
    this.priority = -score;
    this.tie = -((codePoints(leftText) << 15) + codePoints(rightText));
    return true;
  }
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
