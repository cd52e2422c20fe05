/**
 * Thoughts between an open and a close marker. A marker that is a special token opens a thought wherever it comes;
 * one that a model may also write as text (`<think>`) does so only where nothing was said yet, so that an answer about
 * the marker, or a tool argument that holds it, stays whole. White space next to markers belongs to neither part.
 */

import type { ReasoningSplitter, ReasoningTags, TextPiece } from "./reasoning.ts";
import { StopMatcher } from "./stop-matcher.ts";

/** "start": nothing but white space was said so far. "label": the first line of a thought may be its label. */
type State = "start" | "label" | "reasoning" | "content";

export class TagSplitter implements ReasoningSplitter {
  readonly #tags: ReasoningTags;
  readonly #opensAnywhere: boolean;
  #state: State;
  /** The marker that ends this state, and who looks for it; undefined where none counts. */
  #sought: { readonly marker: string; readonly matcher: StopMatcher } | undefined;
  /** Read and not decided: it may be the beginning of a marker or of a label. */
  #held = "";
  /** White space that goes out if text of the same part follows it; undefined beside a marker: it never does. */
  #blank: string | undefined;
  /** Where the next character that is not decided lies in the whole text. */
  #position = 0;
  #pieces: TextPiece[] = [];

  constructor(tags: ReasoningTags, prompt: string, opensAnywhere: boolean) {
    this.#tags = tags;
    this.#opensAnywhere = opensAnywhere;
    const end = prompt.trimEnd();
    const opened = end.endsWith(tags.open) || (tags.label !== "" && end.endsWith(tags.open + tags.label));
    this.#blank = opened || end.endsWith(tags.close) ? undefined : "";
    this.#state = opened ? "reasoning" : "start";
    this.#seek();
  }

  get inReasoning(): boolean {
    return this.#state === "reasoning" || this.#state === "label";
  }

  read(text: string): readonly TextPiece[] {
    let rest = text;
    while (rest !== "") rest = this.#state === "label" ? this.#readLabel(rest) : this.#readText(rest);
    return this.#taken();
  }

  finish(): readonly TextPiece[] {
    if (this.#state === "label") this.#state = "reasoning";
    this.#passHeld();
    // An answer of nothing but white space; at the end of a thought nobody misses it.
    if (this.#state === "start") this.#emit("content", this.#blank ?? "", 0);
    this.#blank = "";
    return this.#taken();
  }

  #taken(): readonly TextPiece[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  #seek(): void {
    const opens = this.#state === "start" || this.#opensAnywhere;
    const marker = this.#state === "reasoning" ? this.#tags.close : opens ? this.#tags.open : undefined;
    if (marker === this.#sought?.marker) return;
    this.#sought = marker === undefined ? undefined : { marker, matcher: new StopMatcher([marker]) };
  }

  /** Reads up to the next marker; returns what is left of the text. */
  #readText(text: string): string {
    const sought = this.#sought;
    const available = this.#held + text;
    const at = sought?.matcher.read(text) ?? Number.NaN;
    if (sought === undefined || Number.isNaN(at)) {
      const decided = available.length - (sought?.matcher.held ?? 0);
      this.#held = available.slice(decided);
      this.#pass(available.slice(0, decided));
      if (this.#sought === undefined) this.#passHeld();
      return "";
    }
    const begin = this.#held.length + at;
    this.#held = "";
    this.#pass(available.slice(0, begin));
    // What came before it may have begun the answer, in which the marker is text like any other.
    if (this.#sought === undefined) return available.slice(begin);
    this.#passMarker(sought.marker);
    return available.slice(begin + sought.marker.length);
  }

  #passMarker(marker: string): void {
    this.#position += marker.length;
    this.#blank = undefined;
    const opening = this.#state !== "reasoning";
    this.#state = opening ? (this.#tags.label === "" ? "reasoning" : "label") : "start";
    this.#seek();
  }

  /** Drops the label, with its line break, from the beginning of a thought. */
  #readLabel(text: string): string {
    const label = `${this.#tags.label}\n`;
    const available = this.#held + text;
    if (available.length < label.length && label.startsWith(available)) {
      this.#held = available;
      return "";
    }
    this.#held = "";
    this.#state = "reasoning";
    this.#seek();
    if (!available.startsWith(label)) return available;
    this.#position += label.length;
    return available.slice(label.length);
  }

  #passHeld(): void {
    const held = this.#held;
    this.#held = "";
    this.#pass(held);
  }

  /** Passes on text without a marker. */
  #pass(text: string): void {
    this.#position += text.length;
    if (this.#state === "content") {
      this.#emit("content", text, 0);
      return;
    }
    if (text.trim() === "") {
      if (this.#blank !== undefined) this.#blank += text;
      return;
    }
    const whole = this.#blank === undefined ? text.trimStart() : this.#blank + text;
    if (this.#state === "start") {
      this.#state = "content";
      this.#seek();
      this.#emit("content", whole, 0);
      return;
    }
    const kept = whole.trimEnd();
    this.#blank = whole.slice(kept.length);
    this.#emit("reasoning", kept, this.#blank.length);
  }

  /** @param behind characters between this text and the one that is not decided. */
  #emit(part: TextPiece["part"], text: string, behind: number): void {
    if (text === "") return;
    const end = this.#position - behind;
    this.#pieces.push({ part, text, start: end - text.length, end });
  }
}
