/** Requests for the engine's tests, and what became of them. */

import { EngineCore } from "../../src/engine/engine-core.ts";
import type {
  GenerateRequest,
  GenerationEvent,
  SamplingParameters,
  TokenLogprob,
} from "../../src/engine/messages.ts";
import type { StepReport, TerminalEvent } from "../../src/engine/step-report.ts";
import type { StepLimits } from "../../src/models/step.ts";
import { FakeRunner } from "./fake-runner.ts";

export const GREEDY: SamplingParameters = {
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

export function request(id: number, changes: Partial<Omit<GenerateRequest, "id">> = {}): GenerateRequest {
  return {
    id,
    promptTokens: Int32Array.of(1, 2, 3),
    maxTokens: 8,
    stopTokens: [],
    sampling: GREEDY,
    promptLogprobs: -1,
    ...changes,
  };
}

/** `length` tokens below 60 that follow from the seed. */
export function promptOf(length: number, seed: number): Int32Array {
  return Int32Array.from(
    { length },
    (_, index) => ((Math.imul(index + 1, 7919) + Math.imul(seed, 104729)) % 60) & 63,
  );
}

export interface Outcome {
  readonly tokens: number[];
  readonly logprobs: (TokenLogprob | null)[];
  prompt: readonly (TokenLogprob | null)[] | null;
  embedding: readonly number[] | null;
  end: TerminalEvent | null;
}

/** Folds reports into one outcome per request; throws when a request hears anything after its end. */
export class Outcomes {
  readonly byId = new Map<number, Outcome>();

  of(id: number): Outcome {
    let outcome = this.byId.get(id);
    if (outcome === undefined) {
      outcome = { tokens: [], logprobs: [], prompt: null, embedding: null, end: null };
      this.byId.set(id, outcome);
    }
    return outcome;
  }

  add(report: StepReport): void {
    for (const { id, event } of report.prompts) {
      const outcome = this.#live(id);
      if (outcome.prompt !== null || outcome.tokens.length > 0)
        throw new Error(`late prompt scores of ${id}`);
      if (event.type === "prompt") outcome.prompt = event.logprobs;
      else if (outcome.embedding !== null) throw new Error(`a second embedding of ${id}`);
      else outcome.embedding = [...event.vector];
    }
    for (let index = 0; index < report.ids.length; index++) {
      const outcome = this.#live(report.ids[index]!);
      outcome.tokens.push(report.tokens[index]!);
      outcome.logprobs.push(report.logprobs[index] ?? null);
    }
    for (const { id, event } of report.ends) this.#live(id).end = event;
  }

  #live(id: number): Outcome {
    const outcome = this.of(id);
    if (outcome.end !== null) throw new Error(`request ${id} goes on after its end`);
    return outcome;
  }
}

/** Steps until nothing is left to do; throws when that takes more than `stepsMax` steps. */
export function finish(core: EngineCore, outcomes: Outcomes, stepsMax = 10_000): void {
  for (let step = 0; core.hasWork; step++) {
    if (step === stepsMax) throw new Error(`not done after ${stepsMax} steps`);
    outcomes.add(core.step());
  }
}

/** What becomes of a request that is alone in an engine with room for everything. */
export function runAlone(
  lone: GenerateRequest,
  changes: Partial<StepLimits> = {},
  drawnMax?: number,
): Outcome {
  const limits = { tokensMax: 2048, rowsMax: 2048, ...changes };
  const core = new EngineCore(new FakeRunner({ limits, ...(drawnMax === undefined ? {} : { drawnMax }) }), {
    prefixCache: false,
  });
  const outcomes = new Outcomes();
  core.submit(lone);
  finish(core, outcomes);
  return outcomes.of(lone.id);
}

export async function collect(events: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  return await Array.fromAsync(events);
}

/** All tokens of a list of events. */
export function tokensOf(events: readonly GenerationEvent[]): number[] {
  return events.flatMap((event) => (event.type === "tokens" ? event.tokens : []));
}
