import { expect, test } from "bun:test";
import { EngineCore } from "../../src/engine/engine-core.ts";
import type { Priority } from "../../src/engine/messages.ts";
import type { StepLimits } from "../../src/models/step.ts";
import { FakeRunner, type FakeRunnerOptions, fakeNextToken } from "./fake-runner.ts";
import { finish, GREEDY, Outcomes, promptOf, request, runAlone } from "./requests.ts";

function engine(limits: Partial<StepLimits> = {}, options: Omit<FakeRunnerOptions, "limits"> = {}) {
  const runner = new FakeRunner({ limits, ...options });
  const core = new EngineCore(runner, { prefixCache: true });
  return { runner, core, outcomes: new Outcomes() };
}

test("generates what the model says, token by token", () => {
  const { core, outcomes } = engine();
  core.submit(request(1, { maxTokens: 20 }));
  finish(core, outcomes);
  const history = [1, 2, 3];
  for (let index = 0; index < 20; index++) history.push(fakeNextToken(history, 64));
  expect(outcomes.of(1).tokens).toEqual(history.slice(3));
  expect(outcomes.of(1).end).toEqual({
    type: "finish",
    reason: "length",
    usage: { promptTokens: 3, completionTokens: 20, cachedTokens: 0 },
  });
});

test("a stop token ends the text and is not part of it", () => {
  const free = runAlone(request(1, { maxTokens: 30 })).tokens;
  const stop = free[9]!;
  const { core, outcomes } = engine();
  core.submit(request(1, { maxTokens: 30, stopTokens: [stop] }));
  finish(core, outcomes);
  expect(outcomes.of(1).tokens).toEqual(free.slice(0, free.indexOf(stop)));
  expect(outcomes.of(1).end).toMatchObject({ type: "finish", reason: "stop" });
});

test.each([3, 4, 5, 8, 31, 32, 33, 63, 64, 65])(
  "prompt of %i tokens: cold, warm and chunked agree",
  (length) => {
    const prompt = { promptTokens: promptOf(length, 3), maxTokens: 6 };
    const alone = runAlone(request(1, prompt)).tokens;
    for (const tokensMax of [8, 9, 32, 100]) {
      const { core, outcomes } = engine({ tokensMax });
      for (const id of [1, 2]) {
        core.submit(request(id, prompt));
        finish(core, outcomes);
        expect(outcomes.of(id).tokens).toEqual(alone);
      }
      const cached = Math.floor((length - 1) / 4) * 4;
      expect(outcomes.of(2).end).toMatchObject({ usage: { cachedTokens: cached } });
    }
  },
);

test("equal prompts that arrive together are computed once", () => {
  const { runner, core, outcomes } = engine({ tokensMax: 64, rowsMax: 8 });
  for (let id = 1; id <= 8; id++) core.submit(request(id, { promptTokens: promptOf(33, 1), maxTokens: 1 }));
  let computed = 0;
  while (core.hasWork) {
    outcomes.add(core.step());
    computed += runner.tokens;
  }
  expect(computed).toBe(33 + 7);
  expect(core.statistics()).toMatchObject({ prefixCacheHits: 7, prefixCacheQueries: 8, promptTokens: 40 });
});

test("a cache full of old prefixes leaves the whole pool to a new request", () => {
  const { core, outcomes } = engine({ blockCount: 9 });
  core.submit(request(1, { promptTokens: promptOf(31, 1), maxTokens: 1 }));
  finish(core, outcomes);
  core.submit(request(2, { promptTokens: promptOf(31, 2), maxTokens: 1 }));
  finish(core, outcomes);
  expect(outcomes.of(2).end).toMatchObject({ type: "finish", usage: { cachedTokens: 0 } });
  core.submit(request(3, { promptTokens: promptOf(31, 1), maxTokens: 1 }));
  finish(core, outcomes);
  expect(outcomes.of(3).tokens).toEqual(outcomes.of(1).tokens);
  expect(outcomes.of(3).end).toMatchObject({ usage: { cachedTokens: 0 } });
});

test.each([
  [31, 10, 1],
  [30, 10, 2],
])("prompt of %i tokens in a context of 32: generates to the wall", (length, maxTokens, generated) => {
  const { core, outcomes } = engine({ contextLength: 32 });
  core.submit(request(1, { promptTokens: promptOf(length, 1), maxTokens }));
  finish(core, outcomes);
  expect(outcomes.of(1).tokens).toHaveLength(generated);
  expect(outcomes.of(1).end).toMatchObject({ type: "finish", reason: "length" });
});

