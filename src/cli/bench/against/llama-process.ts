/** llama.cpp in a process of its own: asked in lines, answers in JSON (`llama-peer.c`). */

import { DTYPES } from "../../../backend/dtype.ts";
import { MistralError } from "../../../errors.ts";
import type { KvCacheType } from "../../../models/step-limits.ts";
import type { LlamaPackage } from "./llama-package.ts";

export interface LlamaOptions {
  /** GGUF file. */
  readonly path: string;
  readonly threads: number;
  /** Sequences that there is room for, and tokens of each. */
  readonly sequences: number;
  readonly contextLength: number;
  readonly kvCacheType: KvCacheType;
}

export interface LlamaReady {
  readonly release: string;
  readonly load_seconds: number;
  /** The instructions it uses. */
  readonly system: string;
}

export interface LlamaTime {
  readonly seconds: number;
  /** Of all threads, what was not timed included. */
  readonly processor_seconds: number;
}

export class LlamaProcess {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncGenerator<string>;
  readonly #stderr: Promise<string>;
  readonly startedMs = performance.now();

  constructor({ program, library, backends }: LlamaPackage, options: LlamaOptions) {
    const { path, threads, sequences, contextLength, kvCacheType } = options;
    const numbers = [threads, sequences, contextLength, DTYPES[kvCacheType].code].map(String);
    this.#child = Bun.spawn([program, library, backends, path, ...numbers], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#stderr = new Response(this.#child.stderr).text();
    this.#lines = linesOf(this.#child.stdout);
  }

  /** When the model is loaded; to be asked once, before anything else. */
  ready(): Promise<LlamaReady> {
    return this.#answer();
  }

  /** Makes what follows use flash attention or not; seconds that it took to make room. */
  async useFlashAttention(flash: boolean): Promise<number> {
    const { seconds } = await this.#ask<LlamaTime>(`flash ${flash ? 1 : 0}`);
    return seconds;
  }

  /** Computes a prompt and chooses a token; answers without waiting for threads to rest. */
  async first(tokens: number): Promise<void> {
    await this.#ask(`first ${tokens}`);
  }

  prefill(tokens: number): Promise<LlamaTime> {
    return this.#ask(`prefill ${tokens}`);
  }

  decode(steps: number, depth: number, sequences: number): Promise<LlamaTime> {
    return this.#ask(`decode ${steps} ${depth} ${sequences}`);
  }

  async peakBytes(): Promise<number> {
    const { peak_bytes } = await this.#ask<{ readonly peak_bytes: number }>("memory");
    return peak_bytes;
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    await this.#child.exited;
  }

  #ask<T>(line: string): Promise<T> {
    this.#child.stdin.write(`${line}\n`);
    this.#child.stdin.flush();
    return this.#answer();
  }

  async #answer<T>(): Promise<T> {
    const { value, done } = await this.#lines.next();
    if (done !== true) return JSON.parse(value) as T;
    const [status, stderr] = await Promise.all([this.#child.exited, this.#stderr]);
    const reason = stderr.trim().split("\n").slice(-3).join("; ");
    const signal = this.#child.signalCode;
    throw new MistralError(
      "invalid_configuration",
      `--against llama.cpp: it ended with ${signal === null ? `status ${status}` : signal}: ${reason || "it said nothing"}`,
      { parameter: "--against" },
    );
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const part of stream) {
    rest += decoder.decode(part, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
