/** The cases of what treats each row by itself: norms, rotation, gates, embeddings. */

import { bytesOfElements, type DType } from "../../../backend/dtype.ts";
import { scattered, wave } from "./fills.ts";
import { F32_BYTES, type KernelCase, type ModelShape } from "./kernel-case.ts";

const ROW_TOKENS = [1, 8, 512] as const;
const EMBED_ROWS = 32_768;
const EMBED_WIDTH = 1024;

export function rowCases({ width, feedForward, heads, headDim }: ModelShape): KernelCase[] {
  const common = {
    dtype: "f32",
    tokens: ROW_TOKENS,
    source: "cache",
    streamedBytes: 0,
    arithmetic: "f32",
    repackable: false,
  } as const;
  const headElements = heads * headDim;
  return [
    {
      ...common,
      op: "rms_norm",
      shape: `${width}`,
      bytes: (tokens) => 2 * tokens * width * F32_BYTES,
      operations: (tokens) => 4 * tokens * width,
      record(recorder, parity) {
        const tokens = recorder.tokens(parity);
        const x = recorder.input(`x${parity}`, "f32", [tokens, width], wave);
        const weight = recorder.input(`weight${parity}`, "f32", [width], wave);
        const out = recorder.output(`out${parity}`, "f32", [tokens, width]);
        return () => recorder.record("rms_norm", { out, x, weight }, { epsilon: 1e-6, weight_offset: 0 });
      },
    },
    {
      ...common,
      op: "rope",
      shape: `${heads}x${headDim}`,
      bytes: (tokens) => tokens * (2 * headElements + headDim) * F32_BYTES,
      operations: (tokens) => 3 * tokens * headElements,
      record(recorder, parity) {
        const tokens = recorder.tokens(parity);
        const x = recorder.output(`x${parity}`, "f32", [tokens, heads, headDim], wave);
        const table = recorder.input(`table${parity}`, "f32", [tokens, 2, headDim / 2], wave);
        return () => recorder.record("rope", { x, table }, { interleaved: 0 });
      },
    },
    {
      ...common,
      op: "gated_mul",
      shape: `${feedForward}`,
      bytes: (tokens) => 3 * tokens * feedForward * F32_BYTES,
      operations: (tokens) => 16 * tokens * feedForward,
      record(recorder, parity) {
        const tokens = recorder.tokens(parity);
        const gateUp = recorder.input(`gate_up${parity}`, "f32", [tokens, 2 * feedForward], wave);
        const out = recorder.output(`out${parity}`, "f32", [tokens, feedForward]);
        return () => recorder.record("gated_mul", { out, gate_up: gateUp }, { activation: 0 });
      },
    },
  ];
}

export function embedCase(dtype: DType): KernelCase {
  const width = EMBED_WIDTH;
  const tableBytes = EMBED_ROWS * bytesOfElements(dtype, width);
  return {
    op: "embed",
    dtype,
    shape: `${EMBED_ROWS}x${width}`,
    tokens: [1, 512],
    source: "cache",
    streamedBytes: tableBytes,
    bytes: (tokens) => tokens * (bytesOfElements(dtype, width) + width * F32_BYTES),
    operations: (tokens) => tokens * width,
    arithmetic: "f32",
    repackable: false,
    record(recorder, parity) {
      const tokens = recorder.tokens(parity);
      const ids = recorder.input(`ids${parity}`, "i32", [tokens], scattered(EMBED_ROWS));
      const out = recorder.output(`out${parity}`, "f32", [tokens, width]);
      return (copy) => {
        const table = recorder.streamed("table", dtype, [EMBED_ROWS, width], copy);
        recorder.record("embed", { out, table, ids }, { scale: 1 });
      };
    },
  };
}
