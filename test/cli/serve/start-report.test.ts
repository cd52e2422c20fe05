import { expect, test } from "bun:test";
import {
  type AddressFacts,
  addressReport,
  type ModelFacts,
  modelReport,
} from "../../../src/cli/serve/start-report.ts";

type Facts = ModelFacts & AddressFacts;

const startReport = (facts: Facts) => [...modelReport(facts), ...addressReport(facts)];

const FACTS: Facts = {
  id: "owner/model",
  resolved: {
    id: "owner/model",
    checkpointPath: "/cache/model.gguf",
    tokenizerFolder: "/cache",
    source: "hub-cache",
  },
  engine: {
    modelPath: "/cache/model.gguf",
    architecture: "llama",
    contextLength: 8192,
    vocabularySize: 49_152,
    sequencesMax: 16,
    tokensMax: 512,
    blockSize: 32,
    blockCount: 2049,
    topLogprobsMax: 20,
    threads: 2,
    instructionSet: "x86_64_v3",
    weightBytes: 98_000_000,
    kvBytes: 1_500_000_000,
    loadSeconds: 0.21,
    mapSeconds: 0.004,
  },
  chatTemplateFrom: "GGUF metadata",
  cacheType: "f16",
  mapped: true,
  url: "http://127.0.0.1:4321",
  host: "0.0.0.0",
  port: 4321,
  readySeconds: 0.38,
  loadSeconds: 0.21,
};

test("the start report names everything a person asks for", () => {
  expect(Object.fromEntries(startReport(FACTS))).toEqual({
    model: "owner/model (llama, 98.0 MB)",
    source: "Hugging Face cache, /cache/model.gguf",
    loaded: "in 210 ms, of which mapping the weights 4.0 ms",
    template: "GGUF metadata",
    context: "8,192 tokens",
    "kv cache":
      "2,048 blocks of 32 tokens, f16, 22.9 kB a token, 1.50 GB: room for 65,536 tokens of 16 sequences",
    compute: "2 threads, x86_64_v3, up to 512 tokens a step",
    address: "http://0.0.0.0:4321",
    "OpenAI API": "http://127.0.0.1:4321/v1",
    ready: "380 ms after the start of the process, 170 ms without loading the model",
  });
});

test("a cache that holds every sequence at full context says so; weights that were read are not called mapped", () => {
  const rows = Object.fromEntries(
    startReport({
      ...FACTS,
      mapped: false,
      host: "::",
      engine: { ...FACTS.engine, blockCount: 16 * 256 + 1 },
    }),
  );
  expect(rows["kv cache"]).toEndWith("room for all 16 at full context");
  expect(rows["kv cache"]).toStartWith("4,096 blocks");
  expect(rows.loaded).toContain("reading the weights");
  expect(rows.address).toBe("http://[::]:4321");
});

test("a context that had to be shortened is told with the model's own; a cache without paging has long blocks", () => {
  const engine = { ...FACTS.engine, modelContextLength: 131_072, blockSize: 8192, blockCount: 9 };
  const rows = Object.fromEntries(startReport({ ...FACTS, engine }));
  expect(rows.context).toBe("8,192 tokens of the model's 131,072");
  expect(rows["kv cache"]).toStartWith("8 blocks of 8,192 tokens, f16");
});
