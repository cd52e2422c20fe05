/** Reads a request body as JSON, bounded, whatever its content type says. */

import { HttpFailure } from "./failure.ts";
import { nestsDeeperThan } from "./json-depth.ts";
import { LIMITS } from "./limits.ts";

/** Refuses a body that announces itself as too large, before any of it is read. */
export function checkAnnouncedLength(request: Request): void {
  const announced = Number(request.headers.get("content-length") ?? 0);
  if (announced > LIMITS.bodyBytes) throw tooLarge(`of ${announced} bytes`);
}

/** The parsed body. Throws 413 above the limit, 400 with the reason for anything but a JSON object in UTF-8. */
export async function readJsonBody(request: Request): Promise<object> {
  const encoding = request.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") {
    throw new HttpFailure(
      415,
      `Request bodies with content-encoding "${encoding.slice(0, 40)}" are not supported.`,
      {
        code: "unsupported_encoding",
      },
    );
  }
  const bytes = await readBounded(request);
  if (bytes.byteLength === 0) throw new HttpFailure(400, "The request has no body; send a JSON object.");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new HttpFailure(400, "The request body is not valid UTF-8.", { code: "invalid_json" });
  }
  if (nestsDeeperThan(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), LIMITS.jsonDepth)) {
    throw new HttpFailure(400, `The request body nests deeper than ${LIMITS.jsonDepth} arrays and objects.`, {
      code: "invalid_json",
    });
  }
  const value = parseJson(text, bytes.byteLength);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  const kind = Array.isArray(value) ? "an array" : value === null ? "null" : `a ${typeof value}`;
  throw new HttpFailure(400, `The request body must be a JSON object, not ${kind}.`, {
    code: "invalid_type",
  });
}

function parseJson(text: string, byteLength: number): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).replace(
      /^JSON Parse error: /,
      "",
    );
    throw new HttpFailure(
      400,
      `The request body is not valid JSON: ${reason} (${byteLength} bytes were read).`,
      {
        code: "invalid_json",
      },
    );
  }
}

async function readBounded(request: Request): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  if (request.headers.has("content-length")) {
    checkAnnouncedLength(request);
    return new Uint8Array(await request.arrayBuffer());
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.byteLength;
    if (size > LIMITS.bodyBytes) throw tooLarge("");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(what: string): HttpFailure {
  const limit = `${LIMITS.bodyBytes} bytes (${LIMITS.bodyBytes / 1024 / 1024} MiB)`;
  return new HttpFailure(
    413,
    `The request body ${what} is larger than the limit of ${limit}.`.replace("  ", " "),
    {
      code: "request_too_large",
    },
  );
}
