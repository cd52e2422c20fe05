/** Starts and stops the HTTP server: binds its address, drains what runs, and ends what does not end by itself. */

import { MistralError } from "../errors.ts";
import { type AppOptions, createApp } from "./app.ts";
import { Lifecycle } from "./lifecycle.ts";
import { LIMITS } from "./limits.ts";

export interface ServerOptions extends Omit<AppOptions, "lifecycle"> {
  readonly hostname: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Closes connections without a request after this time; requests in progress are never cut. 0, the default: never. */
  readonly idleTimeoutSeconds?: number;
  /** HTTPS with this certificate instead of plain HTTP. */
  readonly tls?: TlsFiles;
}

/** Certificate chain and private key, in PEM. */
export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
}

export interface RunningServer {
  readonly hostname: string;
  readonly port: number;
  /** Where a client on this machine reaches it: "http://127.0.0.1:1234". */
  readonly url: string;
  readonly openRequests: number;
  /**
   * Refuses new work, waits up to `drainTimeoutMs` for the open requests, then ends them with an error their clients
   * are told. Resolves when every connection is closed, with whether requests had to be ended.
   */
  stop(drainTimeoutMs: number): Promise<{ readonly forced: boolean }>;
}

const POLL_MS = 20;
/** Time for ended requests to tell their clients, and for connections to take their last bytes. */
const FAREWELL_MS = 500;

/** Throws invalid_configuration when the address cannot be bound. */
export function startServer(options: ServerOptions): RunningServer {
  const lifecycle = new Lifecycle();
  const app = createApp({ models: options.models, settings: options.settings, lifecycle });
  const { hostname, tls } = options;
  try {
    app.listen({
      hostname,
      port: options.port,
      // Requests switch it off for themselves: long prefills and silent streams are normal.
      idleTimeout: options.idleTimeoutSeconds ?? 0,
      // Elysia's default would let a second server share the port and take half of the requests.
      reusePort: false,
      maxRequestBodySize: LIMITS.transportBodyBytes,
      development: false,
      ...(tls === undefined ? {} : { tls: { cert: tls.certificate, key: tls.key } }),
    });
  } catch (error) {
    throw bindFailure(hostname, options.port, error);
  }
  const port = app.server?.port;
  if (port === undefined) throw bindFailure(hostname, options.port, undefined);

  return {
    hostname,
    port,
    url: `${tls === undefined ? "http" : "https"}://${localAddress(hostname)}:${port}`,
    get openRequests() {
      return lifecycle.openRequests;
    },
    async stop(drainTimeoutMs) {
      lifecycle.drain();
      const drained = await settles(() => lifecycle.openRequests === 0, drainTimeoutMs);
      if (!drained) {
        lifecycle.abortAll();
        await settles(() => lifecycle.openRequests === 0, FAREWELL_MS);
      }
      await Promise.race([app.server?.stop(false), Bun.sleep(FAREWELL_MS)]);
      await app.server?.stop(true);
      return { forced: !drained };
    },
  };
}

async function settles(done: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!done()) {
    if (performance.now() >= deadlineMs) return false;
    await Bun.sleep(POLL_MS);
  }
  return true;
}

function localAddress(hostname: string): string {
  if (hostname === "0.0.0.0" || hostname === "::") return "127.0.0.1";
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}

function bindFailure(hostname: string, port: number, cause: unknown): MistralError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const reason =
    code === "EADDRINUSE"
      ? "another process already listens there; stop it or choose another port"
      : cause instanceof Error
        ? cause.message
        : "the server did not start";
  return new MistralError("invalid_configuration", `Cannot listen on ${hostname}:${port}: ${reason}.`, {
    parameter: "port",
    cause,
  });
}
