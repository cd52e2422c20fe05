/** Texts to tokens and back, as the model's own tokenizer does it. */

import { Elysia, t } from "elysia";
import { MistralError } from "../../errors.ts";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import { LIMITS } from "../limits.ts";
import { CHAT_PARAMETERS } from "../openai/chat-parameters.ts";
import { chatTextRequest } from "../openai/chat-request.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import {
  type BodyOf,
  bodySchema,
  expecting,
  ignoredFields,
  optional,
  refused,
  supported,
} from "../openai/parameters.ts";
import { SHARED_PARAMETERS } from "../openai/sampling-parameters.ts";
import { encodePrompt } from "../prompt-tokens.ts";
import type { ServedModel } from "../served-model.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);
const tags = ["Tokens"];

const TOKENIZE_PARAMETERS = {
  model: SHARED_PARAMETERS.model,
  prompt: supported(optional(t.String(), "a string"), "The text; either this or `messages`."),
  messages: supported(
    t.Optional(CHAT_PARAMETERS.messages.schema),
    "A conversation, which goes through the model's chat template first; either this or `prompt`.",
  ),
  add_special_tokens: supported(
    optional(t.Boolean(), "true or false"),
    "Whether `prompt` gets the tokens that begin every text of this model. Default: true.",
  ),
  return_token_strs: supported(
    optional(t.Boolean(), "true or false"),
    "Whether the text of each token is given too; bytes that are no text show as the replacement character.",
  ),
  chat_template_kwargs: CHAT_PARAMETERS.chat_template_kwargs,
  add_generation_prompt: refused(
    t.Literal(true),
    "a conversation always ends with the beginning of the answer, as chat requests have it",
  ),
};

const DETOKENIZE_PARAMETERS = {
  model: SHARED_PARAMETERS.model,
  tokens: supported(
    t.Array(t.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }), {
      maxItems: LIMITS.detokenizedTokens,
      ...expecting(`an array of at most ${LIMITS.detokenizedTokens} token ids`),
    }),
    "The token ids.",
  ),
  skip_special_tokens: supported(
    optional(t.Boolean(), "true or false"),
    "Whether tokens such as the end of a turn are left out. Default: false.",
  ),
};

const TokenizeBody = bodySchema(TOKENIZE_PARAMETERS);
type TokenizeBody = BodyOf<typeof TOKENIZE_PARAMETERS>;
const DetokenizeBody = bodySchema(DETOKENIZE_PARAMETERS);

const Tokenized = t.Object({
  count: t.Integer(),
  /** Tokens that prompt and answer may have together. */
  max_model_len: t.Integer(),
  tokens: t.Array(t.Integer()),
  token_strs: t.Union([t.Array(t.String()), t.Null()]),
});

export function tokenizeRoutes(context: ServerContext) {
  const warn = (path: string, warnings: readonly string[]) => {
    for (const warning of warnings) context.warnOnce(`${path}: ${warning}`);
  };
  return new Elysia({ name: "tokenize", normalize: false })
    .post(
      "/tokenize",
      ({ body, path }) => {
        warn(path, ignoredFields(body, TOKENIZE_PARAMETERS));
        const model = context.models.get(body.model);
        const tokens = [...tokensOf(body, model)];
        const decoder = new TextDecoder();
        return {
          count: tokens.length,
          max_model_len: model.engine.info.contextLength,
          tokens,
          token_strs:
            body.return_token_strs === true
              ? tokens.map((token) => decoder.decode(model.tokenizer.tokenBytes(token)))
              : null,
        };
      },
      {
        parse,
        body: TokenizeBody,
        response: { 200: Tokenized, ...ERROR_RESPONSES },
        detail: { tags, summary: "Turn a text or a conversation into tokens" },
      },
    )
    .post(
      "/detokenize",
      ({ body, path }) => {
        warn(path, ignoredFields(body, DETOKENIZE_PARAMETERS));
        const { tokenizer, id } = context.models.get(body.model);
        const unknown = body.tokens.find((token) => token >= tokenizer.vocabularySize);
        if (unknown !== undefined) {
          throw new MistralError(
            "invalid_request",
            `Token id ${unknown} is not in the vocabulary of "${id}" (0 to ${tokenizer.vocabularySize - 1}).`,
            { parameter: "tokens" },
          );
        }
        const skipSpecialTokens = body.skip_special_tokens ?? false;
        return { prompt: tokenizer.decode(body.tokens, { skipSpecialTokens }) };
      },
      {
        parse,
        body: DetokenizeBody,
        response: { 200: t.Object({ prompt: t.String() }), ...ERROR_RESPONSES },
        detail: { tags, summary: "Turn tokens into a text" },
      },
    );
}

function tokensOf(body: TokenizeBody, model: ServedModel): Iterable<number> {
  const prompt = body.prompt ?? undefined;
  if ((prompt === undefined) === (body.messages === undefined)) {
    throw new MistralError("invalid_request", "Give either `prompt` or `messages`.", {
      parameter: prompt === undefined ? "prompt" : "messages",
    });
  }
  if (body.messages !== undefined) {
    const { messages, chat_template_kwargs } = body;
    const { prompts } = chatTextRequest(
      { messages, chat_template_kwargs: chat_template_kwargs ?? null },
      model,
    );
    return prompts[0]?.tokens ?? [];
  }
  if (prompt === undefined) return [];
  if (body.add_special_tokens ?? true) return encodePrompt(model, prompt, "prompt");
  return model.tokenizer.encode(prompt, { addSpecialTokens: false });
}
