/** Variables that the building of kernels reads, which the first start does too. */

import type { SettingDeclaration } from "../types.ts";
import { FALSY, LOADING, NO_CUDA, NO_METAL } from "./common.ts";

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
    notBuilt: NO_CUDA,
  },
  nvccFlags: {
    environment: ["CUDA_NVCC_FLAGS"],
    type: { kind: "text" },
    unsetText: "none",
    description: "Further flags for nvcc",
    group: "Build",
    commands: BUILDING,
    notBuilt: NO_CUDA,
  },
  cudaComputeCapability: {
    environment: ["CUDA_COMPUTE_CAP"],
    type: { kind: "integer", min: 50, max: 130 },
    unsetText: "that of the device in this machine",
    description: "Compute capability to compile for, such as 80 or 90",
    group: "Build",
    commands: BUILDING,
    notBuilt: NO_CUDA,
  },
} as const satisfies Record<string, SettingDeclaration>;
