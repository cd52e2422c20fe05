/** What every download shares: time limits, reachability, and failures said in words that help. */

import { MistralError } from "../errors.ts";
import type { Environment } from "./cache-paths.ts";

export interface NetworkTiming {
  /** To find the host and open a connection. Short: a machine without a network must get on with it. */
  readonly connectMs: number;
  /** From a request to the head of its answer. */
  readonly responseMs: number;
  /** Between two pieces of an answer. */
  readonly stallMs: number;
  /** Pauses before the second, third, ... attempt at a transfer that was cut. */
  readonly retryDelaysMs: readonly number[];
}

export const NETWORK_TIMING: NetworkTiming = {
  connectMs: 3_000,
  responseMs: 15_000,
  stallMs: 30_000,
  retryDelaysMs: [500, 1_000, 2_000, 4_000],
};

/** The listing of a repository of ten thousand files has 3 MB. */
const PAGE_BYTES_MAX = 16 << 20;
const PROXY_VARIABLES = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/**
 * Throws `network` unless the host of `url` accepts a connection in time. Behind a proxy only the proxy can tell,
 * so nothing is tried.
 */
export async function expectReachable(
  url: URL,
  environment: Environment,
  timing: NetworkTiming,
): Promise<void> {
  if (PROXY_VARIABLES.some((name) => environment[name])) return;
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  // Costs milliseconds that a start without a download need not spend.
  const { connect } = await import("node:net");
  await new Promise<void>((resolve, reject) => {
    const socket = connect({ host, port });
    const fail = (reason: string): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new MistralError("network", `cannot connect to ${url.host}: ${reason}`));
    };
    const timer = setTimeout(() => fail(`no answer in ${timing.connectMs} ms`), timing.connectMs);
    socket.once("error", (error) => fail(networkReason(error)));
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.destroy();
      resolve();
    });
  });
}

/**
 * `fetch` with a limit on the time to the head of the answer. `stop` ends the answer's body too. Throws `network`
 * when there is no answer; an answer of any status is returned.
 */
export async function request(
  url: string | URL,
  headers: Readonly<Record<string, string>>,
  timing: NetworkTiming,
): Promise<{ readonly response: Response; readonly stop: () => void }> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timing.responseMs);
  try {
    const response = await fetch(url, { headers, signal: controller.signal });
    return { response, stop: () => controller.abort() };
  } catch (error) {
    const reason = controller.signal.aborted ? `no answer in ${timing.responseMs} ms` : networkReason(error);
    throw new MistralError("network", `${shownUrl(url)}: ${reason}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** An answer whose body was read to its end. */
export interface Page {
  readonly status: number;
  readonly headers: Headers;
  /** Where redirects led. */
  readonly url: string;
  readonly text: string;
}

/** Fetches a small text, all of it within the time for an answer. Throws `network`; any status is returned. */
export async function requestPage(
  url: string | URL,
  headers: Readonly<Record<string, string>>,
  timing: NetworkTiming,
): Promise<Page> {
  const { response, stop } = await request(url, headers, timing);
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stop();
  }, timing.responseMs);
  try {
    for await (const piece of response.body ?? []) {
      bytes += piece.length;
      if (bytes > PAGE_BYTES_MAX) throw new Error(`the answer is longer than ${PAGE_BYTES_MAX} bytes`);
      pieces.push(piece);
    }
  } catch (error) {
    stop();
    const reason = late ? `no full answer in ${timing.responseMs} ms` : networkReason(error);
    throw new MistralError("network", `${shownUrl(url)}: ${reason}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
  const text = Buffer.concat(pieces).toString("utf8");
  return { status: response.status, headers: response.headers, url: response.url || String(url), text };
}

/** A URL as it may be printed: without credentials and without a signed query. */
export function shownUrl(url: string | URL): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOTFOUND: "the host name is unknown (no network, or no such host)",
  EAI_AGAIN: "the host name cannot be looked up (no network?)",
  ECONNREFUSED: "the connection was refused",
  ConnectionRefused: "the connection was refused",
  ECONNRESET: "the connection was cut",
  ConnectionClosed: "the connection was cut",
  ENETUNREACH: "the network is unreachable",
  EHOSTUNREACH: "the host is unreachable",
};

/** Why a connection failed. */
export function networkReason(error: unknown): string {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === "string") return REASONS[code] ?? `${String(message ?? "failed")} (${code})`;
  return typeof message === "string" ? message : String(error);
}
