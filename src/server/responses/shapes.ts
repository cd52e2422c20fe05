/** The shapes of a response and of the events that stream it. */

import { t } from "elysia";

const nullable = <Schema extends Parameters<typeof t.Union>[0][number]>(schema: Schema) =>
  t.Union([schema, t.Null()]);

const Logprob = t.Object({
  token: t.String(),
  logprob: t.Number(),
  bytes: t.Array(t.Integer()),
  top_logprobs: t.Array(t.Object({ token: t.String(), logprob: t.Number(), bytes: t.Array(t.Integer()) })),
});
export type Logprob = typeof Logprob.static;

export const OutputText = t.Object({
  type: t.Literal("output_text"),
  text: t.String(),
  annotations: t.Array(t.Unknown(), { maxItems: 0 }),
  logprobs: t.Array(Logprob),
});
export type OutputText = typeof OutputText.static;

export const ReasoningText = t.Object({ type: t.Literal("reasoning_text"), text: t.String() });
export type ReasoningText = typeof ReasoningText.static;

const ItemStatus = t.Union([t.Literal("in_progress"), t.Literal("completed"), t.Literal("incomplete")]);
export type ItemStatus = typeof ItemStatus.static;

export const MessageItem = t.Object({
  id: t.String(),
  type: t.Literal("message"),
  role: t.Literal("assistant"),
  status: ItemStatus,
  content: t.Array(OutputText),
});
export type MessageItem = typeof MessageItem.static;

export const ReasoningItem = t.Object({
  id: t.String(),
  type: t.Literal("reasoning"),
  status: ItemStatus,
  summary: t.Array(t.Unknown(), { maxItems: 0 }),
  content: t.Array(ReasoningText),
});
export type ReasoningItem = typeof ReasoningItem.static;

export const OutputItem = t.Union([MessageItem, ReasoningItem]);
export type OutputItem = typeof OutputItem.static;

export const ResponseStatus = t.Union([
  t.Literal("queued"),
  t.Literal("in_progress"),
  t.Literal("completed"),
  t.Literal("incomplete"),
  t.Literal("failed"),
  t.Literal("cancelled"),
]);
export type ResponseStatus = typeof ResponseStatus.static;

export const ResponseUsage = t.Object({
  input_tokens: t.Integer(),
  input_tokens_details: t.Object({ cached_tokens: t.Integer() }),
  output_tokens: t.Integer(),
  output_tokens_details: t.Object({ reasoning_tokens: t.Integer() }),
  total_tokens: t.Integer(),
});
export type ResponseUsage = typeof ResponseUsage.static;

export const ResponseBody = t.Object({
  id: t.String(),
  object: t.Literal("response"),
  created_at: t.Integer(),
  completed_at: nullable(t.Integer()),
  status: ResponseStatus,
  background: t.Boolean(),
  error: nullable(t.Object({ code: t.String(), message: t.String() })),
  incomplete_details: nullable(t.Object({ reason: t.Literal("max_output_tokens") })),
  instructions: nullable(t.String()),
  max_output_tokens: nullable(t.Integer()),
  max_tool_calls: t.Null(),
  model: t.String(),
  output: t.Array(OutputItem),
  /** The text of all messages of the output together. */
  output_text: t.String(),
  parallel_tool_calls: t.Boolean(),
  previous_response_id: nullable(t.String()),
  reasoning: t.Object({ effort: nullable(t.String()), summary: t.Null() }),
  service_tier: t.String(),
  store: t.Boolean(),
  temperature: nullable(t.Number()),
  text: t.Object({ format: t.Object({ type: t.Literal("text") }) }),
  tool_choice: t.Literal("auto"),
  tools: t.Array(t.Unknown(), { maxItems: 0 }),
  top_logprobs: t.Integer(),
  top_p: nullable(t.Number()),
  truncation: t.Literal("disabled"),
  usage: nullable(ResponseUsage),
  user: nullable(t.String()),
  metadata: t.Record(t.String(), t.String()),
});
export type ResponseBody = typeof ResponseBody.static;

export const DeletedResponse = t.Object({
  id: t.String(),
  object: t.Literal("response.deleted"),
  deleted: t.Literal(true),
});

const sequence = { sequence_number: t.Integer({ minimum: 0 }) };
const item = { ...sequence, output_index: t.Integer() };
const part = { ...item, item_id: t.String(), content_index: t.Integer() };
const lifecycle = <Type extends string>(type: Type) =>
  t.Object({ type: t.Literal(type), ...sequence, response: ResponseBody });

export const ResponseStreamEvent = t.Union([
  lifecycle("response.created"),
  lifecycle("response.queued"),
  lifecycle("response.in_progress"),
  lifecycle("response.completed"),
  lifecycle("response.incomplete"),
  lifecycle("response.failed"),
  t.Object({ type: t.Literal("response.output_item.added"), ...item, item: OutputItem }),
  t.Object({ type: t.Literal("response.output_item.done"), ...item, item: OutputItem }),
  t.Object({
    type: t.Literal("response.content_part.added"),
    ...part,
    part: t.Union([OutputText, ReasoningText]),
  }),
  t.Object({
    type: t.Literal("response.content_part.done"),
    ...part,
    part: t.Union([OutputText, ReasoningText]),
  }),
  t.Object({
    type: t.Literal("response.output_text.delta"),
    ...part,
    delta: t.String(),
    logprobs: t.Array(Logprob),
  }),
  t.Object({
    type: t.Literal("response.output_text.done"),
    ...part,
    text: t.String(),
    logprobs: t.Array(Logprob),
  }),
  t.Object({ type: t.Literal("response.reasoning_text.delta"), ...part, delta: t.String() }),
  t.Object({ type: t.Literal("response.reasoning_text.done"), ...part, text: t.String() }),
  t.Object({
    type: t.Literal("error"),
    ...sequence,
    code: nullable(t.String()),
    message: t.String(),
    param: nullable(t.String()),
  }),
]);
export type ResponseStreamEvent = typeof ResponseStreamEvent.static;
