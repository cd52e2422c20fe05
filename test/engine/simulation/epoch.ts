/**
 * One machine and its weather, simulated from the first arrival until everybody is gone: engine core, request table
 * and event streams are the real ones, time and model are not. Throws at the first thing that is not as it must be.
 */

import { EngineCore } from "../../../src/engine/engine-core.ts";
import type { EngineStatistics, GenerateRequest, GenerationEvent } from "../../../src/engine/messages.ts";
import { type QueueBounds, RequestTable } from "../../../src/engine/request-table.ts";
import { continueStatistics, NO_STATISTICS } from "../../../src/engine/statistics.ts";
import type { StepReport } from "../../../src/engine/step-report.ts";
import type { StepLimits } from "../../../src/models/step.ts";
import { type Client, type ClientMix, expectedTokens, makeClient } from "./clients.ts";
import { type Chance, VirtualClock } from "./clock.ts";
import { SimulatedRunner } from "./runner.ts";
import { WaitingObserver } from "./waiting.ts";

export interface Weather {
  readonly name: string;
  readonly limits: Partial<StepLimits>;
  readonly prefixCache: boolean;
  readonly bounds?: QueueBounds;
  readonly queueTimeoutMs?: number;
  readonly clients: ClientMix;
  /** Mean time between arrivals; now and then many come at once. */
  readonly arrivalMs: number;
  /** Time of a step: so much, and so much for each of its tokens. */
  readonly stepMs: number;
  readonly tokenMs: number;
  /** Steps after which the device fails, on average; never when absent. */
  readonly failureEvery?: number;
}

export interface EpochResult {
  readonly name: string;
  readonly requests: number;
  /** Endings as their clients saw them. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly comparedTokens: number;
  readonly failures: number;
  readonly virtualSeconds: number;
  readonly statistics: EngineStatistics;
  readonly waiting: WaitingObserver;
}

/** The only failure that an engine may have here; every other one is a finding. */
const DEVICE_LOST = new Error("device lost");
const RESTART_MS = 100;
const LEDGER_EVERY_STEPS = 500;
/** Virtual days: nothing that is alive takes that long. */
const STUCK_MS = 1e8;

export async function runEpoch(weather: Weather, count: number, chance: Chance): Promise<EpochResult> {
  const epoch = new Epoch(weather, count, chance);
  await epoch.run();
  return epoch.result();
}

class Epoch {
  readonly #weather: Weather;
  readonly #count: number;
  readonly #chance: Chance;
  readonly #clock = new VirtualClock();
  readonly #runner: SimulatedRunner;
  readonly #table: RequestTable;
  readonly #waiting = new WaitingObserver();
  /** Requests that the engine has and that have not ended: the ledger of terminal events. */
  readonly #open = new Map<number, GenerateRequest>();
  readonly #outcomes: Record<string, number> = {};
  #core: EngineCore;
  #past = NO_STATISTICS;
  #arrived = 0;
  #present = 0;
  #comparedTokens = 0;
  #failures = 0;
  #steps = 0;
  #problem: unknown;

  constructor(weather: Weather, count: number, chance: Chance) {
    this.#weather = weather;
    this.#count = count;
    this.#chance = chance;
    this.#runner = new SimulatedRunner(weather.limits);
    this.#runner.beforeStep = () => {
      if (weather.failureEvery !== undefined && chance.happens(1 / weather.failureEvery)) throw DEVICE_LOST;
    };
    this.#core = this.#makeCore();
    this.#table = new RequestTable(
      {
        submit: (request) => this.#submit(request),
        abort: (id, reason) => this.#core.abort(id, reason),
      },
      { sequencesMax: this.#runner.limits.sequencesMax, ...weather.bounds },
    );
  }

