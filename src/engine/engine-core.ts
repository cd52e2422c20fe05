/**
 * The step loop's body: applies a plan to blocks and sequences, runs the model once and turns its outputs into
 * a report. Single-threaded and synchronous; whoever owns it decides when the next step happens.
 */

import { MistralError } from "../errors.ts";
import type { ModelRunner } from "../models/step.ts";
import { checkLimits, refusal, requestLengthMax } from "./admission.ts";
import { KvCache } from "./kv-cache.ts";
import type { EngineStatistics, FinishReason, GenerateRequest, TokenLogprob } from "./messages.ts";
import { createPlan, type Plan } from "./plan.ts";
import { schedule } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { SequenceQueue } from "./sequence-queue.ts";
import { NO_STATISTICS } from "./statistics.ts";
import { ReportBuilder, type StepReport } from "./step-report.ts";
import { StepWriter } from "./step-writer.ts";
import { risenClass, WaitingLine } from "./waiting-line.ts";

const NO_TOKEN_LEFT =
  "no token is left to choose: every logit is NaN or minus infinity (the model overflowed, or logit biases forbid all tokens)";

export interface EngineCoreOptions {
  /** Whether full blocks are found again by later requests (`--prefix-cache-n` above 0). */
  readonly prefixCache: boolean;
  /** Secret of the prefix cache's keys, 32 bytes; random when absent. */
  readonly secret?: Uint8Array;
  /** A request that has waited this long without ever running ends with "overloaded"; never when absent. */
  readonly queueTimeoutMs?: number;
  /** Milliseconds that only ever grow; the process's own when absent. */
  readonly clock?: () => number;
  /** Shown every step that ran, before the next one is planned, and how long it took. */
  readonly onStep?: ((plan: Plan, milliseconds: number) => void) | undefined;
}

export class EngineCore {
  readonly #runner: ModelRunner;
  readonly #kv: KvCache;
  readonly #running = new SequenceQueue();
  readonly #waiting = new WaitingLine();
  readonly #open = new Map<number, Sequence>();
  readonly #plan = createPlan();
  readonly #report = new ReportBuilder();
  readonly #writer: StepWriter;
  /** Numbers in a hidden state. */
  readonly #width: number;
  readonly #clock: () => number;
  readonly #queueTimeoutMs: number;
  readonly #onStep: EngineCoreOptions["onStep"];
  #adjustmentTurn: Sequence | null = null;
  #turns = 0;
  #plannedAtMs = 0;
  #failure: MistralError | null = null;
  /** Something ran since the last ledger check. */
  #ledgerDue = false;
  #steps = 0;
  #promptTokens = 0;
  #generatedTokens = 0;
  #preemptions = 0;
  readonly #ended = { stop: 0, length: 0, abort: 0, error: 0 };
  readonly #refused = { tooLong: 0, invalid: 0, queueTimeout: 0 };

  /** Throws `invalid_configuration` when the runner's limits cannot serve a full batch. */
  constructor(runner: ModelRunner, options: EngineCoreOptions) {
    checkLimits(runner.limits);
    this.#runner = runner;
    this.#writer = new StepWriter(runner.inputs, runner.limits);
    this.#width = runner.outputs.hidden.length / runner.limits.rowsMax;
    this.#kv = new KvCache({ ...runner.limits, ...options });
    this.#clock = options.clock ?? (() => performance.now());
    this.#queueTimeoutMs = options.queueTimeoutMs ?? Number.POSITIVE_INFINITY;
    this.#onStep = options.onStep;
  }

  /** Whether `step` has something to do or to tell. */
  get hasWork(): boolean {
    return this.#open.size > 0 || !this.#report.isEmpty;
  }

  /** Why the engine stopped for good, or null. Every request ends with this error from then on. */
  get failure(): MistralError | null {
    return this.#failure;
  }

