/**
 * One response from its first event to its last: drives the writer with the engine's events, keeps the event log for
 * readers that come later, and can be stopped. What happens to it does not depend on who reads it.
 */

import type { ChatMessage } from "../../text/types.ts";
import { type Failure, failureOf } from "../failure.ts";
import type { TextEvent } from "../generation/request.ts";
import type { RequestScope } from "../lifecycle.ts";
import { namedEvent } from "../sse.ts";
import { type ResponseFrame, ResponseWriter } from "./event-writer.ts";
import type { ResponseBody } from "./shapes.ts";

/** A conversation up to a response; shared by all that go on from it. */
export interface Conversation {
  readonly before: Conversation | undefined;
  readonly messages: readonly ChatMessage[];
}

export class ResponseRun {
  readonly id: string;
  readonly background: boolean;
  readonly scope: RequestScope;
  readonly #writer: ResponseWriter;
  readonly #conversation: Conversation;
  readonly #inputBytes: number;
  readonly #onFailure: (failure: Failure, error: unknown) => void;
  /** Server-sent events by their sequence number; emptied when nobody can ask for them any more. */
  #log: string[] = [];
  #logBytes = 0;
  #wake = Promise.withResolvers<void>();
  #cancelled = false;
  #error: unknown;

  /** @param scope what the engine's work runs under; closed when the run is over. */
  constructor(
    frame: ResponseFrame,
    scope: RequestScope,
    conversation: Conversation,
    onFailure: (failure: Failure, error: unknown) => void,
  ) {
    this.id = frame.id;
    this.background = frame.background;
    this.scope = scope;
    this.#conversation = conversation;
    this.#inputBytes = JSON.stringify(conversation.messages).length * 2;
    this.#onFailure = onFailure;
    this.#writer = new ResponseWriter(frame, (event) => {
      const text = namedEvent(event.type, JSON.stringify(event));
      this.#log.push(text);
      this.#logBytes += text.length;
    });
    this.#writer.begin();
  }

  get over(): boolean {
    return this.#writer.over;
  }

  get body(): ResponseBody {
    return this.#writer.body;
  }

  /** About what it keeps in memory. */
  get bytes(): number {
    return this.#inputBytes + this.#logBytes;
  }

  /** What made it fail, for an answer that is an error itself. */
  get error(): unknown {
    return this.#error;
  }

  /** The conversation with this response's answer at its end. */
  get conversation(): Conversation {
    const { output_text: content } = this.body;
    return {
      before: this.#conversation,
      messages: [{ role: "assistant", content }],
    };
  }

  /** Runs to the end, whoever listens. Never throws: what fails is an event. */
  async drive(source: AsyncIterable<readonly TextEvent[]>): Promise<void> {
    const writer = this.#writer;
    writer.started();
    this.#notify();
    try {
      for await (const batch of source) {
        for (const event of batch) writer.push(event);
        this.#notify();
      }
      writer.finish();
    } catch (error) {
      this.#end(error);
    } finally {
      this.#notify();
      this.scope.close();
    }
  }

  /** Stops the engine's work. Does nothing to a run that is over. */
  cancel(): void {
    if (this.over) return;
    this.#cancelled = true;
    this.#writer.cancel();
    this.#notify();
    this.scope.abort(new DOMException("The response was cancelled.", "AbortError"), "cancelled");
  }

  /** The log is of no more use: nobody may ask for it again. Readers that have begun keep what they have. */
  forgetEvents(): void {
    this.#log = [];
    this.#logBytes = this.body.output_text.length * 4;
  }

  /** The events after this number, those to come included; ends after the last. */
  async *eventsAfter(sequenceNumber: number): AsyncGenerator<string, void, undefined> {
    const log = this.#log;
    let next = sequenceNumber + 1;
    for (;;) {
      if (next < log.length) {
        const batch = log.slice(next).join("");
        next = log.length;
        yield batch;
      } else if (this.over) {
        return;
      } else {
        await this.#wake.promise;
      }
    }
  }

  #end(error: unknown): void {
    // A client that left has stopped its response; so has whoever cancelled it, who is told at once.
    const stopped = error instanceof DOMException && error.name === "AbortError";
    if (this.#cancelled || this.scope.clientGone || stopped) {
      this.#writer.cancel();
      return;
    }
    const failure = failureOf(error);
    this.#error = error;
    this.#onFailure(failure, error);
    this.#writer.fail(failure);
  }

  #notify(): void {
    const { resolve } = this.#wake;
    this.#wake = Promise.withResolvers<void>();
    resolve();
  }
}
