/**
 * A GGUF file as a model of ONNX Runtime: with weights that 4 bits hold exactly, its logits are ours but for the 8 bits
 * of its activations. Where ONNX Runtime cannot be installed (300 MB) the test that needs it says so in its name.
 */

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Comparison } from "../../../../../src/cli/bench/against/comparison.ts";
import { quantizeInt4 } from "../../../../../src/cli/bench/against/onnx/int4-blocks.ts";
import { installOnnxRuntime, onnxPeer } from "../../../../../src/cli/bench/against/onnx/onnx.ts";
import { onnxModelOf } from "../../../../../src/cli/bench/against/onnx/onnx-model.ts";
import { MessageWriter } from "../../../../../src/cli/bench/against/onnx/protobuf.ts";
import { zigExecutable } from "../../../../../src/cli/setup/kernels.ts";
import { runTool } from "../../../../../src/cli/setup/tool.ts";
import { PROJECT_ROOT } from "../../../../../src/cli/setup.ts";
import { MistralError } from "../../../../../src/errors.ts";
import { loadModel } from "../../../../../src/models/load-model.ts";
import { ownCacheFolder } from "../../../../../src/weights/cache-paths.ts";
import { openCheckpoint } from "../../../../../src/weights/checkpoint.ts";
import { Random, randomWeights } from "../../../../kernels/random.ts";
import { dequantize } from "../../../../kernels/reference/dequantize.ts";
import { runStep } from "../../../../models/run-sequence.ts";
import { readGolden, writeGgufTwin } from "../../../../reference/tiny-checkpoint.ts";
import { expectMistralRejection } from "../../../../support/expect-error.ts";
import { writeOldLlamaTwin } from "../../../../support/old-llama.ts";
import { temporaryFolder } from "../../../../support/temporary-folder.ts";
import { runCommand } from "../../../processes.ts";

const folder = temporaryFolder("onnx");
const QUIET = { write() {} };
const BLOCK = 32;

/** What the blocks stand for. */
function valuesOf({ data, scales }: ReturnType<typeof quantizeInt4>): Float32Array {
  return Float32Array.from({ length: scales.length * BLOCK }, (_, index) => {
    const nibble = index % 2 === 0 ? data[index >> 1]! & 15 : data[index >> 1]! >> 4;
    return (nibble - 8) * scales[Math.floor(index / BLOCK)]!;
  });
}

describe("4-bit blocks", () => {
  test("what was Q4_0 comes out as it was", () => {
    const values = Float32Array.from(dequantize("q4_0", randomWeights(new Random(5), "q4_0", 40, 64)));
    const again = valuesOf(quantizeInt4(values));
    // A block whose largest magnitude is not the one without a counterpart is rounded anew.
    let exact = 0;
    for (let block = 0; block < values.length; block += BLOCK) {
      const [before, after] = [values, again].map((of) => of.subarray(block, block + BLOCK)) as [
        Float32Array,
        Float32Array,
      ];
      const steps = [...before].map((value, index) => Math.abs(value - after[index]!));
      if (Math.max(...steps) <= 1e-6 * Math.max(...before.map(Math.abs))) exact++;
    }
    expect(exact / (values.length / BLOCK)).toBeGreaterThan(0.85);
  });

  test("nothing is further away than half a step, but for what has no counterpart above; zeros stay zeros", () => {
    const values = new Random(6).floats(4096);
    values.fill(0, 64, 96);
    const blocks = quantizeInt4(values);
    const again = valuesOf(blocks);
    values.forEach((value, index) => {
      const step = Math.abs(blocks.scales[Math.floor(index / BLOCK)]!);
      expect(Math.abs(value - again[index]!)).toBeLessThanOrEqual(step * 1.0001);
    });
    expect([...again.subarray(64, 96)]).toEqual(Array.from({ length: 32 }, () => 0));
    expect(() => quantizeInt4(new Float32Array(33))).toThrow("33 elements are not a whole number of blocks");
  });
});

test("messages are written as protocol buffers are", () => {
  const bytes = new MessageWriter()
    .integer(1, 150)
    .integer(20, -1)
    .text(2, "testing")
    .float(3, 1)
    .message(4, (inner) => inner.integer(1, 300))
    .finish();
  const integers = "089601 a001ffffffffffffffffff01";
  expect(Buffer.from(bytes).toString("hex")).toBe(
    `${integers} 120774657374696e67 1d0000803f 220308ac02`.replaceAll(" ", ""),
  );
});

test("what the graph cannot express is refused with the tensor's name", async () => {
  const path = join(folder, "narrow.gguf");
  writeGgufTwin(readGolden("smollm2"), path);
  const refusal = onnxModelOf(openCheckpoint(path), { threads: 1, output: QUIET, cache: folder });
  await expectMistralRejection(
    refusal,
    "unsupported_model",
    "has rows of 72 elements, which are no whole blocks of 32",
  );
});

test("onnx-peer.c compiles without a warning and refuses what is no ONNX Runtime", async () => {
  const source = join(PROJECT_ROOT, "src/cli/bench/against/onnx/onnx-peer.c");
  const program = join(folder, "onnx-peer");
  const compiler = [zigExecutable(PROJECT_ROOT), "cc", "-Wall", "-Wextra", "-Werror", source, "-o", program];
  const compiled = await runTool(compiler, folder);
  expect({ status: compiled.status, stderr: compiled.stderr }).toEqual({ status: 0, stderr: "" });
  const usage = await runTool([program], folder);
  expect(usage).toMatchObject({ status: 2, stdout: "" });
  expect(usage.stderr).toStartWith("onnx-peer LIBRARY MODEL THREADS");
  const missing = await runTool([program, "./nothing.so", "m", "1", "1", "1", "1", "1", "1", "1"], folder);
  expect(missing.stderr).toStartWith("cannot load ONNX Runtime: ");
}, 120_000);