  /** Queues a request. A refused one ends with an error event in the next report. */
  submit(request: GenerateRequest): void {
    if (this.#open.has(request.id)) throw new Error(`request id ${request.id} is in use`);
    const error = this.#failure ?? refusal(request, this.#runner.limits);
    if (error !== null) {
      if (error.code === "context_length_exceeded") this.#refused.tooLong += 1;
      else if (error.code === "invalid_request") this.#refused.invalid += 1;
      this.#report.error(request.id, error);
      return;
    }
    const lengthMax = requestLengthMax(request, this.#runner.limits);
    const sequence = new Sequence(request, lengthMax, this.#clock());
    this.#kv.prepare(sequence);
    this.#open.set(request.id, sequence);
    this.#waiting.pushBack(sequence);
    this.#ledgerDue = true;
  }

  /**
   * Frees the request's memory now; its end is in the next report: "stop" when its text is complete, "abort" when
   * nobody wants it. Unknown or ended ids are ignored.
   */
  abort(id: number, reason: "stop" | "abort" = "abort"): void {
    const sequence = this.#open.get(id);
    if (sequence !== undefined) this.#end(sequence, reason);
  }

  /**
   * One step: schedule, run, report. A failing model ends every open request with an error in this report and
   * the engine for good; see `failure`.
   */
  step(): StepReport {
    try {
      this.#expire();
      if (this.#open.size > 0) this.#step();
      if (this.#open.size === 0 && this.#ledgerDue) {
        this.#ledgerDue = false;
        this.checkLedger();
      }
    } catch (cause) {
      this.#fail(cause);
    }
    return this.#report.take(this.#clock() - this.#plannedAtMs);
  }

  statistics(): EngineStatistics {
    return {
      ...NO_STATISTICS,
      running: this.#running.size,
      waiting: this.#waiting.size,
      blocksUsed: this.#kv.pool.total - this.#kv.pool.free,
      blocksTotal: this.#kv.pool.total,
      steps: this.#steps,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      preemptions: this.#preemptions,
      prefixCacheQueries: this.#kv.lookups,
      prefixCacheHits: this.#kv.hits,
      prefixCacheEvictions: this.#kv.evictions,
      endedStop: this.#ended.stop,
      endedLength: this.#ended.length,
      endedAbort: this.#ended.abort,
      endedError: this.#ended.error,
      refusedTooLong: this.#refused.tooLong,
      refusedInvalid: this.#refused.invalid,
      refusedQueueTimeout: this.#refused.queueTimeout,
    };
  }

  /** Throws when a block or a sequence is unaccounted for. Runs by itself whenever the engine becomes idle. */
  checkLedger(): void {
    const running: Sequence[] = [];
    for (let sequence = this.#running.first; sequence !== null; sequence = sequence.next)
      running.push(sequence);
    this.#kv.verify(running);
    if (
      this.#running.size + this.#waiting.size !== this.#open.size ||
      running.length !== this.#running.size
    ) {
      throw new Error(
        `engine ledger: ${this.#running.size} running and ${this.#waiting.size} waiting sequences, but ${this.#open.size} open requests`,
      );
    }
  }

  /** Ends those that have waited too long. In each queue the first that has never run is the oldest of them. */
  #expire(): void {
    if (this.#queueTimeoutMs === Number.POSITIVE_INFINITY) return;
    const nowMs = this.#clock();
    for (const queue of this.#waiting.queues) {
      let sequence = queue.first;
      while (sequence !== null) {
        const next: Sequence | null = sequence.next;
        if (sequence.preemptions === 0) {
          const waitedMs = nowMs - sequence.queuedAtMs;
          if (waitedMs < this.#queueTimeoutMs) break;
          this.#refused.queueTimeout += 1;
          this.#end(sequence, queueTimeout(waitedMs));
        }
        sequence = next;
      }
    }
  }

  #step(): void {
    const plan = this.#plan;
    const { limits } = this.#runner;
    const nowMs = this.#clock();
    this.#plannedAtMs = nowMs;
    schedule(
      {
        limits,
        running: this.#running,
        waiting: this.#waiting,
        turns: this.#turns,
        nowMs,
        kv: this.#kv,
        adjustmentTurn: this.#adjustmentTurn,
      },
      plan,
    );
    this.#commit(nowMs);
    if (plan.sequences.length === 0) {
      if (plan.deferred !== null) return; // it has the first turn in the next step
      throw new Error(`nothing can run, with ${this.#running.size} running, ${this.#waiting.size} waiting`);
    }
    this.#writer.write(plan);
    this.#runner.run(plan.tokens, plan.sequences.length, plan.rows);
    this.#steps += 1;
    this.#collect();
    this.#onStep?.(plan, this.#clock() - nowMs);
  }

  /** Moves sequences and blocks as the plan says. Cached prefixes are claimed before any block is taken. */
  #commit(nowMs: number): void {
    const plan = this.#plan;
    this.#turns = plan.turns;
    for (const sequence of plan.preempted) {
      this.#running.remove(sequence);
      this.#kv.release(sequence);
      sequence.state = "waiting";
      sequence.preemptions += 1;
      this.#preemptions += 1;
      this.#waiting.pushFront(sequence);
    }
    for (let index = 0; index < plan.admitted.length; index++) {
      const sequence = plan.admitted[index]!;
      this.#waiting.remove(sequence);
      this.#kv.shareMatched(sequence, plan.admittedMatches[index]!);
      if (sequence.preemptions === 0) {
        sequence.cachedTokens = sequence.computed;
        this.#report.start(sequence.id);
      }
      sequence.state = "running";
      sequence.rank = risenClass(sequence, nowMs);
      this.#running.insertByRank(sequence);
    }
    for (const sequence of plan.admitted) this.#kv.extend(sequence, sequence.length);
    for (let index = 0; index < plan.sequences.length; index++) {
      this.#kv.extend(plan.sequences[index]!, plan.starts[index]! + plan.counts[index]!);
    }
    this.#adjustmentTurn = plan.deferred?.state === "running" ? plan.deferred : null;
  }

  /** Takes the outputs in, sequence by sequence. */
  #collect(): void {
    const plan = this.#plan;
    let row = 0;
    for (let index = 0; index < plan.sequences.length; index++) {
      const sequence = plan.sequences[index]!;
      const start = plan.starts[index]!;
      const count = plan.counts[index]!;
      this.#promptTokens += Math.max(0, Math.min(start + count, sequence.promptLength) - start);
      for (let left = plan.scoreRows[index]!; left > 0; left--) this.#score(sequence, row++);
      sequence.computed = start + count;
      this.#kv.register(sequence);
      if (!sequence.promptReported && sequence.computed >= sequence.promptLength) {
        this.#report.prompt(sequence.id, sequence.promptLogprobs);
        sequence.promptReported = true;
      }
      if (plan.samples[index] === true) this.#sample(sequence, row++);
      else if (!sequence.samples && sequence.computed === sequence.length) this.#complete(sequence);
    }
  }

  #score(sequence: Sequence, row: number): void {
    const { pooled, request } = sequence;
    if (pooled === null) sequence.promptLogprobs.push(this.#logprob(row, request.promptLogprobs));
    else pooled.add(this.#runner.outputs.hidden, row, this.#width);
    sequence.scored += 1;
  }

  /** Nothing is to be generated, and the prompt is done. */
  #complete(sequence: Sequence): void {
    if (sequence.pooled !== null) this.#report.embedding(sequence.id, sequence.pooled.mean());
    this.#end(sequence, sequence.pooled === null ? "length" : "stop");
  }

  #sample(sequence: Sequence, row: number): void {
    const token = this.#runner.outputs.tokens[row]!;
    if (token < 0) {
      this.#end(sequence, new MistralError("engine_failed", NO_TOKEN_LEFT));
      return;
    }
    if (sequence.stopTokens.has(token)) {
      this.#end(sequence, "stop");
      return;
    }
    const { logprobs } = sequence.request.sampling;
    sequence.append(token);
    this.#generatedTokens += 1;
    this.#report.token(sequence.id, token, logprobs < 0 ? null : this.#logprob(row, logprobs));
    if (sequence.length >= sequence.lengthMax) this.#end(sequence, "length");
  }

  #logprob(row: number, topCount: number): TokenLogprob {
    const { tokens, logprobs, topTokens, topLogprobs } = this.#runner.outputs;
    const top: { token: number; logprob: number }[] = [];
    const base = row * this.#runner.limits.topLogprobsMax;
    for (let index = base; index < base + topCount; index++) {
      const token = topTokens[index]!;
      if (token >= 0) top.push({ token, logprob: topLogprobs[index]! });
    }
    return { token: tokens[row]!, logprob: logprobs[row]!, top };
  }

  /** The only way out of the engine: frees the sequence and emits its terminal event. */
  #end(sequence: Sequence, outcome: FinishReason | MistralError): void {
    if (sequence.state === "finished") throw new Error(`request ${sequence.id} ended twice`);
    if (sequence.state === "running") {
      this.#running.remove(sequence);
      this.#kv.release(sequence);
    } else {
      this.#waiting.remove(sequence);
    }
    sequence.state = "finished";
    if (this.#adjustmentTurn === sequence) this.#adjustmentTurn = null;
    this.#open.delete(sequence.id);
    if (outcome instanceof MistralError) {
      // Who never ran is counted as refused.
      if (outcome.code !== "overloaded") this.#ended.error += 1;
      this.#report.error(sequence.id, outcome);
      return;
    }
    this.#ended[outcome] += 1;
    this.#report.finish(sequence.id, outcome, {
      promptTokens: sequence.promptLength,
      completionTokens: sequence.generated,
      cachedTokens: sequence.cachedTokens,
    });
  }

  #fail(cause: unknown): void {
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#failure = new MistralError("engine_failed", `the model failed while running: ${reason}`, { cause });
    for (const sequence of this.#open.values()) this.#end(sequence, this.#failure);
    this.#kv.clearPrefixes();
  }
}

function queueTimeout(waitedMs: number): MistralError {
  const seconds = (waitedMs / 1000).toFixed(1);
  return new MistralError("overloaded", `the request waited ${seconds} s without being run; try again later`);
}
