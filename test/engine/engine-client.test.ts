/** The supervised engine process, alive: what it answers, and what happens when it or its parent dies. */

import { afterEach, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EngineChild } from "../../src/engine/engine-child.ts";
import { ProcessEngine, type ProcessEngineOptions } from "../../src/engine/engine-client.ts";
import type { GenerationEvent } from "../../src/engine/messages.ts";
import { TEXT_COMPLETE } from "../../src/engine/text-complete.ts";
import { MistralError } from "../../src/errors.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { CRASH_TOKEN, fakeEngineOptions, HANG_TOKEN, THROW_TOKEN } from "./fake-model.ts";
import { collect, GREEDY, promptOf, request, runAlone, tokensOf } from "./requests.ts";

const engines: ProcessEngine[] = [];
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close()));
});

async function start(query = "", options: Partial<ProcessEngineOptions> = {}): Promise<ProcessEngine> {
  const engine = await ProcessEngine.start({
    ...fakeEngineOptions(query),
    restartDelayMs: 10,
    log: () => {},
    ...options,
  });
  engines.push(engine);
  return engine;
}

const oneAtATime = { ...fakeEngineOptions("stepMs=2").model, sequencesMax: 1 };

const endless = request(0, { maxTokens: 900 });

/** Reads until the first tokens are there. */
async function untilTokens(reader: AsyncIterator<GenerationEvent>): Promise<void> {
  expect((await reader.next()).value).toMatchObject({ type: "tokens" });
}

async function drain(reader: AsyncIterator<GenerationEvent>): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for (let next = await reader.next(); next.done !== true; next = await reader.next())
    events.push(next.value);
  return events;
}

async function until(condition: () => boolean, timeoutMs = 3000): Promise<void> {
  for (const endMs = performance.now() + timeoutMs; !condition(); await Bun.sleep(2)) {
    if (performance.now() > endMs) throw new Error(`still not so after ${timeoutMs} ms: ${condition}`);
  }
}

/** What the process list says, without relying on `ps` where there is /proc; "" when there is no such process. */
function processList(pid: number, column: "stat" | "args"): string {
  if (process.platform !== "linux") {
    return Bun.spawnSync(["ps", "-o", `${column}=`, "-p", String(pid)])
      .stdout.toString()
      .trim();
  }
  try {
    if (column === "args") return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
    return /^State:\s+(.)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
  } catch {
    return "";
  }
}

/** A zombie, dead but not yet collected by its parent, is not alive. */
function isAlive(pid: number): boolean {
  const state = processList(pid, "stat");
  return state !== "" && !state.startsWith("Z");
}

test("sixteen requests at once over the channel: each gets what it gets alone, with its scores", async () => {
  const engine = await start();
  expect(engine.info).toMatchObject({
    architecture: "fake",
    sequencesMax: 8,
    contextLength: 1000,
    blockSize: 4,
  });
  const requests = Array.from({ length: 16 }, (_, index) =>
    request(index, {
      promptTokens: promptOf(10 + index * 3, index % 4),
      maxTokens: 40,
      promptLogprobs: index % 5 === 0 ? 1 : -1,
      sampling: {
        ...GREEDY,
        temperature: index % 2,
        seed: 0xffff_ffff_ffffn + BigInt(index),
        logprobs: (index % 3) - 1,
      },
    }),
  );
  const runs = await Promise.all(requests.map((each) => collect(engine.generate(each))));
  const limits = { contextLength: 1000 };
  runs.forEach((events, index) => {
    const alone = runAlone(requests[index]!, limits, 60);
    expect(tokensOf(events)).toEqual(alone.tokens);
    expect(events.flatMap((event) => (event.type === "tokens" ? event.logprobs : []))).toEqual(
      alone.logprobs.filter((logprob) => logprob !== null),
    );
    const prompt = events.find((event) => event.type === "prompt");
    expect(prompt?.logprobs ?? null).toEqual(alone.prompt);
    expect(events.filter((event) => event.type === "finish")).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ type: "finish", reason: "length" });
  });
  expect(engine.statistics()).toMatchObject({ running: 0, waiting: 0, blocksUsed: 0, generatedTokens: 640 });
});

