/** Runs a tool of set-up to its end and keeps what it printed; a set-up that is stopped takes the tool with it. */

export interface ToolOutcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;

/** Runs `command` in `folder`. Throws only when it cannot be started. */
export async function runTool(command: string[], folder: string): Promise<ToolOutcome> {
  let kill: ((signal: (typeof STOP_SIGNALS)[number]) => void) | undefined;
  const stop = (signal: (typeof STOP_SIGNALS)[number]): void => {
    kill?.(signal);
    process.exit(128 + SIGNAL_NUMBERS[signal]);
  };
  // Before the tool starts: no signal may find the tool there and nobody to pass it on.
  for (const signal of STOP_SIGNALS) process.on(signal, stop);
  try {
    const child = Bun.spawn(command, { cwd: folder, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    kill = (signal) => child.kill(signal);
    const [stdout, stderr, status] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { status, stdout, stderr };
  } finally {
    for (const signal of STOP_SIGNALS) process.off(signal, stop);
  }
}