/** Why there is no ONNX Runtime here; undefined where there is. */
const absent = await installOnnxRuntime(QUIET).then(
  () => undefined,
  (error: unknown) => {
    if (error instanceof MistralError && error.code === "network") return error.message.split("\n")[0];
    throw error;
  },
);
if (absent !== undefined) console.warn(`onnxruntime: none to hold the graph against: ${absent}`);
const runs = absent === undefined ? test : (test.skip as typeof test);
const suffix = absent === undefined ? "" : " (SKIPPED: onnxruntime-node cannot be installed)";

/** A twin whose matrices 4 bits hold exactly. */
function writeRounded(name: string): { readonly path: string; readonly tokens: readonly number[] } {
  const golden = readGolden(name);
  const path = join(folder, `${name}.gguf`);
  writeGgufTwin(golden, path, (tensor) => {
    if (tensor.shape.length < 2) return tensor;
    const { buffer, byteOffset, byteLength } = tensor.data;
    const rounded = valuesOf(quantizeInt4(new Float32Array(buffer, byteOffset, byteLength / 4)));
    return { ...tensor, data: new Uint8Array(rounded.buffer) };
  });
  return { path, tokens: golden.tokens };
}

async function ourLogits(path: string, tokens: readonly number[]): Promise<Float32Array> {
  const model = await loadModel({
    path,
    threads: 2,
    sequencesMax: 1,
    tokensMax: 64,
    contextLengthMax: 64,
    kvCacheType: "f32",
    kvMemoryBytes: 16 << 20,
    blockSize: 8,
    mmap: true,
  });
  try {
    return runStep(model, [{ sequence: 0, tokens, start: 0 }])[0]!.at(-1)!;
  } finally {
    model.close();
  }
}

/** The largest difference over the largest logit. */
function difference(actual: readonly number[], expected: Float32Array): number {
  expect(actual.length).toBe(expected.length);
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...actual.map((value, index) => Math.abs(value - expected[index]!))) / largest;
}

/** Of the largest logit; the models' weights are noise, so that 8 bits of the activations show. */
const TOLERANCES = { f32: 1e-5, int8: 0.1 } as const;
const MODELS = [
  "llama2",
  "llama3",
  "llama-yarn",
  "llama-biases",
  "mistral",
  "qwen2",
  "qwen2-window",
  "qwen3",
  "gemma3",
];

describe("ONNX Runtime computes what we do", () => {
  for (const name of MODELS) {
    for (const activations of ["f32", "int8"] as const) {
      runs(
        `${name}, activations of ${activations}${suffix}`,
        async () => {
          const { path, tokens } = writeRounded(name);
          const expected = await ourLogits(path, tokens);
          const cache = join(folder, "cache");
          const peer = await onnxPeer(openCheckpoint(path), {
            threads: 2,
            output: QUIET,
            cache,
            activations,
          });
          const child = peer.start({ path, threads: 2, sequences: 3, contextLength: 48, kvCacheType: "f32" });
          try {
            expect((await child.ready()).release).toBe("1.30.0");
            // One prompt; a prompt and single tokens behind it; the same in other sequences than the prompt's.
            for (const [prompt, sequences] of [
              [tokens.length, 1],
              [7, 1],
              [7, 3],
            ] as const) {
              const actual = await child.logits(tokens, prompt, sequences);
              expect(difference(actual, expected)).toBeLessThan(TOLERANCES[activations]);
            }
          } finally {
            await child.close();
          }
        },
        60_000,
      );
    }
  }
});

runs(
  `bench --against onnxruntime compares prompts, steps and whole processes${suffix}`,
  async () => {
    const path = join(folder, `compared-${process.pid}.gguf`);
    writeOldLlamaTwin(path, "q4_0");
    const lengths = ["--prompt-len", "4", "--depth", "0,9", "--batch", "2", "--gen-len", "7"];
    const flags = [
      "--against",
      "onnxruntime",
      "-f",
      path,
      "--threads",
      "1",
      ...lengths,
      "--repetitions",
      "1",
    ];
    try {
      const { status, stdout, stderr } = await runCommand(["bench", ...flags, "--json"]);
      expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
      const comparison = JSON.parse(stdout) as Comparison;
      expect(comparison.peer).toMatchObject({ name: "onnxruntime", release: "1.30.0" });
      expect(comparison.peer.manner).toMatch(
        /^int4 weights made of the file's, [\d.]+ [kM]B, 8-bit activations/,
      );
      expect(comparison.rows.map((row) => [row.phase, row.depth, row.sequences])).toEqual([
        ["prefill", 0, 1],
        ["decode", 0, 2],
        ["decode", 9, 2],
      ]);
      for (const row of comparison.rows) {
        expect(row).not.toHaveProperty("peer_flash_attention");
        expect(row.peer_tokens_per_s.min).toBeGreaterThan(0);
      }
      const { first_token_seconds, load_seconds, peak_rss_bytes } = comparison as Required<Comparison>;
      expect(load_seconds.peer).toBeGreaterThan(0);
      expect(peak_rss_bytes.peer).toBeGreaterThan(5e6);
      expect(first_token_seconds.peer).toBeGreaterThan(load_seconds.peer);
    } finally {
      // The command writes into the user's cache.
      const cache = join(ownCacheFolder(process.env), "onnx");
      for (const name of existsSync(cache) ? readdirSync(cache) : [])
        if (name.startsWith(`compared-${process.pid}-`)) rmSync(join(cache, name), { recursive: true });
    }
  },
  120_000,
);
