/**
 * Rotary position embeddings: what a configuration says about them, and the inverse frequencies that follow.
 * Formulas: transformers `modeling_rope_utils.py`; llama3 from Meta's reference, yarn arXiv:2309.00071,
 * longrope arXiv:2402.13753. Computed in float64, stored as f32.
 */

export type RopeScaling =
  | { readonly type: "none" }
  | { readonly type: "linear"; readonly factor: number }
  | { readonly type: "dynamic"; readonly factor: number; readonly originalContextLength: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalContextLength: number;
    }
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly originalContextLength: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly attentionFactor: number;
      /** Whether the ends of the ramp are rounded to whole dimensions. */
      readonly truncate: boolean;
    }
  | {
      readonly type: "longrope";
      readonly longFactors: readonly number[];
      readonly shortFactors: readonly number[];
      readonly originalContextLength: number;
      readonly attentionFactor: number;
    };

export interface RopeSettings {
  readonly theta: number;
  /** Elements of each head that are rotated: twice the pairs. */
  readonly dims: number;
  readonly scaling: RopeScaling;
}

export interface RopeFrequencies {
  /** `[pairs]` */
  readonly inverseFrequencies: Float32Array;
  /** Multiplies the cosines and sines. */
  readonly attentionFactor: number;
}

function plainFrequencies(theta: number, dims: number): number[] {
  return Array.from({ length: dims / 2 }, (_, pair) => theta ** ((-2 * pair) / dims));
}

/** Long wavelengths are stretched by the factor, short ones kept, those between blended. */
function llama3Frequencies(
  frequencies: readonly number[],
  s: Extract<RopeScaling, { type: "llama3" }>,
): number[] {
  const longest = s.originalContextLength / s.lowFrequencyFactor;
  const shortest = s.originalContextLength / s.highFrequencyFactor;
  return frequencies.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < shortest) return frequency;
    if (wavelength > longest) return frequency / s.factor;
    const range = s.highFrequencyFactor - s.lowFrequencyFactor;
    const smooth = (s.originalContextLength / wavelength - s.lowFrequencyFactor) / range;
    return ((1 - smooth) * frequency) / s.factor + smooth * frequency;
  });
}

/** Pairs that turn often within the trained length are kept, those that turn rarely are stretched. */
function yarnFrequencies(
  frequencies: readonly number[],
  { theta, dims }: RopeSettings,
  s: Extract<RopeScaling, { type: "yarn" }>,
): number[] {
  const pairOfTurns = (turns: number): number =>
    (dims * Math.log(s.originalContextLength / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [fast, slow] = [pairOfTurns(s.betaFast), pairOfTurns(s.betaSlow)];
  const low = Math.max(s.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(s.truncate ? Math.ceil(slow) : slow, dims - 1);
  const span = low === high ? 0.001 : high - low;
  return frequencies.map((frequency, pair) => {
    const stretched = Math.min(Math.max((pair - low) / span, 0), 1);
    return (frequency / s.factor) * stretched + frequency * (1 - stretched);
  });
}

/**
 * The inverse frequencies of a model that will serve up to `contextLength` tokens. The scalings that depend on
 * the length of the text (dynamic, longrope) are fixed by that length, so that a token's key never changes
 * after it has been cached. `divisors` (`[pairs]`, the `rope_freqs` tensor of a GGUF file) divide the result.
 */
export function ropeFrequencies(
  settings: RopeSettings,
  contextLength: number,
  divisors?: ArrayLike<number>,
): RopeFrequencies {
  const { theta, dims, scaling } = settings;
  let frequencies = plainFrequencies(theta, dims);
  let attentionFactor = 1;
  switch (scaling.type) {
    case "none":
      break;
    case "linear":
      frequencies = frequencies.map((frequency) => frequency / scaling.factor);
      break;
    case "dynamic": {
      const length = Math.max(contextLength, scaling.originalContextLength);
      const stretch = (scaling.factor * length) / scaling.originalContextLength - (scaling.factor - 1);
      frequencies = plainFrequencies(theta * stretch ** (dims / (dims - 2)), dims);
      break;
    }
    case "llama3":
      frequencies = llama3Frequencies(frequencies, scaling);
      break;
    case "yarn":
      frequencies = yarnFrequencies(frequencies, settings, scaling);
      attentionFactor = scaling.attentionFactor;
      break;
    case "longrope": {
      const isLong = contextLength > scaling.originalContextLength;
      const factors = isLong ? scaling.longFactors : scaling.shortFactors;
      frequencies = frequencies.map((frequency, pair) => frequency / factors[pair]!);
      attentionFactor = scaling.attentionFactor;
      break;
    }
    default:
      scaling satisfies never;
  }
  if (divisors !== undefined) frequencies = frequencies.map((frequency, pair) => frequency / divisors[pair]!);
  return { inverseFrequencies: Float32Array.from(frequencies), attentionFactor };
}
