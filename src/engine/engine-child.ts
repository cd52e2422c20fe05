/** One engine process: starts it, talks to it, forwards what it prints. Restarts nothing and knows no requests. */

import type { EngineCommand, EngineMessage } from "./process-messages.ts";

export interface EngineChildOptions {
  /** Appears in the process's command line after the word "engine". */
  readonly name: string;
  readonly onMessage: (message: EngineMessage) => void;
  /** The process is gone; the text says how it ended. */
  readonly onExit: (how: string) => void;
  /** Takes each line the process prints. */
  readonly onLine: (line: string) => void;
}

const ENTRY = new URL("process.ts", import.meta.url).pathname;

export class EngineChild {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;

  constructor(options: EngineChildOptions) {
    this.#child = Bun.spawn({
      cmd: [process.execPath, ENTRY, "engine", options.name],
      // As it is now, not as it was when this process began.
      env: process.env,
      stdio: ["ignore", "pipe", "pipe"],
      serialization: "advanced",
      ipc: (message: EngineMessage) => options.onMessage(message),
      onExit: (_child, code, signal) => {
        options.onExit(signal === null ? `exited with code ${code}` : `was ended by signal ${signal}`);
      },
    });
    void forwardLines(this.#child.stdout, options.onLine);
    void forwardLines(this.#child.stderr, options.onLine);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Resolves when the process is gone. */
  get exited(): Promise<unknown> {
    return this.#child.exited;
  }

  /** A process that is already gone takes no commands; its exit is reported by `onExit`. */
  send(command: EngineCommand): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.send(command);
  }

  /** Ends the process at once. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

async function forwardLines(
  output: ReadableStream<Uint8Array>,
  onLine: (line: string) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of output) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
  if (rest !== "") onLine(rest);
}
