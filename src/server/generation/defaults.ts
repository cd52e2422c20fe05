/** Sampling values that a model's authors recommend in generation_config.json. */

export interface GenerationDefaults {
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  /** Tokens that are never to be drawn. */
  readonly suppressTokens?: readonly number[];
}

/**
 * Reads the sampling values of a parsed generation_config.json; anything absent or of a wrong type is left out.
 * `do_sample: false`, written out, means greedy unless the request names a temperature.
 */
export function parseGenerationDefaults(config: unknown): GenerationDefaults {
  if (typeof config !== "object" || config === null) return {};
  const values = config as Readonly<Record<string, unknown>>;
  const number = (key: string, accept: (value: number) => boolean): number | undefined => {
    const value = values[key];
    return typeof value === "number" && Number.isFinite(value) && accept(value) ? value : undefined;
  };
  const temperature = values.do_sample === false ? 0 : number("temperature", (value) => value >= 0);
  const topP = number("top_p", (value) => value > 0 && value <= 1);
  const topK = number("top_k", (value) => Number.isInteger(value) && value >= 0);
  const minP = number("min_p", (value) => value >= 0 && value <= 1);
  const repetitionPenalty = number("repetition_penalty", (value) => value > 0);
  const suppressTokens = Array.isArray(values.suppress_tokens)
    ? values.suppress_tokens.filter((token) => Number.isInteger(token) && token >= 0)
    : [];
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topP === undefined ? {} : { topP }),
    ...(topK === undefined ? {} : { topK }),
    ...(minP === undefined ? {} : { minP }),
    ...(repetitionPenalty === undefined ? {} : { repetitionPenalty }),
    ...(suppressTokens.length === 0 ? {} : { suppressTokens }),
  };
}
