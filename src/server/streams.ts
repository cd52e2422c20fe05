/** Marks a route in the API document as one that may answer with a stream, and of what. */

import type { TSchema } from "@sinclair/typebox";

/** The key under which the document's builder finds the schema of a route's events. */
export const STREAM_SCHEMA = "x-stream-schema";

/** To be spread into a route's `detail`: its 200 may also be server-sent events with this JSON as their data. */
export function streams(event: TSchema): Readonly<Record<string, TSchema>> {
  return { [STREAM_SCHEMA]: event };
}
