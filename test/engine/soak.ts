/** Tiny requests by the thousand against a live server, a fifth of them by clients that leave; memory as they go by. */

import { residentBytes } from "../cli/processes.ts";
import { complete, engineProcesses, metricsOf, untilIdle } from "./live.ts";
import { Chance } from "./simulation/clock.ts";

export interface SoakOptions {
  readonly url: string;
  /** Of the server. */
  readonly pid: number;
  readonly requests: number;
  /** Requests open at the same time. */
  readonly clients: number;
  readonly onSample?: (sample: SoakSample) => void;
}

export interface SoakSample {
  readonly requests: number;
  readonly serverBytes: number;
  readonly engineBytes: number;
}

export interface SoakResult {
  readonly requests: number;
  readonly answered: number;
  readonly aborted: number;
  readonly seconds: number;
  /**
   * Growth of the least memory, from the middle third of the requests to the last. (Memory itself goes up and down by
   * tens of megabytes, as the collector finds it worth its while.)
   */
  readonly serverGrowthBytes: number;
  readonly engineGrowthBytes: number;
  readonly samples: readonly SoakSample[];
}

const ABORT_SHARE = 0.2;
const SAMPLES = 40;

/** Throws when a request is answered with anything but 200, or when anything is held at the end. */
export async function soak({ url, pid, requests, clients, onSample }: SoakOptions): Promise<SoakResult> {
  const started = performance.now();
  const chance = new Chance(7);
  const [engine] = await engineProcesses(pid);
  const endedBefore = endedOf(await metricsOf(url));
  const samples: SoakSample[] = [];
  let sent = 0;
  let answered = 0;
  let aborted = 0;
  const every = Math.max(1, Math.floor(requests / SAMPLES));
  const one = async (index: number): Promise<void> => {
    const body = {
      prompt: `${index % 50} ${"word ".repeat(chance.whole(0, 6))}`,
      max_tokens: chance.whole(1, 8),
      stream: chance.happens(0.5),
    };
    if (!chance.happens(ABORT_SHARE)) {
      const { status, body: text } = await complete(url, body);
      if (status !== 200) throw new Error(`status ${status}: ${text}`);
      answered += 1;
      return;
    }
    const leave = new AbortController();
    setTimeout(() => leave.abort(), chance.next() * 15);
    aborted += 1;
    // It may be answered before it leaves.
    await complete(url, { ...body, max_tokens: 500 }, leave.signal).catch(() => {});
  };
  const client = async (): Promise<void> => {
    while (sent < requests) {
      const index = sent++;
      await one(index);
      if (index % every !== 0) continue;
      const sample = {
        requests: index,
        serverBytes: residentBytes(pid),
        engineBytes: residentBytes(engine!),
      };
      samples.push(sample);
      onSample?.(sample);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const idle = await untilIdle(url, 2000);
  const restarts = idle.get("mistralrs_engine_restarts_total");
  if (restarts !== 0)
    throw new Error(`the engine was started again ${restarts} times: its ledger did not add up`);
  const ended = endedOf(idle) - endedBefore;
  if (ended > requests) throw new Error(`${ended} sequences ended, of ${requests} requests`);
  return {
    requests,
    answered,
    aborted,
    seconds: (performance.now() - started) / 1000,
    serverGrowthBytes: growth(samples.map(({ serverBytes }) => serverBytes)),
    engineGrowthBytes: growth(samples.map(({ engineBytes }) => engineBytes)),
    samples,
  };
}

/** Sequences that have ended, however they did. */
function endedOf(metrics: ReadonlyMap<string, number>): number {
  const names = [...metrics.keys()].filter((name) => name.startsWith("mistralrs_sequences_completed"));
  return names.reduce((sum, name) => sum + metrics.get(name)!, 0);
}

function growth(bytes: readonly number[]): number {
  const third = Math.floor(bytes.length / 3);
  return Math.min(...bytes.slice(-third)) - Math.min(...bytes.slice(third, 2 * third));
}
