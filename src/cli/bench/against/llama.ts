/**
 * llama.cpp as `node-llama-cpp` ships it: the package of this platform alone, which is the library and nothing else.
 * Its C interface is driven by `llama-peer.c`.
 */

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { DTYPES } from "../../../backend/dtype.ts";
import { MistralError } from "../../../errors.ts";
import type { SetupOutput } from "../../setup/report.ts";
import type { Peer } from "./peer.ts";
import { type InstalledPackage, installPackage } from "./peer-package.ts";
import { PeerProcess } from "./peer-process.ts";

/** The structs that `llama-peer.c` declares are those of the llama.cpp in this release. */
const VERSION = "3.22.1";

/** By `process.platform` and `process.arch`. */
const PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "linux-x64",
  "linux-arm64": "linux-arm64",
  "darwin-arm64": "mac-arm64-metal",
  "darwin-x64": "mac-x64",
};

/**
 * Installs what is missing; a second call only looks. Throws MistralError: `network` when the package cannot be had,
 * `backend` when the program cannot be compiled, `invalid_configuration` where there is no such package.
 */
export async function installLlama(output: SetupOutput = process.stderr): Promise<Peer> {
  const platform = `${process.platform}-${process.arch}`;
  const name = PACKAGES[platform];
  if (name === undefined) {
    throw new MistralError(
      "invalid_configuration",
      `--against llama.cpp: there is no build of it for ${platform}; there is for ${Object.keys(PACKAGES).join(", ")}`,
      { parameter: "--against" },
    );
  }
  const installed = await installPackage(
    {
      title: "llama.cpp",
      packageName: `@node-llama-cpp/${name}`,
      version: VERSION,
      folder: `node-llama-cpp-${VERSION}`,
      source: join(import.meta.dir, "llama-peer.c"),
      findLibrary: (modules) => findLibrary(join(modules, "@node-llama-cpp", name, "bins", name)),
    },
    output,
  );
  return llamaPeer(installed);
}

/** llama.cpp through a library; the processor's backends lie beside it. */
export function llamaPeer({ name, program, library }: InstalledPackage): Peer {
  return {
    name: "llama.cpp",
    package: name,
    manner: "the better of flash attention on and off",
    ways: [true, false],
    start: ({ path, threads, sequences, contextLength, kvCacheType }) => {
      const numbers = [threads, sequences, contextLength, DTYPES[kvCacheType].code].map(String);
      return new PeerProcess("llama.cpp", [program, library, dirname(library), path, ...numbers]);
    },
  };
}

function findLibrary(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const name = readdirSync(folder).find((file) => /^libllama\b(?!-common).*\.(so|dylib)$/.test(file));
  return name === undefined ? undefined : join(folder, name);
}