test.each([32, 33, 320])("prompt of %i tokens in a context of 32 is refused with both numbers", (length) => {
  const { core, outcomes } = engine({ contextLength: 32 });
  core.submit(request(1, { promptTokens: promptOf(length, 1) }));
  expect(core.hasWork).toBe(true);
  finish(core, outcomes, 1);
  const end = outcomes.of(1).end;
  expect(end).toMatchObject({ type: "error", code: "context_length_exceeded" });
  expect(end?.type === "error" && end.message).toContain(`${length} tokens`);
  expect(end?.type === "error" && end.message).toContain("at most 32 tokens");
});

test("a pool smaller than the context is the limit, and is named", () => {
  const { core, outcomes } = engine({ blockCount: 5 });
  core.submit(request(1, { promptTokens: promptOf(16, 1) }));
  core.submit(request(2, { promptTokens: promptOf(10, 1), maxTokens: 50 }));
  finish(core, outcomes);
  expect(outcomes.of(1).end).toMatchObject({
    message: expect.stringContaining("at most 16 tokens, the size of the KV"),
  });
  expect(outcomes.of(2).tokens).toHaveLength(6);
});

test("scores a prompt without generating, in as few or many chunks as rows allow", () => {
  const scored = request(1, { promptTokens: promptOf(50, 1), maxTokens: 0, promptLogprobs: 2 });
  const whole = runAlone(scored);
  expect(whole.prompt).toHaveLength(50);
  expect(whole.prompt?.[0]).toBeNull();
  expect(whole.prompt?.slice(1).map((score) => score?.token)).toEqual([...scored.promptTokens.slice(1)]);
  expect(whole.prompt?.[1]?.top).toHaveLength(2);
  expect(whole.tokens).toEqual([]);
  const { core, outcomes } = engine({ sequencesMax: 2, rowsMax: 3, tokensMax: 64 });
  core.submit(request(7, { promptTokens: scored.promptTokens, maxTokens: 0 }));
  finish(core, outcomes);
  core.submit(scored);
  finish(core, outcomes);
  expect(outcomes.of(1).prompt).toEqual(whole.prompt);
  expect(outcomes.of(1).end).toMatchObject({
    reason: "length",
    usage: { completionTokens: 0, cachedTokens: 0 },
  });
});

test("a long prompt does not hold up running streams: each gets a token in every step", () => {
  const { runner, core, outcomes } = engine({ sequencesMax: 5, rowsMax: 5, tokensMax: 16 });
  for (let id = 1; id <= 4; id++) core.submit(request(id, { promptTokens: promptOf(4, id), maxTokens: 200 }));
  for (let step = 0; step < 4; step++) outcomes.add(core.step());
  core.submit(request(9, { promptTokens: promptOf(500, 9), maxTokens: 1 }));
  let steps = 0;
  for (; outcomes.of(9).end === null; steps++) {
    const report = core.step();
    outcomes.add(report);
    expect(new Set(report.ids).isSupersetOf(new Set([1, 2, 3, 4]))).toBe(true);
    expect(runner.tokens).toBeLessThanOrEqual(16);
  }
  expect(steps).toBe(Math.ceil(500 / 8));
});

test("a short prompt that arrives behind a long one starts beside it", () => {
  const { core, outcomes } = engine({ tokensMax: 16, sequencesMax: 4, rowsMax: 4 });
  core.submit(request(1, { maxTokens: 300 }));
  outcomes.add(core.step());
  core.submit(request(2, { promptTokens: promptOf(400, 2) }));
  core.submit(request(3, { promptTokens: promptOf(6, 3), maxTokens: 1 }));
  for (let step = 0; step < 3; step++) outcomes.add(core.step());
  expect(outcomes.of(3).end).toMatchObject({ reason: "length" });
  expect(outcomes.of(2).tokens).toEqual([]);
});

