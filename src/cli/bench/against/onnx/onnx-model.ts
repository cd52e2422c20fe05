/**
 * A GGUF file as a model of ONNX Runtime, in the cache: `model.onnx` and the weights beside it, made once for each
 * file. Matrices become 4 bits wide whatever they were, so the speed is to be compared, not what it says.
 */

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { Device } from "../../../../backend/device.ts";
import { MistralError } from "../../../../errors.ts";
import { type ModelConfig, type RopeKind, readModelConfig } from "../../../../models/config.ts";
import { vectorOf } from "../../../../models/constants.ts";
import { familyOf } from "../../../../models/registry.ts";
import { ropeFrequencies } from "../../../../models/rope-frequencies.ts";
import { findTensors, type LayerTensorName, ROPE_DIVISORS_NAME } from "../../../../models/tensor-names.ts";
import { PositionedFile } from "../../../../weights/positioned-file.ts";
import type { Checkpoint, TensorEntry } from "../../../../weights/types.ts";
import { withLock } from "../../../setup/lock.ts";
import { type SetupOutput, SetupStep } from "../../../setup/report.ts";
import { formatBytes } from "../../../units.ts";
import {
  type Activations,
  BLOCK_ELEMENTS,
  type DecoderWeights,
  decoderGraph,
  type Int4Matrix,
  type MatrixName,
  type Rotation,
} from "./decoder-graph.ts";
import { quantizeInt4 } from "./int4-blocks.ts";
import { MatrixReader } from "./matrix-reader.ts";
import type { ExternalData } from "./onnx-graph.ts";

/** Counts changes of what is written: files of an older form are not read. */
const FORM = 1;
const MODEL_FILE = "model.onnx";
const WEIGHTS_FILE = "weights.bin";
const ALIGNMENT = 64;
/** Rows of the rotation's tables at most: more tokens are not compared. */
const POSITIONS_MAX = 131_072;

export interface OnnxModel {
  readonly path: string;
  /** Of the file beside it. */
  readonly weightBytes: number;
  readonly positions: number;
  readonly config: ModelConfig;
}

export interface OnnxModelOptions {
  readonly threads: number;
  readonly output: SetupOutput;
  /** The folder in which each model has a folder of its own. */
  readonly cache: string;
  readonly activations?: Activations;
}

/**
 * The model of this checkpoint, made where it is not there yet. Throws MistralError `unsupported_model` for what the
 * graph cannot express.
 */
export async function onnxModelOf(
  checkpoint: Checkpoint,
  { threads, output, cache, activations = "int8" }: OnnxModelOptions,
): Promise<OnnxModel> {
  const family = familyOf(checkpoint);
  const config = readModelConfig(checkpoint, family);
  const tensors = findTensors(checkpoint, family.tensors(config), family.huggingFaceNames);
  requireExpressible(tensors);
  const positions = Math.min(config.contextLength, POSITIONS_MAX);
  const folder = join(cache, folderName(checkpoint, activations));
  const path = join(folder, MODEL_FILE);
  const weightsPath = join(folder, WEIGHTS_FILE);
  const waits = (): void =>
    void output.write("setup  another process writes this model for ONNX Runtime; waiting\n");
  await withLock(join(folder, ".lock"), waits, async () => {
    if (existsSync(path)) return;
    const step = new SetupStep(output, "ONNX Runtime", `writing 4-bit weights into ${folder}`, () =>
      existsSync(weightsPath) ? formatBytes(statSync(weightsPath).size) : "beginning",
    );
    try {
      mkdirSync(folder, { recursive: true });
      const bytes = writeModel(checkpoint, config, tensors, { weightsPath, positions, threads, activations });
      // The model comes last: where it is, the weights are whole.
      writeFileSync(`${path}.part`, bytes);
      renameSync(`${path}.part`, path);
    } catch (error) {
      step.fail("could not be written");
      rmSync(weightsPath, { force: true });
      throw error;
    }
    step.done(formatBytes(statSync(weightsPath).size));
  });
  return { path, weightBytes: statSync(weightsPath).size, positions, config };
}

/** By what the file is, as far as its name, size and age tell. */
function folderName({ files }: Checkpoint, activations: Activations): string {
  const hash = new Bun.CryptoHasher("sha256").update(`${FORM} ${activations}`);
  for (const { path, bytes } of files) hash.update(`\n${path}\n${bytes}\n${statSync(path).mtimeMs}`);
  return `${basename(files[0]!.path, ".gguf")}-${hash.digest("hex").slice(0, 16)}`;
}

function requireExpressible(tensors: ReadonlyMap<string, TensorEntry>): void {
  for (const { name, shape } of tensors.values()) {
    const columns = shape[1];
    if (columns === undefined || columns % BLOCK_ELEMENTS === 0) continue;
    throw new MistralError(
      "unsupported_model",
      `--against onnxruntime: tensor ${name} has rows of ${columns} elements, which are no whole blocks of ${BLOCK_ELEMENTS}`,
      { parameter: "--against" },
    );
  }
}

interface WriteOptions extends Required<Pick<OnnxModelOptions, "threads" | "activations">> {
  readonly weightsPath: string;
  readonly positions: number;
}

