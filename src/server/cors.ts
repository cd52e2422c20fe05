/** Which web pages of other origins may call this server: none, unless they are named. */

import { MistralError } from "../errors.ts";

const METHODS = "GET, POST, PUT, DELETE, OPTIONS";
const HEADERS =
  "authorization, content-type, x-api-key, x-request-id, anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access";
const EXPOSED = "x-request-id, x-mistral-warning, retry-after";
const REMEMBERED_SECONDS = 600;

export class CorsPolicy {
  readonly #origins: ReadonlySet<string>;

  /** @param origins such as `https://chat.example`; `*` is any. Throws invalid_configuration for what is no origin. */
  constructor(origins: readonly string[]) {
    for (const origin of origins) {
      if (origin === "*" || (URL.canParse(origin) && new URL(origin).origin === origin)) continue;
      throw new MistralError(
        "invalid_configuration",
        `--cors-origin "${origin}" is no origin; write scheme, host and port only, such as https://chat.example`,
        { parameter: "--cors-origin" },
      );
    }
    this.#origins = new Set(origins);
  }

  allows(origin: string): boolean {
    return this.#origins.has("*") || this.#origins.has(origin);
  }

  /** Headers for the answer to a request; none where no page may read it. */
  headersFor(request: Request): Readonly<Record<string, string>> {
    if (this.#origins.size === 0) return {};
    const origin = request.headers.get("origin");
    if (origin === null || !this.allows(origin)) return { vary: "origin" };
    return {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": EXPOSED,
      vary: "origin",
    };
  }

  /** The answer to a browser that asks before it sends; undefined when this is no such question, or not from a friend. */
  preflight(request: Request): Response | undefined {
    if (request.method !== "OPTIONS" || !request.headers.has("access-control-request-method"))
      return undefined;
    const origin = request.headers.get("origin");
    if (origin === null || !this.allows(origin)) return undefined;
    const asked = request.headers.get("access-control-request-headers");
    return new Response(null, {
      status: 204,
      headers: {
        ...this.headersFor(request),
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": asked ?? HEADERS,
        "access-control-max-age": String(REMEMBERED_SECONDS),
        vary: "origin, access-control-request-headers",
      },
    });
  }
}
