/** The choices behind `tune`: sizes, room for context, quality, and which of them is best for a profile. */

import { bytesOfElements, type FileDType } from "../../backend/dtype.ts";
import type { Settings } from "../../config/settings.ts";
import { MistralError } from "../../errors.ts";
import { readModelConfig } from "../../models/config.ts";
import type { HostMemory } from "../../models/host-memory.ts";
import { familyOf } from "../../models/registry.ts";
import { weightBytesOf } from "../../models/weight-memory.ts";
import type { Checkpoint } from "../../weights/types.ts";
import { planMemory } from "../memory-report.ts";
import { estimateWeightBytes, mainType } from "../quantised-size.ts";
import { cacheTypeOf, runnerOptions } from "../runner-options.ts";
import { formatBytes } from "../units.ts";
import type { Quality, TuneCandidate, TuneReport } from "./report.ts";

export interface StoredModel {
  readonly checkpoint: Checkpoint;
  /** Flags that name it. */
  readonly command: readonly string[];
  /** Tells it from its neighbours; undefined for an only one. */
  readonly label: string | undefined;
}

export interface Choices {
  /** From the largest to the smallest. */
  readonly candidates: readonly TuneCandidate[];
  readonly recommended: TuneCandidate | undefined;
  /** Flags that serve the recommended model, or the best that is there as files. */
  readonly command: readonly string[] | undefined;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
  readonly budgetBytes: number;
}

/** Types that quantising could make, as mistral.rs names them, from the largest to the smallest. */
const TYPES: readonly (readonly [name: string, type: FileDType])[] = [
  ["Q8_0", "q8_0"],
  ["Q6K", "q6_k"],
  ["Q5K", "q5_k"],
  ["Q4K", "q4_k"],
  ["Q3K", "q3_k"],
  ["Q2K", "q2_k"],
];

const QUALITY: Readonly<Record<FileDType, Quality>> = {
  f32: "baseline",
  f16: "baseline",
  bf16: "baseline",
  i32: "baseline",
  q8_0: "near-lossless",
  q6_k: "good",
  q5_k: "good",
  q5_1: "good",
  q5_0: "good",
  q4_k: "acceptable",
  q4_1: "acceptable",
  q4_0: "acceptable",
  iq4_nl: "acceptable",
  mxfp4: "acceptable",
  q3_k: "degraded",
  q2_k: "degraded",
};

/** Where each profile begins; what is smaller follows until one fits. */
const FIRST_CHOICE: Readonly<Record<TuneReport["profile"], Quality>> = {
  quality: "near-lossless",
  balanced: "good",
  fast: "acceptable",
};
const BEST_FIRST: readonly Quality[] = ["near-lossless", "good", "acceptable", "degraded"];

/** Share of all memory that may be in use when the KV cache is full. */
const MEMORY_FRACTION = 0.9;
/** A context below this serves nobody. */
const CONTEXT_MIN = 256;

interface Choice {
  readonly candidate: TuneCandidate;
  readonly type: FileDType;
  /** Undefined for what would have to be made. */
  readonly stored: StoredModel | undefined;
}

/** Every choice for models that are stored, and for types that they could be quantised to. */
export function candidatesFor(
  models: readonly StoredModel[],
  settings: Settings,
  memory: HostMemory,
): Choices {
  const fraction = settings.cacheMemoryFraction ?? MEMORY_FRACTION;
  const usedBytes = memory.totalBytes - memory.availableBytes;
  const budgetBytes = Math.max(0, Math.floor(memory.totalBytes * fraction) - usedBytes);
  const measure = { settings, memory, budgetBytes };
  const stored = models.map((model) => storedChoice(model, measure));
  const largest = stored.reduce((a, b) => (sizeOf(a) >= sizeOf(b) ? a : b));
  const made = TYPES.map(([name, type]) => madeChoice(largest, name, type, measure)).filter(
    (choice) => sizeOf(choice) < sizeOf(largest) && !stored.some(({ type }) => type === choice.type),
  );
  const choices = [...stored, ...made].sort((a, b) => sizeOf(b) - sizeOf(a));
  const best = bestFor(settings.profile, choices);
  const candidates = choices.map(({ candidate }) => ({
    ...candidate,
    recommended: candidate === best?.candidate,
  }));
  const served = best?.stored ?? bestFor(settings.profile, stored)?.stored;
  return {
    candidates,
    recommended: candidates.find(({ recommended }) => recommended),
    command: served?.command,
    budgetBytes,
    warnings: candidates
      .filter(({ fit_status: status }) => status === "too-large")
      .map(
        ({ isq_name: name, estimated_size_bytes: bytes }) =>
          `${name} (${formatBytes(bytes)}) exceeds available VRAM`,
      ),
    notes: notesFor(best, served),
  };
}

