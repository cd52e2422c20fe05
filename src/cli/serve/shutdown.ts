/**
 * Ends a server on SIGTERM or SIGINT: requests in flight finish, a second signal ends them at once. And when no engine
 * is left that could answer anything.
 */

import type { Engine } from "../../engine/messages.ts";
import type { Log } from "../log.ts";

export interface Stoppable {
  readonly openRequests: number;
  /** Refuses new requests, lets open ones finish for this long, then ends them. */
  stop(drainTimeoutMs: number): Promise<{ readonly forced: boolean }>;
}

/** What the running command hands over as it comes up, so that a signal always finds what is there. */
export interface ShutdownTargets {
  server?: Stoppable;
  /** Frees what computes; called after the server has stopped. */
  closeEngine?: () => Promise<void>;
}

const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143 } as const;
/** Every engine failed again and again: whoever supervises this process had better start it anew. */
const EXIT_USELESS = 3;
/** For the requests that the last failure ended to be told so. */
const LAST_WORDS_MS = 500;
type StopSignal = keyof typeof EXIT_BY_SIGNAL;

/**
 * Listens for signals from now on. The first drains and exits with 0 (at once while the server is still coming
 * up), the second exits with 128 + the signal's number; engine processes end with their parent.
 */
export function exitOnSignals(targets: ShutdownTargets, timeoutSeconds: number, log: Log): void {
  let stopping = false;
  const onSignal = (signal: StopSignal): void => {
    if (stopping) {
      log.write("warning", `${signal} again: ending at once`);
      process.exit(EXIT_BY_SIGNAL[signal]);
    }
    stopping = true;
    void drain(signal, targets, timeoutSeconds, log).then(
      () => process.exit(0),
      (error: unknown) => {
        log.write("error", "the server did not stop as it should", error);
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", () => onSignal("SIGTERM"));
  process.on("SIGINT", () => onSignal("SIGINT"));
}

/** Ends the process when every engine has been given up; undefined while none has been ready. */
export function exitWhenUseless(states: readonly Engine["state"][] | undefined, log: Log): void {
  if (states === undefined || states.some((state) => state !== "failed")) return;
  log.write("error", "no engine is left that could answer; ending");
  setTimeout(() => process.exit(EXIT_USELESS), LAST_WORDS_MS);
}

async function drain(
  signal: StopSignal,
  { server, closeEngine }: ShutdownTargets,
  timeoutSeconds: number,
  log: Log,
): Promise<void> {
  if (server !== undefined) {
    const open = server.openRequests;
    const waiting =
      open === 0 ? "" : `, waiting up to ${timeoutSeconds} s for ${open} open (again to end them now)`;
    log.write("info", `${signal}: no new requests from here on${waiting}`);
    const { forced } = await server.stop(timeoutSeconds * 1000);
    if (forced) log.write("warning", `requests still open after ${timeoutSeconds} s were ended`);
  }
  await closeEngine?.();
  log.write("info", "stopped");
}
