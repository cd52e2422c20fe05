/**
 * ONNX Runtime as `onnxruntime-node` ships it, of which the library alone is used, through its C interface
 * (`onnx-peer.c`). It computes a graph that is made of the file's configuration and weights.
 */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../../../../errors.ts";
import { ownCacheFolder } from "../../../../weights/cache-paths.ts";
import type { Checkpoint } from "../../../../weights/types.ts";
import type { SetupOutput } from "../../../setup/report.ts";
import { formatBytes } from "../../../units.ts";
import type { Peer } from "../peer.ts";
import { type InstalledPackage, installPackage } from "../peer-package.ts";
import { PeerProcess } from "../peer-process.ts";
import { type OnnxModel, type OnnxModelOptions, onnxModelOf } from "./onnx-model.ts";

const PACKAGE = "onnxruntime-node";
const VERSION = "1.30.0";
/** The package holds the libraries of these, by `process.platform` and `process.arch`. */
const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-arm64"];

/**
 * Installs what is missing; a second call only looks. Throws MistralError: `network` when the package cannot be had,
 * `backend` when the program cannot be compiled, `invalid_configuration` where there is no such library.
 */
export async function installOnnxRuntime(output: SetupOutput = process.stderr): Promise<InstalledPackage> {
  const platform = `${process.platform}-${process.arch}`;
  if (!PLATFORMS.includes(platform)) {
    throw new MistralError(
      "invalid_configuration",
      `--against onnxruntime: there is no build of it for ${platform}; there is for ${PLATFORMS.join(", ")}`,
      { parameter: "--against" },
    );
  }
  const wanted = {
    title: "ONNX Runtime",
    packageName: PACKAGE,
    version: VERSION,
    folder: `${PACKAGE}-${VERSION}`,
    source: join(import.meta.dir, "onnx-peer.c"),
    findLibrary: (modules: string) =>
      findLibrary(join(modules, PACKAGE, "bin", "napi-v6", ...platform.split("-"))),
  };
  return installPackage(wanted, output);
}

function findLibrary(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const name = readdirSync(folder).find((file) => /^libonnxruntime\.(so\.\d+|\d+\.dylib)$/.test(file));
  return name === undefined ? undefined : join(folder, name);
}

export type OnnxPeerOptions = Pick<OnnxModelOptions, "threads"> & Partial<OnnxModelOptions>;

/** ONNX Runtime with the model of this checkpoint, which is written into the cache where it is not there yet. */
export async function onnxPeer(
  checkpoint: Checkpoint,
  { output = process.stderr, cache = join(ownCacheFolder(process.env), "onnx"), ...options }: OnnxPeerOptions,
): Promise<Peer> {
  const installed = await installOnnxRuntime(output);
  return peerOf(installed, await onnxModelOf(checkpoint, { ...options, output, cache }));
}

function peerOf({ name, program, library }: InstalledPackage, model: OnnxModel): Peer {
  const { layers, keyValueHeads, headDim, vocabularySize } = model.config;
  return {
    name: "onnxruntime",
    package: name,
    manner: `int4 weights made of the file's, ${formatBytes(model.weightBytes)}, 8-bit activations, KV cache f32`,
    ways: [undefined],
    start: ({ threads, sequences, contextLength }) => {
      if (contextLength > model.positions) {
        throw new MistralError(
          "invalid_configuration",
          `--against onnxruntime: ${contextLength} tokens of context; its graph has ${model.positions} positions`,
          { parameter: "--depth" },
        );
      }
      const numbers = [
        threads,
        sequences,
        contextLength,
        layers.length,
        keyValueHeads,
        headDim,
        vocabularySize,
      ];
      return new PeerProcess("onnxruntime", [program, library, model.path, ...numbers.map(String)]);
    },
  };
}
