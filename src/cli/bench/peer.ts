/**
 * The same work done by llama.cpp: runs its `llama-bench` on the same file with the same threads, prompt and depth,
 * and puts its figures beside ours.
 */

import type { Settings } from "../../config/settings.ts";
import { MistralError } from "../../errors.ts";
import type { Log } from "../log.ts";
import type { LoaderOptions } from "../runner-options.ts";
import type { BenchReport } from "./report.ts";

export interface Peer {
  readonly program: string;
  /** GGUF file. */
  readonly path: string;
  readonly threads: number;
  readonly repetitions: number;
}

/** What llama-bench prints for a test; the rest of it is not needed. */
interface PeerResult {
  readonly n_prompt: number;
  readonly n_gen: number;
  readonly avg_ts: number;
  /** One speed per repetition. */
  readonly samples_ts?: readonly number[];
}

const NAME = "llama.cpp";

/** Throws MistralError("invalid_configuration") for work that llama-bench cannot do. */
export function openPeer({ peer, batch, repetitions }: Settings, { path, threads }: LoaderOptions): Peer {
  const refuse = (problem: string): never => {
    throw new MistralError("invalid_configuration", `--peer ${peer}: ${problem}`, { parameter: "--peer" });
  };
  const program = Bun.which(peer ?? "") ?? refuse("there is no such program");
  if (!path.endsWith(".gguf")) refuse(`it reads GGUF files, not ${path}`);
  if (batch !== 1) refuse(`it measures one sequence, not --batch ${batch}`);
  return { program, path, threads, repetitions };
}

/** The report with the peer's speeds. Prefill and decode are measured apart: decode at the depth that ours had. */
export async function withPeer(report: BenchReport, peer: Peer, log: Log): Promise<BenchReport> {
  const { depth, prompt_len: prompt, gen_len: generated } = report;
  log.write("info", `${NAME}: prompt of ${prompt} at depth ${depth}, then ${generated} tokens`);
  const prefill = await speedOf(peer, ["-p", prompt, "-n", 0, "-d", depth]);
  const decode = await speedOf(peer, ["-p", 0, "-n", generated, "-d", depth + prompt]);
  return { ...report, peer: { name: NAME, prefill_tokens_per_s: prefill, decode_tokens_per_s: decode } };
}

/** Tokens per second, the median of the repetitions. */
async function speedOf(peer: Peer, work: readonly (string | number)[]): Promise<number> {
  const flags = [
    "-m",
    peer.path,
    "-t",
    peer.threads,
    "-r",
    peer.repetitions,
    "-ngl",
    0,
    "-o",
    "json",
    ...work,
  ];
  const child = Bun.spawn([peer.program, ...flags.map(String)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const [result] = status === 0 ? parseResults(stdout) : [];
  if (result === undefined) {
    const reason = stderr.trim().split("\n").at(-1) ?? "";
    throw new MistralError(
      "invalid_configuration",
      `--peer ${peer.program} ended with status ${status}: ${reason}`,
      {
        parameter: "--peer",
      },
    );
  }
  const speeds = [...(result.samples_ts ?? [result.avg_ts])].sort((a, b) => a - b);
  const middle = speeds.length / 2;
  const median = (speeds[Math.ceil(middle) - 1]! + speeds[Math.floor(middle)]!) / 2;
  return Number(median.toFixed(2));
}

function parseResults(text: string): readonly PeerResult[] {
  try {
    return JSON.parse(text) as PeerResult[];
  } catch {
    return [];
  }
}
