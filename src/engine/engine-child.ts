/** One engine process: starts it, talks to it, forwards what it prints. Restarts nothing and knows no requests. */

import type { EngineCommand, EngineMessage } from "./process-messages.ts";

export interface EngineChildListener {
  readonly onMessage: (message: EngineMessage) => void;
  /** The process is gone; the text says how it ended. */
  readonly onExit: (how: string) => void;
  /** Takes each line the process prints. */
  readonly onLine: (line: string) => void;
}

const ENTRY = new URL("process.ts", import.meta.url).pathname;

export class EngineChild {
  static #ahead: EngineChild | undefined;

  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  #listener: EngineChildListener | undefined;

  /**
   * Starts a process before it is known what it will load, so that it gets up meanwhile, unless that was done already.
   * The next `start` takes it; when none comes, it ends with this process.
   * @param name what is known by now of what it will be for
   */
  static startAhead(name: string): EngineChild {
    const before = EngineChild.#ahead;
    if (before !== undefined && !before.#isGone) return before;
    const ahead = new EngineChild(name);
    ahead.#child.unref();
    EngineChild.#ahead = ahead;
    return ahead;
  }

  /**
   * The process that was started ahead, or else a new one.
   * @param name appears in the process's command line after the word "engine"
   */
  static start(name: string, listener: EngineChildListener): EngineChild {
    const ahead = EngineChild.#ahead;
    EngineChild.#ahead = undefined;
    const child = ahead === undefined || ahead.#isGone ? new EngineChild(name) : ahead;
    child.#child.ref();
    child.#listener = listener;
    void forwardLines(child.#child.stdout, listener.onLine);
    void forwardLines(child.#child.stderr, listener.onLine);
    return child;
  }

  private constructor(name: string) {
    this.#child = Bun.spawn({
      cmd: [process.execPath, ENTRY, "engine", name],
      // As it is now, not as it was when this process began.
      env: process.env,
      stdio: ["ignore", "pipe", "pipe"],
      serialization: "advanced",
      ipc: (message: EngineMessage) => this.#listener?.onMessage(message),
      onExit: (_child, code, signal) => {
        const how = signal === null ? `exited with code ${code}` : `was ended by signal ${signal}`;
        this.#listener?.onExit(how);
      },
    });
  }

  get #isGone(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
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
    if (!this.#isGone) this.#child.send(command);
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
