/** Runs all choices of a planned request at once and merges their events into one stream of batches. */

import type { StartListener } from "../../engine/messages.ts";
import { runChoice } from "./choice.ts";
import { EventQueue } from "./event-queue.ts";
import type { TextPlan } from "./plan.ts";
import type { TextEvent, TextUsage } from "./request.ts";

/**
 * The events of a request, in batches of what had happened when the consumer came back. Throws the first failure of
 * any choice, after stopping the others; throws the signal's reason at once when it aborts, however long the engine
 * then takes to notice. Leaving the loop stops the engine's work. `onStarted` is told of each choice that begins.
 */
export async function* generateText(
  plan: TextPlan,
  signal: AbortSignal,
  onStarted?: StartListener,
): AsyncGenerator<readonly TextEvent[], void, undefined> {
  const queue = new EventQueue<TextEvent>();
  const work = new AbortController();
  const onAbort = () => {
    queue.fail(signal.reason);
    work.abort(signal.reason);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });

  const emit = (event: TextEvent) => queue.push(event);
  const runs = plan.choices.map((choice) => runChoice(plan, choice, work.signal, emit, onStarted));
  Promise.all(runs).then(
    (usages) => {
      emit({ type: "usage", usage: totalUsage(plan, usages) });
      queue.end();
    },
    (error: unknown) => {
      queue.fail(error);
      work.abort(error);
    },
  );
  try {
    yield* queue.batches();
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.abort(new DOMException("Nobody waits for the result.", "AbortError"));
  }
}

/** Each prompt is counted once, however many answers it has. */
function totalUsage(plan: TextPlan, usages: readonly TextUsage[]): TextUsage {
  let promptTokens = 0;
  let completionTokens = 0;
  let cachedTokens = 0;
  let reasoningTokens = 0;
  for (const [index, usage] of usages.entries()) {
    completionTokens += usage.completionTokens;
    reasoningTokens += usage.reasoningTokens;
    if (plan.choices[index]?.firstOfPrompt !== true) continue;
    promptTokens += usage.promptTokens;
    cachedTokens += usage.cachedTokens;
  }
  return { promptTokens, completionTokens, cachedTokens, reasoningTokens };
}
