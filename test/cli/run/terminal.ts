/** A program on a pseudo-terminal: what it shows, and keys pressed when it has shown something. */

import { childEnvironment } from "../processes.ts";

const TIMEOUT_MS = 30_000;

/** What a person cannot see: colours and moves of the cursor. */
export function visible(text: string): string {
  return Bun.stripANSI(text).replaceAll("\r", "");
}

export class TerminalProcess {
  readonly #child: Bun.Subprocess;
  #shown = "";
  /** What was shown before the last wait ended. */
  #seen = 0;

  constructor(command: readonly string[], environment: Readonly<Record<string, string>>) {
    const decoder = new TextDecoder();
    this.#child = Bun.spawn([...command], {
      env: childEnvironment({ ...environment, TERM: "xterm" }),
      terminal: {
        cols: 100,
        rows: 40,
        data: (_terminal, data) => {
          this.#shown += decoder.decode(data, { stream: true });
        },
      },
    });
  }

  /** Everything shown, colours included. */
  get shown(): string {
    return this.#shown;
  }

  /** Waits for a text that comes after what was waited for before; gives what came until its end. */
  async until(text: string): Promise<string> {
    const start = Date.now();
    for (;;) {
      const at = this.#shown.indexOf(text, this.#seen);
      if (at >= 0) {
        const part = this.#shown.slice(this.#seen, at + text.length);
        this.#seen = at + text.length;
        return part;
      }
      if (Date.now() - start > TIMEOUT_MS) {
        throw new Error(
          `${JSON.stringify(text)} was never shown; it shows:\n${this.#shown.slice(this.#seen)}`,
        );
      }
      await Bun.sleep(5);
    }
  }

  press(keys: string): void {
    this.#child.terminal?.write(keys);
  }

  async exited(): Promise<number> {
    const status = await this.#child.exited;
    this.#child.terminal?.close();
    return status;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
