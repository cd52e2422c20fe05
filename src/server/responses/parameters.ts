/** The fields of POST /v1/responses. */

import { t } from "elysia";
import { LIMITS } from "../limits.ts";
import { CHAT_PARAMETERS } from "../openai/chat-parameters.ts";
import {
  type BodyOf,
  bodySchema,
  expecting,
  noEffect,
  optional,
  refused,
  supported,
} from "../openai/parameters.ts";
import { SHARED_PARAMETERS } from "../openai/sampling-parameters.ts";

const PLANNED_TOOLS = "tool calling is not built yet";

/** What a response may be asked to include beside its text. */
export const INCLUDE_LOGPROBS = "message.output_text.logprobs";

const ContentPart = t.Object(
  { type: t.String(expecting("a string")), text: t.Optional(t.String(expecting("a string"))) },
  { additionalProperties: true, ...expecting('an object such as {"type": "input_text", "text": "..."}') },
);

const InputItem = t.Object(
  {
    type: t.Optional(t.String(expecting("a string"))),
    role: t.Optional(
      t.Union(
        [t.Literal("user"), t.Literal("assistant"), t.Literal("system"), t.Literal("developer")],
        expecting("one of user, assistant, system or developer"),
      ),
    ),
    content: optional(
      t.Union([t.String(), t.Array(ContentPart, { maxItems: LIMITS.contentParts })]),
      'a string or an array of text parts such as {"type": "input_text", "text": "..."}',
    ),
    call_id: t.Optional(t.String(expecting("a string"))),
    name: t.Optional(t.String(expecting("a string"))),
    arguments: t.Optional(t.String(expecting("a string"))),
    output: t.Optional(t.Union([t.String(), t.Array(ContentPart)], expecting("a string or text parts"))),
  },
  {
    additionalProperties: true,
    ...expecting("an input item: a message, or the call or output of a function"),
  },
);

const {
  n: _n,
  max_tokens: _maxTokens,
  metadata: _metadata,
  stream_options: _streamOptions,
  truncate_sequence: _truncateSequence,
  ...SHARED
} = SHARED_PARAMETERS;

export const RESPONSE_PARAMETERS = {
  ...SHARED,
  input: supported(
    t.Union(
      [t.String(), t.Array(InputItem, { minItems: 1, maxItems: LIMITS.messages })],
      expecting(`a string or an array of 1 to ${LIMITS.messages} input items`),
    ),
    "What to answer: a text, or the items of a conversation.",
  ),
  instructions: supported(
    optional(t.String(), "a string"),
    "A system message before everything else. Not carried over by `previous_response_id`.",
  ),
  previous_response_id: supported(
    optional(t.String({ minLength: 1, maxLength: 200 }), "the id of a stored response"),
    "Goes on from this response: its conversation stands before the input.",
  ),
  background: supported(
    optional(t.Boolean(), "true or false"),
    "Answers at once with a response that is `queued`; fetch it by its id, also as a stream, or cancel it.",
  ),
  store: supported(
    optional(t.Boolean(), "true or false"),
    `Whether the response can be fetched and continued later; it can by default, for ${LIMITS.responseLifeMs / 60_000} minutes.`,
  ),
  metadata: supported(
    optional(
      t.Record(t.String({ maxLength: 64 }), t.String({ maxLength: 512 }), { maxProperties: 16 }),
      "an object of at most 16 strings of up to 512 characters",
    ),
    "Notes of the client's own, kept with the response.",
  ),
  max_output_tokens: supported(
    optional(t.Integer({ minimum: 1 }), "an integer of at least 1"),
    "Most tokens to generate; a response that reaches it is `incomplete`. Default, and upper bound: what the context still holds.",
  ),
  top_logprobs: supported(
    optional(
      t.Integer({ minimum: 0, maximum: LIMITS.topLogprobs }),
      `an integer from 0 to ${LIMITS.topLogprobs}`,
    ),
    `Reports this many of the most likely tokens at each place, together with \`${INCLUDE_LOGPROBS}\` in \`include\`.`,
  ),
  include: supported(
    optional(t.Array(t.String(), { maxItems: 16 }), "an array of strings"),
    `\`${INCLUDE_LOGPROBS}\` reports the log-probability of each token; other values have no effect.`,
  ),
  reasoning: supported(
    optional(
      t.Object(
        {
          effort: CHAT_PARAMETERS.reasoning_effort.schema,
          summary: optional(t.String(), "a string"),
        },
        { additionalProperties: true },
      ),
      "an object with `effort`",
    ),
    "`effort` goes to the model's chat template; thoughts are given as they are, without a summary.",
  ),
  chat_template_kwargs: CHAT_PARAMETERS.chat_template_kwargs,
  enable_thinking: CHAT_PARAMETERS.enable_thinking,
  stream_options: supported(
    optional(
      t.Object(
        { include_obfuscation: optional(t.Boolean(), "true or false") },
        { additionalProperties: true },
      ),
      "an object",
    ),
    "Nothing is obfuscated; streams are encrypted by HTTPS where it matters.",
  ),
  text: refused(
    t.Object(
      {
        format: optional(t.Object({ type: t.Literal("text") }), "of type text"),
        verbosity: optional(t.String(), "a string"),
      },
      { additionalProperties: true },
    ),
    'only the format {"type": "text"} is possible; structured output is not built yet',
  ),
  truncation: refused(t.Literal("disabled"), "input is not cut; shorten it instead"),
  n: refused(t.Literal(1), "a response has one answer"),
  tools: refused(t.Array(t.Unknown(), { maxItems: 0 }), PLANNED_TOOLS),
  tool_choice: refused(t.Union([t.Literal("none"), t.Literal("auto")]), PLANNED_TOOLS),
  max_tool_calls: refused(t.Never(), PLANNED_TOOLS),
  prompt: refused(t.Never(), "prompts are not stored here"),
  conversation: refused(t.Never(), "conversations are kept by previous_response_id alone"),
  context_management: refused(t.Array(t.Unknown(), { maxItems: 0 }), "conversations are not compacted"),
  parallel_tool_calls: noEffect("Whether one answer may call several tools; without tools it cannot."),
  safety_identifier: noEffect("Who the end user is."),
  prompt_cache_key: noEffect("Helps OpenAI find a cached prefix; ours is found by the tokens alone."),
  prompt_cache_retention: noEffect("How long OpenAI keeps a cached prefix."),
};

export const ResponseCreateBody = bodySchema(RESPONSE_PARAMETERS);
export type ResponseCreateBody = BodyOf<typeof RESPONSE_PARAMETERS>;
export type InputItem = typeof InputItem.static;
