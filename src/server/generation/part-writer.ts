/**
 * Turns the text of one choice into events: which part of the answer it belongs to, and which tokens are told with
 * it. A token is told with its text and only when it is part of what the model says, so markers and thoughts are not.
 */

import type { ReasoningSplitter, TextPart, TextPiece } from "../../text/reasoning.ts";
import type { TextStep } from "../../text/text-stream.ts";
import type { TextEvent, TextToken } from "./request.ts";

interface PendingToken {
  readonly token: TextToken;
  /** Whether its text begins in the content; undefined until that is known. */
  inContent: boolean | undefined;
}

export class PartWriter {
  readonly #choice: number;
  readonly #splitter: ReasoningSplitter | undefined;
  readonly #emit: (event: TextEvent) => void;
  /** Tokens to tell, in order, that were not told yet. */
  #pending: PendingToken[] = [];
  /** How many of them are known to have their text out. */
  #released = 0;
  /** What the next event is made of. */
  #unsent: { readonly part: TextPart; text: string }[] = [];
  #reasoningTokens = 0;

  /** @param splitter undefined for a text that is all content. */
  constructor(choice: number, splitter: ReasoningSplitter | undefined, emit: (event: TextEvent) => void) {
    this.#choice = choice;
    this.#splitter = splitter;
    this.#emit = emit;
  }

  /** Tokens read so far that the model spent on thinking, those of the markers included. */
  get reasoningTokens(): number {
    return this.#reasoningTokens;
  }

  /** A token to tell when its text goes out; its step is read after it. */
  hold(token: TextToken): void {
    this.#pending.push({ token, inContent: this.#splitter === undefined ? true : undefined });
  }

  /** Reads what one token did to the text. */
  read(step: TextStep): void {
    this.#released += step.released;
    const splitter = this.#splitter;
    if (splitter === undefined) {
      this.#append("content", step.text);
      return;
    }
    const wasReasoning = splitter.inReasoning;
    this.#place(splitter.read(step.text));
    if (wasReasoning || splitter.inReasoning) this.#reasoningTokens += 1;
  }

  /** Reads the last step of the text: nothing is held back any longer. */
  finish(step: TextStep | undefined): void {
    if (step !== undefined) {
      this.#released += step.released;
      if (this.#splitter === undefined) this.#append("content", step.text);
      else this.#place(this.#splitter.read(step.text));
    }
    if (this.#splitter === undefined) return;
    this.#place(this.#splitter.finish());
    for (const pending of this.#pending) pending.inContent ??= !this.#splitter.inReasoning;
  }

  /** Emits what may go out. */
  send(): void {
    const tokens = this.#takeTokens();
    const unsent = this.#unsent;
    if (unsent.length === 0 && tokens.length === 0) return;
    this.#unsent = [];
    const told = unsent.findLastIndex(({ part }) => part === "content");
    const choice = this.#choice;
    for (const [index, { part, text }] of unsent.entries()) {
      if (part === "reasoning") this.#emit({ type: "reasoning", choice, text });
      else this.#emit({ type: "text", choice, text, tokens: index === told ? tokens : [] });
    }
    if (told < 0 && tokens.length > 0) this.#emit({ type: "text", choice, text: "", tokens });
  }

  #append(part: TextPart, text: string): void {
    if (text === "") return;
    const last = this.#unsent.at(-1);
    if (last?.part === part) last.text += text;
    else this.#unsent.push({ part, text });
  }

  #place(pieces: readonly TextPiece[]): void {
    for (const { part, text, start, end } of pieces) {
      this.#append(part, text);
      for (const pending of this.#pending) {
        const { offset } = pending.token;
        if (offset >= end) break;
        pending.inContent ??= part === "content" && offset >= start;
      }
    }
  }

  #takeTokens(): readonly TextToken[] {
    const undecided = this.#pending.findIndex(({ inContent }) => inContent === undefined);
    const count = Math.min(this.#released, undecided < 0 ? this.#pending.length : undecided);
    if (count === 0) {
      // Without tokens to tell, there is nothing to let go.
      if (this.#pending.length === 0) this.#released = 0;
      return [];
    }
    const taken = this.#pending.slice(0, count);
    this.#pending = this.#pending.slice(count);
    this.#released -= count;
    return taken.filter(({ inContent }) => inContent).map(({ token }) => token);
  }
}
