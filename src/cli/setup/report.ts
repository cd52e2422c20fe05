/**
 * Progress of set-up on stderr: what is being done, how much, how fast, how long. On a terminal one line is
 * rewritten; elsewhere a plain line appears every few seconds. Uses no package: none may be installed yet.
 */

import { formatDuration } from "../units.ts";

const TERMINAL_INTERVAL_MS = 200;
const PLAIN_INTERVAL_MS = 5_000;

export interface SetupOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** One step under way. `describe` is asked for the state of the step each time a line is due. */
export class SetupStep {
  readonly #output: SetupOutput;
  readonly #title: string;
  readonly #started = performance.now();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(output: SetupOutput, title: string, intention: string, describe: () => string) {
    this.#output = output;
    this.#title = title;
    const terminal = output.isTTY === true;
    output.write(terminal ? this.#line(intention) : `${this.#line(intention)}\n`);
    this.#timer = setInterval(
      () => {
        const line = this.#line(`${describe()}, ${formatDuration(this.elapsedSeconds)}`);
        output.write(terminal ? `\r\x1b[2K${line}` : `${line}\n`);
      },
      terminal ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS,
    );
  }

  get elapsedSeconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  /** Ends the step with its result and the time it took. */
  done(result: string, seconds: number = this.elapsedSeconds): void {
    this.#end(`${result} in ${formatDuration(seconds)}`);
  }

  fail(result: string): void {
    this.#end(`${result} after ${formatDuration(this.elapsedSeconds)}`);
  }

  #end(text: string): void {
    clearInterval(this.#timer);
    this.#output.write(`${this.#output.isTTY === true ? "\r\x1b[2K" : ""}${this.#line(text)}\n`);
  }

  #line(text: string): string {
    return `setup  ${this.#title.padEnd(12)}  ${text}`;
  }
}
