/** Starts the product's own `serve` command on a loopback port, as a user would, and stops it again. */

import { PROJECT_ROOT } from "../../src/cli/setup.ts";

const READY_TIMEOUT_MS = 120_000;

export interface Served {
  readonly url: string;
  /** Ends the server and answers its exit status. */
  stop(): Promise<number>;
}

/** Serves the default model, which is fetched into the cache when it is not there yet. */
export async function serve(flags: readonly string[] = []): Promise<Served> {
  const port = freePort();
  const child = Bun.spawn(
    [process.execPath, "src/cli/start.ts", "serve", "--host", "127.0.0.1", "--port", String(port), ...flags],
    { cwd: PROJECT_ROOT, stdin: "ignore", stdout: "ignore", stderr: "pipe" },
  );
  const log = new Response(child.stderr).text();
  const url = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + READY_TIMEOUT_MS;
  while (!(await isReady(url))) {
    if (child.exitCode !== null) throw new Error(`serve ended with status ${child.exitCode}:\n${await log}`);
    if (Date.now() > deadline) throw new Error(`serve was not ready within ${READY_TIMEOUT_MS / 1000} s`);
    await Bun.sleep(25);
  }
  return {
    url,
    stop: async () => {
      child.kill("SIGTERM");
      return await child.exited;
    },
  };
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(`${url}/health`).catch(() => undefined);
  return response?.status === 200;
}

/** A port that was free a moment ago. */
function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}
