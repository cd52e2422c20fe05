/** The vectors of the inputs of one request: run by the engine, brought to unit length, in the order of the inputs. */

import type { GenerateRequest, Priority, SamplingParameters, StartListener } from "../../engine/messages.ts";
import type { Pooling } from "../../engine/pooling.ts";
import { MistralError } from "../../errors.ts";
import type { ServedModel } from "../served-model.ts";

/** The engine request but its id; nothing is drawn, so that sampling says nothing. */
const NO_SAMPLING: SamplingParameters = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  seed: 0n,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  logprobs: -1,
};

export interface EmbeddingOptions {
  readonly pooling: Pooling;
  readonly priority: Priority;
  readonly cacheSalt?: string | undefined;
  /** Told of each input that the engine begins with. */
  readonly onStarted?: StartListener | undefined;
}

export interface Embeddings {
  /** f32 `[width]` each, of length 1. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

interface Embedding {
  readonly vector: Float32Array;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

/**
 * Runs as many inputs at the same time as the engine has places for sequences, so that one request cannot fill its queue.
 * Throws the first failure of any input after stopping the others, and the signal's reason at once when it aborts.
 */
export async function embed(
  model: ServedModel,
  inputs: readonly Int32Array[],
  options: EmbeddingOptions,
  signal: AbortSignal,
): Promise<Embeddings> {
  const work = new AbortController();
  const results: Embedding[] = new Array(inputs.length);
  let next = 0;
  const run = async (): Promise<void> => {
    while (next < inputs.length) {
      const index = next++;
      results[index] = await embedOne(
        model,
        requestFor(inputs[index]!, options),
        work.signal,
        options.onStarted,
      );
    }
  };
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    const runs = Math.min(inputs.length, model.engine.info.sequencesMax);
    await Promise.race([Promise.all(Array.from({ length: runs }, run)), aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.abort(new DOMException("Nobody waits for the result.", "AbortError"));
  }
  return {
    vectors: results.map(({ vector }) => vector),
    promptTokens: results.reduce((total, { promptTokens }) => total + promptTokens, 0),
    cachedTokens: results.reduce((total, { cachedTokens }) => total + cachedTokens, 0),
  };
}

function requestFor(promptTokens: Int32Array, options: EmbeddingOptions): Omit<GenerateRequest, "id"> {
  const { pooling, priority, cacheSalt } = options;
  return {
    promptTokens,
    maxTokens: 0,
    stopTokens: [],
    sampling: NO_SAMPLING,
    promptLogprobs: -1,
    embedding: pooling,
    priority,
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
  };
}

async function embedOne(
  model: ServedModel,
  request: Omit<GenerateRequest, "id">,
  signal: AbortSignal,
  onStarted: StartListener | undefined,
): Promise<Embedding> {
  signal.throwIfAborted();
  let vector: Float32Array | undefined;
  for await (const event of model.engine.generate(request, signal, onStarted)) {
    if (event.type === "embedding") vector = event.vector;
    if (event.type === "error") throw new MistralError(event.code, event.message);
    if (event.type !== "finish") continue;
    signal.throwIfAborted();
    if (vector === undefined) break;
    const { promptTokens, cachedTokens } = event.usage;
    return { vector: unitLength(vector), promptTokens, cachedTokens };
  }
  signal.throwIfAborted();
  throw new MistralError("engine_failed", "The engine ended the request without a result.");
}

/** The vector over its Euclidean length. Throws engine_failed where that is not a number above 0. */
function unitLength(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  if (!(length > 0 && length < Number.POSITIVE_INFINITY)) {
    throw new MistralError(
      "engine_failed",
      `The model's hidden state has the length ${length}, so that it has no direction; the model overflowed on this input.`,
    );
  }
  return vector.map((value) => value / length);
}
