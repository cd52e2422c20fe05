/**
 * Tokens that are found in the text as written, before anything else happens to it: control tokens such as
 * `<|im_end|>` and words added to a finished vocabulary. Owns the search; leftmost match first, longest wins.
 */

export interface AddedToken {
  readonly token: number;
  readonly text: string;
  /** Left out of decoded text when special tokens are skipped. */
  readonly special: boolean;
  /** Matched in normalized text instead of the text as given. */
  readonly normalized: boolean;
  /** Matches only between characters that are not part of a word. */
  readonly singleWord: boolean;
  /** Takes the white space before / after the match with it. */
  readonly leftStrip: boolean;
  readonly rightStrip: boolean;
}

/** A stretch of ordinary text, or a token. */
export type Section = string | number;

// White space and word characters as Rust's regex crate has them.
const WHITE_SPACE = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const SPACE_AT_END = new RegExp(`${WHITE_SPACE}*$`, "u");
const SPACE_AT_START = new RegExp(`^${WHITE_SPACE}*`, "u");
const WORD_CHARACTER = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Characters looked at beside a match to find the one next to it; a character is one or two UTF-16 units. */
function isWordBefore(text: string, at: number): boolean {
  if (at === 0) return false;
  const low = text.charCodeAt(at - 1);
  const width = low >= 0xdc00 && low <= 0xdfff ? 2 : 1;
  return WORD_CHARACTER.test(text.slice(at - width, at));
}

function isWordAfter(text: string, at: number): boolean {
  return at < text.length && WORD_CHARACTER.test(String.fromCodePoint(text.codePointAt(at)!));
}

export class AddedTokenMatcher {
  private readonly byText = new Map<string, AddedToken>();
  /** Non-zero for UTF-16 units that begin a token. */
  private readonly begins = new Uint8Array(0x10000);
  /** Lengths of the tokens that begin with these two units (high half first), longest first. */
  private readonly lengths = new Map<number, number[]>();

  /** `written`: how each token appears in the text searched. */
  constructor(tokens: readonly { readonly token: AddedToken; readonly written: string }[]) {
    for (const { token, written } of tokens) {
      if (written === "") continue;
      this.byText.set(written, token);
      this.begins[written.charCodeAt(0)] = 1;
      if (written.length === 1) continue;
      const start = (written.charCodeAt(0) << 16) | written.charCodeAt(1);
      const lengths = this.lengths.get(start);
      if (lengths === undefined) this.lengths.set(start, [written.length]);
      else if (!lengths.includes(written.length)) lengths.push(written.length);
    }
    for (const lengths of this.lengths.values()) lengths.sort((a, b) => b - a);
  }

  get size(): number {
    return this.byText.size;
  }

  /** Cuts a text into ordinary stretches and tokens, in order; empty stretches are left out. */
  split(text: string): Section[] {
    const sections: Section[] = [];
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const found = this.begins[text.charCodeAt(at)] === 0 ? undefined : this.longestAt(text, at);
      if (found === undefined) {
        at++;
        continue;
      }
      const { token, length } = found;
      let end = at + length;
      if (token.singleWord && (isWordBefore(text, at) || isWordAfter(text, end))) {
        at = end;
        continue;
      }
      let plain = text.slice(done, at);
      if (token.leftStrip) plain = plain.replace(SPACE_AT_END, "");
      if (token.rightStrip) end += SPACE_AT_START.exec(text.slice(end))![0].length;
      if (plain !== "") sections.push(plain);
      sections.push(token.token);
      at = end;
      done = end;
    }
    if (done < text.length) sections.push(done === 0 ? text : text.slice(done));
    return sections;
  }

  private longestAt(text: string, at: number): { token: AddedToken; length: number } | undefined {
    const lengths = this.lengths.get((text.charCodeAt(at) << 16) | text.charCodeAt(at + 1));
    if (lengths !== undefined) {
      for (const length of lengths) {
        const token = this.byText.get(text.slice(at, at + length));
        if (token !== undefined) return { token, length };
      }
    }
    const token = this.byText.get(text[at]!);
    return token === undefined ? undefined : { token, length: 1 };
  }
}
