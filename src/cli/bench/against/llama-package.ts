/**
 * llama.cpp as `node-llama-cpp` ships it, installed when it is first asked for into a cache of ours: the package of
 * this platform alone, which is the library and nothing else. Its C interface is driven by `llama-peer.c`, compiled
 * here with the Zig compiler that builds the kernels.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../../../errors.ts";
import { ownCacheFolder } from "../../../weights/cache-paths.ts";
import { zigExecutable } from "../../setup/kernels.ts";
import { withLock } from "../../setup/lock.ts";
import { type SetupOutput, SetupStep } from "../../setup/report.ts";
import { runTool } from "../../setup/tool.ts";
import { PROJECT_ROOT } from "../../setup.ts";
import { formatBytes } from "../../units.ts";

/** The structs that `llama-peer.c` declares are those of the llama.cpp in this release. */
const VERSION = "3.22.1";
const SOURCE = join(import.meta.dir, "llama-peer.c");

/** By `process.platform` and `process.arch`. */
const PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-arm64": "mac-arm64-metal",
  "darwin-x64": "mac-x64",
};

export interface LlamaPackage {
  /** `@node-llama-cpp/linux-x64 3.22.1` */
  readonly name: string;
  /** The program that measures. */
  readonly program: string;
  /** libllama. */
  readonly library: string;
  /** The folder with the processor's backends. */
  readonly backends: string;
}

/**
 * Installs what is missing; a second call only looks. Throws MistralError: `network` when the package cannot be had,
 * `backend` when the program cannot be compiled, `invalid_configuration` where there is no such package.
 */
export async function installLlama(output: SetupOutput = process.stderr): Promise<LlamaPackage> {
  const platform = `${process.platform}-${process.arch}`;
  const name = PACKAGES[platform];
  if (name === undefined) {
    throw new MistralError(
      "invalid_configuration",
      `--against llama.cpp: there is no build of it for ${platform}; there is for ${Object.keys(PACKAGES).join(", ")}`,
      { parameter: "--against" },
    );
  }
  const folder = join(ownCacheFolder(process.env), `node-llama-cpp-${VERSION}`);
  const backends = join(folder, "node_modules", "@node-llama-cpp", name, "bins", name);
  const waits = (): void => void output.write("setup  another process installs llama.cpp; waiting for it\n");
  return withLock(join(folder, ".lock"), waits, async () => {
    const packageName = `@node-llama-cpp/${name}`;
    if (findLibrary(backends) === undefined) await install(folder, packageName, output);
    const library = findLibrary(backends);
    if (library === undefined) {
      throw new MistralError(
        "network",
        `${packageName} ${VERSION} has no libllama in ${backends}; delete ${folder} and run the command again`,
      );
    }
    const program = await compile(folder, output);
    return { name: `${packageName} ${VERSION}`, program, library, backends };
  });
}

function findLibrary(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const name = readdirSync(folder).find((file) => /^libllama\b(?!-common).*\.(so|dylib)$/.test(file));
  return name === undefined ? undefined : join(folder, name);
}

async function install(folder: string, packageName: string, output: SetupOutput): Promise<void> {
  const manifest = { name: "llama-cpp-peer", private: true, dependencies: { [packageName]: VERSION } };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  const modules = join(folder, "node_modules");
  const step = new SetupStep(output, "llama.cpp", `installing ${packageName} ${VERSION} into ${folder}`, () =>
    formatBytes(folderBytes(modules)),
  );
  // No scripts: what the package holds is all that is wanted of it.
  const command = [process.execPath, "install", "--ignore-scripts", "--no-progress"];
  const { status, stdout, stderr } = await runTool(command, folder);
  if (status === 0) return step.done(`${formatBytes(folderBytes(modules))} in place`);
  step.fail("installation failed");
  const lines = `${stdout}${stderr}`.split("\n").filter((line) => line.trim() !== "");
  throw new MistralError(
    "network",
    `${packageName} ${VERSION} could not be installed: \`bun install\` ended with status ${status}:\n  ${lines.slice(-5).join("\n  ")}\nCheck that this machine reaches the npm registry (HTTPS_PROXY behind a proxy, NPM_CONFIG_REGISTRY or .npmrc for a mirror), then run the command again.`,
  );
}

/** The program of this source; one of an older source stays beside it. */
async function compile(folder: string, output: SetupOutput): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256").update(readFileSync(SOURCE)).digest("hex").slice(0, 16);
  const program = join(folder, `llama-peer-${hash}`);
  if (existsSync(program)) return program;
  const step = new SetupStep(
    output,
    "llama.cpp",
    "compiling the program that measures it",
    () => "compiling",
  );
  // The compiler's own cache: the working directory is somebody else's.
  const environment = ["env", `ZIG_LOCAL_CACHE_DIR=${join(folder, ".zig-cache")}`];
  const compiler = [zigExecutable(PROJECT_ROOT), "cc", "-O3", SOURCE, "-o", program];
  const { status, stdout, stderr } = await runTool([...environment, ...compiler], folder);
  if (status === 0 && existsSync(program)) {
    step.done(`${formatBytes(statSync(program).size)}`);
    return program;
  }
  step.fail("compilation failed");
  throw new MistralError("backend", `${SOURCE} could not be compiled:\n${stdout}${stderr}`);
}

function folderBytes(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
}