interface Measure {
  readonly settings: Settings;
  readonly memory: HostMemory;
  readonly budgetBytes: number;
}

function storedChoice(stored: StoredModel, measure: Measure): Choice {
  const type = mainType(stored.checkpoint);
  const isPlain = QUALITY[type] === "baseline";
  const name = stored.label ?? (isPlain ? "None" : type.toUpperCase());
  return {
    type,
    stored,
    candidate: describe(stored.checkpoint, weightBytesOf(stored.checkpoint), measure, {
      name,
      isq: null,
      type,
    }),
  };
}

function madeChoice(from: Choice, name: string, type: FileDType, measure: Measure): Choice {
  const { checkpoint } = from.stored!;
  return {
    type,
    stored: undefined,
    candidate: describe(checkpoint, estimateWeightBytes(checkpoint, type), measure, {
      name,
      isq: name,
      type,
    }),
  };
}

function describe(
  checkpoint: Checkpoint,
  weightBytes: number,
  measure: Measure,
  { name, isq, type }: { readonly name: string; readonly isq: string | null; readonly type: FileDType },
): TuneCandidate {
  const { settings, memory, budgetBytes } = measure;
  const config = readModelConfig(checkpoint, familyOf(checkpoint));
  const tokenBytes = bytesOfElements(
    cacheTypeOf(settings),
    2 * config.layers.length * config.keyValueHeads * config.headDim,
  );
  const rest = budgetBytes - weightBytes - activationBytes(checkpoint, measure);
  const room = Math.max(0, Math.floor(rest / tokenBytes));
  const tokens = Math.min(room, settings.cacheContextLength ?? config.contextLength);
  const wanted = settings.cacheContextLength ?? Math.min(CONTEXT_MIN, config.contextLength);
  return {
    isq,
    isq_name: name,
    stored: isq === null,
    estimated_size_bytes: weightBytes,
    vram_usage_percent: Number(((weightBytes / memory.totalBytes) * 100).toFixed(1)),
    max_context_tokens: tokens,
    context_is_model_max: room >= config.contextLength,
    quality: QUALITY[type],
    fit_status: tokens >= wanted ? "fits" : "too-large",
    recommended: false,
  };
}

/** Activations depend on the batch and the shape of the model, hardly on the context: a short one is planned. */
function activationBytes(checkpoint: Checkpoint, { settings, memory }: Measure): number {
  const options = runnerOptions({ ...settings, threads: settings.threads ?? 1 }, "");
  const { kvMemoryBytes: _bytes, kvMemoryFraction: _fraction, ...rest } = options;
  const roomy: HostMemory = { totalBytes: memory.totalBytes * 1e6, availableBytes: memory.totalBytes * 1e6 };
  try {
    return planMemory(checkpoint, rest, roomy).activationBytes;
  } catch (error) {
    // A context beyond the model's own is told when it is served.
    if (error instanceof MistralError && error.code === "invalid_configuration") return 0;
    throw error;
  }
}

/** The best quality a profile asks for that fits; what is stored as it was made comes before what is smaller. */
function bestFor(profile: TuneReport["profile"], choices: readonly Choice[]): Choice | undefined {
  const fitting = choices.filter(({ candidate }) => candidate.fit_status === "fits");
  const from = BEST_FIRST.indexOf(FIRST_CHOICE[profile]);
  for (const quality of BEST_FIRST.slice(from)) {
    const [found] = fitting
      .filter(({ candidate }) => candidate.quality === quality)
      .sort(
        (a, b) => Number(b.stored !== undefined) - Number(a.stored !== undefined) || sizeOf(b) - sizeOf(a),
      );
    if (found !== undefined) return found;
  }
  return fitting.find(isStored) ?? fitting[0];
}

function isStored({ stored }: Choice): boolean {
  return stored !== undefined;
}

function sizeOf({ candidate }: Choice): number {
  return candidate.estimated_size_bytes;
}

function notesFor(best: Choice | undefined, served: StoredModel | undefined): string[] {
  if (best === undefined) return ["no choice fits: take a smaller model, a shorter context or free memory"];
  if (best.stored !== undefined) return [];
  const name = best.candidate.isq_name;
  const made = `${name} is worked out from the shapes of the tensors; quantising is not built, a GGUF file of that type is read`;
  return served === undefined ? [made] : [made, "the command serves what is there as files"];
}
