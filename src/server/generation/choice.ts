/**
 * One choice of a request: runs its engine request and turns tokens into text. Holds a token's log-probability back
 * until its text goes out, so that the tokens of a stop string, whose text never does, are not reported either.
 */

import type { GenerationEvent, StartListener, Usage } from "../../engine/messages.ts";
import { TEXT_COMPLETE } from "../../engine/text-complete.ts";
import { MistralError } from "../../errors.ts";
import { markerTokens, reasoningSplitter } from "../../text/reasoning.ts";
import { TextStream } from "../../text/text-stream.ts";
import { PartWriter } from "./part-writer.ts";
import type { PlannedChoice, TextPlan } from "./plan.ts";
import type { TextEvent, TextFinishReason, TextUsage } from "./request.ts";
import { describePrompt, describeToken } from "./token-text.ts";

type TokensEvent = Extract<GenerationEvent, { type: "tokens" }>;

/**
 * Emits the choice's events and returns what it cost. Throws what the engine reports as an error, and the signal's
 * reason when `signal` stopped it.
 */
export async function runChoice(
  plan: TextPlan,
  choice: PlannedChoice,
  signal: AbortSignal,
  emit: (event: TextEvent) => void,
  onStarted?: StartListener,
): Promise<TextUsage> {
  const run = new ChoiceRun(plan, choice, emit);
  const stopEngine = new AbortController();
  const bothSignals = AbortSignal.any([signal, stopEngine.signal]);
  const events = plan.model.engine.generate(choice.request, bothSignals, onStarted);
  for await (const event of events) {
    switch (event.type) {
      case "prompt":
        run.prompt(event.logprobs);
        break;
      case "tokens":
        if (run.tokens(event)) stopEngine.abort(TEXT_COMPLETE);
        break;
      case "finish":
        signal.throwIfAborted();
        return run.finish(event.reason, event.usage);
      case "error":
        if (run.stopped) return run.usage(undefined);
        throw new MistralError(event.code, event.message);
    }
  }
  signal.throwIfAborted();
  if (run.stopped) return run.usage(undefined);
  throw new MistralError("engine_failed", "The engine ended the request without a result.");
}

class ChoiceRun {
  readonly #plan: TextPlan;
  readonly #choice: PlannedChoice;
  readonly #emit: (event: TextEvent) => void;
  readonly #text: TextStream;
  readonly #writer: PartWriter;
  /** Length of the echoed prompt. */
  readonly #textStart: number;
  #completionTokens = 0;
  /** The prompt's text is still to be sent: not before the engine's first event, which may be a refusal. */
  #echoDue: boolean;
  /** A stop string ended the choice; what the engine still sends is not part of it. */
  stopped = false;

  constructor(plan: TextPlan, choice: PlannedChoice, emit: (event: TextEvent) => void) {
    const { tokenizer } = plan.model;
    const { reasoning, stop, continues } = plan;
    this.#plan = plan;
    this.#choice = choice;
    this.#emit = emit;
    const keptTokens =
      reasoning === undefined ? new Set<number>() : markerTokens(reasoning.format, tokenizer);
    this.#text = new TextStream(tokenizer, { stop, skipSpecialTokens: true, keptTokens, continues });
    const splitter =
      reasoning === undefined ? undefined : reasoningSplitter(reasoning.format, reasoning.prompt, tokenizer);
    this.#writer = new PartWriter(choice.index, splitter, emit);
    this.#textStart = plan.echo ? this.#promptText().length : 0;
    this.#echoDue = plan.echo && !plan.echoScored;
  }

  prompt(logprobs: Extract<GenerationEvent, { type: "prompt" }>["logprobs"]): void {
    const { tokens } = this.#choice.prompt;
    const text = this.#promptText();
    const described = describePrompt(this.#plan.model.tokenizer, tokens, text, logprobs);
    this.#emit({ type: "prompt", choice: this.#choice.index, text, tokens: described });
  }

  /** Returns true when a stop string was found and the engine has nothing more to do. */
  tokens(event: TokensEvent): boolean {
    if (this.stopped) return false;
    this.#echo();
    for (const [position, token] of event.tokens.entries()) {
      this.#completionTokens += 1;
      this.#hold(event.logprobs[position]);
      const step = this.#text.push(token);
      this.#writer.read(step);
      if (step.stopped) {
        this.stopped = true;
        this.#writer.finish(undefined);
        break;
      }
    }
    this.#writer.send();
    if (this.stopped) this.#end("stop");
    return this.stopped;
  }

  finish(reason: "stop" | "length" | "abort", usage: Usage): TextUsage {
    if (this.stopped) return this.usage(usage);
    if (reason === "abort") throw new MistralError("engine_failed", "The engine aborted the request.");
    this.#echo();
    const tail = this.#text.finish();
    this.#writer.finish(tail);
    this.#writer.send();
    this.#end(tail.stopped ? "stop" : reason);
    return this.usage(usage);
  }

  #end(reason: TextFinishReason): void {
    const stopString = this.#text.stopString ?? null;
    this.#emit({ type: "finish", choice: this.#choice.index, reason, stopString });
  }

  /** A choice cut by a stop string is charged for the tokens up to it, not for what the engine had begun after it. */
  usage(reported: Usage | undefined): TextUsage {
    return {
      promptTokens: reported?.promptTokens ?? this.#choice.prompt.tokens.length,
      completionTokens: this.stopped
        ? this.#completionTokens
        : (reported?.completionTokens ?? this.#completionTokens),
      cachedTokens: reported?.cachedTokens ?? 0,
      reasoningTokens: this.#writer.reasoningTokens,
    };
  }

  #echo(): void {
    if (!this.#echoDue) return;
    this.#echoDue = false;
    this.#emit({ type: "prompt", choice: this.#choice.index, text: this.#promptText(), tokens: [] });
  }

  #promptText(): string {
    const { text, tokens } = this.#choice.prompt;
    return text ?? this.#plan.model.tokenizer.decode([...tokens], { skipSpecialTokens: false });
  }

  /** A token that is about to be added to the text. */
  #hold(logprob: TokensEvent["logprobs"][number] | undefined): void {
    if (this.#plan.logprobs < 0) return;
    if (logprob === undefined)
      throw new MistralError("backend", "The engine gave a token without its log-probability.");
    const offset = this.#textStart + this.#text.length;
    this.#writer.hold(describeToken(this.#plan.model.tokenizer, logprob, offset));
  }
}