test("a preempted request goes on before later ones start", () => {
  const { core, outcomes } = engine({ blockCount: 9 });
  const requests = [1, 2, 3].map((id) => request(id, { promptTokens: promptOf(12, id), maxTokens: 12 }));
  for (const each of requests) core.submit(each);
  const ended: number[] = [];
  while (core.hasWork) {
    const report = core.step();
    outcomes.add(report);
    ended.push(...report.ends.map(({ id }) => id));
  }
  expect(core.statistics().preemptions).toBe(1);
  expect(ended).toEqual([1, 2, 3]);
  for (const each of requests) expect(outcomes.of(each.id).tokens).toEqual(runAlone(each).tokens);
});

test("a prompt holds all the blocks it needs from its first chunk on", () => {
  const { core } = engine({ tokensMax: 8 });
  core.submit(request(1, { promptTokens: promptOf(41, 1) }));
  core.step();
  expect(core.statistics().blocksUsed).toBe(11);
});

test("an abort frees the memory at once, whatever the request was doing", () => {
  const { core, outcomes } = engine({ tokensMax: 16, sequencesMax: 2, rowsMax: 2 });
  core.submit(request(1, { maxTokens: 100 }));
  outcomes.add(core.step());
  core.submit(request(2, { promptTokens: promptOf(100, 2) }));
  outcomes.add(core.step());
  core.submit(request(3));
  expect(core.statistics()).toMatchObject({ running: 2, waiting: 1 });
  for (const id of [1, 2, 3]) core.abort(id);
  expect(core.statistics()).toMatchObject({ running: 0, waiting: 0, blocksUsed: 0 });
  finish(core, outcomes, 1);
  for (const id of [1, 2, 3]) expect(outcomes.of(id).end).toMatchObject({ type: "finish", reason: "abort" });
  core.abort(1);
  expect(core.hasWork).toBe(false);
});

test("requests whose adjustments do not fit into one step take turns and all finish", () => {
  const sampling = { ...GREEDY, repetitionPenalty: 1.5 };
  const { core, outcomes } = engine({ adjustmentsMax: 64, tokensMax: 200 });
  const requests = [1, 2, 3, 4].map((id) =>
    request(id, { promptTokens: promptOf(40, id), maxTokens: 12, sampling }),
  );
  for (const each of requests) core.submit(each);
  const gaps = new Map<number, number>();
  let longest = 0;
  while (core.hasWork) {
    const report = core.step();
    outcomes.add(report);
    for (const { id } of requests) gaps.set(id, (gaps.get(id) ?? 0) + 1);
    for (const id of report.ids) {
      longest = Math.max(longest, gaps.get(id)!);
      gaps.set(id, 0);
    }
  }
  for (const each of requests) expect(outcomes.of(each.id).tokens).toEqual(runAlone(each).tokens);
  expect(longest).toBeLessThanOrEqual(5);
});

test("a model that fails ends every open request with an error, and later ones too", () => {
  const traps = new Map([
    [
      63,
      () => {
        throw new Error("device lost");
      },
    ],
  ]);
  const { core, outcomes } = engine({ sequencesMax: 2, rowsMax: 2 }, { traps });
  for (const id of [1, 2, 3])
    core.submit(request(id, { maxTokens: 500, promptTokens: Int32Array.of(id === 2 ? 63 : 1) }));
  finish(core, outcomes);
  core.submit(request(4));
  finish(core, outcomes);
  for (const id of [1, 2, 3, 4]) {
    expect(outcomes.of(id).end).toEqual({
      type: "error",
      code: "engine_failed",
      message: "the model failed while running: device lost",
    });
  }
  expect(core.failure).not.toBeNull();
  core.checkLedger();
});

test.each([
  ["prompt", { promptTokens: Int32Array.of() }],
  ["vocabulary", { promptTokens: Int32Array.of(1, 64) }],
  ["max_tokens", { maxTokens: -1 }],
  ["alternatives", { promptLogprobs: 5 }],
  ["alternatives", { sampling: { ...GREEDY, logprobs: 5 } }],
  ["temperature", { sampling: { ...GREEDY, temperature: Number.NaN } }],
  ["top_p", { sampling: { ...GREEDY, topP: 1.5 } }],
  ["min_p", { sampling: { ...GREEDY, minP: -1 } }],
  ["top_k", { sampling: { ...GREEDY, topK: 0.5 } }],
  ["repetition_penalty", { sampling: { ...GREEDY, repetitionPenalty: 0 } }],
  ["seed", { sampling: { ...GREEDY, seed: 1n << 64n } }],
  ["bias", { sampling: { ...GREEDY, logitBias: [{ token: 64, bias: 1 }] } }],
])("an impossible %s is refused and harms nobody", (word, changes) => {
  const { core, outcomes } = engine();
  core.submit(request(1));
  core.submit(request(2, changes));
  finish(core, outcomes);
  expect(outcomes.of(2).end).toMatchObject({ type: "error", code: "invalid_request" });
  const end = outcomes.of(2).end;
  if (word !== "vocabulary" && word !== "bias") expect(end?.type === "error" && end.message).toContain(word);
  expect(outcomes.of(1).tokens).toEqual(runAlone(request(1)).tokens);
});

