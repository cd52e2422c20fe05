/**
 * What only a process of its own can tell, of either side: the time from its start to the first token, the time to
 * load, the most memory in use.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MistralError } from "../../../errors.ts";
import { PROJECT_ROOT } from "../../setup.ts";
import type { BenchReport } from "../report.ts";
import type { Peer, PeerOptions, Way } from "./peer.ts";

/** Tokens of the prompt whose first token is waited for, and as many words. */
const FIRST_PROMPT_TOKENS = 16;
const GENERATED_TOKENS = 16;

export interface ProcessFigures {
  readonly loadSeconds: number;
  readonly peakBytes: number;
}

/** A command line of ours, without program and model: flags that both commands below take. */
export interface OwnCommand {
  readonly path: string;
  readonly flags: readonly string[];
}

/** `bench` in a process of its own: one sequence, a prompt and some tokens behind it. */
export async function ownProcess(command: OwnCommand, promptTokens: number): Promise<ProcessFigures> {
  const once = ["--repetitions", "1", "--warmup", "0", "--json"];
  const lengths = ["--prompt-len", String(promptTokens), "--gen-len", String(GENERATED_TOKENS)];
  const child = start(["bench", ...lengths, ...once, ...modelFlags(command)]);
  const stdout = await finish(child, new Response(child.stdout).text());
  const { load_seconds, peak_rss_bytes } = JSON.parse(stdout) as BenchReport;
  return { loadSeconds: load_seconds, peakBytes: peak_rss_bytes };
}

/** The same of the other side. */
export async function peerProcess(
  peer: Peer,
  options: PeerOptions,
  { promptTokens, way }: { readonly promptTokens: number; readonly way: Way },
): Promise<ProcessFigures> {
  const contextLength = promptTokens + GENERATED_TOKENS + 1;
  const child = peer.start({ ...options, sequences: 1, contextLength });
  try {
    const { load_seconds } = await child.ready();
    const contextSeconds = await child.use(way);
    await child.prefill(promptTokens);
    await child.decode(GENERATED_TOKENS, promptTokens, 1);
    return { loadSeconds: load_seconds + contextSeconds, peakBytes: await child.peakBytes() };
  } finally {
    await child.close();
  }
}

/** Seconds from the start of `run -i` to its first output: interpreter, model, tokenizer, prompt and first token. */
export async function ownFirstToken(command: OwnCommand): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "bench-"));
  // Not every model has a template; words alone are a prompt of about as many tokens.
  const template = join(folder, "plain.jinja");
  writeFileSync(template, "{% for message in messages %}{{ message.content }}{% endfor %}");
  const words = Array.from({ length: FIRST_PROMPT_TOKENS }, () => "the").join(" ");
  try {
    const startedMs = performance.now();
    const question = ["-i", words, "--max-tokens", "1", "--temperature", "0", "--chat-template", template];
    const child = start(["run", ...question, ...modelFlags(command)]);
    let firstMs = Number.NaN;
    const output = (async () => {
      for await (const part of child.stdout)
        if (part.length > 0 && Number.isNaN(firstMs)) firstMs = performance.now();
      return "";
    })();
    await finish(child, output);
    if (Number.isNaN(firstMs)) throw new Error("`run` ended without a word");
    return (firstMs - startedMs) / 1000;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Seconds from the start of the process to the other side's first token: its library, the model, prompt and token. */
export async function peerFirstToken(peer: Peer, options: PeerOptions, way: Way): Promise<number> {
  const contextLength = 2 * FIRST_PROMPT_TOKENS;
  const child = peer.start({ ...options, sequences: 1, contextLength });
  try {
    await child.ready();
    await child.use(way);
    await child.first(FIRST_PROMPT_TOKENS);
    return (performance.now() - child.startedMs) / 1000;
  } finally {
    await child.close();
  }
}

function modelFlags({ path, flags }: OwnCommand): readonly string[] {
  return ["-f", path, ...flags];
}

type OwnChild = Bun.Subprocess<"ignore", "pipe", "pipe">;

function start(commandArguments: readonly string[]): OwnChild {
  return Bun.spawn([process.execPath, join(PROJECT_ROOT, "src/cli/start.ts"), ...commandArguments], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

async function finish(child: OwnChild, output: Promise<string>): Promise<string> {
  const [stdout, stderr, status] = await Promise.all([
    output,
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (status === 0) return stdout;
  throw new MistralError(
    "engine_failed",
    `a process of our own ended with status ${status}: ${stderr.trim().split("\n").at(-1)}`,
  );
}
