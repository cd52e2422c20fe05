/** The families that we have: one row each. */

import { MistralError } from "../errors.ts";
import type { Checkpoint } from "../weights/types.ts";
import type { ModelFamily } from "./family.ts";
import { gemma3 } from "./gemma3.ts";
import { llama } from "./llama.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

export const MODEL_FAMILIES: readonly ModelFamily[] = [llama, qwen2, qwen3, gemma3];

/** The family of a checkpoint. Throws `unsupported_model` that lists what we have, or `invalid_model_file`. */
export function familyOf(checkpoint: Checkpoint): ModelFamily {
  const isGguf = checkpoint.format === "gguf";
  const key = isGguf ? "general.architecture" : "architectures";
  const architectures = isGguf ? undefined : checkpoint.config.architectures;
  const name = isGguf
    ? checkpoint.metadata.get(key)
    : Array.isArray(architectures)
      ? (architectures[0] as unknown)
      : undefined;
  const where = isGguf ? (checkpoint.files[0]?.path ?? "GGUF file") : `${checkpoint.folder}/config.json`;
  if (typeof name !== "string") {
    throw new MistralError("invalid_model_file", `${where}: ${key} does not name an architecture`, {
      parameter: key,
    });
  }
  const namesOf = (family: ModelFamily): readonly string[] =>
    isGguf ? family.gguf : Object.keys(family.huggingFace);
  const family = MODEL_FAMILIES.find((candidate) => namesOf(candidate).includes(name));
  if (family === undefined) {
    const known = MODEL_FAMILIES.flatMap(namesOf).join(", ");
    throw new MistralError(
      "unsupported_model",
      `${where}: architecture "${name}" is not available; we have ${known}`,
      {
        parameter: key,
      },
    );
  }
  return family;
}
