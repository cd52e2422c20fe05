/**
 * Harmony: an answer is a row of messages, each with a header that names its channel. What is on the channel `final`
 * is the answer; `analysis` and `commentary` are thoughts.
 */

import type { ReasoningSplitter, TextPart, TextPiece } from "./reasoning.ts";
import { StopMatcher } from "./stop-matcher.ts";

const START = "<|start|>";
const MESSAGE = "<|message|>";
const CHANNEL = /<\|channel\|>\s*(\w+)/;
/** What ends the body of a message; a new one may also begin without. */
const ENDS = ["<|end|>", "<|call|>", "<|return|>", START];
/** No header is longer: such a text does not follow the format, and is the answer. */
const HEADER_CHARACTERS_MAX = 512;

export class HarmonySplitter implements ReasoningSplitter {
  /** The part that the body belongs to; undefined inside a header. */
  #part: TextPart | undefined;
  #matcher = new StopMatcher([MESSAGE]);
  /** The header so far, or the end of a body that may be the beginning of a marker. */
  #held = "";
  /** Where `#held` begins in the whole text. */
  #position = 0;
  #lastPart: TextPart | undefined;
  /** The body continues the part that went out last, and so begins on a line of its own. */
  #joins = false;
  #pieces: TextPiece[] = [];

  constructor(prompt: string) {
    const lastMessage = prompt.lastIndexOf(START);
    if (lastMessage >= 0) this.read(prompt.slice(lastMessage));
    this.#position = -this.#held.length;
    this.#lastPart = undefined;
    this.#joins = false;
  }

  get inReasoning(): boolean {
    return this.#part !== "content";
  }

  read(text: string): readonly TextPiece[] {
    let rest = text;
    while (rest !== "") rest = this.#part === undefined ? this.#readHeader(rest) : this.#readBody(rest);
    return this.#taken();
  }

  finish(): readonly TextPiece[] {
    const text = this.#own(this.#held);
    // A text that never used a marker is an answer; a header that was cut off says nothing.
    if (this.#part === undefined && !text.includes("<|")) this.#beginBody("content");
    this.#position += this.#held.length - text.length;
    this.#held = "";
    if (this.#part !== undefined) this.#pass(this.#part, text);
    return this.#taken();
  }

  #taken(): readonly TextPiece[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  /** What of a header the model wrote itself; the prompt may have begun it. */
  #own(header: string): string {
    return header.slice(Math.max(0, -this.#position));
  }

  #readHeader(text: string): string {
    const available = this.#held + text;
    const at = this.#matcher.read(text);
    const begin = this.#held.length + at;
    const length = begin + MESSAGE.length;
    this.#held = "";
    if (Number.isNaN(at) ? available.length >= HEADER_CHARACTERS_MAX : length > HEADER_CHARACTERS_MAX) {
      const body = this.#own(available);
      this.#position += available.length - body.length;
      this.#beginBody("content");
      return body;
    }
    if (Number.isNaN(at)) {
      this.#held = available;
      return "";
    }
    const channel = CHANNEL.exec(available.slice(0, begin))?.[1];
    this.#position += length;
    this.#beginBody(channel === undefined || channel === "final" ? "content" : "reasoning");
    return available.slice(length);
  }

  #beginBody(part: TextPart): void {
    this.#joins = this.#lastPart === part;
    this.#part = part;
    this.#matcher = new StopMatcher(ENDS);
  }

  #readBody(text: string): string {
    const part = this.#part!;
    const available = this.#held + text;
    const at = this.#matcher.read(text);
    if (Number.isNaN(at)) {
      const decided = available.length - this.#matcher.held;
      this.#pass(part, available.slice(0, decided));
      this.#held = available.slice(decided);
      return "";
    }
    const begin = this.#held.length + at;
    const marker = this.#matcher.found ?? "";
    this.#pass(part, available.slice(0, begin));
    this.#held = "";
    this.#position += marker.length;
    this.#part = undefined;
    this.#matcher = new StopMatcher([MESSAGE]);
    return available.slice(begin + marker.length);
  }

  #pass(part: TextPart, text: string): void {
    if (text === "") return;
    const start = this.#position;
    this.#position += text.length;
    this.#pieces.push({ part, text: this.#joins ? `\n${text}` : text, start, end: this.#position });
    this.#lastPart = part;
    this.#joins = false;
  }
}
