/**
 * Sixty-four sequences at once on a CUDA device, with cuBLASLt and fast activations, against the same alone: the same
 * bits in a deterministic program, close ones in another.
 */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { EngineCore } from "../../src/engine/engine-core.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import { openCudaLevels, withProductLibrary } from "../kernels/cuda-devices.ts";
import { readGolden, writeHuggingFace } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { finish, GREEDY, Outcomes, request } from "./requests.ts";

const SEQUENCES = 64;
/** Of which these run alone too. */
const ALONE = 8;
const TOKENS = 3;
/** Of log-probabilities, where products of many rows round their inputs. Measured: below 0.01. */
const CLOSE = 0.03;

const folder = temporaryFolder("cuda-batch");
const golden = readGolden("smollm2");
const path = join(folder, "smollm2");

interface Text {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
}

function generate(model: LoadedModel, ids: readonly number[]): Text[] {
  const core = new EngineCore(model, { prefixCache: false });
  const outcomes = new Outcomes();
  for (const id of ids) {
    const length = 5 + (id % 4);
    const promptTokens = Int32Array.from(
      { length },
      (_, at) => golden.tokens[(at * 3 + id) % golden.tokens.length]!,
    );
    core.submit(request(id, { promptTokens, maxTokens: TOKENS, sampling: { ...GREEDY, logprobs: 0 } }));
  }
  finish(core, outcomes);
  return ids.map((id) => {
    const { tokens, logprobs } = outcomes.of(id);
    return { tokens: [...tokens], logprobs: logprobs.map((one) => one!.logprob) };
  });
}

for (const level of openCudaLevels())
  describe(level.level, () => {
    /** What the sequences say together, and some of them alone. */
    const both = (deterministic: boolean): Promise<{ together: Text[]; alone: Text[] }> =>
      withProductLibrary(level, async () => {
        writeHuggingFace(golden, path);
        const model = await loadModel({
          path,
          device: { kind: "cuda", index: 0 },
          threads: 1,
          sequencesMax: SEQUENCES,
          tokensMax: 160,
          contextLengthMax: 32,
          kvCacheType: "f16",
          kvMemoryBytes: 16 << 20,
          blockSize: 8,
          mmap: true,
          activations: "fast",
          deterministic,
        });
        try {
          expect(model.info.device).toContain(deterministic ? "products by its own kernels" : "cuBLASLt");
          const ids = Array.from({ length: SEQUENCES }, (_, id) => id);
          const alone = ids.slice(0, ALONE).flatMap((id) => generate(model, [id]));
          return { together: generate(model, ids), alone };
        } finally {
          model.close();
        }
      });

    test("bit for bit what each says alone, when the program is deterministic", async () => {
      const { together, alone } = await both(true);
      expect(together.slice(0, ALONE)).toEqual(alone);
      expect(new Set(together.map(({ tokens }) => tokens.join())).size).toBeGreaterThan(ALONE);
    });

    test("close to what each says alone, otherwise", async () => {
      const { together, alone } = await both(false);
      let worst = 0;
      let compared = 0;
      alone.forEach((one, index) => {
        const other = together[index]!;
        // From the first token that differs on they are different texts.
        const parted = one.tokens.findIndex((token, at) => token !== other.tokens[at]);
        for (const [at, logprob] of one.logprobs.slice(0, parted < 0 ? TOKENS : parted + 1).entries()) {
          worst = Math.max(worst, Math.abs(logprob - other.logprobs[at]!));
          compared++;
        }
      });
      expect(compared).toBeGreaterThan(ALONE);
      expect(worst).toBeLessThan(CLOSE);
      // Or the sequences would not have met in one product.
      expect(worst).toBeGreaterThan(0);
    });
  });