test("a process that was started ahead is the next engine's, and one that died meanwhile is not", async () => {
  const early = EngineChild.startAhead("early");
  expect(EngineChild.startAhead("again")).toBe(early);
  const first = await start();
  expect(processList(first.pid!, "args")).toContain(" engine early");
  await collect(first.generate(request(0)));
  const second = await start();
  expect(processList(second.pid!, "args")).toContain(" engine fake");
  const dead = EngineChild.startAhead("dead");
  dead.kill();
  await dead.exited;
  const third = await start();
  expect(processList(third.pid!, "args")).toContain(" engine fake");
  expect(tokensOf(await collect(third.generate(request(0))))).toHaveLength(8);
});

test("killed in the middle of a stream: an error within a second, then it serves again", async () => {
  const engine = await start("stepMs=2");
  const readers = [1, 2, 3].map(() => engine.generate(endless)[Symbol.asyncIterator]());
  await Promise.all(readers.map(untilTokens));
  const pid = engine.pid!;
  const killedAtMs = performance.now();
  process.kill(pid, "SIGKILL");
  for (const events of await Promise.all(readers.map(drain))) {
    expect(events.filter((event) => event.type === "error" || event.type === "finish")).toEqual([
      {
        type: "error",
        code: "engine_failed",
        message: `the engine process ${pid} of fake was ended by signal SIGKILL`,
      },
    ]);
  }
  expect(performance.now() - killedAtMs).toBeLessThan(1000);
  expect(engine.state).toBe("starting");
  expect(await collect(engine.generate(endless))).toMatchObject([{ type: "error", code: "engine_failed" }]);
  await until(() => engine.state === "ready");
  expect(engine.pid).not.toBe(pid);
  expect(tokensOf(await collect(engine.generate(request(0))))).toEqual(runAlone(request(0), {}, 60).tokens);
});

test.each([
  ["throws", THROW_TOKEN, "the model failed while running: device lost"],
  ["crashes", CRASH_TOKEN, "was ended by signal SIGSEGV"],
  ["hangs", HANG_TOKEN, "hangs: no sign of life for"],
])(
  "a model that %s ends every open request with an error and is started again",
  async (_how, token, text) => {
    const lines: string[] = [];
    const engine = await start("stepMs=1", { hangTimeoutMs: 300, log: (line) => lines.push(line) });
    const bystander = engine.generate(endless)[Symbol.asyncIterator]();
    await untilTokens(bystander);
    const culprit = await collect(engine.generate(request(0, { promptTokens: Int32Array.of(token) })));
    const error = { type: "error", code: "engine_failed", message: expect.stringContaining(text) };
    expect<unknown>(culprit).toEqual([error]);
    expect<unknown>((await drain(bystander)).at(-1)).toEqual(error);
    await until(() => engine.state === "ready");
    expect(tokensOf(await collect(engine.generate(request(0))))).toHaveLength(8);
    expect(lines.filter((line) => line.includes("starting it again"))).toHaveLength(1);
  },
);

test("an engine that is idle for longer than the hang timeout is left alone", async () => {
  const engine = await start("", { hangTimeoutMs: 100 });
  const { pid } = engine;
  await Bun.sleep(300);
  expect(tokensOf(await collect(engine.generate(request(0))))).toHaveLength(8);
  expect(engine.pid).toBe(pid!);
});

test("an engine that keeps dying is given up", async () => {
  const lines: string[] = [];
  const engine = await start("", { restartDelayMs: 0, log: (line) => lines.push(line) });
  while (engine.state !== "failed") {
    await until(() => engine.state !== "starting", 10_000);
    if (engine.state === "ready") process.kill(engine.pid!, "SIGKILL");
    await until(() => engine.state !== "ready");
  }
  expect(lines.at(-1)).toContain("for the 9th time in a row; giving up");
  expect(await collect(engine.generate(request(0)))).toMatchObject([
    { type: "error", code: "engine_failed" },
  ]);
}, 20_000);