test("a step too small for a full batch is refused when the engine is made", () => {
  expect(() => engine({ tokensMax: 4, sequencesMax: 8 })).toThrow("--max-num-batched-tokens to at least 8");
});

test("a request that has run, and was preempted, is not timed out; one that never ran is", () => {
  let nowMs = 0;
  const runner = new FakeRunner({ limits: { blockCount: 9, sequencesMax: 2, rowsMax: 2 } });
  const core = new EngineCore(runner, { prefixCache: true, clock: () => nowMs, queueTimeoutMs: 1000 });
  const outcomes = new Outcomes();
  for (const id of [1, 2, 3]) core.submit(request(id, { promptTokens: promptOf(12, id), maxTokens: 12 }));
  while (core.statistics().preemptions === 0) outcomes.add(core.step());
  nowMs = 999;
  outcomes.add(core.step());
  expect(outcomes.of(3).end).toBeNull();
  nowMs = 1000;
  finish(core, outcomes);
  expect(outcomes.of(3).end).toMatchObject({ type: "error", code: "overloaded" });
  for (const id of [1, 2]) expect(outcomes.of(id).end).toMatchObject({ type: "finish", reason: "length" });
});

test.each([
  [0, [2]],
  [60_000, [3]],
])("after waiting %i ms a batch request runs with the rank it has risen to", (waitedMs, preempted) => {
  let nowMs = 0;
  const runner = new FakeRunner({ limits: { blockCount: 9, sequencesMax: 3, rowsMax: 3 } });
  const core = new EngineCore(runner, { prefixCache: false, clock: () => nowMs });
  const submit = (id: number, priority: Priority): void =>
    core.submit(request(id, { promptTokens: promptOf(4, id), maxTokens: 16, priority }));
  submit(2, "batch");
  nowMs = waitedMs;
  core.step();
  submit(1, "normal");
  submit(3, "normal");
  // The pool has room for eight blocks, and the three grow to fifteen.
  const ended: number[] = [];
  while (core.hasWork) ended.push(...core.step().ends.map(({ id }) => id));
  expect(core.statistics().preemptions).toBeGreaterThan(0);
  expect(ended.slice(-1)).toEqual(preempted);
});

test("requests with different salts share no prefix", () => {
  const { core, outcomes } = engine();
  const prompt = { promptTokens: promptOf(33, 1), maxTokens: 1 };
  for (const [id, salt] of [
    ["1", "a"],
    ["2", "b"],
    ["3", undefined],
    ["4", "a"],
  ] as const) {
    core.submit(request(Number(id), salt === undefined ? prompt : { ...prompt, cacheSalt: salt }));
    finish(core, outcomes);
  }
  const cached = [1, 2, 3, 4].map((id) => {
    const { end } = outcomes.of(id);
    return end?.type === "finish" ? end.usage.cachedTokens : -1;
  });
  expect(cached).toEqual([0, 0, 0, 32]);
});

test("a row without a usable logit ends its own request and no other", () => {
  const { runner, core, outcomes } = engine();
  const run = runner.run.bind(runner);
  runner.run = (tokens, sequences, rows) => {
    run(tokens, sequences, rows);
    if (rows === 2) runner.outputs.tokens[1] = -1;
  };
  core.submit(request(1, { maxTokens: 12 }));
  core.submit(request(2, { promptTokens: promptOf(5, 9), maxTokens: 12 }));
  finish(core, outcomes);
  expect(outcomes.of(1).tokens).toEqual(runAlone(request(1, { maxTokens: 12 })).tokens);
  expect(outcomes.of(2)).toMatchObject({ tokens: [], end: { type: "error", code: "engine_failed" } });
});
