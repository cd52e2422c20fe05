/**
 * Which chat template a model has. A model can bring several; the strongest source that exists wins: a template
 * given explicitly, `chat_template.jinja`, `tokenizer_config.json`, `chat_template.json`, GGUF metadata.
 */

import { existsSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { MistralError } from "../errors.ts";

/** The templates of a model; `toolUse` is for requests with tools where the model has another one for them. */
export interface ChatTemplateSource {
  /** Where it was found, for the log. */
  readonly from: string;
  readonly template: string;
  readonly toolUse: string | undefined;
}

export interface ChatTemplatePlaces {
  /** A `.jinja` file, or a `.json` file with a `chat_template`, that the user gave. */
  readonly file?: string | undefined;
  /** The folder of the model's Hugging Face files. */
  readonly folder?: string | undefined;
  readonly ggufMetadata?: ReadonlyMap<string, unknown> | undefined;
}

function invalid(path: string, message: string, cause?: unknown): MistralError {
  return new MistralError("invalid_model_file", `${path}: ${message}`, { cause });
}

function readJson(path: string): Readonly<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw invalid(path, (cause as Error).message, cause);
  }
  if (typeof parsed !== "object" || parsed === null) throw invalid(path, "is not a JSON object");
  return parsed as Record<string, unknown>;
}

/** `chat_template` of a JSON file: a text, or a list of named ones. */
function fromJson(path: string): ChatTemplateSource | undefined {
  if (!existsSync(path)) return undefined;
  const stored = readJson(path).chat_template;
  if (stored === undefined || stored === null) return undefined;
  if (typeof stored === "string") return { from: path, template: stored, toolUse: undefined };
  if (!Array.isArray(stored)) throw invalid(path, "chat_template is neither a text nor a list");
  const named = new Map<unknown, unknown>(stored.map((entry) => [entry?.name, entry?.template]));
  return fromNamed(path, named.get("default"), named.get("tool_use"));
}

/** A model may have only a template for tools; it then serves all requests. */
function fromNamed(from: string, plain: unknown, toolUse: unknown): ChatTemplateSource | undefined {
  const forTools = typeof toolUse === "string" ? toolUse : undefined;
  const template = typeof plain === "string" ? plain : forTools;
  return template === undefined ? undefined : { from, template, toolUse: forTools };
}

function fromText(path: string): ChatTemplateSource | undefined {
  return existsSync(path)
    ? { from: path, template: readFileSync(path, "utf8"), toolUse: undefined }
    : undefined;
}

function fromFile(path: string): ChatTemplateSource {
  const parameter = "chat-template";
  const read = { ".jinja": fromText, ".json": fromJson }[extname(path)];
  if (read === undefined) {
    throw new MistralError("invalid_configuration", `${path}: a chat template is a .jinja or a .json file`, {
      parameter,
    });
  }
  const source = read(path);
  if (source !== undefined) return source;
  const reason = existsSync(path) ? "has no chat_template" : "does not exist";
  throw new MistralError("invalid_configuration", `${path}: ${reason}`, { parameter });
}

function fromGguf(metadata: ReadonlyMap<string, unknown>): ChatTemplateSource | undefined {
  const key = "tokenizer.chat_template";
  return fromNamed(`GGUF metadata ${key}`, metadata.get(key), metadata.get(`${key}.tool_use`));
}

/**
 * Finds the template, or undefined when the model has none (it can then only complete raw prompts). Throws
 * `invalid_configuration` for a file that was asked for and cannot be used, `invalid_model_file` for malformed ones.
 */
export function findChatTemplate(places: ChatTemplatePlaces): ChatTemplateSource | undefined {
  const { file, folder, ggufMetadata } = places;
  if (file !== undefined) return fromFile(file);
  const found =
    folder === undefined
      ? undefined
      : (fromText(join(folder, "chat_template.jinja")) ??
        fromJson(join(folder, "tokenizer_config.json")) ??
        fromJson(join(folder, "chat_template.json")));
  return found ?? (ggufMetadata === undefined ? undefined : fromGguf(ggufMetadata));
}
