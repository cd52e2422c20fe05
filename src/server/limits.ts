/** Every bound of the HTTP surface in one place, so that an operator can see what a single client may ask for. */

export const LIMITS = {
  /** Largest request body; above it the answer is 413. */
  bodyBytes: 50 * 1024 * 1024,
  /** What Bun itself refuses, with an empty 413: far above ours, so that ours answers in the dialect's shape. */
  transportBodyBytes: 1024 * 1024 * 1024,
  /** Arrays and objects of a body inside one another. */
  jsonDepth: 128,
  /** Headers of one request, and their bytes; the transport itself refuses 16 KiB with an empty 431. */
  headers: 100,
  headerBytes: 15_000,
  /** How long a model that could not be loaded is not tried again. */
  loadRetryMs: 5_000,
  /** It doubles with every failure up to this. */
  loadRetryMaxMs: 300_000,
  /** Responses kept to be fetched and continued, their bytes together, and their life. */
  storedResponses: 1_000,
  storedResponseBytes: 256 * 1024 * 1024,
  responseLifeMs: 60 * 60 * 1000,
  /** Background responses that run at the same time. */
  backgroundResponses: 64,
  detokenizedTokens: 1_000_000,
  messages: 20_000,
  contentParts: 4_096,
  prompts: 128,
  /** Texts of one embedding request, as many as OpenAI takes. */
  embeddingInputs: 2_048,
  /** Choices of one request: prompts times `n`. */
  choices: 128,
  stopStrings: 16,
  stopStringCharacters: 1_024,
  topLogprobs: 20,
  logitBiases: 1_024,
  dryBreakers: 64,
  dryBreakerCharacters: 64,
  cacheSaltCharacters: 256,
  /** Unread bytes of one stream after which its client counts as gone. */
  streamBacklogBytes: 4 * 1024 * 1024,
  /** How long a stream's headers wait for the engine to refuse the request, so that a refusal has its status. */
  admissionMs: 20,
  /** Distinct warnings remembered, so that each is logged once. */
  rememberedWarnings: 1_000,
  /** Characters of a rejected value that an error message repeats. */
  previewCharacters: 80,
} as const;