  async run(): Promise<void> {
    this.#scheduleArrival();
    while (this.#arrived < this.#count || this.#present > 0 || this.#core.hasWork) {
      if (this.#core.hasWork) this.#step();
      else if (this.#clock.nextMs < STUCK_MS) this.#clock.advanceTo(this.#clock.nextMs);
      else throw new Error(`nothing happens any more, with ${this.#present} clients waiting`);
      // Every client that has something to read reads it.
      await new Promise(setImmediate);
      if (this.#problem !== undefined) throw this.#problem;
    }
    const { running, waiting, blocksUsed } = this.#core.statistics();
    if (running + waiting + blocksUsed + this.#open.size + this.#table.size + this.#waiting.waiting !== 0) {
      throw new Error(
        `something is left: ${JSON.stringify(this.#core.statistics())}, ${this.#open.size} open`,
      );
    }
    this.#core.checkLedger();
  }

  result(): EpochResult {
    return {
      name: this.#weather.name,
      requests: this.#arrived,
      outcomes: this.#outcomes,
      comparedTokens: this.#comparedTokens,
      failures: this.#failures,
      virtualSeconds: this.#clock.nowMs / 1000,
      statistics: continueStatistics(this.#past, this.#core.statistics()),
      waiting: this.#waiting,
    };
  }

  #makeCore(): EngineCore {
    const { prefixCache, queueTimeoutMs } = this.#weather;
    const timeout = queueTimeoutMs === undefined ? {} : { queueTimeoutMs };
    return new EngineCore(this.#runner, { prefixCache, clock: this.#clock.now, ...timeout });
  }

  #scheduleArrival(): void {
    if (this.#arrived >= this.#count) return;
    this.#clock.at(this.#clock.nowMs + this.#chance.exponential(this.#weather.arrivalMs), () => {
      const together = this.#chance.happens(0.01) ? this.#chance.whole(10, 80) : 1;
      for (let index = 0; index < together && this.#arrived < this.#count; index++) this.#arrive();
      this.#scheduleArrival();
    });
  }

  #arrive(): void {
    this.#arrived += 1;
    this.#present += 1;
    const client = makeClient(this.#chance, this.#weather.clients, this.#runner.limits);
    this.#serve(client).then(
      (outcome) => {
        this.#present -= 1;
        this.#outcomes[outcome] = (this.#outcomes[outcome] ?? 0) + 1;
      },
      (problem: unknown) => {
        this.#problem ??= problem;
      },
    );
  }

  /** A client's life; returns how it ended and throws when it got what it should not. */
  async #serve({ request, manner }: Client): Promise<string> {
    const controller = new AbortController();
    if (manner.kind === "disconnects") {
      this.#clock.at(this.#clock.nowMs + manner.afterMs, () => controller.abort());
    }
    const tokens: number[] = [];
    let prompts = 0;
    let events = 0;
    let end: GenerationEvent | null = null;
    for await (const event of this.#table.start(request, controller.signal)) {
      if (end !== null) throw new Error(`a request goes on after ${JSON.stringify(end)}`);
      if (event.type === "tokens") {
        tokens.push(...event.tokens);
        const wanted = request.sampling.logprobs < 0 ? 0 : event.tokens.length;
        if (event.logprobs.length !== wanted)
          throw new Error(`${event.logprobs.length} log-probabilities, not ${wanted}`);
      } else if (event.type === "prompt") {
        if (event.logprobs.length !== request.promptTokens.length)
          throw new Error("the prompt is scored in part");
        prompts += 1;
      } else {
        end = event;
      }
      events += 1;
      if (manner.kind === "leaves" && events > manner.afterEvents) break;
      if (manner.kind === "stalls" && events === 1) await this.#clock.sleep(60_000);
      if (manner.kind === "reads" && manner.pauseMs > 0) await this.#clock.sleep(manner.pauseMs);
    }
    if (end === null) {
      if (manner.kind !== "leaves") throw new Error("the events of a request ended without a terminal one");
      return "left";
    }
    this.#compare(request, tokens, end, prompts);
    return end.type === "finish" ? end.reason : end.type === "error" ? end.code : "none";
  }

  /** What came must be what the request gets when it is alone, or a beginning of it when it was cut off. */
  #compare(
    request: Omit<GenerateRequest, "id">,
    tokens: number[],
    end: GenerationEvent,
    prompts: number,
  ): void {
    if (tokens.length === 0 && end.type === "error") return;
    const expected = expectedTokens(request, this.#runner.limits);
    const whole = end.type === "finish" && end.reason !== "abort";
    const wanted = whole ? expected : expected.slice(0, tokens.length);
    if (tokens.join() !== wanted.join())
      throw new Error(`a request got ${tokens} and alone gets ${expected}`);
    if (whole && prompts !== Number(request.promptLogprobs >= 0))
      throw new Error(`${prompts} scores of a prompt`);
    if (whole && end.usage.completionTokens !== tokens.length) throw new Error("the usage counts otherwise");
    this.#comparedTokens += tokens.length;
  }

  #submit(request: GenerateRequest): void {
    this.#open.set(request.id, request);
    const { preemptions } = this.#core.statistics();
    const priority = request.priority ?? "normal";
    this.#waiting.submitted(request.id, priority, this.#clock.nowMs, this.#preemptedWaiting(), preemptions);
    this.#core.submit(request);
  }

  /** Sequences that have run, lost their blocks and wait again. */
  #preemptedWaiting(): number {
    return Math.max(0, this.#core.statistics().waiting - this.#waiting.waiting);
  }

  #step(): void {
    const { stepMs, tokenMs, limits } = this.#weather;
    this.#steps += 1;
    const startMs = this.#clock.nowMs;
    const report = this.#core.step();
    this.#account(report, startMs);
    if (this.#steps % LEDGER_EVERY_STEPS === 0) this.#core.checkLedger();
    const { tokens } = this.#runner;
    if (tokens > (limits.tokensMax ?? tokens)) throw new Error(`a step of ${tokens} tokens`);
    // What clients do while the step runs takes effect after it.
    this.#clock.advanceTo(startMs + stepMs + tokens * tokenMs);
    this.#table.dispatch(report);
    const { failure } = this.#core;
    if (failure !== null && failure.cause !== DEVICE_LOST) throw failure;
    if (failure !== null) this.#restart();
    this.#waiting.passed(this.#clock.nowMs, this.#preemptedWaiting(), this.#core.statistics().preemptions);
  }

  /** Every request ends once; whoever starts has waited no longer than the rules allow. */
  #account(report: StepReport, nowMs: number): void {
    const { preemptions } = this.#core.statistics();
    for (const id of report.started)
      this.#waiting.started(id, nowMs, preemptions, !this.#weather.prefixCache);
    for (const { id } of report.ends) {
      if (!this.#open.delete(id)) throw new Error(`request ${id} ended twice, or was never there`);
      this.#waiting.ended(id);
    }
  }

  /** As the supervisor does: whoever came while the engine was failing is told, and a new engine takes over. */
  #restart(): void {
    this.#failures += 1;
    this.#past = continueStatistics(this.#past, this.#core.statistics());
    for (const id of this.#open.keys()) this.#waiting.ended(id);
    this.#open.clear();
    this.#table.failAll("engine_failed", "the engine failed");
    this.#core = this.#makeCore();
    this.#clock.advanceTo(this.#clock.nowMs + RESTART_MS);
  }
}
