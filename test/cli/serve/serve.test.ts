/** The commands as a user types them, with the real default model: flags through `bun run`, answers, signals. */

import { afterEach, describe, expect, test } from "bun:test";
import { PROJECT_ROOT } from "../../../src/cli/setup.ts";
import { childEnvironment } from "../processes.ts";

const READY_TIMEOUT_MS = 120_000;
/** A prompt whose answer does not end early. */
const STORY = "Write a long story about a dragon who learns to fly.";

interface ServeProcess {
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly log: () => string;
  readonly url: string;
}

const running: ServeProcess["child"][] = [];
afterEach(async () => {
  for (const child of running.splice(0)) {
    // Not SIGKILL: that would end `bun run` alone and leave the server it started behind.
    child.kill("SIGTERM");
    await child.exited;
  }
});

/** `bun run serve` on a free port of the loopback address; resolves when its log says it is ready. */
async function startServe(
  options: readonly string[],
  environment: Record<string, string> = {},
): Promise<ServeProcess> {
  const child = Bun.spawn(
    [process.execPath, "run", "serve", "--host", "127.0.0.1", "--port", "0", ...options],
    {
      cwd: PROJECT_ROOT,
      env: childEnvironment(environment),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  running.push(child);
  let log = "";
  void (async () => {
    for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) log += part;
  })();
  for (const start = Date.now(); !/ ready +\S/.test(log); await Bun.sleep(10)) {
    if (child.exitCode !== null || Date.now() - start > READY_TIMEOUT_MS)
      throw new Error(`serve did not start:\n${log}`);
  }
  const url = /OpenAI API +(\S+)\/v1/.exec(log)?.[1];
  if (url === undefined) throw new Error(`no address in the log:\n${log}`);
  return { child, log: () => log, url };
}

function chat(url: string, body: object): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: "default",
      messages: [{ role: "user", content: "What is the capital of France?" }],
      temperature: 0,
      ...body,
    }),
  });
}

describe("bun run serve", () => {
  test("serves the default model with the flags it was given, and stops with status 0", async () => {
    const { child, log, url } = await startServe([
      "--threads",
      "1",
      "--max-seqs",
      "3",
      "--pa-block-size",
      "16",
      "-v",
    ]);
    expect(log()).toMatch(/compute +1 thread,/);
    expect(log()).toMatch(/blocks of 16 tokens, f16/);
    expect(log()).toMatch(/sequencesMax +3 \(flag --max-seqs\)/);
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const response = await chat(url, { max_tokens: 16 });
    const answer = (await response.json()) as { choices: { message: { content: string } }[] };
    expect(answer.choices[0]?.message.content).toContain("Paris");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(log()).toContain("stopped");
    expect(await new Response(child.stdout).text()).toBe("");
  }, 180_000);

  test("an unusable KEEP_ALIVE_INTERVAL is a warning, MISTRALRS_NO_MMAP=1 reads the weights", async () => {
    const { log } = await startServe(["--threads", "1"], {
      KEEP_ALIVE_INTERVAL: "soon",
      MISTRALRS_NO_MMAP: "1",
    });
    expect(log()).toMatch(/warning +variable KEEP_ALIVE_INTERVAL has the value "soon".*using 10000 ms/);
    expect(log()).toMatch(/reading the weights/);
  }, 180_000);

  test("a stream that is open when SIGTERM comes is finished; new requests are refused", async () => {
    const { child, log, url } = await startServe(["--threads", "1"]);
    const response = await chat(url, {
      max_tokens: 60,
      stream: true,
      messages: [{ role: "user", content: STORY }],
    });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value ?? "";
    child.kill("SIGTERM");
    for (const start = Date.now(); !log().includes("no new requests") && Date.now() - start < 10_000; )
      await Bun.sleep(5);
    const refused = await chat(url, { max_tokens: 1 }).then(
      ({ status }) => status,
      () => "closed",
    );
    expect([503, "closed"]).toContain(refused);
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toEndWith("data: [DONE]\n\n");
    expect(await child.exited).toBe(0);
  }, 180_000);

  test("a second signal ends it at once", async () => {
    const { child, log, url } = await startServe(["--threads", "1"]);
    const stream = await chat(url, {
      max_tokens: 2000,
      stream: true,
      messages: [{ role: "user", content: STORY }],
    });
    child.kill("SIGTERM");
    for (const start = Date.now(); !log().includes("no new requests") && Date.now() - start < 10_000; )
      await Bun.sleep(5);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(143);
    await stream.text().catch(() => {});
  }, 180_000);
});

describe("bun run bench", () => {
  test("--json prints one object with every figure, and nothing else, on stdout", async () => {
    const options = [
      "--prompt-len",
      "40",
      "--gen-len",
      "4",
      "--batch",
      "2",
      "--threads",
      "1",
      "--repetitions",
      "2",
    ];
    const child = Bun.spawn([process.execPath, "run", "bench", "--json", ...options], {
      cwd: PROJECT_ROOT,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, status] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect({ status, lines: stdout.trimEnd().split("\n").length }).toEqual({ status: 0, lines: 1 });
    expect(stderr).toContain("run 2 of 2");
    const report = JSON.parse(stdout) as Record<string, number>;
    expect(report).toMatchObject({ threads: 1, batch: 2, prompt_len: 40, gen_len: 4, repetitions: 2 });
    for (const phase of ["prefill", "decode"]) {
      const [min, median, max] = ["_min", "", "_max"].map(
        (suffix) => report[`${phase}_tokens_per_s${suffix}`]!,
      );
      expect(min).toBeGreaterThan(0);
      expect(median).toBeGreaterThanOrEqual(min!);
      expect(max).toBeGreaterThanOrEqual(median!);
    }
    expect(report.first_token_seconds).toBeGreaterThan(report.load_seconds!);
    expect(report.peak_rss_bytes).toBeGreaterThan(50_000_000);
  }, 180_000);

  test("a workload longer than the context is refused with the numbers", async () => {
    const child = Bun.spawn([process.execPath, "run", "bench", "--prompt-len", "9000"], {
      cwd: PROJECT_ROOT,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const stderr = await new Response(child.stderr).text();
    expect(await child.exited).not.toBe(0);
    expect(stderr).toContain("9,128 tokens, more than the context of 8,192");
  }, 180_000);
});
