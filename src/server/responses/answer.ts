/** The course of a response request: planned, run with or without a waiting client, and answered whole or streamed. */

import type { Server } from "bun";
import { warningHeaders } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import { failureOf, HttpFailure } from "../failure.ts";
import { admit } from "../generation/admission.ts";
import { generateText } from "../generation/generate.ts";
import { planText } from "../generation/plan.ts";
import { LIMITS } from "../limits.ts";
import { requireReady, type ServedModel } from "../served-model.ts";
import { DONE_EVENT, dataEvent, eventStream } from "../sse.ts";
import type { ResponseCreateBody } from "./parameters.ts";
import { checkCombinations, conversationOf, responseFrame, responseTextRequest } from "./request.ts";
import { ResponseRun } from "./run.ts";
import type { ResponseBody } from "./shapes.ts";
import type { ResponseStore } from "./store.ts";

export interface ResponseExchange {
  readonly context: ServerContext;
  readonly store: ResponseStore;
  readonly request: Request;
  /** Null when the app is called without a listening server. */
  readonly server: Server<unknown> | null;
  readonly model: ServedModel;
  readonly body: ResponseCreateBody;
  readonly warnings: readonly string[];
}

/** The response when it is complete; a background one at once, queued. A failure is thrown, with its status. */
export async function answerWhole(exchange: ResponseExchange): Promise<ResponseBody> {
  const { request, server } = exchange;
  server?.timeout(request, 0);
  const { run, opening, done } = await begin(exchange);
  if (run.background) return opening;
  await done;
  if (run.error !== undefined) throw run.error;
  return run.body;
}

/** The response's events; a background one goes on when its reader leaves. */
export async function answerStream(exchange: ResponseExchange): Promise<Response> {
  const { request, server, warnings } = exchange;
  server?.timeout(request, 0);
  const { run } = await begin(exchange);
  return eventsOf(exchange, run, -1, warnings);
}

/** The events of a run after this number, until it is over. */
export function eventsOf(
  { context, request }: Pick<ResponseExchange, "context" | "request">,
  run: ResponseRun,
  sequenceNumber: number,
  warnings: readonly string[] = [],
): Response {
  return eventStream({
    scope: run.background ? context.lifecycle.open(request) : run.scope,
    source: untilDone(run.eventsAfter(sequenceNumber)),
    keepAliveIntervalMs: context.keepAliveIntervalMs,
    backlogBytes: context.streamBacklogBytes,
    failureEvents: (error) => dataEvent(JSON.stringify({ error: failureOf(error).message })),
    headers: warningHeaders(warnings),
  });
}

async function* untilDone(events: AsyncIterable<string>): AsyncGenerator<string, void, undefined> {
  yield* events;
  yield DONE_EVENT;
}

interface Begun {
  readonly run: ResponseRun;
  /** The response as it was before any work on it. */
  readonly opening: ResponseBody;
  readonly done: Promise<void>;
}

/** Plans and starts the run. What can be refused is thrown before there is a response. */
async function begin(exchange: ResponseExchange): Promise<Begun> {
  const { context, store, request, model, body } = exchange;
  checkCombinations(body);
  requireReady(model);
  const previousId = body.previous_response_id ?? undefined;
  const before =
    previousId === undefined ? undefined : continued(store.get(previousId, "previous_response_id"));
  const conversation = conversationOf(body, before);
  const text = responseTextRequest(body, conversation, model);
  const plan = planText(model, text);
  const frame = responseFrame(body, text, model);
  if (frame.background) requireRoom(store);

  const scope = frame.background ? context.lifecycle.openDetached() : context.lifecycle.open(request);
  try {
    const source = context.records.observe(
      request,
      text,
      generateText(plan, scope.signal, context.records.queueListener(request)),
    );
    const events = await admit(source, frame.background ? 0 : LIMITS.admissionMs);
    const run = new ResponseRun(frame, scope, conversation, (failure, error) => {
      if (failure.unexpected) context.logError(`response ${frame.id} failed`, error);
    });
    if (frame.store) store.put(run);
    const opening = run.body;
    const done = run.drive(events).then(() => {
      if (!run.background) run.forgetEvents();
    });
    return { run, opening, done };
  } catch (error) {
    scope.close();
    throw error;
  }
}

function continued(previous: ResponseRun) {
  const { status } = previous.body;
  if (status === "completed" || status === "incomplete") return previous.conversation;
  throw new HttpFailure(
    400,
    `The response "${previous.id}" is ${status}; only one that is completed or incomplete can be continued.`,
    { code: "invalid_value", parameter: "previous_response_id" },
  );
}

function requireRoom(store: ResponseStore): void {
  if (store.running < LIMITS.backgroundResponses) return;
  throw new HttpFailure(429, `${store.running} background responses run already, which is the limit.`, {
    code: "overloaded",
    headers: { "retry-after": "5" },
  });
}
