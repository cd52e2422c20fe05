/** Names of the GGML types that we do not read, so that an error can say what a file holds (ggml.h, `ggml_type`). */

const UNREAD_TYPES: Readonly<Record<number, string>> = {
  4: "Q4_2 (removed from GGML)",
  5: "Q4_3 (removed from GGML)",
  9: "Q8_1",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  31: "Q4_0_4_4 (removed from GGML)",
  32: "Q4_0_4_8 (removed from GGML)",
  33: "Q4_0_8_8 (removed from GGML)",
  34: "TQ1_0",
  35: "TQ2_0",
  40: "NVFP4",
};

/** A name for a GGML type number that `dtypeOfCode` does not know. */
export function ggmlTypeName(code: number): string {
  return UNREAD_TYPES[code] ?? "an unknown type";
}
