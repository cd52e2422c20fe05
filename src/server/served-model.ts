/** A loaded model as the routes see it, and the table that finds one by the name a request gives. */

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
}

/** The name that always means the first model. */
export const DEFAULT_MODEL = "default";

export class ModelRegistry {
  readonly #models: ReadonlyMap<string, ServedModel>;
  readonly #default: ServedModel;

  /** @param models at least one; the first is the default. Throws invalid_configuration for none or a name used twice. */
  constructor(models: readonly ServedModel[]) {
    const first = models[0];
    if (first === undefined) throw new MistralError("invalid_configuration", "no model was given to serve");
    const byId = new Map<string, ServedModel>();
    for (const model of models) {
      if (byId.has(model.id) || model.id === DEFAULT_MODEL) {
        throw new MistralError("invalid_configuration", `two models would answer to the name "${model.id}"`);
      }
      byId.set(model.id, model);
    }
    this.#models = byId;
    this.#default = first;
  }

  list(): readonly ServedModel[] {
    return [...this.#models.values()];
  }

  /** The model of this name; the default one for "default" or no name. Throws model_not_found. */
  get(name: string | null | undefined): ServedModel {
    if (name === undefined || name === null || name === DEFAULT_MODEL) return this.#default;
    const model = this.#models.get(name);
    if (model !== undefined) return model;
    const loaded = [...this.#models.keys()].map((id) => `"${id}"`).join(", ");
    throw new MistralError(
      "model_not_found",
      `The model "${name.slice(0, 200)}" is not loaded. Loaded: ${loaded}; "${DEFAULT_MODEL}" means the first.`,
      { parameter: "model" },
    );
  }
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
