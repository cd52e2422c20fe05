/** The log of a command: one line each on stderr, with time and level. Stdout is for what programs read. */

export type LogLevel = "error" | "warning" | "info" | "debug" | "trace";

const LEVELS: readonly LogLevel[] = ["error", "warning", "info", "debug", "trace"];

const COLOURS: Readonly<Record<LogLevel, string>> = {
  error: "\x1b[31m",
  warning: "\x1b[33m",
  info: "\x1b[32m",
  debug: "\x1b[36m",
  trace: "\x1b[90m",
};

export interface LogOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

export class Log {
  readonly #openOutput: () => LogOutput;
  readonly #threshold: number;
  readonly #now: () => Date;

  /** @param verbosity -1 logs up to warnings, 0 up to info, 1 debug, 2 trace */
  constructor(verbosity: number, output?: LogOutput, now: () => Date = () => new Date()) {
    // The process's stream takes milliseconds to come into being, and a log may never need it.
    this.#openOutput = () => output ?? process.stderr;
    this.#threshold = LEVELS.indexOf("info") + verbosity;
    this.#now = now;
  }

  enabled(level: LogLevel): boolean {
    return LEVELS.indexOf(level) <= this.#threshold;
  }

  /** Writes one line; the stack of an unexpected cause follows it. */
  write(level: LogLevel, message: string, cause?: unknown): void {
    if (!this.enabled(level)) return;
    const time = this.#now().toISOString();
    const name = level.padEnd(7);
    const output = this.#openOutput();
    const shown = output.isTTY === true ? `${COLOURS[level]}${name}\x1b[0m` : name;
    const trace = cause === undefined ? "" : `\n${cause instanceof Error ? (cause.stack ?? cause) : cause}`;
    output.write(`${time} ${shown} ${message}${trace}\n`);
  }

  /** Several facts below one another, aligned: `[["threads", "2"], ...]`. */
  table(level: LogLevel, rows: readonly (readonly [string, string])[]): void {
    const width = Math.max(0, ...rows.map(([name]) => name.length));
    for (const [name, value] of rows) this.write(level, `${name.padEnd(width)}  ${value}`);
  }
}

/**
 * The log that the settings ask for: `-v`, `-vv`, or MISTRALRS_DEBUG, which is at least the first. A `quiet` command,
 * whose output is a conversation, tells without `-v` only what is wrong.
 */
export function openLog(
  { verbosity, debug }: { readonly verbosity: number; readonly debug: boolean },
  quiet = false,
): Log {
  const level = debug ? Math.max(1, verbosity) : verbosity;
  return new Log(quiet && level === 0 ? -1 : level);
}
