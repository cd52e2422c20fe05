/** From the body of an embedding request to the tokens of each input: checked against the model, cut where that is asked for. */

import { MistralError } from "../../errors.ts";
import { checkPrompt, tokenCapacity } from "../generation/plan.ts";
import type { TextPrompt } from "../generation/request.ts";
import { encodePrompt, promptCharactersMax } from "../prompt-tokens.ts";
import type { ServedModel } from "../served-model.ts";
import type { EmbeddingBody } from "./parameters.ts";

export interface EmbeddingInputs {
  readonly inputs: readonly TextPrompt[];
  readonly warnings: readonly string[];
}

/** Longest stretch of tokenizing before others have their turn: many texts are much work. */
const TURN_MS = 5;

/**
 * Throws context_length_exceeded for an input that is too long, invalid_request for unknown tokens, and the signal's
 * reason when it aborts.
 */
export async function embeddingInputs(
  body: EmbeddingBody,
  model: ServedModel,
  signal: AbortSignal,
): Promise<EmbeddingInputs> {
  const cuts = body.truncate_sequence ?? false;
  const capacity = tokenCapacity(model.engine.info);
  const items = listOf(body.input);
  const inputs: TextPrompt[] = [];
  const warnings: string[] = [];
  let turnMs = performance.now();
  for (const [index, item] of items.entries()) {
    if (performance.now() - turnMs > TURN_MS) {
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
      turnMs = performance.now();
    }
    const input = promptOf(item, cuts, model);
    checkPrompt(input, "input", model.tokenizer);
    const isWhole = typeof item !== "string" || item.length <= promptCharactersMax(model);
    if (input.tokens.length <= capacity && isWhole) {
      inputs.push(input);
      continue;
    }
    if (!cuts)
      throw tooLong(items.length === 1 ? "The input" : `Input ${index}`, input.tokens.length, capacity);
    warnings.push(
      `truncate_sequence kept the first ${capacity} tokens of ${items.length === 1 ? "the input" : `input ${index}`}`,
    );
    inputs.push({ tokens: input.tokens.slice(0, capacity), text: undefined });
  }
  return { inputs, warnings };
}

function tooLong(name: string, count: number, capacity: number): MistralError {
  return new MistralError(
    "context_length_exceeded",
    `${name} has ${count} tokens; this model holds ${capacity}. Shorten it, or set truncate_sequence to keep its beginning.`,
    { parameter: "input" },
  );
}

type Item = string | readonly number[];

function listOf(input: EmbeddingBody["input"]): readonly Item[] {
  if (typeof input === "string" || isTokenIds(input)) return [input];
  return input;
}

function isTokenIds(input: readonly unknown[]): input is readonly number[] {
  return typeof input[0] === "number";
}

/** Token ids are taken as they are: whoever counts them decides about BOS as well. */
function promptOf(item: Item, cuts: boolean, model: ServedModel): TextPrompt {
  if (typeof item !== "string") return { tokens: Int32Array.from(item), text: undefined };
  // What no token that is kept can stand for need not be tokenized.
  const text = cuts ? item.slice(0, promptCharactersMax(model)) : item;
  return { tokens: encodePrompt(model, text, "input"), text };
}
