/** Shows an answer while it arrives: thoughts in grey, then what is said, then what it cost. */

import { formatDuration } from "../units.ts";
import type { AnswerPiece, AnswerStatistics } from "./conversation.ts";

export interface ViewOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const GREY = "\x1b[90m";
const PLAIN = "\x1b[0m";

export class AnswerView {
  readonly #answer: ViewOutput;
  readonly #notes: ViewOutput;
  #part: AnswerPiece["part"] | undefined;

  /** @param answer takes what is said @param notes takes everything else where the answer goes to a program */
  constructor(answer: ViewOutput, notes: ViewOutput) {
    this.#answer = answer;
    this.#notes = notes;
  }

  show({ part, text }: AnswerPiece): void {
    const isTerminal = this.#answer.isTTY === true;
    if (part !== this.#part) {
      if (this.#part === "reasoning") this.#endThoughts(isTerminal);
      if (part === "reasoning" && isTerminal) this.#answer.write(GREY);
      this.#part = part;
    }
    // A program that reads the answer did not ask for thoughts.
    const output = part === "reasoning" && !isTerminal ? this.#notes : this.#answer;
    output.write(text);
  }

  /** Ends the answer's line. */
  end(): void {
    if (this.#part === "reasoning") this.#endThoughts(this.#answer.isTTY === true);
    else this.#answer.write("\n");
    this.#part = undefined;
  }

  /** The block of figures behind an answer. */
  showStatistics(statistics: AnswerStatistics): void {
    const lines = statisticsLines(statistics).map((line) => `${line}\n`);
    const isTerminal = this.#notes.isTTY === true;
    this.#notes.write(isTerminal ? `\n${GREY}${lines.join("")}${PLAIN}\n` : `\n${lines.join("")}`);
  }

  #endThoughts(isTerminal: boolean): void {
    if (isTerminal) this.#answer.write(`${PLAIN}\n\n`);
    else this.#notes.write("\n");
  }
}

/** `Stats:` and a line for each figure. */
export function statisticsLines(statistics: AnswerStatistics): readonly string[] {
  const { usage, firstTokenSeconds, decodeSeconds, isStopped } = statistics;
  const { promptTokens, cachedTokens, completionTokens } = usage;
  const computed = promptTokens - cachedTokens;
  // The first token is the prompt's doing.
  const decoded = Math.max(0, completionTokens - 1);
  return [
    isStopped ? "Stats: (stopped)" : "Stats:",
    `CLI time to first token: ${formatDuration(firstTokenSeconds)}`,
    `Prompt: ${promptTokens} tokens${speed(computed, firstTokenSeconds)}`,
    ...(cachedTokens === 0 ? [] : [`Prefix cache: ${cachedTokens} of them were there already`]),
    `Decode: ${completionTokens} tokens${speed(decoded, decodeSeconds)}`,
  ];
}

/** Nothing when no time has passed, so that no speed is invented. */
function speed(tokens: number, seconds: number): string {
  return tokens > 0 && seconds > 0 ? `, ${(tokens / seconds).toFixed(1)} T/s` : "";
}
