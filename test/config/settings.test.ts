import { expect, test } from "bun:test";
import { parseValue } from "../../src/config/parse-value.ts";
import { settingEntries } from "../../src/config/settings.ts";
import { COMMAND_NAMES } from "../../src/config/types.ts";

function repeated(names: readonly string[]): readonly string[] {
  return names.filter((name, index) => names.indexOf(name) !== index);
}

test("no two settings of a command share a flag or a letter", () => {
  for (const command of COMMAND_NAMES) {
    const names = settingEntries()
      .filter(([, { commands }]) => commands.includes(command))
      .flatMap(([, { flag, short, aliases }]) => [
        ...(flag === undefined ? [] : [flag]),
        ...(short === undefined ? [] : [`-${short}`]),
        ...(aliases ?? []),
      ]);
    expect({ command, repeated: repeated(names) }).toEqual({ command, repeated: [] });
  }
});

test("no two settings share a variable or a key of a configuration file", () => {
  const entries = settingEntries();
  expect(entries.length).toBeGreaterThan(100);
  expect(repeated(entries.flatMap(([, { environment }]) => environment ?? []))).toEqual([]);
  expect(repeated(entries.flatMap(([, { toml }]) => toml ?? []))).toEqual([]);
});

test("every default is a value its own type accepts", () => {
  for (const [key, declaration] of settingEntries()) {
    const { type } = declaration;
    if (declaration.default === undefined) {
      expect(declaration.unsetText, key).toBeString();
    } else if (type.kind === "switch") {
      // Only what texts switch off can be on without them.
      const isOffSwitch = "except" in type.on && type.on.except.length > 0;
      expect(declaration.default, key).toBe(isOffSwitch);
    } else {
      const parsed = parseValue(type, String(declaration.default));
      expect(parsed, key).toEqual({ ok: true, value: declaration.default });
    }
  }
});

test("every setting can be set by something, and belongs to a command", () => {
  for (const [key, { flag, environment, toml, commands }] of settingEntries()) {
    expect(flag ?? environment?.[0] ?? toml?.[0], key).toBeString();
    expect(commands.length, key).toBeGreaterThan(0);
  }
});

test("the variables, flags and keys of the document that was followed are all there", () => {
  const names = settingEntries().flatMap(([, { flag, short, aliases, environment, toml }]) => [
    ...(flag === undefined ? [] : [flag]),
    ...(short === undefined ? [] : [`-${short}`]),
    ...(aliases ?? []),
    ...(environment ?? []),
    ...(toml ?? []),
  ]);
  const variables = `MISTRALRS_DEBUG MISTRALRS_NO_MMAP MISTRALRS_NO_MLA MISTRALRS_ISQ_SINGLETHREAD
    MISTRALRS_IGPU_MEMORY_FRACTION MCP_CONFIG_PATH KEEP_ALIVE_INTERVAL HF_HUB_CACHE HF_HOME HF_TOKEN HF_HUB_TOKEN
    HF_HUB_OFFLINE HF_ENDPOINT RUST_LOG MISTRALRS_NO_NCCL MISTRALRS_MN_GLOBAL_WORLD_SIZE
    MISTRALRS_MN_LOCAL_WORLD_SIZE MISTRALRS_MN_HEAD_NUM_WORKERS MISTRALRS_MN_HEAD_PORT
    MISTRALRS_MN_WORKER_SERVER_ADDR MISTRALRS_MN_WORKER_ID RING_CONFIG MISTRALRS_METAL_PRECOMPILE
    MISTRALRS_METAL_PLATFORMS NVCC_CCBIN CUDA_NVCC_FLAGS CUDA_COMPUTE_CAP RAYON_NUM_THREADS CANDLE_NUM_THREADS
    CANDLE_CPU_MASK CANDLE_CPU_AFFINITY`;
  const flags = `--seed -l --log --token-source -v -m --model-id -t --tokenizer -a --arch --dtype --format -f
    --quantized-file --tok-model-id --gqa --isq --from-uqff --isq-organization --imatrix --calibration-file --lora
    --xlora --xlora-order --tgt-non-granular-index --cpu -n --device-layers --topology --hf-cache --max-seq-len
    --max-batch-size --max-edge --max-num-images --max-image-length --paged-attn --pa-context-len --pa-memory-mb
    --pa-memory-fraction --pa-block-size --pa-cache-type --max-seqs --no-kv-cache --prefix-cache-n -c --chat-template
    -j --jinja-explicit --enable-search --search-embedding-model --mcp-config -p --port --host --ui --no-ui --mcp-port
    --max-tool-rounds --tool-dispatch-url -i --input --image --video --audio --thinking --profile --json --emit-config
    --token --prompt-len --gen-len --iterations --warmup --depth -o --no-readme --uqff-base-model --uqff-repo-id`;
  const keys = `default_model_id thinking enable_thinking reasoning_effort adapter global.seed global.log
    global.token_source server.port server.host server.ui server.no_ui server.mcp_port server.mcp_config
    server.max_tool_rounds server.tool_dispatch_url server.disable_access_log server.access_log_format
    server.access_log_health server.disable_request_id_header runtime.max_seqs runtime.no_kv_cache
    runtime.prefix_cache_n runtime.chat_template runtime.jinja_explicit runtime.enable_search
    runtime.search_embedding_model runtime.mcp_config paged_attn.mode paged_attn.context_len paged_attn.memory_mb
    paged_attn.memory_fraction paged_attn.block_size paged_attn.cache_type sandbox.mode models.kind models.model_id
    models.tokenizer models.arch models.dtype models.chat_template models.jinja_explicit models.format.format
    models.format.quantized_file models.format.tok_model_id models.format.gqa models.format.mmproj
    models.adapter.lora models.adapter.xlora models.adapter.xlora_order models.adapter.tgt_non_granular_index
    models.quantization.in_situ_quant models.quantization.isq models.quantization.from_uqff
    models.quantization.isq_organization models.quantization.imatrix models.quantization.calibration_file
    models.device.cpu models.device.device_layers models.device.topology models.device.hf_cache
    models.device.max_seq_len models.device.max_batch_size models.multimodal.max_edge
    models.multimodal.max_num_images models.multimodal.max_image_length`;
  const wanted = `${variables} ${flags} ${keys}`.split(/\s+/);
  expect(wanted.filter((name) => !names.includes(name))).toEqual([]);
});
