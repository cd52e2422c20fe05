/**
 * The conversation on a terminal or over pipes: reads lines, obeys commands, shows answers. Ctrl-C stops the answer
 * under way and leaves at the prompt; Ctrl-D and the end of the input leave too.
 */

import { createInterface, type Interface } from "node:readline";
import { MistralError } from "../../errors.ts";
import type { Environment } from "../../weights/cache-paths.ts";
import { textTable } from "../text-table.ts";
import { AnswerView } from "./answer-view.ts";
import type { Conversation } from "./conversation.ts";
import { HISTORY_LINES_MAX, readHistory, writeHistory } from "./history.ts";
import { type Line, parseLine, SLASH_COMMANDS } from "./slash-command.ts";

const PROMPT = "> ";
/** A line that ends so goes on in the next one. */
const CONTINUATION = "\\";

/** Resolves when the person leaves. */
export async function chatInTerminal(conversation: Conversation, environment: Environment): Promise<void> {
  const chat = new TerminalChat(conversation, environment);
  await chat.run();
}

class TerminalChat {
  readonly #conversation: Conversation;
  readonly #environment: Environment;
  readonly #isTerminal = process.stdin.isTTY === true;
  readonly #view = new AnswerView(process.stdout, process.stderr);
  readonly #lines: Interface;
  readonly #done = Promise.withResolvers<void>();
  /** Lines typed while an answer was under way. */
  readonly #waiting: string[] = [];
  #begun = "";
  #answering: AbortController | undefined;
  #isInputOver = false;
  #history: readonly string[];

  constructor(conversation: Conversation, environment: Environment) {
    this.#conversation = conversation;
    this.#environment = environment;
    this.#history = this.#isTerminal ? readHistory(environment) : [];
    this.#lines = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal: this.#isTerminal,
      prompt: this.#isTerminal ? PROMPT : "",
      history: [...this.#history],
      historySize: HISTORY_LINES_MAX,
      removeHistoryDuplicates: true,
      completer: (line: string) => {
        const names = SLASH_COMMANDS.map(([name]) => name).filter((name) => name.startsWith(line));
        return [line.startsWith("/") ? names : [], line];
      },
    });
  }

  run(): Promise<void> {
    this.#lines.on("line", (line) => this.#receive(line));
    this.#lines.on("close", () => {
      this.#isInputOver = true;
      if (this.#answering === undefined) this.#leave();
    });
    this.#lines.on("history", (lines: string[]) => {
      this.#history = lines;
    });
    const interrupt = (): void => {
      if (this.#answering === undefined) this.#leave();
      else this.#answering.abort();
    };
    // On a terminal readline sees the key; elsewhere the signal arrives.
    this.#lines.on("SIGINT", interrupt);
    process.on("SIGINT", interrupt);
    this.#lines.prompt();
    return this.#done.promise.finally(() => process.off("SIGINT", interrupt));
  }

  #receive(line: string): void {
    if (line.endsWith(CONTINUATION)) {
      this.#begun += `${line.slice(0, -CONTINUATION.length)}\n`;
      return;
    }
    const whole = this.#begun + line;
    this.#begun = "";
    if (this.#answering === undefined) void this.#obey(parseLine(whole));
    else this.#waiting.push(whole);
  }

  async #obey(line: Line): Promise<void> {
    switch (line.kind) {
      case "nothing":
        break;
      case "help":
        this.#note(helpText());
        break;
      case "exit":
        this.#leave();
        return;
      case "clear":
        this.#conversation.clear();
        this.#note("the conversation is forgotten\n");
        break;
      case "system":
        this.#conversation.addSystem(line.text);
        break;
      case "sampling":
        this.#conversation.setSampling(line.change);
        this.#note(`${line.shown}\n`);
        break;
      case "mistake":
        this.#note(`${line.message}\n`);
        break;
      case "question":
        await this.#answer(line.text);
        break;
      default:
        line satisfies never;
    }
    this.#next();
  }

  async #answer(question: string): Promise<void> {
    const answering = new AbortController();
    this.#answering = answering;
    try {
      const statistics = await this.#conversation.ask(question, answering.signal, (piece) =>
        this.#view.show(piece),
      );
      this.#view.end();
      this.#view.showStatistics(statistics);
    } catch (error) {
      if (!(error instanceof MistralError)) throw error;
      const advice = error.code === "context_length_exceeded" ? " (/clear begins a new conversation)" : "";
      this.#note(`error: ${error.message}${advice}\n`);
    } finally {
      this.#answering = undefined;
    }
  }

  #next(): void {
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) void this.#obey(parseLine(waiting));
    else if (this.#isInputOver) this.#leave();
    else this.#lines.prompt();
  }

  #note(text: string): void {
    process.stderr.write(text);
  }

  #leave(): void {
    if (this.#isTerminal) {
      writeHistory(this.#environment, this.#history);
      if (!this.#isInputOver) process.stdout.write("\n");
    }
    this.#lines.close();
    this.#done.resolve();
  }
}

function helpText(): string {
  const rows = SLASH_COMMANDS.map(([name, behind, meaning]) => [`${name} ${behind}`.trim(), meaning]);
  return textTable([
    ...rows,
    ["\\ at the end", "the question goes on in the next line"],
    ["Ctrl-C", "stop the answer"],
  ]);
}
