/** From the body of a completion request to the native text request. */

import { MistralError } from "../../errors.ts";
import type { TextPrompt, TextRequest } from "../generation/request.ts";
import { truncatePrompts } from "../generation/truncate.ts";
import { encodePrompt } from "../prompt-tokens.ts";
import type { ServedModel } from "../served-model.ts";
import type { CompletionBody } from "./completion-parameters.ts";
import { priority, samplingOverrides, stopStrings } from "./sampling-parameters.ts";

export function completionTextRequest(body: CompletionBody, model: ServedModel): TextRequest {
  const echo = body.echo ?? false;
  if (body.max_tokens === 0 && !echo) {
    throw new MistralError(
      "invalid_request",
      "max_tokens 0 generates nothing; it is only useful with echo.",
      {
        parameter: "max_tokens",
      },
    );
  }
  const request: TextRequest = {
    prompts: promptsOf(body.prompt, model),
    promptField: "prompt",
    n: body.n ?? 1,
    bestOf: bestOf(body),
    maxTokens: body.max_tokens ?? undefined,
    stop: stopStrings(body),
    ignoreEos: body.ignore_eos ?? false,
    sampling: samplingOverrides(body),
    logprobs: body.logprobs ?? -1,
    echo,
    continues: true,
    priority: priority(body),
    cacheSalt: body.cache_salt ?? undefined,
  };
  return body.truncate_sequence === true ? truncatePrompts(request, model) : request;
}

function bestOf(body: CompletionBody): number | undefined {
  const n = body.n ?? 1;
  const count = body.best_of ?? n;
  if (count < n) {
    throw new MistralError(
      "invalid_request",
      `best_of (${count}) answers are generated and the n (${n}) best of them given; raise best_of to at least n.`,
      { parameter: "best_of" },
    );
  }
  if (count > n && body.stream === true) {
    throw new MistralError(
      "invalid_request",
      "Which answer is the best is known when all are complete; best_of above n cannot be streamed.",
      { parameter: "best_of" },
    );
  }
  return count;
}

function promptsOf(prompt: CompletionBody["prompt"], model: ServedModel): readonly TextPrompt[] {
  if (typeof prompt === "string") return [textPrompt(prompt, model)];
  if (isTokenIds(prompt)) return [tokenPrompt(prompt)];
  return prompt.map((item) => (typeof item === "string" ? textPrompt(item, model) : tokenPrompt(item)));
}

function isTokenIds(prompt: readonly unknown[]): prompt is readonly number[] {
  return typeof prompt[0] === "number";
}

function textPrompt(text: string, model: ServedModel): TextPrompt {
  return { tokens: encodePrompt(model, text, "prompt"), text };
}

/** Token ids are taken as they are: whoever counts them decides about BOS as well. */
function tokenPrompt(tokens: readonly number[]): TextPrompt {
  return { tokens: Int32Array.from(tokens), text: undefined };
}
