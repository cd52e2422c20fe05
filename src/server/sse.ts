/**
 * The one writer of server-sent events. It owns the stream's bytes: headers go out at once, silence is filled with
 * comments, a failure becomes an event, and a client that does not read loses its stream instead of slowing the
 * engine. Elysia's generator streams do none of this, so no route uses them.
 */

import type { RequestScope } from "./lifecycle.ts";

export interface EventStreamOptions {
  /** Closed when the stream is; aborted when its client goes away or falls behind. */
  readonly scope: RequestScope;
  /** Complete events, made with the functions below; several may be joined in one string. */
  readonly source: AsyncIterable<string>;
  /** Silence in milliseconds after which `keepAlive` is sent. */
  readonly keepAliveIntervalMs: number;
  /** What fills silence; a comment when left out. */
  readonly keepAlive?: string;
  /** Unread bytes after which the client counts as gone. */
  readonly backlogBytes: number;
  /** The events that tell of a failure; the stream ends after them. */
  readonly failureEvents: (error: unknown) => string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One event with this JSON text, which must contain no line break, as what JSON.stringify makes never does. */
export function dataEvent(json: string): string {
  return `data: ${json}\n\n`;
}

/** The same with a name, by which clients tell events apart. */
export function namedEvent(name: string, json: string): string {
  return `event: ${name}\ndata: ${json}\n\n`;
}

export const DONE_EVENT = dataEvent("[DONE]");

/** Fills silence for clients that only have to know that the connection lives. */
const KEEP_ALIVE_COMMENT = ": keep-alive\n\n";

const OPENING = ":\n\n";
const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // Reverse proxies of the nginx kind gather responses unless told not to.
  "x-accel-buffering": "no",
} as const;

export function eventStream(options: EventStreamOptions): Response {
  const writer = new EventStreamWriter(options);
  return new Response(writer.stream, { headers: { ...HEADERS, ...options.headers } });
}

class EventStreamWriter {
  readonly stream: ReadableStream<Uint8Array>;
  readonly #options: EventStreamOptions;
  readonly #encoder = new TextEncoder();
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastWriteMs = 0;

  constructor(options: EventStreamOptions) {
    this.#options = options;
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
          this.#write(OPENING);
          this.#scheduleKeepAlive(options.keepAliveIntervalMs);
          void this.#pump();
        },
        cancel: () => this.#end(() => {}),
      },
      { highWaterMark: options.backlogBytes, size: (chunk) => chunk?.byteLength ?? 0 },
    );
  }

  /** Drains the source as fast as it produces, whatever the client does. */
  async #pump(): Promise<void> {
    try {
      for await (const events of this.#options.source) {
        this.#write(events);
        if (this.#controller === undefined) return;
      }
    } catch (error) {
      // To a client that is gone the failure is the echo of its own leaving.
      const unheard = this.#controller === undefined || this.#options.scope.clientGone;
      if (!unheard) this.#write(this.#options.failureEvents(error));
    }
    this.#end((controller) => controller.close());
  }

  #write(events: string): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    if ((controller.desiredSize ?? 0) <= 0) {
      const unread = `the client left more than ${this.#options.backlogBytes} bytes unread`;
      this.#options.scope.abort(new DOMException(unread, "AbortError"), "client_too_slow");
      this.#end((stream) => stream.error(new Error(unread)));
      return;
    }
    controller.enqueue(this.#encoder.encode(events));
    this.#lastWriteMs = performance.now();
  }

  #scheduleKeepAlive(delayMs: number): void {
    this.#timer = setTimeout(() => {
      const { keepAliveIntervalMs, keepAlive = KEEP_ALIVE_COMMENT } = this.#options;
      const silentMs = performance.now() - this.#lastWriteMs;
      if (silentMs + 1 < keepAliveIntervalMs) {
        this.#scheduleKeepAlive(keepAliveIntervalMs - silentMs);
        return;
      }
      this.#write(keepAlive);
      if (this.#controller !== undefined) this.#scheduleKeepAlive(keepAliveIntervalMs);
    }, delayMs);
  }

  /** The one end of a stream, however it comes about; later calls do nothing. */
  #end(finish: (controller: ReadableStreamDefaultController<Uint8Array>) => void): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    this.#controller = undefined;
    clearTimeout(this.#timer);
    finish(controller);
    this.#options.scope.close();
  }
}
