import { expect, test } from "bun:test";
import { join } from "node:path";

const SHUTDOWN = join(import.meta.dir, "../../../src/cli/serve/shutdown.ts");

/** A process whose server needs `drainMs` to drain, or that is still starting; it prints what is called. */
async function serverProcess(options: { drainMs: number; ready: boolean }) {
  const script = `
    import { exitOnSignals } from ${JSON.stringify(SHUTDOWN)};
    const log = { write: (level, message) => console.log(level + ": " + message) };
    const targets = {};
    exitOnSignals(targets, 7, log);
    if (${options.ready}) {
      targets.closeEngine = async () => console.log("engine closed");
      targets.server = {
        openRequests: 2,
        async stop(timeoutMs) {
          console.log("stop " + timeoutMs);
          await Bun.sleep(${options.drainMs});
          return { forced: ${options.drainMs > 100} };
        },
      };
    }
    console.log("up");
    setInterval(() => {}, 1000);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const until = async (line: string) => {
    while (!text.includes(line)) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`ended before "${line}": ${text}`);
      text += value;
    }
  };
  const rest = async () => {
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    return text;
  };
  await until("up");
  return { child, until, rest };
}

test("the first signal drains, closes the engine and exits with 0", async () => {
  const { child, rest } = await serverProcess({ drainMs: 30, ready: true });
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  const text = await rest();
  expect(text).toContain("waiting up to 7 s for 2 open");
  expect(text).toMatch(/stop 7000\n(?:.*\n)*engine closed\ninfo: stopped/);
  expect(text).not.toContain("warning");
});

test("requests that had to be ended are told", async () => {
  const { child, rest } = await serverProcess({ drainMs: 150, ready: true });
  child.kill("SIGINT");
  expect(await child.exited).toBe(0);
  expect(await rest()).toContain("warning: requests still open after 7 s were ended");
});

test("the second signal does not wait", async () => {
  for (const [signal, status] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const { child, until } = await serverProcess({ drainMs: 60_000, ready: true });
    child.kill("SIGTERM");
    await until("stop 7000");
    child.kill(signal);
    expect(await child.exited).toBe(status);
  }
});

test("a server that is still starting exits with 0", async () => {
  const { child } = await serverProcess({ drainMs: 0, ready: false });
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
});

test("a server none of whose engines will answer again ends with a status of its own; one that has another goes on", async () => {
  const script = `
    import { exitWhenUseless } from ${JSON.stringify(SHUTDOWN)};
    const log = { write: (level, message) => console.log(level + ": " + message) };
    exitWhenUseless(undefined, log);
    exitWhenUseless(["failed", "ready"], log);
    exitWhenUseless(["failed", "starting"], log);
    console.log("still here");
    exitWhenUseless(["failed", "failed"], log);
    setInterval(() => {}, 1000);
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  expect(await child.exited).toBe(3);
  expect(await new Response(child.stdout).text()).toBe(
    "still here\nerror: no engine is left that could answer; ending\n",
  );
});
