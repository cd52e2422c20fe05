/** Load for a live server process, and what its metrics say afterwards. Everything stays on the loopback address. */

import { childrenOf } from "../cli/processes.ts";

export interface Answer {
  readonly status: number;
  readonly retryAfter: string | null;
  readonly body: string;
}

export async function complete(
  url: string,
  body: Record<string, unknown>,
  signal?: AbortSignal,
): Promise<Answer> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Hello", ignore_eos: true, temperature: 0, ...body }),
    ...(signal === undefined ? {} : { signal }),
  });
  return {
    status: response.status,
    retryAfter: response.headers.get("retry-after"),
    body: await response.text(),
  };
}

/** A stream that is read as it comes. */
export class LiveStream {
  text = "";
  ended = false;
  endedAtMs = 0;
  readonly done: Promise<void>;

  constructor(url: string, body: Record<string, unknown>) {
    this.done = this.#read(url, body);
  }

  /** Waits until the answer has begun. */
  async begun(): Promise<void> {
    while (!this.text.includes("data: ") && !this.ended) await Bun.sleep(1);
    if (this.ended) throw new Error(`the stream ended before it began: ${this.text}`);
  }

  /** The words of its answer. */
  get answer(): string {
    const chunks = this.text.split("\n\n").filter((event) => event.startsWith("data: {"));
    return chunks.map((event) => JSON.parse(event.slice(6)).choices?.[0]?.text ?? "").join("");
  }

  get error(): { code: string; message: string } | undefined {
    const event = this.text.split("\n\n").find((each) => each.startsWith('data: {"error"'));
    return event === undefined ? undefined : JSON.parse(event.slice(6)).error;
  }

  async #read(url: string, body: Record<string, unknown>): Promise<void> {
    try {
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "Hello", ignore_eos: true, temperature: 0, stream: true, ...body }),
      });
      for await (const part of response.body!.pipeThrough(new TextDecoderStream())) this.text += part;
    } catch {
      // The server is gone; what it said until then is in `text`.
    } finally {
      this.ended = true;
      this.endedAtMs = performance.now();
    }
  }
}

export async function metricsOf(url: string): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

/** Figures that must be nothing when nobody is there. */
export const IDLE = {
  mistralrs_sequences_running: 0,
  mistralrs_sequences_waiting: 0,
  mistralrs_requests_pending_admission: 0,
  mistralrs_kv_cache_blocks_used: 0,
} as const;

/** Waits until the engine has nothing to do and holds no memory; throws with the figures after `timeoutMs`. */
export async function untilIdle(url: string, timeoutMs: number): Promise<ReadonlyMap<string, number>> {
  for (const startMs = performance.now(); ; await Bun.sleep(10)) {
    const metrics = await metricsOf(url);
    const busy = Object.keys(IDLE).filter((name) => metrics.get(name) !== 0);
    if (busy.length === 0) return metrics;
    if (performance.now() - startMs > timeoutMs) {
      throw new Error(
        `not idle after ${timeoutMs} ms: ${busy.map((name) => `${name} ${metrics.get(name)}`).join(", ")}`,
      );
    }
  }
}

export async function untilReady(url: string, timeoutMs = 10_000): Promise<void> {
  for (const startMs = performance.now(); (await fetch(`${url}/ready`)).status !== 200; await Bun.sleep(5)) {
    if (performance.now() - startMs > timeoutMs) throw new Error(`not ready after ${timeoutMs} ms`);
  }
}

/** The engine processes of a server, told by the word in their command line. */
export async function engineProcesses(server: number): Promise<number[]> {
  const commandLines = await Promise.all(
    childrenOf(server).map(async (pid) => [pid, await Bun.file(`/proc/${pid}/cmdline`).text()] as const),
  );
  return commandLines.filter(([, line]) => line.split("\0").includes("engine")).map(([pid]) => pid);
}
