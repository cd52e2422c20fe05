/**
 * Products of many rows on CUDA through cuBLASLt: NVIDIA's library beside a GPU, else the emulated one. Against
 * float64, with and without captured graphs, and against our own kernels where the library is not to be used.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Device } from "../../src/backend/device.ts";
import { DTYPES } from "../../src/backend/dtype.ts";
import type { ActivationPrecision } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { type CudaLevel, openCudaLevels, openWithProductLibrary } from "./cuda-devices.ts";
import { bufferOf, expectClose, expectSameBits, Recording } from "./harness.ts";
import { Random, randomWeights, WEIGHT_DTYPES, type WeightDtype } from "./random.ts";
import { dequantize } from "./reference/dequantize.ts";
import { FAST_ON_CUDA, multiply, productBounds } from "./reference/matmul.ts";

/** Of the bound of rounding: sums of up to 600 products in f32, one after the other. */
const EXACT = 1e-6;

/** More than a tile of our own kernels, on both sides of where the emulated library sums otherwise. */
const ROWS = [65, 70, 100] as const;
const ROWS_MAX = 112;
const PLAIN = ["bf16", "f16", "f32"] as const;

interface CaseOptions {
  readonly dtypes: readonly WeightDtype[];
  readonly k: number;
  readonly heights: readonly number[];
  readonly rows: number;
  readonly rowsMax?: number;
  readonly activations?: ActivationPrecision;
  readonly bias?: boolean;
  /** A tensor of its own, or out itself. */
  readonly residual?: "apart" | "out" | undefined;
  readonly magnitude?: number;
}

interface Case {
  readonly recording: Recording;
  readonly x: Tensor;
  readonly out: Tensor;
  readonly values: Float32Array;
  readonly expected: Float64Array;
  readonly bounds: Float64Array;
}

function build(random: Random, options: CaseOptions): Case {
  const { dtypes, k, heights, rows, rowsMax = ROWS_MAX, activations, magnitude } = options;
  const recording = new Recording({ activations });
  const dimension = recording.program.dimension("rows", rowsMax);
  const values = random.floats(rows * k, magnitude);
  const x = recording.f32("x", [dimension, k], values);
  const bytes = dtypes.map((dtype, i) => randomWeights(random, dtype, heights[i]!, k));
  const weights = dtypes.map((dtype, i) => recording.input(`weight${i}`, dtype, [heights[i]!, k], bytes[i]!));
  const width = heights.reduce((sum, height) => sum + height, 0);
  const biasValues = heights.map((height) => random.floats(height));
  const biases = options.bias
    ? heights.map((height, i) => recording.f32(`bias${i}`, [height], biasValues[i]!))
    : undefined;
  const residualValues = random.floats(rows * width, magnitude);
  let residual: Tensor | undefined;
  let out: Tensor;
  if (options.residual === "out") {
    out = recording.state("out", "f32", [dimension, width], residualValues);
    const [weight0, weight1, weight2] = weights;
    const operands = { out, x, weight0, weight1, weight2, residual: out };
    recording.program.record("matmul", operands, { activations: activations === "fast" ? 1 : 0 });
  } else {
    if (options.residual === "apart")
      residual = recording.f32("residual", [dimension, width], residualValues);
    out = matmul(recording.program, { name: "out", x, weights, biases, residual, keep: true });
  }

  const expected = new Float64Array(rows * width);
  const bounds = new Float64Array(rows * width);
  let column = 0;
  dtypes.forEach((dtype, i) => {
    const height = heights[i]!;
    const weightValues = dequantize(dtype, bytes[i]!);
    const product = multiply(Float64Array.from(values), weightValues, k);
    const bound = productBounds(Float64Array.from(values), weightValues, k);
    for (let row = 0; row < rows; row++)
      for (let feature = 0; feature < height; feature++) {
        const from = row * height + feature;
        const to = row * width + column + feature;
        const bias = options.bias ? biasValues[i]![feature]! : 0;
        const added = options.residual === undefined ? 0 : residualValues[to]!;
        expected[to] = product[from]! + bias + added;
        bounds[to] = bound[from]! + Math.abs(bias) + Math.abs(added);
      }
    column += height;
  });
  return { recording, x, out, values, expected, bounds };
}