test("leaving the loop, and a signal, free the sequence", async () => {
  const engine = await start("stepMs=2");
  for await (const event of engine.generate(endless)) {
    expect(event.type).toBe("tokens");
    expect(engine.statistics().running).toBe(1);
    break;
  }
  await until(() => engine.statistics().running === 0);
  const controller = new AbortController();
  const reader = engine.generate(endless, controller.signal)[Symbol.asyncIterator]();
  await untilTokens(reader);
  const stepsBefore = engine.statistics().steps;
  controller.abort();
  expect((await drain(reader)).at(-1)).toMatchObject({ type: "finish", reason: "abort" });
  expect(engine.statistics()).toMatchObject({ running: 0, blocksUsed: 0 });
  expect(engine.statistics().steps - stepsBefore).toBeLessThan(50);
  const gone = await collect(engine.generate(endless, controller.signal));
  expect(gone).toMatchObject([{ type: "finish", reason: "abort" }]);
});

test("a model that cannot be loaded is reported as the loader said it", async () => {
  const error = await start("refuse=bad+magic+at+byte+0").catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(MistralError);
  expect(error).toMatchObject({ code: "invalid_model_file", message: "bad magic at byte 0", parameter: "f" });
});

test("a model that was loaded before and cannot be now is tried again", async () => {
  const trouble = join(temporaryFolder("reload"), "trouble");
  const lines: string[] = [];
  const engine = await start(`refuseWhileThere=${trouble}`, { log: (line) => lines.push(line) });
  writeFileSync(trouble, "");
  process.kill(engine.pid!, "SIGKILL");
  await until(() => engine.statistics().restarts >= 3);
  expect(lines.some((line) => line.includes("cannot load the model again: the device is full"))).toBe(true);
  expect((await collect(engine.generate(request(0)))).at(-1)).toMatchObject({
    type: "error",
    code: "engine_failed",
  });
  rmSync(trouble);
  await until(() => engine.state === "ready");
  expect(tokensOf(await collect(engine.generate(request(0))))).toHaveLength(8);
});

test("a process that dies while loading is reported with how it died", async () => {
  const error = await start("dieWhileLoading").catch((reason: unknown) => reason);
  expect(error).toMatchObject({
    code: "engine_failed",
    message: expect.stringMatching(/exited with code 7 while/),
  });
});

test("close lets open requests finish, refuses new ones, closes the model and ends the process", async () => {
  const lines: string[] = [];
  const engine = await start("stepMs=1", { log: (line) => lines.push(line) });
  const open = collect(engine.generate(request(0, { maxTokens: 50 })));
  const pid = engine.pid!;
  const closing = engine.close();
  expect(engine.state).toBe("draining");
  expect(await collect(engine.generate(request(0)))).toMatchObject([
    { type: "error", code: "shutting_down" },
  ]);
  expect(tokensOf(await open)).toHaveLength(50);
  await closing;
  expect(isAlive(pid)).toBe(false);
  await until(() => lines.length > 0);
  expect(lines).toEqual(["[engine fake] the fake model is closed"]);
});

test("close ends what does not finish in time", async () => {
  const engine = await start("stepMs=5", { drainTimeoutMs: 50 });
  const open = collect(engine.generate(endless));
  await engine.close();
  expect((await open).at(-1)).toMatchObject({ type: "error", code: "shutting_down" });
});

test("more requests than may run and wait are refused at once, the others finish", async () => {
  const engine = await start("stepMs=1", { queuedRequestsMax: 4 });
  const runs = await Promise.all(Array.from({ length: 30 }, () => collect(engine.generate(request(0)))));
  const refused = runs.filter(([first]) => first?.type === "error" && first.code === "overloaded");
  expect(refused).toHaveLength(30 - 8 - 4);
  expect(refused[0]?.[0]).toMatchObject({
    message: expect.stringContaining("4 may wait (--max-queued-requests)"),
  });
  expect(runs.filter((events) => tokensOf(events).length === 8)).toHaveLength(12);
  expect(engine.statistics()).toMatchObject({ refusedQueueFull: 18, endedLength: 12, pending: 0 });
});

