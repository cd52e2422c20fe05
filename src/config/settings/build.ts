/** Variables that the building of kernels reads, which the first start does too. */

import type { SettingDeclaration } from "../types.ts";
import { FALSY, LOADING, NO_METAL } from "./common.ts";

/** What `kernels/cuda/build.zig` accepts. */
const CAPABILITIES =
  /^ *(7\.?5|[89]\.?\d|1[01]\.?\d|12\.?[01]) *(, *(7\.?5|[89]\.?\d|1[01]\.?\d|12\.?[01]) *)*$/;

const BUILDING = ["build", ...LOADING] as const;

export const BUILD_SETTINGS = {
  metalPrecompile: {
    environment: ["MISTRALRS_METAL_PRECOMPILE"],
    type: { kind: "switch", on: { except: FALSY } },
    default: true,
    description: "Compile Metal kernels when building instead of at their first use",
    group: "Build",
    commands: BUILDING,
    notBuilt: NO_METAL,
  },
  metalPlatforms: {
    environment: ["MISTRALRS_METAL_PLATFORMS"],
    type: {
      kind: "text",
      pattern: /^(macos|ios|tvos|all)(,(macos|ios|tvos|all))*$/,
      words: "macos, ios, tvos and all, separated by commas",
    },
    unsetText: "all",
    description: "Systems for which Metal kernels are compiled",
    group: "Build",
    commands: BUILDING,
    notBuilt: NO_METAL,
  },
  nvccHostCompiler: {
    environment: ["NVCC_CCBIN"],
    type: { kind: "text" },
    unsetText: "nvcc's own choice",
    description: "Host compiler that nvcc uses",
    group: "Build",
    commands: BUILDING,
  },
  nvccFlags: {
    environment: ["CUDA_NVCC_FLAGS"],
    type: { kind: "text" },
    unsetText: "none",
    description: "Further flags for nvcc",
    group: "Build",
    commands: BUILDING,
  },
  cudaComputeCapability: {
    environment: ["CUDA_COMPUTE_CAP"],
    type: {
      kind: "text",
      pattern: CAPABILITIES,
      words: "compute capabilities from 7.5 to 12.1, as 89 or 8.9, separated by commas",
    },
    unsetText: "8.0, 8.6, 8.9 and 9.0, and what the driver makes of 7.5 for others",
    description: "Compute capabilities that nvcc compiles for",
    group: "Build",
    commands: BUILDING,
  },
} as const satisfies Record<string, SettingDeclaration>;
