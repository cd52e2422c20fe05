/** The cases of matrix products: every type of weight, a few rows as in decode and many as in prefill. */

import { bytesOfElements, DTYPES, type DType } from "../../../backend/dtype.ts";
import { ACTIVATION_PRECISION_CODES } from "../../../graph/record.ts";
import { arithmeticOf } from "../machine-limits.ts";
import { wave } from "./fills.ts";
import { F32_BYTES, type KernelCase } from "./kernel-case.ts";

const DECODE_TOKENS = [1, 2, 4, 8] as const;
const PREFILL_TOKENS = [512] as const;

/** With a weight of `[n, k]`; none where k is not a whole number of the type's blocks. */
export function productCases(dtype: DType, [k, n]: readonly [number, number]): KernelCase[] {
  if (k % DTYPES[dtype].blockElements !== 0) return [];
  const weightBytes = n * bytesOfElements(dtype, k);
  const common = {
    op: "matmul",
    dtype,
    shape: `${k}x${n}`,
    streamedBytes: weightBytes,
    bytes: (tokens) => weightBytes + tokens * (k + n) * F32_BYTES,
    operations: (tokens) => 2 * tokens * k * n,
    arithmetic: arithmeticOf(dtype),
    repackable: true,
    record(recorder, parity) {
      const tokens = recorder.tokens(parity);
      const x = recorder.input(`x${parity}`, "f32", [tokens, k], wave);
      const out = recorder.output(`out${parity}`, "f32", [tokens, n]);
      const activations = ACTIVATION_PRECISION_CODES[recorder.builder.activations];
      return (copy) => {
        const weight0 = recorder.streamed("weight", dtype, [n, k], copy);
        recorder.record("matmul", { out, x, weight0 }, { activations });
      };
    },
  } as const satisfies Partial<KernelCase>;
  return [
    { ...common, tokens: DECODE_TOKENS, source: "memory" },
    // Hundreds of rows multiply each weight: where it came from is of no account.
    { ...common, tokens: PREFILL_TOKENS, source: "cache" },
  ];
}
