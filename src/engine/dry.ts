/**
 * The DRY penalty of one sequence, kept up to date token by token. For every earlier place whose left context ends
 * like the whole sequence does, the token that came next there would prolong the repetition; it loses
 * `multiplier * base ** (length - allowedLength)`, for the longest such repetition. A repetition reaches back to a
 * breaker at most, and a breaker is never penalised.
 *
 * The length of the repetition that ends at a place is one more than it was at the place before when the last token
 * came, so a new token costs one look at each earlier occurrence of the same token and nothing else.
 */

import type { DryParameters } from "./messages.ts";

/** Longer repetitions count as this long. */
const MATCH_LENGTH_MAX = 50;
/** Beyond this a larger penalty changes nothing, and the sum stays a number. */
const PENALTY_MAX = 1e9;

export class DryPenalty {
  readonly #parameters: DryParameters;
  readonly #breakers: ReadonlySet<number>;
  #tokens: Int32Array;
  /** The place where the same token was seen before, or -1. */
  #sameBefore: Int32Array;
  /** Length of the repetition that ends at a place; true of the places that hold the last token. */
  #matches: Uint8Array;
  #length = 0;
  readonly #lastPlace = new Map<number, number>();
  /** Longest repetition that each token would prolong now. */
  readonly #longest = new Map<number, number>();

  constructor(parameters: DryParameters, promptTokens: Int32Array) {
    this.#parameters = parameters;
    this.#breakers = new Set(parameters.breakers);
    const capacity = promptTokens.length + 64;
    this.#tokens = new Int32Array(capacity);
    this.#sameBefore = new Int32Array(capacity);
    this.#matches = new Uint8Array(capacity);
    for (const token of promptTokens) this.#append(token);
    this.#matchFromScratch();
  }

  /** Tokens that are penalised now. */
  get count(): number {
    return this.#longest.size;
  }

  /** A token was generated. */
  add(token: number): void {
    const before = this.#length === 0 ? -1 : this.#tokens[this.#length - 1]!;
    const continues = before >= 0 && !this.#breakers.has(before);
    this.#append(token);
    this.#longest.clear();
    if (this.#breakers.has(token)) return;
    // From late to early, so that the place before each still holds the length of the last step.
    for (let place = this.#sameBefore[this.#length - 1]!; place >= 0; place = this.#sameBefore[place]!) {
      const left =
        continues && place > 0 && this.#tokens[place - 1] === before ? this.#matches[place - 1]! : 0;
      this.#note(place, Math.min(left + 1, MATCH_LENGTH_MAX));
    }
  }

  /** Calls with each penalised token and what its logit loses. */
  visit(visitor: (token: number, penalty: number) => void): void {
    const { multiplier, base, allowedLength } = this.#parameters;
    for (const [token, length] of this.#longest) {
      visitor(token, Math.min(multiplier * base ** (length - allowedLength), PENALTY_MAX));
    }
  }

  #append(token: number): void {
    if (this.#length === this.#tokens.length) this.#grow();
    this.#tokens[this.#length] = token;
    this.#sameBefore[this.#length] = this.#lastPlace.get(token) ?? -1;
    this.#lastPlace.set(token, this.#length);
    this.#length += 1;
  }

  /** The repetition that ends at `place` has this length. */
  #note(place: number, length: number): void {
    this.#matches[place] = length;
    if (length < this.#parameters.allowedLength) return;
    const next = this.#tokens[place + 1]!;
    if (this.#breakers.has(next)) return;
    if ((this.#longest.get(next) ?? 0) < length) this.#longest.set(next, length);
  }

  /** After a prompt: only the repetitions of its end are of interest, and they are short. */
  #matchFromScratch(): void {
    const last = this.#length - 1;
    if (last < 0 || this.#breakers.has(this.#tokens[last]!)) return;
    for (let place = this.#sameBefore[last]!; place >= 0; place = this.#sameBefore[place]!) {
      let length = 1;
      while (length < MATCH_LENGTH_MAX && place >= length) {
        const token = this.#tokens[last - length]!;
        if (this.#tokens[place - length] !== token || this.#breakers.has(token)) break;
        length += 1;
      }
      this.#note(place, length);
    }
  }

  #grow(): void {
    const capacity = this.#tokens.length * 2;
    const tokens = new Int32Array(capacity);
    tokens.set(this.#tokens);
    this.#tokens = tokens;
    const sameBefore = new Int32Array(capacity);
    sameBefore.set(this.#sameBefore);
    this.#sameBefore = sameBefore;
    const matches = new Uint8Array(capacity);
    matches.set(this.#matches);
    this.#matches = matches;
  }
}
