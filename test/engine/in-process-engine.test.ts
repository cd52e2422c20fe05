import { expect, test } from "bun:test";
import { InProcessEngine } from "../../src/engine/in-process-engine.ts";
import { engineInfo } from "../../src/engine/runner-module.ts";
import { FakeRunner, type FakeRunnerOptions } from "./fake-runner.ts";
import { collect, promptOf, request, runAlone, tokensOf } from "./requests.ts";

const INFO = {
  architecture: "fake",
  weightBytes: 0,
  kvBytes: 0,
  loadSeconds: 0,
  mapSeconds: 0,
  threads: 1,
  instructionSet: "none",
};

function start(options: FakeRunnerOptions = {}): { engine: InProcessEngine; runner: FakeRunner } {
  const runner = new FakeRunner(options);
  const info = engineInfo("fake", Object.assign(runner, { info: INFO }));
  return { engine: new InProcessEngine(runner, info, { prefixCache: true }), runner };
}

test("requests at once get what they get alone", async () => {
  const { engine } = start();
  const requests = Array.from({ length: 12 }, (_, id) =>
    request(id, { promptTokens: promptOf(3 + id * 5, id % 3) }),
  );
  const runs = await Promise.all(requests.map((each) => collect(engine.generate(each))));
  runs.forEach((events, id) => {
    expect(tokensOf(events)).toEqual(runAlone(requests[id]!).tokens);
    expect(events.at(-1)).toMatchObject({ type: "finish", reason: "length" });
  });
});

test("an abort arrives between two steps", async () => {
  const { engine, runner } = start();
  const controller = new AbortController();
  let stepsAtAbort = 0;
  const events = [];
  for await (const event of engine.generate(request(1, { maxTokens: 900 }), controller.signal)) {
    events.push(event);
    if (events.length !== 5) continue;
    stepsAtAbort = runner.steps;
    controller.abort();
    expect(engine.statistics()).toMatchObject({ running: 0, blocksUsed: 0 });
  }
  expect(events.at(-1)).toMatchObject({ type: "finish", reason: "abort" });
  expect(runner.steps).toBe(stepsAtAbort);
});

test("a failing model ends its requests and the engine", async () => {
  const traps = new Map([
    [
      7,
      () => {
        throw new Error("device lost");
      },
    ],
  ]);
  const { engine } = start({ traps });
  const events = await collect(engine.generate(request(1, { promptTokens: Int32Array.of(7) })));
  expect(events).toMatchObject([{ type: "error", code: "engine_failed" }]);
  expect(engine.state).toBe("failed");
  expect(await collect(engine.generate(request(2)))).toMatchObject([
    { type: "error", code: "engine_failed" },
  ]);
});

test("close waits for what is open, refuses what comes, closes the model", async () => {
  const { engine, runner } = start();
  const open = collect(engine.generate(request(1, { maxTokens: 30 })));
  const closing = engine.close();
  expect(engine.state).toBe("draining");
  expect(await collect(engine.generate(request(2)))).toMatchObject([
    { type: "error", code: "shutting_down" },
  ]);
  await closing;
  expect(tokensOf(await open)).toHaveLength(30);
  expect(runner.closed).toBe(true);
});

test("how long a request waited is told once, when its first step is over, without that step", async () => {
  const { engine } = start({ limits: { sequencesMax: 1 }, stepMs: 10 });
  const told: (readonly [name: string, seconds: number])[] = [];
  const generate = (name: string) =>
    collect(
      engine.generate(request(1, { maxTokens: 10 }), undefined, (seconds) => told.push([name, seconds])),
    );
  await Promise.all([generate("first"), generate("second")]);
  expect(told.map(([name]) => name)).toEqual(["first", "second"]);
  const [first, second] = told.map(([, seconds]) => seconds) as [number, number];
  expect(first).toBeLessThan(0.01);
  // The ten steps of the other.
  expect(second - first).toBeGreaterThan(0.09);
});
