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

/** Throws context_length_exceeded for an input that is too long, and invalid_request for unknown tokens. */
export function embeddingInputs(body: EmbeddingBody, model: ServedModel): EmbeddingInputs {
  const cuts = body.truncate_sequence ?? false;
  const capacity = tokenCapacity(model.engine.info);
  const warnings: string[] = [];
  const inputs = listOf(body.input).map((item, index, { length }): TextPrompt => {
    const input = promptOf(item, cuts, model);
    checkPrompt(input, "input", model.tokenizer);
    const count = input.tokens.length;
    const isWhole = typeof item !== "string" || item.length <= promptCharactersMax(model);
    if (count <= capacity && isWhole) return input;
    const name = length === 1 ? "the input" : `input ${index}`;
    if (cuts) {
      warnings.push(`truncate_sequence kept the first ${capacity} tokens of ${name}`);
      return { tokens: input.tokens.slice(0, capacity), text: undefined };
    }
    throw new MistralError(
      "context_length_exceeded",
      `${name[0]?.toUpperCase()}${name.slice(1)} has ${count} tokens; this model holds ${capacity}. Shorten it, or set truncate_sequence to keep its beginning.`,
      { parameter: "input" },
    );
  });
  return { inputs, warnings };
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
