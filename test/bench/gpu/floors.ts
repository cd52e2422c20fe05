/**
 * What the device can do at best, measured with the makers' own code: copies by the driver, products of bf16 by
 * cuBLAS where it can be found. The bounds that speeds are judged by.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const { i32, u32, u64, u64_fast, ptr: pointer } = FFIType;

const DRIVER_SYMBOLS = {
  cuInit: { args: [u32], returns: i32 },
  cuDevicePrimaryCtxRetain: { args: [pointer, i32], returns: i32 },
  cuDevicePrimaryCtxRelease_v2: { args: [i32], returns: i32 },
  cuCtxSetCurrent: { args: [u64], returns: i32 },
  cuCtxSynchronize: { args: [], returns: i32 },
  cuMemAlloc_v2: { args: [pointer, u64_fast], returns: i32 },
  cuMemFree_v2: { args: [u64], returns: i32 },
  cuMemcpyDtoDAsync_v2: { args: [u64, u64, u64_fast, u64_fast], returns: i32 },
} as const;

const CUBLAS_SYMBOLS = {
  cublasCreate_v2: { args: [pointer], returns: i32 },
  cublasDestroy_v2: { args: [u64], returns: i32 },
  cublasGemmEx: {
    args: [
      ...[u64, i32, i32, i32, i32, i32, pointer],
      ...[u64, i32, i32, u64, i32, i32, pointer, u64, i32, i32, i32, i32],
    ],
    returns: i32,
  },
} as const;

export interface Floors {
  /** Bytes per second that a copy reads and writes together. */
  readonly bytesPerSecond: number;
  /** Multiplications and additions of bf16 per second; null where there is no cuBLAS that works. */
  readonly operationsPerSecond: number | null;
}

export interface FloorOptions {
  readonly copyBytes: number;
  /** Rows and columns of the matrices that are multiplied. */
  readonly size: number;
  readonly repetitions: number;
}

/** Measures on device 0. Throws where the driver does. */
export function measureFloors(options: FloorOptions): Floors {
  const path = process.env.MISTRALRS_CUDA_DRIVER || "libcuda.so.1";
  const { symbols: driver } = dlopen(path, DRIVER_SYMBOLS);
  const out = new BigUint64Array(1);
  const must = (what: string, status: number): void => {
    if (status !== 0) throw new Error(`${what} failed with status ${status}`);
  };
  must("cuInit", driver.cuInit(0));
  must("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(ptr(out), 0));
  must("cuCtxSetCurrent", driver.cuCtxSetCurrent(out[0]!));
  const memories: bigint[] = [];
  const allocate = (bytes: number): bigint => {
    must("cuMemAlloc", driver.cuMemAlloc_v2(ptr(out), bytes));
    memories.push(out[0]!);
    return out[0]!;
  };
  /** The best time of a run, in seconds. */
  const best = (run: () => number): number => {
    let seconds = Number.POSITIVE_INFINITY;
    for (let repetition = 0; repetition <= options.repetitions; repetition++) {
      const startMs = performance.now();
      must("a measured call", run());
      must("cuCtxSynchronize", driver.cuCtxSynchronize());
      if (repetition > 0) seconds = Math.min(seconds, (performance.now() - startMs) / 1000);
    }
    return seconds;
  };
  try {
    const { copyBytes, size } = options;
    const source = allocate(copyBytes);
    const target = allocate(copyBytes);
    const copy = best(() => driver.cuMemcpyDtoDAsync_v2(target, source, copyBytes, 0));
    const gemm = openCublas();
    let operationsPerSecond: number | null = null;
    if (gemm !== null && gemm.cublasCreate_v2(ptr(out)) === 0) {
      const handle = out[0]!;
      const [a, b, c] = [allocate(size * size * 2), allocate(size * size * 2), allocate(size * size * 2)];
      const one = Float32Array.of(1);
      const zero = Float32Array.of(0);
      const BF16 = 14;
      const COMPUTE_F32 = 68;
      const ALGORITHM_DEFAULT = -1;
      const seconds = best(() =>
        gemm.cublasGemmEx(
          ...([handle, 1, 0, size, size, size, ptr(one)] as const),
          ...([
            a!,
            BF16,
            size,
            b!,
            BF16,
            size,
            ptr(zero),
            c!,
            BF16,
            size,
            COMPUTE_F32,
            ALGORITHM_DEFAULT,
          ] as const),
        ),
      );
      gemm.cublasDestroy_v2(handle);
      operationsPerSecond = (2 * size ** 3) / seconds;
    }
    return { bytesPerSecond: (2 * copyBytes) / copy, operationsPerSecond };
  } finally {
    for (const memory of memories) driver.cuMemFree_v2(memory);
    driver.cuDevicePrimaryCtxRelease_v2(0);
  }
}

const TOOLKIT = "/usr/local/cuda/lib64";

/** The system's cuBLAS, that of a toolkit, or the one that came with PyTorch. */
function openCublas(): ReturnType<typeof dlopen<typeof CUBLAS_SYMBOLS>>["symbols"] | null {
  const names = ["libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"];
  const folders = ["", TOOLKIT, ...packageFolders()];
  for (const folder of folders) {
    for (const name of names) {
      try {
        return dlopen(folder === "" ? name : join(folder, name), CUBLAS_SYMBOLS).symbols;
      } catch {
        // Not there: the next place.
      }
    }
  }
  return null;
}

/** cuBLASLt of a toolkit, or that which came with PyTorch: places where the kernels' library does not look itself. */
export function findCublasLt(): string | undefined {
  const names = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"];
  return [TOOLKIT, ...packageFolders()]
    .flatMap((folder) => names.map((name) => join(folder, name)))
    .find((path) => existsSync(path));
}

function packageFolders(): string[] {
  const script = "import nvidia; print('\\n'.join(nvidia.__path__))";
  const { exitCode, stdout } = Bun.spawnSync(["python3", "-c", script], { stderr: "ignore" });
  if (exitCode !== 0) return [];
  return stdout
    .toString()
    .trim()
    .split("\n")
    .flatMap((root) => {
      try {
        return readdirSync(root).map((part) => join(root, part, "lib"));
      } catch {
        return [];
      }
    });
}

if (import.meta.main) {
  const [copyBytes, size, repetitions] = process.argv.slice(2).map(Number) as [number, number, number];
  process.stdout.write(JSON.stringify(measureFloors({ copyBytes, size, repetitions })));
}
