/** Tokens of words seen before: most text is a few thousand words over and over. Bounded; forgets all at once. */

/** Longer words rarely repeat. */
const WORD_LENGTH_MAX = 48;
const WORDS_MAX = 16_384;

export class WordCache {
  private readonly tokensOf = new Map<string, readonly number[]>();

  /** Appends the tokens of `word` to `output`, asking `encode` only for words not seen lately. */
  encode(word: string, output: number[], encode: (word: string, output: number[]) => void): void {
    const known = this.tokensOf.get(word);
    if (known !== undefined) {
      for (const token of known) output.push(token);
      return;
    }
    const start = output.length;
    encode(word, output);
    if (word.length > WORD_LENGTH_MAX) return;
    if (this.tokensOf.size >= WORDS_MAX) this.tokensOf.clear();
    this.tokensOf.set(word, output.slice(start));
  }
}
