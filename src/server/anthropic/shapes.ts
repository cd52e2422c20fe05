/** The shapes of Anthropic's answers and events: what the routes declare and the typed client sees. */

import { t } from "elysia";

const nullable = <Schema extends Parameters<typeof t.Union>[0][number]>(schema: Schema) =>
  t.Union([schema, t.Null()]);

const TextBlock = t.Object({ type: t.Literal("text"), text: t.String(), citations: t.Null() });
/** The signature is empty: whoever sends a thought back is believed. */
const ThinkingBlock = t.Object({
  type: t.Literal("thinking"),
  thinking: t.String(),
  signature: t.String(),
});
const ContentBlock = t.Union([TextBlock, ThinkingBlock]);
export type ContentBlock = typeof ContentBlock.static;

export const StopReason = t.Union([
  t.Literal("end_turn"),
  t.Literal("max_tokens"),
  t.Literal("stop_sequence"),
  /** The answer filled the context before it reached `max_tokens`. */
  t.Literal("model_context_window_exceeded"),
]);
export type StopReason = typeof StopReason.static;

/** All input tokens together are the sum of the three kinds. */
const tokenCounts = {
  input_tokens: t.Integer(),
  cache_creation_input_tokens: t.Integer(),
  cache_read_input_tokens: t.Integer(),
  output_tokens: t.Integer(),
  output_tokens_details: t.Object({ thinking_tokens: t.Integer() }),
  server_tool_use: t.Null(),
};
const DeltaUsage = t.Object(tokenCounts);
export type DeltaUsage = typeof DeltaUsage.static;

const Usage = t.Object({
  ...tokenCounts,
  cache_creation: t.Null(),
  inference_geo: t.Null(),
  service_tier: t.Literal("standard"),
  speed: t.Null(),
});
export type Usage = typeof Usage.static;

export const Message = t.Object({
  id: t.String(),
  type: t.Literal("message"),
  role: t.Literal("assistant"),
  model: t.String(),
  content: t.Array(ContentBlock),
  stop_reason: nullable(StopReason),
  stop_sequence: nullable(t.String()),
  stop_details: t.Null(),
  container: t.Null(),
  diagnostics: t.Null(),
  usage: Usage,
});
export type Message = typeof Message.static;

export const TokenCount = t.Object({ input_tokens: t.Integer() });

/** The events of a stream, in order: one start, blocks one after the other, one delta of the message, one stop. */
export const MessageEvent = t.Union([
  t.Object({ type: t.Literal("message_start"), message: Message }),
  t.Object({ type: t.Literal("content_block_start"), index: t.Integer(), content_block: ContentBlock }),
  t.Object({ type: t.Literal("ping") }),
  t.Object({
    type: t.Literal("content_block_delta"),
    index: t.Integer(),
    delta: t.Union([
      t.Object({ type: t.Literal("text_delta"), text: t.String() }),
      t.Object({ type: t.Literal("thinking_delta"), thinking: t.String() }),
    ]),
  }),
  t.Object({ type: t.Literal("content_block_stop"), index: t.Integer() }),
  t.Object({
    type: t.Literal("message_delta"),
    delta: t.Object({
      stop_reason: StopReason,
      stop_sequence: nullable(t.String()),
      stop_details: t.Null(),
      container: t.Null(),
    }),
    usage: DeltaUsage,
  }),
  t.Object({ type: t.Literal("message_stop") }),
]);
export type MessageEvent = typeof MessageEvent.static;