function suite(level: CudaLevel): void {
  let devices: readonly [Device, Device];
  beforeAll(async () => {
    devices = await openWithProductLibrary(level);
  });
  afterAll(() => {
    for (const device of devices) device.close();
  });

  /** Runs on both devices, and says whether the bits are those of our own kernels. */
  function check(random: Random, options: CaseOptions): { isOwn: boolean } {
    const { recording, out, expected, bounds } = build(random, options);
    const [one, two] = devices.map((device) => recording.run(device, [options.rows]).bytes(out));
    expectSameBits(two!, one!, "both devices");
    const tolerance = options.activations === "fast" ? FAST_ON_CUDA : EXACT;
    const what = JSON.stringify(options);
    expectClose(new Float32Array(one!.buffer), expected, (i) => tolerance * bounds[i]!, what);
    const own = recording.run(level.devices[0], [options.rows]).bytes(out);
    return { isOwn: Bun.hash(own) === Bun.hash(one!) };
  }

  test("the device says what it uses", () => {
    expect(devices[0].productLibrary().text).toMatch(/^cuBLASLt \d+\.\d+\.\d+$/);
    if (level.level !== "cuda emulated") return;
    const { used, text } = level.devices[0].productLibrary();
    expect(used).toBe(false);
    expect(text).not.toBe("");
  });

  for (const activations of ["precise", "fast"] as const)
    describe(activations, () => {
      for (const dtype of PLAIN)
        test(dtype, () => {
          const random = new Random(DTYPES[dtype].code + 31);
          for (const rows of ROWS)
            for (const k of [8, 264]) {
              const { isOwn } = check(random, { dtypes: [dtype], k, heights: [36], rows, activations });
              // Of few products both may round alike.
              if (k > 8) expect(isOwn).toBe(level.level !== "cuda emulated");
            }
        });

      for (const residual of [undefined, "apart", "out"] as const)
        test(`several weights, ${residual === undefined ? "biases" : `a residual ${residual}`}`, () => {
          const random = new Random(32);
          for (const dtypes of [["bf16", "f16", "f32"], ["f16", "f16"], ["bf16"]] as WeightDtype[][]) {
            const heights = [20, 12, 8].slice(0, dtypes.length);
            const bias = residual !== "out";
            check(random, { dtypes, k: 72, heights, rows: 67, activations, bias, residual });
          }
        });
    });

  test("rows far from one beside half-precision weights", () => {
    const random = new Random(33);
    for (const magnitude of [2 ** 60, 2 ** -60, 2 ** -110])
      for (const activations of ["precise", "fast"] as const)
        check(random, { dtypes: ["f16"], k: 64, heights: [16], rows: 66, magnitude, activations });
    const { recording, out, x, values } = build(random, { dtypes: ["f16"], k: 16, heights: [4], rows: 66 });
    values.fill(0, 0, 16);
    values[20] = Number.POSITIVE_INFINITY;
    recording.set(x, values);
    const result = recording.run(devices[0], [66]).f32(out);
    expect([...result.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
    expect([...result.subarray(4, 8)].some(Number.isFinite)).toBe(false);
    expect([...result.subarray(8)].every(Number.isFinite)).toBe(true);
  });

  test("weights that do not lie as the library wants are left to our kernels", () => {
    const random = new Random(34);
    for (const dtype of ["bf16", "f16"] as const)
      expect(check(random, { dtypes: [dtype], k: 100, heights: [8], rows: 66 }).isOwn).toBe(true);
    expect(check(random, { dtypes: ["f32"], k: 66, heights: [8], rows: 66 }).isOwn).toBe(true);
    expect(check(random, { dtypes: ["bf16"], k: 64, heights: [7], rows: 66 }).isOwn).toBe(true);
  });

  describe("our own kernels, fast", () => {
    for (const dtype of WEIGHT_DTYPES)
      test(dtype, () => {
        const random = new Random(DTYPES[dtype].code + 61);
        const { blockElements } = DTYPES[dtype];
        const k = blockElements === 256 ? 512 : blockElements === 32 ? 288 : 301;
        // One tile of rows and two; several tiles of features, the last ones not full.
        for (const rows of [9, 60, 70]) {
          const options = { dtypes: [dtype, dtype], k, heights: [45, 20], rows, bias: true } as const;
          const { recording, out, expected, bounds } = build(random, { ...options, activations: "fast" });
          const [one, two] = level.devices.map((device) => recording.run(device, [rows]).bytes(out));
          expectSameBits(two!, one!, "both devices");
          const actual = new Float32Array(one!.buffer);
          expectClose(actual, expected, (i) => FAST_ON_CUDA * bounds[i]!, `${dtype} ${rows}`);
          const precise = recording.run(level.devices[0], [rows], { deterministic: true }).f32(out);
          // Or it would not have been the fast kernel.
          expect(precise).not.toEqual(actual);
        }
      });
  });

  test("few rows are left to our kernels", () => {
    expect(check(new Random(35), { dtypes: ["bf16"], k: 64, heights: [8], rows: 64 }).isOwn).toBe(true);
  });

  describe("block-quantised weights, fast, in many rows", () => {
    for (const dtype of WEIGHT_DTYPES.filter((type) => DTYPES[type].blockElements > 1))
      test(dtype, () => {
        const random = new Random(DTYPES[dtype].code + 36);
        const rows = 258;
        check(random, { dtypes: [dtype], k: 256, heights: [12], rows, rowsMax: 260, activations: "fast" });
      });
  });

  test("a row's bits depend on the row alone in a deterministic program, and on others in another", () => {
    const [few, many] = [70, 110];
    for (const activations of ["precise", "fast"] as const) {
      const options: CaseOptions = { dtypes: ["bf16"], k: 256, heights: [24], rows: many, activations };
      const { recording, out } = build(new Random(37), options);
      const bytesOf = (rows: number, deterministic: boolean) =>
        recording
          .run(devices[0], [rows], { deterministic })
          .bytes(out)
          .subarray(0, few * 24 * 4);
      expectSameBits(bytesOf(few, true), bytesOf(many, true), "deterministic");
      if (level.level === "cuda emulated")
        expect(Bun.hash(bytesOf(few, false))).not.toBe(Bun.hash(bytesOf(many, false)));
    }
  });

  test("captured steps give the bits of launched ones", () => {
    const rows = 70;
    const { recording, x, out, values } = build(new Random(38), {
      dtypes: ["bf16", "f16"],
      k: 64,
      heights: [16, 8],
      rows,
      bias: true,
      residual: "apart",
    });
    const memories = recording.memories();
    const { words, plan } = recording.program.finish();
    const [device] = devices;
    const buffers = memories.map((memory) => bufferOf(device, memory));
    const program = device.createProgram(words, buffers);
    program.captureGraphs(2 ** 30);
    const storage = out.storage;
    if (storage.kind !== "arena") throw new Error("out is not in the arena");
    const result = new Uint8Array(rows * 24 * 4);
    for (let step = 0; step < 4; step++) {
      const now = values.map((value) => value * (step + 1));
      // The arena is the first buffer, x the second.
      buffers[1]!.write(0, new Uint8Array(now.buffer));
      program.run([rows]);
      buffers[0]!.read(plan.storages[storage.index]!.offset + out.byteOffset, result);
      recording.set(x, now);
      expectSameBits(result, recording.run(device, [rows]).bytes(out), `step ${step}`);
    }
    expect(program.graphTotals()).toMatchObject({ captured: 1, replays: 3 });
    program.free();
    for (const buffer of buffers) buffer.free();
  });
}

for (const level of openCudaLevels()) {
  const { used, text } = level.devices[0].productLibrary();
  if (used || level.level === "cuda emulated") describe(level.level, () => suite(level));
  // The name says what was not tested on this machine, and why.
  else test(`cuda has no cuBLASLt here: ${text}`, () => expect(text).not.toBe(""));
}
