/**
 * How fast a model could be if nothing but the machine's limits held it up: a step has to read its weights, keys
 * and values and to do its multiply-adds.
 */

import { bytesOfElements } from "../../../backend/dtype.ts";
import { readModelConfig } from "../../../models/config.ts";
import { familyOf } from "../../../models/registry.ts";
import type { KvCacheType } from "../../../models/step-limits.ts";
import { findTensors } from "../../../models/tensor-names.ts";
import type { Checkpoint } from "../../../weights/types.ts";
import { ARITHMETICS, type Arithmetic, arithmeticOf, type MachineLimits } from "../machine-limits.ts";

export interface Bound {
  readonly tokensPerSecond: number;
  /** What holds it up. */
  readonly by: "read" | Arithmetic;
}

type Limits = Pick<MachineLimits, "readBytesPerSecond" | "opsPerSecond">;

/** Matrices that every token goes through: bytes, and elements by what multiplies them. */
interface Matrices {
  readonly bytes: number;
  readonly elements: Readonly<Record<Arithmetic, number>>;
}

export class StepWork {
  readonly #body: Matrices;
  /** The output matrix, needed for the last token of a prompt alone. */
  readonly #head: Matrices;
  /** Keys that a row of each layer sees at most; 0 for all. */
  readonly #windows: readonly number[];
  /** Bytes of the keys and values of a token in one layer. */
  readonly #kvBytes: number;
  /** Elements of the queries of a token in one layer. */
  readonly #queryElements: number;

  constructor(checkpoint: Checkpoint, kvCacheType: KvCacheType) {
    const family = familyOf(checkpoint);
    const config = readModelConfig(checkpoint, family);
    const tensors = findTensors(checkpoint, family.tensors(config), family.huggingFaceNames);
    const head = config.tiedEmbeddings ? "embedding" : "output";
    const isBody = (key: string): boolean => key !== "embedding" && key !== "output";
    const matrices = (chosen: (key: string) => boolean): Matrices => {
      const entries = [...tensors].filter(([key]) => chosen(key)).map(([, entry]) => entry);
      const elements = { f32: 0, bf16: 0, int8: 0 };
      for (const { dtype, shape } of entries) {
        if (shape.length < 2) continue;
        elements[arithmeticOf(dtype)] += shape.reduce((a, b) => a * b, 1);
      }
      return { bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0), elements };
    };
    this.#body = matrices(isBody);
    this.#head = matrices((key) => key === head);
    this.#windows = config.layers.map(({ slidingWindow }) => slidingWindow);
    this.#kvBytes = bytesOfElements(kvCacheType, 2 * config.keyValueHeads * config.headDim);
    this.#queryElements = config.heads * config.headDim;
  }

  /** Of all sequences together, each with this many tokens before. */
  decodeBound(limits: Limits, depth: number, sequences: number): Bound {
    const keys = this.#keysSeen(depth + 1);
    const bytes = this.#body.bytes + this.#head.bytes + sequences * keys * this.#kvBytes;
    const compute =
      sequences * (seconds(limits, this.#body) + seconds(limits, this.#head) + this.#attention(limits, keys));
    return bound(sequences, bytes / limits.readBytesPerSecond(bytes), compute, this.#dominant(limits));
  }

  /** Of one prompt, with the token behind it. */
  prefillBound(limits: Limits, tokens: number): Bound {
    let keys = 0;
    for (let position = 0; position < tokens; position++) keys += this.#keysSeen(position + 1);
    const bytes = this.#body.bytes + this.#head.bytes + this.#keysSeen(tokens) * this.#kvBytes;
    const compute =
      tokens * seconds(limits, this.#body) + seconds(limits, this.#head) + this.#attention(limits, keys);
    return bound(tokens, bytes / limits.readBytesPerSecond(bytes), compute, this.#dominant(limits));
  }

  /** Keys of all layers that the last of so many tokens sees. */
  #keysSeen(tokens: number): number {
    return this.#windows.reduce((sum, window) => sum + (window === 0 ? tokens : Math.min(window, tokens)), 0);
  }

  /** A multiply-add with the key and one with the value, for each element of the queries. */
  #attention(limits: Limits, keys: number): number {
    return (4 * keys * this.#queryElements) / limits.opsPerSecond("f32");
  }

  #dominant(limits: Limits): Arithmetic {
    const time = (arithmetic: Arithmetic): number =>
      this.#body.elements[arithmetic] / limits.opsPerSecond(arithmetic);
    return ARITHMETICS.reduce((most, arithmetic) => (time(arithmetic) > time(most) ? arithmetic : most));
  }
}

/** Of one token. */
function seconds(limits: Limits, { elements }: Matrices): number {
  return ARITHMETICS.reduce(
    (sum, arithmetic) => sum + (2 * elements[arithmetic]) / limits.opsPerSecond(arithmetic),
    0,
  );
}

function bound(tokens: number, readSeconds: number, computeSeconds: number, arithmetic: Arithmetic): Bound {
  return {
    tokensPerSecond: tokens / Math.max(readSeconds, computeSeconds),
    by: readSeconds > computeSeconds ? "read" : arithmetic,
  };
}
