/**
 * Which instruction-set levels this processor can run. The kernel libraries are built once per level
 * (`build.zig`); a library of a level the processor lacks must never be loaded, it would die on its first
 * instruction. Imports nothing outside the runtime, so that set-up can use it too.
 */

import { readFileSync } from "node:fs";

export const INSTRUCTION_SETS = [
  "x86_64_v2",
  "x86_64_v3",
  "x86_64_v3_vnni",
  "x86_64_v4",
  "x86_64_v4_vnni",
  "x86_64_v4_amx",
  "arm64",
  "arm64_dotprod",
  "arm64_i8mm",
] as const;

export type InstructionSet = (typeof INSTRUCTION_SETS)[number];

interface Level {
  readonly name: InstructionSet;
  /** The level that it adds to. */
  readonly base: InstructionSet;
  /** As Linux names them in /proc/cpuinfo. */
  readonly flags: readonly string[];
}

/** From the least to the most demanding, but for v2, which every x86-64 is assumed to be. */
const X86_LEVELS: readonly Level[] = [
  {
    name: "x86_64_v3",
    base: "x86_64_v2",
    flags: ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"],
  },
  { name: "x86_64_v3_vnni", base: "x86_64_v3", flags: ["avx_vnni"] },
  {
    name: "x86_64_v4",
    base: "x86_64_v3",
    flags: ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
  },
  { name: "x86_64_v4_vnni", base: "x86_64_v4", flags: ["avx512_vnni", "avx512vbmi"] },
  { name: "x86_64_v4_amx", base: "x86_64_v4_vnni", flags: ["amx_tile", "amx_int8", "amx_bf16", "gfni"] },
];

const ARM_LEVELS: readonly Level[] = [
  { name: "arm64_dotprod", base: "arm64", flags: ["asimddp"] },
  { name: "arm64_i8mm", base: "arm64_dotprod", flags: ["i8mm"] },
];

/** The levels that an x86-64 processor with these flags runs, best first. */
export function x86LevelsOf(flags: ReadonlySet<string>): InstructionSet[] {
  return levelsOf("x86_64_v2", X86_LEVELS, flags);
}

/** The levels that an aarch64 processor with these flags runs, best first. */
export function armLevelsOf(flags: ReadonlySet<string>): InstructionSet[] {
  return levelsOf("arm64", ARM_LEVELS, flags);
}

function levelsOf(
  least: InstructionSet,
  further: readonly Level[],
  flags: ReadonlySet<string>,
): InstructionSet[] {
  const levels = [least];
  for (const { name, base, flags: needed } of further) {
    if (levels.includes(base) && needed.every((flag) => flags.has(flag))) levels.unshift(name);
  }
  return levels;
}

/** The levels this processor runs, best first. */
export function supportedInstructionSets(): InstructionSet[] {
  if (process.arch === "arm64") {
    return armLevelsOf(process.platform === "darwin" ? appleFlags() : linuxFlags());
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

/** By their Linux names. Every Apple processor has the dot product instructions, those since the M2 the matrix ones. */
function appleFlags(): ReadonlySet<string> {
  const name = "hw.optional.arm.FEAT_I8MM";
  // Systems that do not know the name yet exit with an error.
  const { stdout } = Bun.spawnSync(["/usr/sbin/sysctl", "-n", name], { stderr: "ignore" });
  return new Set(stdout.toString().trim() === "1" ? ["asimddp", "i8mm"] : ["asimddp"]);
}
