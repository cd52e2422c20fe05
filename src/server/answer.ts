/**
 * The course of a text request, the same for every endpoint and dialect: plan, run, and answer either with a stream or
 * with its fold. What differs is given as functions.
 */

import type { Server } from "bun";
import type { ServerContext } from "./context.ts";
import { type Failure, failureOf } from "./failure.ts";
import { admit } from "./generation/admission.ts";
import { generateText } from "./generation/generate.ts";
import { planText } from "./generation/plan.ts";
import type { TextEvent, TextRequest } from "./generation/request.ts";
import { LIMITS } from "./limits.ts";
import { requireReady, type ServedModel } from "./served-model.ts";
import { eventStream } from "./sse.ts";

export interface Exchange {
  readonly context: ServerContext;
  readonly request: Request;
  /** Null when the app is called without a listening server. */
  readonly server: Server<unknown> | null;
  readonly model: ServedModel;
  readonly text: TextRequest;
  /** Sent as `x-mistral-warning`, so that a client can see what was ignored. */
  readonly warnings: readonly string[];
}

type TextEvents = AsyncIterable<readonly TextEvent[]>;

/** Admits a request and starts its work; whoever answers closes the scope. */
function begin({ context, request, server, model, text }: Exchange) {
  requireReady(model);
  const plan = planText(model, text);
  const scope = context.lifecycle.open(request);
  try {
    server?.timeout(request, 0);
    const generated = generateText(plan, scope.signal, context.records.queueListener(request));
    const events = context.records.observe(request, text, generated);
    return { scope, events, choiceCount: plan.choices.length };
  } catch (error) {
    scope.close();
    throw error;
  }
}

/** The whole answer at once; a client that leaves ends the work. */
export async function answerWhole<Body>(
  exchange: Exchange,
  fold: (events: TextEvents, choiceCount: number) => Promise<Body>,
): Promise<Body> {
  const { scope, events, choiceCount } = begin(exchange);
  try {
    return await fold(events, choiceCount);
  } finally {
    scope.close();
  }
}

/** How a dialect writes a stream. */
export interface StreamEncoding {
  readonly encode: (events: TextEvents, choiceCount: number) => AsyncIterable<string>;
  /** The event that tells of a failure. */
  readonly failure: (failure: Failure) => string;
  /** What fills silence; a comment when left out. */
  readonly keepAlive?: string;
}

/**
 * The answer as a stream. What can be refused is refused before it begins, with its status; what fails later is told
 * in an error event, after which the stream ends without its closing mark.
 */
export async function answerStream(exchange: Exchange, encoding: StreamEncoding): Promise<Response> {
  const { context } = exchange;
  const { scope, events, choiceCount } = begin(exchange);
  try {
    const admitted = await admit(events, LIMITS.admissionMs);
    return eventStream({
      scope,
      source: encoding.encode(admitted, choiceCount),
      ...(encoding.keepAlive === undefined ? {} : { keepAlive: encoding.keepAlive }),
      keepAliveIntervalMs: context.keepAliveIntervalMs,
      backlogBytes: context.streamBacklogBytes,
      failureEvents: (error) => {
        const failure = failureOf(error);
        if (failure.unexpected) context.logError("a stream failed", error);
        return encoding.failure(failure);
      },
      headers: warningHeaders(exchange.warnings),
    });
  } catch (error) {
    scope.close();
    throw error;
  }
}

export function warningHeaders(warnings: readonly string[]): Record<string, string> {
  return warnings.length === 0 ? {} : { "x-mistral-warning": warnings.join("; ").slice(0, 2_000) };
}
