/** All weathers one after the other, until so many requests have come: what the bounded test and the full run share. */

import type { Priority } from "../../../src/engine/messages.ts";
import type { ClientMix } from "./clients.ts";
import { Chance } from "./clock.ts";
import { type EpochResult, runEpoch, type Weather } from "./epoch.ts";

const EVERYBODY: readonly Priority[] = ["interactive", "normal", "normal", "batch"];

const CLIENTS: ClientMix = { promptMax: 160, generatedMax: 50, priorities: EVERYBODY, abortShare: 0.2 };
const SMALL: ClientMix = { ...CLIENTS, promptMax: 60, generatedMax: 30 };

const MACHINE = {
  sequencesMax: 16,
  rowsMax: 64,
  tokensMax: 128,
  blockSize: 16,
  blockCount: 2049,
  blocksPerSequenceMax: 64,
  contextLength: 1024,
  vocabularySize: 64,
  adjustmentsMax: 4096,
};

/** A pool of 160 tokens, in which hardly two requests have room. */
const TINY = { ...MACHINE, sequencesMax: 8, tokensMax: 32, blockSize: 4, blockCount: 41, contextLength: 160 };

export const WEATHERS: readonly Weather[] = [
  {
    name: "room for everybody",
    limits: MACHINE,
    prefixCache: true,
    clients: CLIENTS,
    arrivalMs: 14,
    stepMs: 2,
    tokenMs: 0.05,
  },
  {
    name: "tiny pool",
    limits: TINY,
    prefixCache: true,
    clients: SMALL,
    arrivalMs: 45,
    stepMs: 2,
    tokenMs: 0.05,
  },
  {
    name: "tiny pool without prefix cache",
    limits: TINY,
    prefixCache: false,
    clients: SMALL,
    arrivalMs: 50,
    stepMs: 2,
    tokenMs: 0.05,
  },
  {
    name: "one block per sequence",
    limits: {
      ...MACHINE,
      sequencesMax: 6,
      blockSize: 256,
      blocksPerSequenceMax: 1,
      blockCount: 7,
      contextLength: 256,
    },
    prefixCache: true,
    clients: CLIENTS,
    arrivalMs: 30,
    stepMs: 2,
    tokenMs: 0.05,
  },
  {
    name: "more than it can take, for minutes",
    limits: { ...MACHINE, sequencesMax: 8 },
    prefixCache: false,
    bounds: { queuedRequestsMax: 600, queuedTokensMax: 40_000, pendingTokensMax: 24 },
    clients: {
      ...CLIENTS,
      priorities: ["interactive", "interactive", "interactive", "normal", "batch"],
      abortShare: 0.05,
    },
    arrivalMs: 100,
    stepMs: 30,
    tokenMs: 0.5,
  },
  {
    name: "a device that fails",
    limits: MACHINE,
    prefixCache: true,
    bounds: { pendingTokensMax: 16 },
    clients: CLIENTS,
    arrivalMs: 16,
    stepMs: 2,
    tokenMs: 0.05,
    failureEvery: 400,
  },
  {
    name: "wide batches",
    limits: { ...MACHINE, sequencesMax: 128, rowsMax: 160, tokensMax: 512, blockCount: 700 },
    prefixCache: true,
    clients: CLIENTS,
    arrivalMs: 5,
    stepMs: 4,
    tokenMs: 0.05,
  },
  {
    name: "little patience",
    limits: { ...MACHINE, sequencesMax: 4 },
    prefixCache: false,
    queueTimeoutMs: 1500,
    clients: CLIENTS,
    arrivalMs: 25,
    stepMs: 4,
    tokenMs: 0.05,
  },
];

export interface Simulation {
  readonly epochs: readonly EpochResult[];
  readonly requests: number;
  readonly seconds: number;
}

export async function simulate(
  requests: number,
  seed: number,
  onEpoch: (result: EpochResult) => void = () => {},
): Promise<Simulation> {
  const started = performance.now();
  const epochs: EpochResult[] = [];
  for (const [index, weather] of WEATHERS.entries()) {
    const share = Math.floor(requests / WEATHERS.length) + (index < requests % WEATHERS.length ? 1 : 0);
    const result = await runEpoch(weather, share, new Chance(seed * 1000 + index)).catch(
      (problem: unknown) => {
        throw new Error(
          `weather "${weather.name}", seed ${seed}: ${problem instanceof Error ? problem.message : problem}`,
          {
            cause: problem,
          },
        );
      },
    );
    epochs.push(result);
    onEpoch(result);
  }
  return {
    epochs,
    requests: epochs.reduce((total, epoch) => total + epoch.requests, 0),
    seconds: (performance.now() - started) / 1000,
  };
}
