/**
 * A conversation with a loaded model: its messages and how answers are drawn. Runs the same request a server would;
 * knows no terminal.
 */

import type { Usage } from "../../engine/messages.ts";
import { chatPrompt, templateOf } from "../../server/generation/chat-prompt.ts";
import { generateText } from "../../server/generation/generate.ts";
import { planText } from "../../server/generation/plan.ts";
import type { TextEvent, TextRequest } from "../../server/generation/request.ts";
import { type Effort, thinkingVariables } from "../../server/generation/thinking.ts";
import type { ServedModel } from "../../server/served-model.ts";
import type { ChatMessage } from "../../text/types.ts";

/** What a person chose about the answers; undefined leaves it to the model's authors. */
export interface ConversationOptions {
  readonly system: string | undefined;
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
  readonly topK: number | undefined;
  readonly topP: number | undefined;
  /** The same seed and the same questions give the same answers. */
  readonly seed: bigint | undefined;
  readonly thinking: boolean | undefined;
  readonly effort: Effort | undefined;
}

export type Sampling = Pick<ConversationOptions, "temperature" | "topK" | "topP">;

/** A stretch of an answer as it arrives. */
export interface AnswerPiece {
  readonly part: "content" | "reasoning";
  readonly text: string;
}

export interface AnswerStatistics {
  readonly usage: Usage;
  /** From the question to the first piece of the answer. */
  readonly firstTokenSeconds: number;
  /** From there to the end. */
  readonly decodeSeconds: number;
  /** The answer was stopped before its end. */
  readonly isStopped: boolean;
}

/** Takes what is asked and answered, as JSON. */
export type ConversationLog = (title: "Request" | "Response" | "Error response", text: string) => void;

const SAFE_BITS = 53;

export class Conversation {
  readonly #model: ServedModel;
  readonly #options: ConversationOptions;
  readonly #now: () => number;
  readonly #log: ConversationLog;
  #messages: ChatMessage[];
  #sampling: Sampling;
  #answers = 0n;

  /** @param now milliseconds of a clock that only goes forward */
  constructor(
    model: ServedModel,
    options: ConversationOptions,
    log: ConversationLog = () => {},
    now: () => number = () => performance.now(),
  ) {
    this.#model = model;
    this.#options = options;
    this.#log = log;
    this.#now = now;
    this.#messages = this.#opening();
    this.#sampling = { temperature: options.temperature, topK: options.topK, topP: options.topP };
  }

  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  get sampling(): Sampling {
    return this.#sampling;
  }

  /** From the next answer on. */
  setSampling(changes: Partial<Sampling>): void {
    this.#sampling = { ...this.#sampling, ...changes };
  }

  /** Adds a system message; nothing is generated. */
  addSystem(content: string): void {
    this.#messages.push({ role: "system", content });
  }

  /** Forgets everything but the system message it began with. */
  clear(): void {
    this.#messages = this.#opening();
  }

  /**
   * Asks a question and hands over the answer as it arrives. Question and answer stay in the conversation, also an
   * answer that `signal` stopped; when it fails, the question is forgotten and the failure thrown.
   */
  async ask(
    question: string,
    signal: AbortSignal,
    onPiece: (piece: AnswerPiece) => void,
  ): Promise<AnswerStatistics> {
    const before = this.#messages.length;
    this.#messages.push({ role: "user", content: question });
    this.#log("Request", this.#shown({ messages: this.#messages, ...this.#sampling }));
    try {
      return await this.#answer(signal, onPiece);
    } catch (error) {
      this.#log("Error response", error instanceof Error ? error.message : String(error));
      this.#messages.length = before;
      throw error;
    }
  }

  async #answer(signal: AbortSignal, onPiece: (piece: AnswerPiece) => void): Promise<AnswerStatistics> {
    const startedMs = this.#now();
    const plan = planText(this.#model, this.#request());
    const promptTokens = plan.choices[0]?.prompt.tokens.length ?? 0;
    let usage: Usage = { promptTokens, completionTokens: 0, cachedTokens: 0 };
    const generatedBefore = this.#generatedTokens();
    let firstMs: number | undefined;
    let content = "";
    let thoughts = "";
    let isStopped = false;
    const receive = (event: TextEvent): void => {
      if (event.type === "usage") usage = event.usage;
      if (event.type !== "text" && event.type !== "reasoning") return;
      firstMs ??= this.#now();
      const part = event.type === "text" ? "content" : "reasoning";
      if (part === "content") content += event.text;
      else thoughts += event.text;
      if (event.text !== "") onPiece({ part, text: event.text });
    };
    try {
      for await (const events of generateText(plan, signal)) for (const event of events) receive(event);
    } catch (error) {
      if (!signal.aborted) throw error;
      isStopped = true;
      // The engine has no other conversation: what it generated meanwhile is this answer.
      const completionTokens = this.#generatedTokens() - generatedBefore;
      usage = { ...usage, completionTokens };
    }
    this.#messages.push({ role: "assistant", content });
    const choice = { content, ...(thoughts === "" ? {} : { reasoning: thoughts }) };
    this.#log("Response", this.#shown({ stopped: isStopped, usage, choices: [choice] }));
    const endedMs = this.#now();
    return {
      usage,
      firstTokenSeconds: ((firstMs ?? endedMs) - startedMs) / 1000,
      decodeSeconds: (endedMs - (firstMs ?? endedMs)) / 1000,
      isStopped,
    };
  }

  #request(): TextRequest {
    const { thinking: enabled, effort, maxTokens, seed } = this.#options;
    const { temperature, topK, topP } = this.#sampling;
    const variables = thinkingVariables({ enabled, effort }, templateOf(this.#model).source);
    const drawn = seed === undefined ? undefined : Number(BigInt.asUintN(SAFE_BITS, seed + this.#answers));
    this.#answers++;
    return {
      ...chatPrompt(this.#model, { messages: this.#messages, variables }),
      n: 1,
      maxTokens,
      stop: [],
      ignoreEos: false,
      sampling: {
        temperature,
        topP,
        topK,
        minP: undefined,
        frequencyPenalty: undefined,
        presencePenalty: undefined,
        repetitionPenalty: undefined,
        seed: drawn,
        logitBias: [],
      },
      logprobs: -1,
      echo: false,
    };
  }

  #generatedTokens(): number {
    return this.#model.engine.statistics().generatedTokens;
  }

  #shown(fields: object): string {
    return JSON.stringify({ model: this.#model.id, ...fields });
  }

  #opening(): ChatMessage[] {
    const { system } = this.#options;
    return system === undefined ? [] : [{ role: "system", content: system }];
  }
}
