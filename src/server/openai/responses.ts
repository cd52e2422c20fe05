/** The shapes of OpenAI's answers: what the routes declare and the typed client sees. */

import { t } from "elysia";

const nullable = <Schema extends Parameters<typeof t.Union>[0][number]>(schema: Schema) =>
  t.Union([schema, t.Null()]);

export const FinishReason = t.Union([t.Literal("stop"), t.Literal("length")]);

export const UsageBody = t.Object({
  prompt_tokens: t.Integer(),
  completion_tokens: t.Integer(),
  total_tokens: t.Integer(),
  prompt_tokens_details: t.Object({ cached_tokens: t.Integer() }),
  /** Tokens spent on thinking are completion tokens too. */
  completion_tokens_details: t.Object({ reasoning_tokens: t.Integer() }),
});
export type UsageBody = typeof UsageBody.static;

const TopLogprob = t.Object({ token: t.String(), logprob: t.Number(), bytes: t.Array(t.Integer()) });

export const ChatLogprobs = t.Object({
  content: t.Array(
    t.Object({
      token: t.String(),
      logprob: t.Number(),
      bytes: t.Array(t.Integer()),
      top_logprobs: t.Array(TopLogprob),
    }),
  ),
  refusal: t.Null(),
});
export type ChatLogprobs = typeof ChatLogprobs.static;

const head = {
  id: t.String(),
  created: t.Integer(),
  model: t.String(),
  system_fingerprint: t.String(),
};

export const ChatCompletion = t.Object({
  ...head,
  object: t.Literal("chat.completion"),
  choices: t.Array(
    t.Object({
      index: t.Integer(),
      message: t.Object({
        role: t.Literal("assistant"),
        content: t.String(),
        refusal: t.Null(),
        /** What the model thought before it answered, when it did. */
        reasoning_content: t.Optional(t.String()),
      }),
      logprobs: nullable(ChatLogprobs),
      finish_reason: FinishReason,
    }),
  ),
  usage: UsageBody,
});
export type ChatCompletion = typeof ChatCompletion.static;

export const ChatCompletionChunk = t.Object({
  ...head,
  object: t.Literal("chat.completion.chunk"),
  choices: t.Array(
    t.Object({
      index: t.Integer(),
      delta: t.Object({
        role: t.Optional(t.Literal("assistant")),
        content: t.Optional(t.String()),
        refusal: t.Optional(t.Null()),
        reasoning_content: t.Optional(t.String()),
      }),
      logprobs: nullable(ChatLogprobs),
      finish_reason: nullable(FinishReason),
    }),
  ),
  /** Only when `stream_options.include_usage` asks: null but in the last chunk. */
  usage: t.Optional(nullable(UsageBody)),
});
export type ChatCompletionChunk = typeof ChatCompletionChunk.static;

export const CompletionLogprobs = t.Object({
  tokens: t.Array(t.String()),
  token_logprobs: t.Array(nullable(t.Number())),
  top_logprobs: t.Array(nullable(t.Record(t.String(), t.Number()))),
  text_offset: t.Array(t.Integer()),
});
export type CompletionLogprobs = typeof CompletionLogprobs.static;

/** A finished completion, and also one chunk of a streamed one, in which `finish_reason` may be null. */
export const Completion = t.Object({
  ...head,
  object: t.Literal("text_completion"),
  choices: t.Array(
    t.Object({
      index: t.Integer(),
      text: t.String(),
      logprobs: nullable(CompletionLogprobs),
      finish_reason: FinishReason,
    }),
  ),
  usage: UsageBody,
});
export type Completion = typeof Completion.static;

export const CompletionChunk = t.Object({
  ...head,
  object: t.Literal("text_completion"),
  choices: t.Array(
    t.Object({
      index: t.Integer(),
      text: t.String(),
      logprobs: nullable(CompletionLogprobs),
      finish_reason: nullable(FinishReason),
    }),
  ),
  usage: t.Optional(nullable(UsageBody)),
});
export type CompletionChunk = typeof CompletionChunk.static;

export const Model = t.Object({
  id: t.String(),
  object: t.Literal("model"),
  created: t.Integer(),
  owned_by: t.String(),
  /** Ours: tokens that prompt and answer may have together. */
  max_model_len: t.Integer(),
});
export type Model = typeof Model.static;

export const ModelList = t.Object({ object: t.Literal("list"), data: t.Array(Model) });
