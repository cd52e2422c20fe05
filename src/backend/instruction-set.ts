/**
 * Which instruction-set levels this processor can run. The kernel libraries are built once per level
 * (`build.zig`); a library of a level the processor lacks must never be loaded, it would die on its first
 * instruction. Imports nothing outside the runtime, so that set-up can use it too.
 */

import { readFileSync } from "node:fs";

export const INSTRUCTION_SETS = [
  "x86_64_v2",
  "x86_64_v3",
  "x86_64_v4",
  "x86_64_v4_vnni",
  "x86_64_v4_amx",
  "arm64",
  "arm64_dotprod",
] as const;

export type InstructionSet = (typeof INSTRUCTION_SETS)[number];

/** Flags as Linux names them in /proc/cpuinfo; each level needs those of the one before it too. */
const X86_LEVELS: readonly (readonly [InstructionSet, readonly string[]])[] = [
  ["x86_64_v2", ["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"]],
  ["x86_64_v3", ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]],
  ["x86_64_v4", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]],
  ["x86_64_v4_vnni", ["avx512_vnni", "avx512vbmi"]],
  ["x86_64_v4_amx", ["amx_tile", "amx_int8"]],
];

/** The levels that a processor with these flags runs, best first. Every x86-64 is assumed to be a v2. */
export function x86LevelsOf(flags: ReadonlySet<string>): InstructionSet[] {
  const levels: InstructionSet[] = ["x86_64_v2"];
  for (const [level, needed] of X86_LEVELS.slice(1)) {
    if (!needed.every((flag) => flags.has(flag))) break;
    levels.unshift(level);
  }
  return levels;
}

/** The levels this processor runs, best first. */
export function supportedInstructionSets(): InstructionSet[] {
  if (process.arch === "arm64") {
    // Every Apple processor has the dot product instructions.
    const hasDotProduct = process.platform === "darwin" || linuxFlags().has("asimddp");
    return hasDotProduct ? ["arm64_dotprod", "arm64"] : ["arm64"];
  }
  if (process.arch === "x64" && process.platform === "linux") return x86LevelsOf(linuxFlags());
  // An Intel Mac: all that run a current system have AVX2, none has the AVX-512 extensions we use.
  if (process.arch === "x64") return ["x86_64_v3", "x86_64_v2"];
  return [];
}

function linuxFlags(): ReadonlySet<string> {
  const text = readFileSync("/proc/cpuinfo", "utf8");
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? "";
  return new Set(line.split(/\s+/));
}