/** The model file's bytes; the weights are in their file then. */
function writeModel(
  checkpoint: Checkpoint,
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorEntry>,
  { weightsPath, positions, threads, activations }: WriteOptions,
): Uint8Array {
  const device = Device.open({ kind: "cpu", threads });
  const reader = new MatrixReader(device, checkpoint);
  const descriptor = openSync(weightsPath, "w");
  try {
    const weights = new WrittenWeights({ checkpoint, config, tensors, reader, descriptor, positions });
    return decoderGraph(config, weights, activations);
  } finally {
    closeSync(descriptor);
    reader.free();
    device.close();
  }
}

interface WrittenWeightsOptions {
  readonly checkpoint: Checkpoint;
  readonly config: ModelConfig;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly reader: MatrixReader;
  readonly descriptor: number;
  readonly positions: number;
}

const PARTS: Readonly<Record<MatrixName, readonly LayerTensorName[]>> = {
  query_key_value: ["query", "key", "value"],
  query: ["query"],
  key: ["key"],
  value: ["value"],
  attention_output: ["attention_output"],
  gate: ["gate"],
  up: ["up"],
  down: ["down"],
};

/** Writes each tensor when the graph asks for it. */
class WrittenWeights implements DecoderWeights {
  readonly embedding: Int4Matrix;
  readonly output: Int4Matrix;
  readonly outputNorm: Float32Array;
  readonly rotations: DecoderWeights["rotations"];
  readonly #options: WrittenWeightsOptions;
  #end = 0;

  constructor(options: WrittenWeightsOptions) {
    this.#options = options;
    const { config } = options;
    this.embedding = this.#matrix(["embedding"]);
    this.output = config.tiedEmbeddings ? this.embedding : this.#matrix(["output"]);
    this.outputNorm = this.#norm("output_norm");
    const kinds = new Set(config.layers.map(({ rope }) => rope));
    this.rotations = Object.fromEntries([...kinds].map((kind) => [kind, this.#rotation(kind)]));
  }

  matrix(layer: number, name: MatrixName): Int4Matrix {
    return this.#matrix(PARTS[name].map((part) => `layers.${layer}.${part}`));
  }

  vector(layer: number, name: LayerTensorName): Float32Array | undefined {
    const key = `layers.${layer}.${name}`;
    if (!this.#options.tensors.has(key)) return undefined;
    return name.endsWith("_norm") ? this.#norm(key) : this.#vector(this.#entry(key));
  }

  #entry(key: string): TensorEntry {
    const entry = this.#options.tensors.get(key);
    if (entry === undefined) throw new Error(`the model has no ${key}`);
    return entry;
  }

  #norm(key: string): Float32Array {
    const { normWeightOffset } = this.#options.config;
    return this.#vector(this.#entry(key)).map((weight) => weight + normWeightOffset);
  }

  #vector(entry: TensorEntry): Float32Array {
    const stored = new Uint8Array(entry.bytes);
    PositionedFile.use(this.#options.checkpoint.files[entry.file]!.path, (file) =>
      file.readInto(stored, entry.offset),
    );
    return vectorOf(entry, stored);
  }

  /** One below the other. */
  #matrix(keys: readonly string[]): Int4Matrix {
    const entries = keys.map((key) => this.#entry(key));
    const rows = entries.reduce((sum, { shape }) => sum + shape[0]!, 0);
    const columns = entries[0]!.shape[1]!;
    const scales = new Float32Array((rows * columns) / BLOCK_ELEMENTS);
    const offset = this.#align();
    let block = 0;
    for (const entry of entries) {
      for (const values of this.#options.reader.rows(entry)) {
        const quantized = quantizeInt4(values);
        this.#write(quantized.data);
        scales.set(quantized.scales, block);
        block += quantized.scales.length;
      }
    }
    const data = { file: WEIGHTS_FILE, offset, bytes: this.#end - offset };
    return { rows, columns, data, scales: this.#floats(scales) };
  }

  #rotation(kind: RopeKind): Rotation {
    const { checkpoint, config, positions } = this.#options;
    const divisors = checkpoint.tensors.get(ROPE_DIVISORS_NAME);
    const { inverseFrequencies, attentionFactor } = ropeFrequencies(
      config.ropes[kind],
      positions,
      divisors === undefined ? undefined : this.#vector(divisors),
    );
    const pairs = inverseFrequencies.length;
    const table = (of: (angle: number) => number): ExternalData => {
      const values = new Float32Array(positions * pairs);
      for (let index = 0; index < values.length; index++) {
        values[index] = attentionFactor * of(Math.floor(index / pairs) * inverseFrequencies[index % pairs]!);
      }
      return this.#floats(values);
    };
    return { positions, pairs, cosines: table(Math.cos), sines: table(Math.sin) };
  }

  #floats(values: Float32Array): ExternalData {
    const offset = this.#align();
    this.#write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return { file: WEIGHTS_FILE, offset, bytes: values.byteLength };
  }

  #align(): number {
    this.#write(new Uint8Array((ALIGNMENT - (this.#end % ALIGNMENT)) % ALIGNMENT));
    return this.#end;
  }

  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.byteLength; ) {
      done += writeSync(this.#options.descriptor, bytes, done, bytes.byteLength - done, this.#end + done);
    }
    this.#end += bytes.byteLength;
  }
}
