/** The other side in a process of its own: asked in lines, answers in JSON (`llama-peer.c`, `onnx/onnx-peer.c`). */

import { MistralError } from "../../../errors.ts";
import type { PeerName, Way } from "./peer.ts";

export interface PeerReady {
  readonly release: string;
  readonly load_seconds: number;
  /** The instructions it uses, where it tells. */
  readonly system: string;
}

export interface PeerTime {
  readonly seconds: number;
  /** Of all threads, what was not timed included. */
  readonly processor_seconds: number;
}

export class PeerProcess {
  readonly #name: PeerName;
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncGenerator<string>;
  readonly #stderr: Promise<string>;
  readonly startedMs = performance.now();

  constructor(name: PeerName, command: readonly string[]) {
    this.#name = name;
    this.#child = Bun.spawn([...command], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    this.#stderr = new Response(this.#child.stderr).text();
    this.#lines = linesOf(this.#child.stdout);
  }

  /** When the model is loaded; to be asked once, before anything else. */
  ready(): Promise<PeerReady> {
    return this.#answer();
  }

  /** Makes what follows go this way; seconds that it took to make room. */
  async use(way: Way): Promise<number> {
    if (way === undefined) return 0;
    const { seconds } = await this.#ask<PeerTime>(`flash ${way ? 1 : 0}`);
    return seconds;
  }

  /** Computes a prompt and chooses a token; answers without waiting for threads to rest. */
  async first(tokens: number): Promise<void> {
    await this.#ask(`first ${tokens}`);
  }

  prefill(tokens: number): Promise<PeerTime> {
    return this.#ask(`prefill ${tokens}`);
  }

  decode(steps: number, depth: number, sequences: number): Promise<PeerTime> {
    return this.#ask(`decode ${steps} ${depth} ${sequences}`);
  }

  /**
   * Logits behind the last of these tokens, of which the first `prompt` are computed as one and the others by and by in
   * so many sequences. Of ONNX Runtime, whose model we write.
   */
  async logits(tokens: readonly number[], prompt: number, sequences: number): Promise<readonly number[]> {
    const line = `logits ${prompt} ${sequences} ${tokens.join()}`;
    const { logits } = await this.#ask<{ readonly logits: readonly number[] }>(line);
    return logits;
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
      `--against ${this.#name}: it ended with ${signal === null ? `status ${status}` : signal}: ${reason || "it said nothing"}`,
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
