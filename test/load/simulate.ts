/**
 * The scheduler's simulation at full length, by hand: `bun test/load/simulate.ts [--requests 100000] [--seed 1]
 * [--json]`. Prints what happened in each weather, how long each class waited, how even streams stay beside a prompt of
 * 30,000 tokens and what a step costs from 16 to 1,024 sequences. Ends with status 1 when anything was not as it must be.
 */

import { parseArgs } from "node:util";
import { measureGap, measureStep } from "../engine/simulation/measure.ts";
import { simulate } from "../engine/simulation/simulation.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});
const requests = Number(values.requests);
const seed = Number(values.seed);
const say = (line: string): void => {
  if (!values.json) console.log(line);
};

const PRIORITIES = ["interactive", "normal", "batch"] as const;
const ms = (value: number): string => `${value.toFixed(value < 100 ? 1 : 0)} ms`;

const { epochs, seconds } = await simulate(requests, seed, ({ name, statistics, waiting, ...epoch }) => {
  say(
    `\n${name}: ${epoch.requests} requests in ${epoch.virtualSeconds.toFixed(0)} virtual s, ${statistics.steps} steps`,
  );
  say(`  ended: ${JSON.stringify(epoch.outcomes)}; ${epoch.comparedTokens} tokens as alone`);
  say(
    `  ${statistics.preemptions} preemptions, ${statistics.prefixCacheHits} of ${statistics.prefixCacheQueries} prefixes found, ${statistics.prefixCacheEvictions} blocks overwritten, ${epoch.failures} engine failures`,
  );
  for (const priority of PRIORITIES) {
    const { p50Ms, p99Ms, maxMs, requests: count } = waiting.summary(priority);
    say(`  ${priority}: ${count} waited ${ms(p50Ms)} p50, ${ms(p99Ms)} p99, ${ms(maxMs)} at most`);
  }
  const checked = waiting.checkedRisen + waiting.checkedTop;
  if (checked > 0) {
    say(
      `  starvation bound: ${waiting.checkedTop} of the top class and ${waiting.checkedRisen} risen ones within it, at most ${(waiting.tightest * 100).toFixed(0)} % of it used`,
    );
  }
});
say(
  `\nledger: clean after each weather, idle or not; ${requests} requests, each ended once, in ${seconds.toFixed(1)} s`,
);

const gap = measureGap();
say(
  `\n${gap.streams} streams beside a prompt of ${gap.promptTokens} tokens: a token in every ${gap.gapSteps === 1 ? "step" : `${gap.gapSteps} steps`}, gap at most ${ms(gap.gapMs)}; a full-budget step takes ${ms(gap.fullStepMs)}; the prompt took ${gap.promptSteps} steps of at least ${gap.promptTokensPerStepMin} tokens`,
);
const curve = [16, 32, 64, 128, 256, 512, 1024].map((running) => measureStep(running, 0));
const queue = [64, 256, 1024, 4096].map((waiting) => measureStep(16, waiting));
say("\nrunning  waiting  step        per sequence");
for (const { running, waiting, stepUs, sequenceUs } of [...curve, ...queue]) {
  say(
    `${String(running).padStart(7)}  ${String(waiting).padStart(7)}  ${`${stepUs.toFixed(1)} us`.padEnd(10)}  ${sequenceUs.toFixed(3)} us`,
  );
}
if (values.json) {
  const weathers = epochs.map(({ waiting, ...epoch }) => ({
    ...epoch,
    waits: Object.fromEntries(PRIORITIES.map((priority) => [priority, waiting.summary(priority)])),
    starvation_bound_used: waiting.tightest,
  }));
  console.log(JSON.stringify({ requests, seed, seconds, weathers, gap, curve, queue }));
}
