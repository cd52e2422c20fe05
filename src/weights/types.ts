/** What the readers of weight files yield: named tensors that say where their bytes lie. */

import type { FileDType } from "../backend/dtype.ts";

export interface WeightFile {
  readonly path: string;
  readonly bytes: number;
}

export interface TensorEntry {
  readonly name: string;
  readonly dtype: FileDType;
  /** Row-major, outermost dimension first (GGUF stores the reverse; its reader turns it round). */
  readonly shape: readonly number[];
  /** Index into the files of the collection. */
  readonly file: number;
  /** Byte offset of the first element from the start of its file. */
  readonly offset: number;
  readonly bytes: number;
}

export type GgufValue = number | bigint | boolean | string | GgufArray;
export type GgufArray = readonly (number | bigint | boolean | string | GgufArray)[];
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** A checkpoint: its tensors and the configuration that came with them, exactly as stored. */
export type Checkpoint = {
  readonly files: readonly WeightFile[];
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Tensors that are there, but stored in a type that is not read: name and type as the file has it. */
  readonly unread?: ReadonlyMap<string, string>;
} & (
  | {
      readonly format: "gguf";
      readonly metadata: GgufMetadata;
      /** The file is of the format before GGUF; its header was put into GGUF's words, the tensors keep their names. */
      readonly container?: "ggml";
    }
  | {
      readonly format: "safetensors";
      readonly folder: string;
      readonly config: Record<string, unknown>;
      /** `generation_config.json`, where the folder has one. */
      readonly generationConfig?: Record<string, unknown>;
    }
);
