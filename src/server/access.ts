/**
 * Who may call: API keys on every route but /health, and administration only from this machine while there are no
 * keys. Also the bounds of a request's headers, which are checked before anything reads them.
 */

import { isIP } from "node:net";
import { type KeyRing, presentedKeys } from "./api-keys.ts";
import type { CorsPolicy } from "./cors.ts";
import { HttpFailure } from "./failure.ts";
import { LIMITS } from "./limits.ts";

/** Answered without a key, so that whatever watches over the process needs none. */
const OPEN_PATH = "/health";

/** Throws 431 for more headers than any client has reason to send. */
export function checkHeaders(headers: Headers): void {
  let count = 0;
  let bytes = 0;
  headers.forEach((value, name) => {
    count += 1;
    bytes += name.length + value.length + 4;
  });
  if (count <= LIMITS.headers && bytes <= LIMITS.headerBytes) return;
  throw new HttpFailure(
    431,
    `The request has ${count} headers of ${bytes} bytes together; the limits are ${LIMITS.headers} headers and ${LIMITS.headerBytes} bytes.`,
    { code: "headers_too_large" },
  );
}

/** The name of the key the request presents; undefined where none is needed. Throws 401. */
export function requireKey(request: Request, path: string, keys: KeyRing | undefined): string | undefined {
  if (keys === undefined || path === OPEN_PATH) return undefined;
  const presented = presentedKeys(request.headers);
  for (const key of presented) {
    const name = keys.nameOf(key);
    if (name !== undefined) return name;
  }
  const page = request.headers.get("accept")?.includes("text/html") === true;
  throw new HttpFailure(
    401,
    presented.length === 0
      ? 'This server asks for an API key; send it as "Authorization: Bearer ..." or as "x-api-key".'
      : "The API key is not one of this server's.",
    {
      code: presented.length === 0 ? "missing_api_key" : "invalid_api_key",
      headers: { "www-authenticate": `${page ? "Basic" : "Bearer"} realm="mistral.ts"` },
    },
  );
}

export interface Caller {
  readonly request: Request;
  /** The address of the connection; undefined when the app is called without a network. */
  readonly address: string | undefined;
}

/**
 * Throws 403 unless the caller may administer: with keys every holder of one may, without keys only programs on this
 * machine. A proxy in front makes every caller look local, and so does a browser that runs a stranger's page here;
 * both show in the headers they send.
 */
export function requireAdministrator(
  { request, address }: Caller,
  keys: KeyRing | undefined,
  cors: CorsPolicy,
): void {
  const origin = request.headers.get("origin");
  if (origin !== null && !cors.allows(origin) && !isLoopbackOrigin(origin)) {
    throw forbidden(`Pages of ${origin.slice(0, 200)} may not administer this server (--cors-origin).`);
  }
  if (keys !== undefined) return;
  const forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"].find((name) => request.headers.has(name));
  if (forwarded !== undefined) {
    throw forbidden(
      `Administration through a proxy (the request has the header ${forwarded}) needs an API key; start the server with --api-key.`,
    );
  }
  if (address !== undefined && !isLoopbackAddress(address)) {
    throw forbidden(
      "Administration from another machine needs an API key; start the server with --api-key, or call from its own machine.",
    );
  }
}

export function isLoopbackAddress(address: string): boolean {
  const plain = address.toLowerCase().replace(/^::ffff:/, "");
  return plain === "::1" || (isIP(plain) === 4 && plain.startsWith("127."));
}

/** Whether a server that binds this host can be reached from other machines. */
export function isPublicHost(hostname: string): boolean {
  return hostname.toLowerCase() !== "localhost" && !isLoopbackAddress(hostname);
}

function isLoopbackOrigin(origin: string): boolean {
  if (!URL.canParse(origin)) return false;
  const { hostname } = new URL(origin);
  return hostname === "localhost" || isLoopbackAddress(hostname.replace(/^\[|\]$/g, ""));
}

function forbidden(message: string): HttpFailure {
  return new HttpFailure(403, message, { code: "forbidden" });
}
