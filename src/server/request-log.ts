/**
 * The log of whole requests and answers (`--log`), in the blocks of mistral.rs, each followed by an empty line:
 * `Request at <time>: <body>`, `Response at <time>: <json>`, `Error response at <time>: <text>`.
 */

import type { RecordWatcher, RequestRecord } from "./request-record.ts";

export type LogTitle = "Request" | "Response" | "Error response";

/** One block of the log, its empty line included. */
export function logBlock(title: LogTitle, text: string, time: Date = new Date()): string {
  return `${title} at ${localTime(time)}: ${text}\n\n`;
}

/** @param write takes one block @param now the time of day */
export function requestLog(
  write: (block: string) => void,
  now: () => Date = () => new Date(),
): RecordWatcher {
  const block = (title: LogTitle, text: string): void => write(logBlock(title, text, now()));
  return {
    started(record) {
      if (isLogged(record)) block("Request", JSON.stringify(record.body));
    },
    completed(record) {
      if (!isLogged(record)) return;
      if (record.error !== undefined) block("Error response", record.error);
      else block("Response", JSON.stringify(answerOf(record)));
    },
  };
}

/** Requests without a body only ask how the server is. */
function isLogged({ body }: RequestRecord): boolean {
  return typeof body === "object" && body !== null;
}

function answerOf(record: RequestRecord): object {
  const choices = [...record.answers].map((answer) => ({
    content: answer?.content ?? "",
    ...(answer === undefined || answer.reasoning === "" ? {} : { reasoning: answer.reasoning }),
  }));
  return {
    request_id: record.id,
    model: record.model,
    route: record.route,
    status: record.status,
    stream: record.streamed,
    ...(record.usage === undefined ? {} : { usage: record.usage }),
    ...(choices.length === 0 ? {} : { choices }),
  };
}

/** `2026-01-31T12:34:56.789+01:00`. */
function localTime(date: Date): string {
  const offsetMinutes = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offsetMinutes * 60_000).toISOString().slice(0, -1);
  const two = (value: number): string => String(Math.floor(Math.abs(value))).padStart(2, "0");
  return `${local}${offsetMinutes < 0 ? "-" : "+"}${two(offsetMinutes / 60)}:${two(offsetMinutes % 60)}`;
}
