/**
 * The one state machine from generated tokens to text. What it emits, put together, is the decoded text of all
 * tokens, cut where the first stop string begins: no half character, no part of a stop string ever goes out.
 * A token costs the length of its own text, however long the text before it is.
 */

import { StopMatcher } from "./stop-matcher.ts";
import { decodeUtf8 } from "./text-tokenizer.ts";
import type { Tokenizer } from "./types.ts";

export interface TextStep {
  /** Text that may go out now; often empty. */
  readonly text: string;
  /**
   * How many more tokens, in the order pushed, have their whole text out with this step. Whatever is said about
   * tokens (log-probabilities) goes out with their text. At a stop string these are the tokens with text before
   * it; the tokens that only make up the stop string are never released.
   */
  readonly released: number;
  /** A stop string was found: the text is complete, later tokens are not part of it. */
  readonly stopped: boolean;
}

export interface TextStreamOptions {
  /**
   * Text ends before the first of these to be complete; of several complete at the same character, before the
   * longest. None may be empty.
   */
  readonly stop: readonly string[];
  readonly skipSpecialTokens: boolean;
  /** Special tokens whose text is kept although special tokens are skipped: a later reader looks for them. */
  readonly keptTokens?: ReadonlySet<number>;
  /** The text goes on from another one, so a space at its beginning is part of it. */
  readonly continues?: boolean;
}

/** A token pushed and not released. */
interface HeldToken {
  /** End of its bytes among all bytes. */
  readonly byteEnd: number;
  /** Where its text begins and ends among all characters; the end is -1 until its bytes are characters. */
  readonly start: number;
  end: number;
}

const NO_BYTES = new Uint8Array(0);
const SPACE = 0x20;

export class TextStream {
  private readonly stop: StopMatcher;
  private stopped = false;
  /** Nothing has been decoded yet: a leading space may have to go. */
  private atStart: boolean;
  /** The beginning of a character whose last bytes have not come. */
  private tail: Uint8Array = NO_BYTES;
  private bytesPushed = 0;
  private charactersDecoded = 0;
  private charactersEmitted = 0;
  /** Decoded and not emitted: it may be the beginning of a stop string. */
  private heldText = "";
  private heldTokens: HeldToken[] = [];

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: TextStreamOptions,
  ) {
    this.stop = new StopMatcher(options.stop);
    this.atStart = options.continues !== true;
  }

  /** Where the next token begins: in the character that is unfinished, else after all text so far. */
  get length(): number {
    return this.charactersDecoded;
  }

  /** The stop string that ended the text; undefined when none has. */
  get stopString(): string | undefined {
    return this.stop.found;
  }

  /** Takes the next token. After a stop string, tokens are not looked at. */
  push(token: number): TextStep {
    if (this.stopped) return { text: "", released: 0, stopped: true };
    const bytes = this.skips(token) ? NO_BYTES : this.bytesOf(token);
    this.bytesPushed += bytes.length;
    this.heldTokens.push({ byteEnd: this.bytesPushed, start: this.charactersDecoded, end: -1 });
    const joined = this.tail.length === 0 ? bytes : concatenate(this.tail, bytes);
    const whole = joined.length - unfinishedLength(joined);
    this.tail = whole === joined.length ? NO_BYTES : joined.slice(whole);
    return this.decoded(decodeUtf8(whole === joined.length ? joined : joined.subarray(0, whole)));
  }

  /** Ends the text: what was held back goes out, an unfinished character as U+FFFD. */
  finish(): TextStep {
    if (this.stopped) return { text: "", released: 0, stopped: true };
    const last = decodeUtf8(this.tail);
    this.tail = NO_BYTES;
    const step = this.decoded(last);
    if (step.stopped) return step;
    const text = step.text + this.heldText;
    this.heldText = "";
    return { text, released: step.released + this.release(this.charactersDecoded), stopped: false };
  }

  private skips(token: number): boolean {
    const { skipSpecialTokens, keptTokens } = this.options;
    return skipSpecialTokens && this.tokenizer.isSpecial(token) && keptTokens?.has(token) !== true;
  }

  /** At the start of a text a decoder may drop leading spaces; it is asked with the first token that has text. */
  private bytesOf(token: number): Uint8Array {
    const bytes = this.tokenizer.tokenBytes(token);
    if (!this.atStart || bytes.length === 0) return bytes;
    this.atStart = false;
    if (bytes[0] !== SPACE) return bytes;
    const shown = this.tokenizer.decode([token], { skipSpecialTokens: false });
    return bytes.subarray(leadingSpaces(decodeUtf8(bytes)) - leadingSpaces(shown));
  }

  private decoded(text: string): TextStep {
    const start = this.charactersDecoded;
    const stopAt = this.stop.read(text);
    if (!Number.isNaN(stopAt)) return this.stopBefore(start + stopAt, text);
    this.charactersDecoded += text.length;
    const bytesDecoded = this.bytesPushed - this.tail.length;
    for (let i = this.heldTokens.length - 1; i >= 0; i--) {
      const token = this.heldTokens[i]!;
      if (token.end >= 0) break;
      if (token.byteEnd <= bytesDecoded) token.end = this.charactersDecoded;
    }
    const available = this.heldText + text;
    const keep = this.stop.held;
    const emitted = available.slice(0, available.length - keep);
    this.heldText = available.slice(available.length - keep);
    this.charactersEmitted += emitted.length;
    return { text: emitted, released: this.release(this.charactersEmitted), stopped: false };
  }

  private stopBefore(cut: number, text: string): TextStep {
    this.stopped = true;
    const emitted = (this.heldText + text).slice(0, cut - this.charactersEmitted);
    const after = this.heldTokens.findIndex((token) => token.start >= cut);
    const released = after < 0 ? this.heldTokens.length : after;
    this.heldTokens = [];
    this.heldText = "";
    return { text: emitted, released, stopped: true };
  }

  /** Lets go of the tokens whose text ends by this character. */
  private release(characters: number): number {
    let released = 0;
    for (const { end } of this.heldTokens) {
      if (end < 0 || end > characters) break;
      released++;
    }
    if (released > 0) this.heldTokens = this.heldTokens.slice(released);
    return released;
  }
}

function concatenate(first: Uint8Array, second: Uint8Array): Uint8Array {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

function leadingSpaces(text: string): number {
  let count = 0;
  while (text.charCodeAt(count) === SPACE) count++;
  return count;
}

/**
 * How many bytes at the end are the beginning of a UTF-8 sequence that more bytes can complete. What lies before
 * them decodes the same with or without them, because a sequence never begins inside another.
 */
function unfinishedLength(bytes: Uint8Array): number {
  const last = bytes.at(-1);
  if (last === undefined || last < 0x80) return 0;
  for (let length = 1; length <= 3 && length <= bytes.length; length++) {
    const byte = bytes[bytes.length - length]!;
    if ((byte & 0xc0) === 0x80) continue;
    return isUnfinished(byte, bytes.subarray(bytes.length - length + 1)) ? length : 0;
  }
  return 0;
}

/** Whether `lead` and these continuation bytes begin a valid sequence and do not finish it (Unicode, table 3-7). */
function isUnfinished(lead: number, rest: Uint8Array): boolean {
  const size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || rest.length + 1 >= size) return false;
  const second = rest[0];
  if (second === undefined) return true;
  const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  return second >= least && second <= most;
}
