/** The fields of POST /v1/messages and /v1/messages/count_tokens. */

import { t } from "elysia";
import { LIMITS } from "../limits.ts";
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

const ContentBlock = t.Object(
  {
    type: t.String(expecting("a string")),
    text: t.Optional(t.String(expecting("a string"))),
    thinking: t.Optional(t.String(expecting("a string"))),
  },
  { additionalProperties: true, ...expecting('an object such as {"type": "text", "text": "..."}') },
);
export type ContentBlock = typeof ContentBlock.static;

const Content = t.Union(
  [t.String(), t.Array(ContentBlock, { maxItems: LIMITS.contentParts })],
  expecting('a string or an array of blocks such as {"type": "text", "text": "..."}'),
);

const Message = t.Object(
  {
    role: t.Union(
      [t.Literal("user"), t.Literal("assistant"), t.Literal("system")],
      expecting("one of user, assistant or system"),
    ),
    content: Content,
  },
  { additionalProperties: true, ...expecting("an object with role and content") },
);

/** Anthropic's names differ for these, or ask for more. */
const {
  n: _n,
  stop: _stop,
  max_tokens: _maxTokens,
  stream_options: _streamOptions,
  user: _user,
  service_tier: _serviceTier,
  ...SAMPLING
} = SHARED_PARAMETERS;

const PLANNED_TOOLS = "tool use is not built yet";

const PROMPT_PARAMETERS = {
  model: SHARED_PARAMETERS.model,
  messages: supported(
    t.Array(Message, {
      minItems: 1,
      maxItems: LIMITS.messages,
      ...expecting(`an array of 1 to ${LIMITS.messages} messages`),
    }),
    "The conversation so far; neighbours of the same role are joined. A last message of the assistant is gone on from. Prefixes are cached without `cache_control`.",
  ),
  system: supported(optional(Content, "a string or an array of text blocks"), "What the model is to be."),
  thinking: supported(
    optional(
      t.Object(
        {
          type: t.Union(
            [t.Literal("enabled"), t.Literal("adaptive"), t.Literal("between_tools"), t.Literal("disabled")],
            expecting("one of enabled, adaptive, between_tools or disabled"),
          ),
          display: optional(
            t.Union([t.Literal("summarized"), t.Literal("omitted")]),
            "summarized or omitted",
          ),
        },
        { additionalProperties: true },
      ),
      'an object such as {"type": "enabled"}',
    ),
    "Whether the model thinks first, where its chat template lets one choose; left out, the template decides. `budget_tokens` has no effect.",
  ),
  output_config: supported(
    optional(
      t.Object(
        {
          effort: optional(
            t.Union([
              t.Literal("low"),
              t.Literal("medium"),
              t.Literal("high"),
              t.Literal("xhigh"),
              t.Literal("max"),
            ]),
            "one of low, medium, high, xhigh or max",
          ),
          format: t.Optional(t.Null({ refused: "structured output is not built yet" })),
        },
        { additionalProperties: true },
      ),
      "an object with `effort`",
    ),
    "With `effort`, how much the model thinks, where its chat template lets one choose.",
  ),
  chat_template_kwargs: supported(
    optional(t.Record(t.String(), t.Unknown()), "an object"),
    "Further variables of the model's chat template.",
  ),
  tools: refused(t.Array(t.Unknown(), { maxItems: 0 }), PLANNED_TOOLS),
  tool_choice: refused(
    t.Object({ type: t.Union([t.Literal("auto"), t.Literal("none")]) }, { additionalProperties: true }),
    PLANNED_TOOLS,
  ),
  cache_control: noEffect("Where Anthropic caches the prompt; here prefixes are cached without being told."),
  speed: noEffect("Which of Anthropic's speeds serves the request."),
};

export const COUNT_PARAMETERS = PROMPT_PARAMETERS;

export const MESSAGE_PARAMETERS = {
  ...SAMPLING,
  ...PROMPT_PARAMETERS,
  max_tokens: supported(
    t.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, ...expecting("an integer of at least 0") }),
    "Most tokens to generate, thoughts included; 0 only reads the prompt into the cache.",
  ),
  stop_sequences: supported(
    optional(
      t.Array(
        t.String({
          minLength: 1,
          maxLength: LIMITS.stopStringCharacters,
          ...expecting("a non-empty string"),
        }),
        { maxItems: LIMITS.stopStrings },
      ),
      `an array of at most ${LIMITS.stopStrings} strings, each of 1 to ${LIMITS.stopStringCharacters} characters`,
    ),
    "Texts that end the answer, wherever they come, in thoughts too; they are not part of it, and the one that did is told.",
  ),
  service_tier: noEffect("Which of Anthropic's capacities serves the request."),
  inference_geo: noEffect("Where Anthropic computes the answer; here it is computed where the server runs."),
  diagnostics: noEffect("Asks Anthropic why its cache was missed."),
  container: refused(t.Never(), "containers are not built yet"),
  mcp_servers: refused(t.Array(t.Unknown(), { maxItems: 0 }), "calling MCP servers is not built yet"),
};

export const MessageBody = bodySchema(MESSAGE_PARAMETERS);
export type MessageBody = BodyOf<typeof MESSAGE_PARAMETERS>;
export const CountBody = bodySchema(COUNT_PARAMETERS);
export type CountBody = BodyOf<typeof COUNT_PARAMETERS>;
