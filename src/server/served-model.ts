/** A loaded model as the routes see it. */

import type { Engine } from "../engine/messages.ts";
import { MistralError } from "../errors.ts";
import type { ChatTemplate, Tokenizer } from "../text/types.ts";
import type { GenerationDefaults } from "./generation/defaults.ts";

export interface ServedModel {
  /** The name that clients use; may contain slashes. */
  readonly id: string;
  /** When it was loaded, in seconds since 1970. */
  readonly created: number;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate?: ChatTemplate | undefined;
  /** Sampling values of the model's generation_config.json. */
  readonly generationDefaults: GenerationDefaults;
  /** Tokens that end an answer. */
  readonly eosTokens: readonly number[];
  /** Seeds of requests that name none; random ones when left out. */
  readonly drawSeed?: () => bigint;
}

/** Changes when the model or what computes it does, as OpenAI's `system_fingerprint` promises. */
export function systemFingerprint(model: ServedModel): string {
  const { modelPath, instructionSet, weightBytes } = model.engine.info;
  const hash = Bun.hash(`${model.id}\n${modelPath}\n${instructionSet}\n${weightBytes}`);
  return `fp_${hash.toString(16).padStart(16, "0").slice(0, 12)}`;
}

/** Throws unless the engine takes requests now. */
export function requireReady(model: ServedModel): void {
  const { state } = model.engine;
  switch (state) {
    case "ready":
      return;
    case "starting":
      throw new MistralError(
        "engine_failed",
        `The engine of "${model.id}" is starting; try again in a moment.`,
      );
    case "failed":
      throw new MistralError(
        "engine_failed",
        `The engine of "${model.id}" has failed and was not brought back.`,
      );
    case "draining":
      throw new MistralError("shutting_down", `The engine of "${model.id}" is shutting down.`);
  }
}
