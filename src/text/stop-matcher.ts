/**
 * Finds stop strings in a text that arrives in pieces, and tells how much of its end might still become one. One
 * Knuth-Morris-Pratt automaton for each stop string: every character costs a constant, however pieces are cut.
 */

import { MistralError } from "../errors.ts";

interface Automaton {
  readonly pattern: string;
  /** For each prefix length, the length of its longest proper suffix that is also a prefix. */
  readonly fallback: Int32Array;
  /** Length of the longest prefix of the pattern that the text so far ends with. */
  matched: number;
}

function automatonOf(pattern: string): Automaton {
  const fallback = new Int32Array(pattern.length + 1);
  let matched = 0;
  for (let i = 1; i < pattern.length; i++) {
    while (matched > 0 && pattern[i] !== pattern[matched]) matched = fallback[matched]!;
    if (pattern[i] === pattern[matched]) matched++;
    fallback[i + 1] = matched;
  }
  return { pattern, fallback, matched: 0 };
}

export class StopMatcher {
  private readonly automata: Automaton[];
  private foundText: string | undefined;

  /** Throws `invalid_request` for an empty stop string, which would stop every text before it begins. */
  constructor(stop: readonly string[]) {
    if (stop.includes("")) {
      throw new MistralError("invalid_request", "a stop string is empty; leave it out", {
        parameter: "stop",
      });
    }
    this.automata = stop.map((text) => automatonOf(text.toWellFormed()));
  }

  /**
   * Reads on. Returns NaN, or, as soon as a stop string is complete, the position in `text` where it begins: of
   * those complete at the same character the longest. The position is negative when it began in earlier text.
   */
  read(text: string): number {
    if (this.automata.length === 0) return Number.NaN;
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      let longest: string | undefined;
      for (const automaton of this.automata) {
        if (step(automaton, code) < automaton.pattern.length) continue;
        if (longest === undefined || longest.length < automaton.pattern.length) longest = automaton.pattern;
      }
      if (longest === undefined) continue;
      this.foundText = longest;
      return at + 1 - longest.length;
    }
    return Number.NaN;
  }

  /** The stop string that `read` found last; undefined before it finds one. */
  get found(): string | undefined {
    return this.foundText;
  }

  /** How many characters at the end of the text so far could be the beginning of a stop string. */
  get held(): number {
    let held = 0;
    for (const { matched } of this.automata) held = Math.max(held, matched);
    return held;
  }
}

function step(automaton: Automaton, code: number): number {
  const { pattern, fallback } = automaton;
  let { matched } = automaton;
  while (matched > 0 && pattern.charCodeAt(matched) !== code) matched = fallback[matched]!;
  if (pattern.charCodeAt(matched) === code) matched++;
  automaton.matched = matched;
  return matched;
}
