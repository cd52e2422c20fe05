/**
 * What other engines need here: an npm package in a cache of ours, without running its scripts, and a program of a C
 * file beside this one, compiled with the Zig compiler that builds the kernels.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { MistralError } from "../../../errors.ts";
import { ownCacheFolder } from "../../../weights/cache-paths.ts";
import { zigExecutable } from "../../setup/kernels.ts";
import { withLock } from "../../setup/lock.ts";
import { type SetupOutput, SetupStep } from "../../setup/report.ts";
import { runTool } from "../../setup/tool.ts";
import { PROJECT_ROOT } from "../../setup.ts";
import { formatBytes } from "../../units.ts";

export interface PeerPackage {
  /** For people: `llama.cpp`. */
  readonly title: string;
  readonly packageName: string;
  readonly version: string;
  /** Of the cache. */
  readonly folder: string;
  /** The C file of the program that drives it. */
  readonly source: string;
  /** The library in the folder that the packages are installed into; undefined while it is not there. */
  readonly findLibrary: (modules: string) => string | undefined;
}

export interface InstalledPackage {
  /** `@node-llama-cpp/linux-x64 3.22.1` */
  readonly name: string;
  /** The program that measures. */
  readonly program: string;
  readonly library: string;
}

/**
 * Installs what is missing; a second call only looks. Throws MistralError: `network` when the package cannot be had,
 * `backend` when the program cannot be compiled.
 */
export async function installPackage(wanted: PeerPackage, output: SetupOutput): Promise<InstalledPackage> {
  const { title, packageName, version } = wanted;
  const folder = join(ownCacheFolder(process.env), wanted.folder);
  const modules = join(folder, "node_modules");
  const waits = (): void => void output.write(`setup  another process installs ${title}; waiting for it\n`);
  return withLock(join(folder, ".lock"), waits, async () => {
    if (wanted.findLibrary(modules) === undefined) await install(folder, wanted, output);
    const library = wanted.findLibrary(modules);
    if (library === undefined) {
      throw new MistralError(
        "network",
        `${packageName} ${version} has no library for this machine in ${modules}; delete ${folder} and run the command again`,
      );
    }
    return { name: `${packageName} ${version}`, program: await compile(folder, wanted, output), library };
  });
}

async function install(
  folder: string,
  { title, packageName, version }: PeerPackage,
  output: SetupOutput,
): Promise<void> {
  const manifest = {
    name: `${basename(folder)}-peer`,
    private: true,
    dependencies: { [packageName]: version },
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  const modules = join(folder, "node_modules");
  const step = new SetupStep(output, title, `installing ${packageName} ${version} into ${folder}`, () =>
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
    `${packageName} ${version} could not be installed: \`bun install\` ended with status ${status}:\n  ${lines.slice(-5).join("\n  ")}\nCheck that this machine reaches the npm registry (HTTPS_PROXY behind a proxy, NPM_CONFIG_REGISTRY or .npmrc for a mirror), then run the command again.`,
  );
}

/** The program of this source; one of an older source stays beside it. */
async function compile(folder: string, { title, source }: PeerPackage, output: SetupOutput): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256").update(readFileSync(source)).digest("hex").slice(0, 16);
  const program = join(folder, `${basename(source, ".c")}-${hash}`);
  if (existsSync(program)) return program;
  const step = new SetupStep(output, title, "compiling the program that measures it", () => "compiling");
  // The compiler's own cache: the working directory is somebody else's.
  const environment = ["env", `ZIG_LOCAL_CACHE_DIR=${join(folder, ".zig-cache")}`];
  const compiler = [zigExecutable(PROJECT_ROOT), "cc", "-O3", source, "-o", program];
  const { status, stdout, stderr } = await runTool([...environment, ...compiler], folder);
  if (status === 0 && existsSync(program)) {
    step.done(`${formatBytes(statSync(program).size)}`);
    return program;
  }
  step.fail("compilation failed");
  throw new MistralError("backend", `${source} could not be compiled:\n${stdout}${stderr}`);
}

function folderBytes(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
}
