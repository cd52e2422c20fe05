/** The fields of POST /v1/chat/completions. */

import { t } from "elysia";
import { EFFORTS } from "../generation/thinking.ts";
import { LIMITS } from "../limits.ts";
import { type BodyOf, bodySchema, expecting, noEffect, optional, refused, supported } from "./parameters.ts";
import { SHARED_PARAMETERS } from "./sampling-parameters.ts";

const ROLES = "system, developer, user, assistant, tool or function";

const Role = t.Union(
  [
    t.Literal("system"),
    t.Literal("developer"),
    t.Literal("user"),
    t.Literal("assistant"),
    t.Literal("tool"),
    t.Literal("function"),
  ],
  expecting(`one of ${ROLES}`),
);

const ContentPart = t.Object(
  { type: t.String(expecting("a string")), text: t.Optional(t.String(expecting("a string"))) },
  { additionalProperties: true, ...expecting('an object such as {"type": "text", "text": "..."}') },
);

const Message = t.Object(
  {
    role: Role,
    content: optional(
      t.Union([t.String(), t.Array(ContentPart, { maxItems: LIMITS.contentParts })]),
      'a string or an array of text parts such as {"type": "text", "text": "..."}',
    ),
    name: optional(t.String(), "a string"),
    tool_calls: optional(t.Array(t.Record(t.String(), t.Unknown())), "an array of tool calls"),
    tool_call_id: optional(t.String(), "a string"),
    reasoning_content: optional(t.String(), "a string"),
    reasoning: optional(t.String(), "a string, the other name of reasoning_content"),
  },
  { additionalProperties: true, ...expecting("an object with role and content") },
);

const Effort = t.Union([
  t.Literal("none"),
  t.Literal("off"),
  t.Literal("minimal"),
  t.Literal("low"),
  t.Literal("medium"),
  t.Literal("high"),
  t.Literal("xhigh"),
  t.Literal("max"),
]);

const PLANNED_TOOLS = "tool calling is not built yet";

export const CHAT_PARAMETERS = {
  ...SHARED_PARAMETERS,
  messages: supported(
    t.Array(Message, {
      minItems: 1,
      maxItems: LIMITS.messages,
      ...expecting(`an array of 1 to ${LIMITS.messages} messages`),
    }),
    "The conversation so far.",
  ),
  max_completion_tokens: supported(
    optional(t.Integer({ minimum: 1 }), "an integer of at least 1"),
    "The newer name of max_tokens.",
  ),
  max_tokens: supported(
    optional(t.Integer({ minimum: 1 }), "an integer of at least 1"),
    "Most tokens to generate. Default, and upper bound: what the context still holds.",
  ),
  logprobs: supported(
    optional(t.Boolean(), "true or false"),
    "Reports the log-probability of each answer token.",
  ),
  top_logprobs: supported(
    optional(
      t.Integer({ minimum: 0, maximum: LIMITS.topLogprobs }),
      `an integer from 0 to ${LIMITS.topLogprobs}`,
    ),
    "Also reports this many of the most likely tokens at each place. Only together with `logprobs`.",
  ),
  chat_template_kwargs: supported(
    optional(t.Record(t.String(), t.Unknown()), "an object"),
    "Further variables of the model's chat template.",
  ),
  enable_thinking: supported(
    optional(t.Boolean(), "true or false"),
    "Whether the model thinks first, where its chat template lets one choose. Default: the template's.",
  ),
  reasoning_effort: supported(
    optional(Effort, `one of ${EFFORTS.join(", ")}`),
    "How much the model thinks, where its chat template lets one choose; none and off switch thinking off, the others on.",
  ),
  tools: refused(t.Array(t.Unknown(), { maxItems: 0 }), PLANNED_TOOLS),
  tool_choice: refused(t.Union([t.Literal("none"), t.Literal("auto")]), PLANNED_TOOLS),
  functions: refused(t.Array(t.Unknown(), { maxItems: 0 }), PLANNED_TOOLS),
  function_call: refused(t.Union([t.Literal("none"), t.Literal("auto")]), PLANNED_TOOLS),
  response_format: refused(
    t.Object({ type: t.Literal("text") }),
    'only {"type": "text"} is possible; structured output is not built yet',
  ),
  modalities: refused(t.Array(t.Literal("text")), "only text is generated"),
  audio: refused(t.Never(), "only text is generated"),
  web_search_options: refused(t.Never(), "web search is not built yet"),
  parallel_tool_calls: noEffect("Whether one answer may call several tools; without tools it cannot."),
  store: noEffect("Whether OpenAI keeps the answer; nothing is kept here."),
  safety_identifier: noEffect("Who the end user is."),
  prompt_cache_key: noEffect("Helps OpenAI find a cached prefix; ours is found by the tokens alone."),
  prompt_cache_retention: noEffect("How long OpenAI keeps a cached prefix."),
  prediction: noEffect("Text the answer is likely to repeat; only ever makes it faster."),
  verbosity: noEffect("How long OpenAI's models should answer."),
};

export const ChatBody = bodySchema(CHAT_PARAMETERS);
export type ChatBody = BodyOf<typeof CHAT_PARAMETERS>;
export type ChatBodyMessage = ChatBody["messages"][number];
