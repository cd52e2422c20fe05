/** What clients of a simulation ask for and how they behave; and what each must get, computed without an engine. */

import { sequenceTokensMax } from "../../../src/engine/admission.ts";
import type { GenerateRequest, Priority } from "../../../src/engine/messages.ts";
import { Sequence } from "../../../src/engine/sequence.ts";
import type { StepLimits } from "../../../src/models/step.ts";
import { EMPTY_HISTORY, mix, spread } from "../fake-runner.ts";
import { GREEDY } from "../requests.ts";
import type { Chance } from "./clock.ts";

export type Manner =
  /** Reads everything at once, or with pauses. */
  | { readonly kind: "reads"; readonly pauseMs: number }
  /** Reads one event, and nothing for a minute. */
  | { readonly kind: "stalls" }
  /** Its connection is gone after this time, wherever the request is by then. */
  | { readonly kind: "disconnects"; readonly afterMs: number }
  /** Stops reading after so many events. */
  | { readonly kind: "leaves"; readonly afterEvents: number };

export interface Client {
  readonly request: Omit<GenerateRequest, "id">;
  readonly manner: Manner;
}

export interface ClientMix {
  /** Prompts are at most this long, but for those that are meant to be refused. */
  readonly promptMax: number;
  readonly generatedMax: number;
  /** How often each priority is asked for. */
  readonly priorities: readonly Priority[];
  /** How often clients go away before the end. */
  readonly abortShare: number;
}

const PREFIXES = 6;

export function makeClient(chance: Chance, mixture: ClientMix, limits: StepLimits): Client {
  const manner = makeManner(chance, mixture.abortShare);
  const promptTokens = makePrompt(chance, mixture, limits);
  const draws = chance.happens(0.3);
  const adjusts = chance.happens(0.1);
  return {
    manner,
    request: {
      promptTokens,
      maxTokens: chance.happens(0.02) ? 0 : chance.whole(1, mixture.generatedMax),
      stopTokens: chance.happens(0.2) ? [3, 4, 5] : [],
      promptLogprobs: chance.happens(0.02) ? chance.whole(0, 2) : -1,
      priority: chance.pick(mixture.priorities),
      ...(chance.happens(0.1) ? { cacheSalt: chance.pick(["a", "b"]) } : {}),
      sampling: {
        ...GREEDY,
        temperature: draws ? 0.8 : 0,
        seed: BigInt(chance.whole(0, 1e9)),
        logprobs: chance.happens(0.1) ? chance.whole(0, 2) : -1,
        ...(adjusts ? { frequencyPenalty: 0.5, logitBias: [{ token: 7, bias: 1 }] } : {}),
        ...(adjusts && chance.happens(0.5)
          ? { dry: { multiplier: 1, base: 1.5, allowedLength: 1, breakers: [9] } }
          : {}),
      },
    },
  };
}

function makeManner(chance: Chance, abortShare: number): Manner {
  if (chance.happens(abortShare)) {
    return chance.happens(0.7)
      ? { kind: "disconnects", afterMs: chance.exponential(300) }
      : { kind: "leaves", afterEvents: chance.whole(0, 6) };
  }
  if (chance.happens(0.02)) return { kind: "stalls" };
  return { kind: "reads", pauseMs: chance.happens(0.1) ? chance.whole(1, 200) : 0 };
}

function makePrompt(chance: Chance, { promptMax }: ClientMix, limits: StepLimits): Int32Array {
  const capacity = sequenceTokensMax(limits);
  if (chance.happens(0.01)) {
    // At the limit and beyond; these are refused or stop at once.
    return filled(chance.pick([capacity - 1, capacity, capacity + 1, 10 * capacity]), chance, limits);
  }
  const length = chance.happens(0.7) ? chance.whole(1, Math.ceil(promptMax / 4)) : chance.whole(1, promptMax);
  const prompt = filled(length, chance, limits);
  if (chance.happens(0.5)) {
    // Begins like others do: with a part of one of a few texts that everybody has.
    const text = chance.whole(1, PREFIXES);
    const shared = chance.whole(1, length);
    for (let index = 0; index < shared; index++)
      prompt[index] = (text * 31 + index * 17) % limits.vocabularySize;
  }
  return prompt;
}

function filled(length: number, chance: Chance, { vocabularySize }: StepLimits): Int32Array {
  return Int32Array.from({ length }, () => chance.whole(0, vocabularySize - 1));
}

const scratch = {
  adjustmentTokens: new Int32Array(4096),
  adjustmentMultipliers: new Float32Array(4096),
  adjustmentAddends: new Float32Array(4096),
};

/** The tokens of a request whose text is a chain of hashes, as `SimulatedRunner` draws them. */
export function expectedTokens(request: Omit<GenerateRequest, "id">, limits: StepLimits): number[] {
  const { promptTokens, sampling, stopTokens } = request;
  const lengthMax = Math.min(promptTokens.length + request.maxTokens, sequenceTokensMax(limits));
  const sequence = new Sequence({ ...request, id: 0 }, lengthMax);
  let history = EMPTY_HISTORY;
  for (const token of promptTokens) history = mix(history, token);
  const tokens: number[] = [];
  while (sequence.length < lengthMax) {
    let hash = history;
    const adjusted = sequence.adjustments?.write(scratch, 0) ?? 0;
    for (let index = 0; index < adjusted; index++) {
      hash = mix(
        mix(hash, scratch.adjustmentTokens[index]!),
        Math.round(scratch.adjustmentAddends[index]! * 1024),
      );
    }
    if (sampling.temperature !== 0) hash = mix(mix(hash, sequence.seedLow), sequence.length);
    const token = spread(hash) % limits.vocabularySize;
    if (stopTokens.includes(token)) break;
    tokens.push(token);
    sequence.append(token);
    history = mix(history, token);
  }
  return tokens;
}
