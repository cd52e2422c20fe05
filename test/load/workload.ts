/** The load that two servers are compared under: how many clients, what each sends, and the figures of a run. */

export interface Level {
  readonly clients: number;
  readonly requestsPerClient: number;
  /** Tokens that all prompts of the level begin with; 0 for none. */
  readonly sharedTokens: number;
  readonly ownTokens: number;
  readonly generatedTokens: number;
  readonly seed: number;
}

/** Times of one request in milliseconds: from the request to its first token, and between tokens. */
export interface RequestTimes {
  readonly firstTokenMs: number;
  readonly betweenMs: readonly number[];
  readonly generatedTokens: number;
  readonly cachedTokens: number;
}

export interface LevelResult {
  readonly engine: string;
  readonly clients: number;
  readonly requests: number;
  readonly shared_prefix_tokens: number;
  readonly prompt_tokens: number;
  readonly generated_tokens: number;
  readonly seconds: number;
  readonly generated_tokens_per_s: number;
  readonly total_tokens_per_s: number;
  readonly cached_tokens: number;
  readonly ttft_ms_p50: number;
  readonly ttft_ms_p99: number;
  readonly inter_token_ms_p50: number;
  readonly inter_token_ms_p99: number;
}

/** Prompts of a level, by client and request; token ids that follow from the seed. */
export function promptsOf(level: Level): number[][][] {
  const shared = tokens(level.sharedTokens, level.seed);
  return Array.from({ length: level.clients }, (_, client) =>
    Array.from({ length: level.requestsPerClient }, (_, request) => [
      ...shared,
      ...tokens(level.ownTokens, level.seed * 7919 + client * 104_729 + request * 1_299_709 + 1),
    ]),
  );
}

/** Ordinary tokens of any vocabulary of at least 40,000. */
function tokens(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, index) => {
    let bits = Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
    return 1_000 + ((bits >>> 4) % 38_000);
  });
}

export function summarise(
  engine: string,
  level: Level,
  times: readonly RequestTimes[],
  seconds: number,
): LevelResult {
  const sum = (value: (each: RequestTimes) => number): number =>
    times.reduce((total, each) => total + value(each), 0);
  const generated = sum((each) => each.generatedTokens);
  const prompt = times.length * (level.sharedTokens + level.ownTokens);
  const first = times.map(({ firstTokenMs }) => firstTokenMs);
  const between = times.flatMap(({ betweenMs }) => [...betweenMs]);
  return {
    engine,
    clients: level.clients,
    requests: times.length,
    shared_prefix_tokens: level.sharedTokens,
    prompt_tokens: prompt,
    generated_tokens: generated,
    seconds: rounded(seconds),
    generated_tokens_per_s: rounded(generated / seconds),
    total_tokens_per_s: rounded((generated + prompt) / seconds),
    cached_tokens: sum((each) => each.cachedTokens),
    ttft_ms_p50: quantile(first, 0.5),
    ttft_ms_p99: quantile(first, 0.99),
    inter_token_ms_p50: quantile(between, 0.5),
    inter_token_ms_p99: quantile(between, 0.99),
  };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return rounded(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
