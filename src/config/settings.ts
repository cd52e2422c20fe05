/**
 * The one table of settings: flag, variable, type, default, meaning. Parsing, `--help`, the start log and the
 * README's table are made from it. Names and defaults are those of mistral.rs where it has the setting.
 */

import type { SettingDeclaration, ValueOf } from "./types.ts";

const SERVE = ["serve"] as const;
const BENCH = ["bench"] as const;
const BOTH = ["serve", "bench"] as const;
const TRUTHY = ["1", "true", "yes", "on"] as const;
const COUNT_MAX = 2 ** 31 - 1;

export const SETTINGS = {
  host: {
    flag: "--host",
    type: { kind: "text" },
    default: "0.0.0.0",
    description: "Address to listen on",
    group: "Server",
    commands: SERVE,
  },
  port: {
    flag: "--port",
    short: "p",
    type: { kind: "integer", min: 0, max: 65_535 },
    default: 1234,
    description: "Port to listen on; 0 takes a free one",
    group: "Server",
    commands: SERVE,
  },
  keepAliveIntervalMs: {
    environment: ["KEEP_ALIVE_INTERVAL"],
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    default: 10_000,
    unit: "ms",
    description: "Time between comment lines on a silent stream",
    group: "Server",
    commands: SERVE,
    lenientEnvironment: true,
  },
  shutdownTimeoutSeconds: {
    flag: "--shutdown-timeout",
    type: { kind: "integer", min: 0, max: 86_400 },
    default: 30,
    unit: "s",
    description: "How long a stopping server waits for the requests in flight",
    group: "Server",
    commands: SERVE,
  },
  model: {
    flag: "--model-id",
    short: "m",
    aliases: ["--model"],
    type: { kind: "text" },
    unsetText: "SmolLM2-135M-Instruct",
    description: "Model: a Hugging Face id or a local folder",
    group: "Model",
    commands: BOTH,
  },
  file: {
    flag: "--quantized-file",
    short: "f",
    aliases: ["--file"],
    type: { kind: "text" },
    unsetText: "chosen from the model's files",
    description: "GGUF file: a local path or the name of a file of the model",
    group: "Model",
    commands: BOTH,
  },
  revision: {
    flag: "--revision",
    type: { kind: "text" },
    unsetText: "main",
    description: "Branch, tag or commit of the model on the hub",
    group: "Model",
    commands: BOTH,
  },
  noMmap: {
    environment: ["MISTRALRS_NO_MMAP"],
    type: { kind: "switch", on: ["1"] },
    default: false,
    description: "Read weights into memory instead of mapping the files",
    group: "Model",
    commands: BOTH,
  },
  threads: {
    flag: "--threads",
    environment: ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"],
    type: { kind: "integer", min: 1, max: 1024 },
    unsetText: "the physical cores this process may use",
    unit: "threads",
    description: "Threads that compute",
    group: "Engine",
    commands: BOTH,
  },
  instructionSet: {
    flag: "--instruction-set",
    environment: ["MISTRALRS_INSTRUCTION_SET"],
    type: { kind: "text" },
    unsetText: "the best of this processor",
    description: "Kernel library to use, such as x86_64_v3 or arm64_dotprod",
    group: "Engine",
    commands: BOTH,
  },
  forceAvx2: {
    environment: ["MISTRALRS_FORCE_AVX2"],
    type: { kind: "switch", on: ["1"] },
    default: false,
    description: "Do not use AVX-512: the same as --instruction-set x86_64_v3",
    group: "Engine",
    commands: BOTH,
  },
  sequencesMax: {
    flag: "--max-seqs",
    type: { kind: "integer", min: 1, max: 4096 },
    default: 16,
    unit: "sequences",
    description: "Sequences that run at the same time; more wait in the queue",
    group: "Engine",
    commands: SERVE,
  },
  batchedTokensMax: {
    flag: "--max-num-batched-tokens",
    type: { kind: "integer", min: 1, max: 65_536 },
    default: 512,
    unit: "tokens",
    description: "Tokens in one step, those of prompts and of running sequences together",
    group: "Engine",
    commands: BOTH,
  },
  cacheContextLength: {
    flag: "--pa-context-len",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    unsetText: "the model's own context",
    unit: "tokens",
    description: "Size the KV cache for this context; no sequence gets longer",
    group: "KV cache",
    commands: BOTH,
  },
  cacheMemoryMb: {
    flag: "--pa-memory-mb",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    unsetText: "from the context and the sequences",
    unit: "MB",
    description: "Size the KV cache to this much memory",
    group: "KV cache",
    commands: BOTH,
  },
  cacheBlockSize: {
    flag: "--pa-block-size",
    type: { kind: "choice", choices: [8, 16, 32] },
    default: 32,
    unit: "tokens",
    description: "Tokens in a block of the KV cache",
    group: "KV cache",
    commands: BOTH,
  },
  cacheType: {
    flag: "--pa-cache-type",
    type: { kind: "choice", choices: ["auto", "f16", "bf16", "f32"] },
    default: "auto",
    description: "Element type of the KV cache; auto is f16",
    group: "KV cache",
    commands: BOTH,
  },
  prefixCacheEntries: {
    flag: "--prefix-cache-n",
    type: { kind: "integer", min: 0, max: COUNT_MAX },
    default: 16,
    description:
      "0 switches the prefix cache off; otherwise blocks of past prompts are kept while they are free",
    group: "KV cache",
    commands: SERVE,
  },
  chatTemplate: {
    flag: "--chat-template",
    short: "c",
    type: { kind: "path", extensions: [".jinja", ".json"] },
    unsetText: "the model's own",
    description: "Chat template used in place of the model's: a .jinja or .json file",
    group: "Chat template",
    commands: SERVE,
  },
  jinjaExplicit: {
    flag: "--jinja-explicit",
    short: "j",
    type: { kind: "path", extensions: [".jinja"] },
    unsetText: "the model's own",
    description: "Stronger than --chat-template: a .jinja file",
    group: "Chat template",
    commands: SERVE,
  },
  seed: {
    flag: "--seed",
    type: { kind: "u64" },
    default: 0n,
    description: "Seed of the random prompt of a benchmark",
    group: "Benchmark",
    commands: BENCH,
  },
  promptLength: {
    flag: "--prompt-len",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    default: 512,
    unit: "tokens",
    description: "Prompt of each sequence",
    group: "Benchmark",
    commands: BENCH,
  },
  generatedLength: {
    flag: "--gen-len",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    default: 128,
    unit: "tokens",
    description: "Tokens each sequence generates",
    group: "Benchmark",
    commands: BENCH,
  },
  batch: {
    flag: "--batch",
    type: { kind: "integer", min: 1, max: 4096 },
    default: 1,
    unit: "sequences",
    description: "Sequences that generate together",
    group: "Benchmark",
    commands: BENCH,
  },
  repetitions: {
    flag: "--repetitions",
    aliases: ["--iterations"],
    type: { kind: "integer", min: 1, max: 1000 },
    default: 3,
    description: "Measured repetitions; figures are medians",
    group: "Benchmark",
    commands: BENCH,
  },
  warmup: {
    flag: "--warmup",
    type: { kind: "integer", min: 0, max: 1000 },
    default: 1,
    description: "Repetitions before the measured ones",
    group: "Benchmark",
    commands: BENCH,
  },
  json: {
    flag: "--json",
    type: { kind: "switch", on: [] },
    default: false,
    description: "Print one JSON object on stdout instead of a table",
    group: "Benchmark",
    commands: BENCH,
  },
  hubCache: {
    flag: "--hf-cache",
    environment: ["HF_HUB_CACHE"],
    type: { kind: "path" },
    unsetText: "hub/ under HF_HOME",
    description: "Cache of downloaded models, shared with the Python client",
    group: "Hugging Face",
    commands: BOTH,
  },
  hubHome: {
    environment: ["HF_HOME"],
    type: { kind: "path" },
    unsetText: "~/.cache/huggingface",
    description: "Folder of the hub cache and of the file `token`",
    group: "Hugging Face",
    commands: BOTH,
  },
  hubToken: {
    environment: ["HF_TOKEN", "HF_HUB_TOKEN"],
    type: { kind: "text" },
    unsetText: "the file `token` under HF_HOME",
    description: "Access token for private and gated models",
    group: "Hugging Face",
    commands: BOTH,
    secret: true,
  },
  hubOffline: {
    environment: ["HF_HUB_OFFLINE"],
    type: { kind: "switch", on: TRUTHY },
    default: false,
    description: "Never call the hub",
    group: "Hugging Face",
    commands: BOTH,
  },
  hubEndpoint: {
    environment: ["HF_ENDPOINT"],
    type: { kind: "url" },
    unsetText: "the public hub",
    description: "Address of the hub or of a mirror of it",
    group: "Hugging Face",
    commands: BOTH,
  },
  verbosity: {
    flag: "--verbose",
    short: "v",
    type: { kind: "count", max: 2 },
    default: 0,
    description: "More log: -v settings in force, -vv engine statistics every second",
    group: "Logging",
    commands: BOTH,
  },
} as const satisfies Record<string, SettingDeclaration>;

export type SettingKey = keyof typeof SETTINGS;

/** A value for every setting; undefined only where the table has no default. */
export type Settings = {
  readonly [Key in SettingKey]: (typeof SETTINGS)[Key] extends { default: unknown }
    ? ValueOf<(typeof SETTINGS)[Key]["type"]>
    : ValueOf<(typeof SETTINGS)[Key]["type"]> | undefined;
};

/** Every setting with its declaration, in the order of the table. */
export function settingEntries(): readonly (readonly [SettingKey, SettingDeclaration])[] {
  return Object.entries(SETTINGS) as [SettingKey, SettingDeclaration][];
}
