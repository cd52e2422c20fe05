/** The other side of a comparison: an engine that is installed when it is first asked for and runs in a process. */

import type { KvCacheType } from "../../../models/step-limits.ts";
import type { PeerProcess } from "./peer-process.ts";

export type PeerName = "llama.cpp" | "onnxruntime";

/** One of the ways in which an engine does the same work: with flash attention or without, where it can choose. */
export type Way = boolean | undefined;

export interface PeerOptions {
  /** GGUF file. */
  readonly path: string;
  readonly threads: number;
  /** Sequences that there is room for, and tokens of each. */
  readonly sequences: number;
  readonly contextLength: number;
  /** One of the types that engines have in common. */
  readonly kvCacheType: Exclude<KvCacheType, "f8e4m3">;
}

export interface Peer {
  readonly name: PeerName;
  /** What was installed: `@node-llama-cpp/linux-x64 3.22.1`. */
  readonly package: string;
  /** How it does the work, in words for the table. */
  readonly manner: string;
  readonly ways: readonly Way[];
  start(options: PeerOptions): PeerProcess;
}
