/**
 * Starts the server as a user does, asks one question over HTTP, stops it, and exits with 0 when all of that
 * went well. Run by `.ci/run`; imports no package, so that nothing but the server itself is relied on.
 */

import { PROJECT_ROOT } from "../src/cli/setup.ts";

const READY_TIMEOUT_MS = 300_000;
const STOP_TIMEOUT_MS = 20_000;

/** A port that was free a moment ago. */
function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

async function waitUntilReady(address: string, exited: Promise<number>): Promise<void> {
  let status: number | undefined;
  exited.then((code) => {
    status = code;
  });
  for (const start = Date.now(); Date.now() - start < READY_TIMEOUT_MS; await Bun.sleep(50)) {
    if (status !== undefined) throw new Error(`serve ended with status ${status} before it was ready`);
    const response = await fetch(`${address}/health`).catch(() => undefined);
    if (response?.status === 200) return;
  }
  throw new Error(`/health was not 200 within ${READY_TIMEOUT_MS / 1000} s`);
}

async function ask(address: string): Promise<string> {
  const response = await fetch(`${address}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: "default",
      messages: [{ role: "user", content: "What is the capital of France?" }],
      temperature: 0,
      max_tokens: 32,
    }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`the chat request was answered ${response.status}: ${text}`);
  return (JSON.parse(text) as { choices: { message: { content: string } }[] }).choices[0]!.message.content;
}

const port = freePort();
const address = `http://127.0.0.1:${port}`;
const server = Bun.spawn(
  [process.execPath, "run", "serve", "--host", "127.0.0.1", "--port", String(port), "--max-seqs", "4"],
  { cwd: PROJECT_ROOT, stdin: "ignore", stdout: "inherit", stderr: "inherit" },
);
try {
  await waitUntilReady(address, server.exited);
  const answer = await ask(address);
  console.log(`smoke: the answer is ${JSON.stringify(answer)}`);
  if (!answer.includes("Paris")) throw new Error("the answer does not name Paris");
  server.kill("SIGTERM");
  const status = await Promise.race([server.exited, Bun.sleep(STOP_TIMEOUT_MS).then(() => "running")]);
  if (status !== 0) throw new Error(`after SIGTERM serve ended with ${status}, not 0`);
} catch (error) {
  console.error(`smoke: ${error instanceof Error ? error.message : error}`);
  server.kill("SIGKILL");
  process.exit(1);
}