test("prompts of more tokens than may wait are refused, but one may always wait", async () => {
  const engine = await start("stepMs=1", { queuedTokensMax: 50 });
  const long = { promptTokens: promptOf(40, 1), maxTokens: 60 };
  const first = collect(engine.generate(request(0, { ...long, promptTokens: promptOf(90, 1) })));
  const refused = await collect(engine.generate(request(0, long)));
  expect(refused).toMatchObject([{ type: "error", code: "overloaded" }]);
  expect(refused[0]).toMatchObject({
    message: expect.stringContaining("prompts of 90 tokens wait, this one has 40"),
  });
  // Once the engine has begun with the first, it waits no longer.
  await until(() => engine.statistics().running === 1);
  const second = collect(engine.generate(request(0, long)));
  expect(tokensOf(await first)).toHaveLength(60);
  expect(tokensOf(await second)).toHaveLength(60);
});

test("a request that waits too long is told so", async () => {
  const engine = await start("stepMs=2", { queueTimeoutMs: 150, model: oneAtATime });
  const running = collect(engine.generate(request(0, { maxTokens: 300 })));
  const waited = await collect(engine.generate(request(0)));
  expect(waited).toMatchObject([{ type: "error", code: "overloaded" }]);
  expect(waited[0]).toMatchObject({ message: expect.stringMatching(/waited 0\.\d s without being run/) });
  expect(tokensOf(await running)).toHaveLength(300);
  expect(engine.statistics()).toMatchObject({ refusedQueueTimeout: 1, endedError: 0, endedLength: 1 });
});

test("what was counted before a crash is not forgotten", async () => {
  const engine = await start();
  await collect(engine.generate(request(0)));
  const before = engine.statistics();
  expect(before).toMatchObject({ endedLength: 1, generatedTokens: 8, restarts: 0 });
  const crashed = await collect(engine.generate(request(0, { promptTokens: Int32Array.of(CRASH_TOKEN) })));
  expect(crashed).toMatchObject([{ type: "error", code: "engine_failed" }]);
  expect(engine.statistics()).toMatchObject({ generatedTokens: 8, running: 0, endedError: 1, restarts: 1 });
  await until(() => engine.state === "ready");
  await collect(engine.generate(request(0)));
  expect(engine.statistics()).toMatchObject({ endedLength: 2, generatedTokens: 16, endedError: 1, hangs: 0 });
  expect(engine.statistics().steps).toBeGreaterThan(before.steps);
});

test("a request aborted because its text is complete counts as stopped", async () => {
  const engine = await start("stepMs=2");
  const controller = new AbortController();
  const reader = engine.generate(endless, controller.signal)[Symbol.asyncIterator]();
  await untilTokens(reader);
  controller.abort(TEXT_COMPLETE);
  expect((await drain(reader)).at(-1)).toMatchObject({ type: "finish", reason: "stop" });
  expect(engine.statistics()).toMatchObject({ endedStop: 1, endedAbort: 0 });
});

test.each(["SIGKILL", "SIGTERM"] as const)(
  "a parent that dies by %s takes the engine process along",
  async (signal) => {
    const parent = Bun.spawn([process.execPath, new URL("engine-parent.ts", import.meta.url).pathname], {
      stdout: "pipe",
      stderr: "inherit",
    });
    const { value } = await parent.stdout.getReader().read();
    const pid = Number(new TextDecoder().decode(value));
    expect(isAlive(pid)).toBe(true);
    const commandLine = Bun.spawnSync(["ps", "-o", "args=", "-p", String(pid)]).stdout.toString();
    expect(commandLine).toContain(" engine ");
    parent.kill(signal);
    await until(() => !isAlive(pid), 1000);
  },
);
