/**
 * Which chat template a model has. A model can bring several; the strongest source that exists wins, as mistral.rs
 * has them: an explicit template, `processor_config.json`, a given file, `chat_template.jinja`,
 * `tokenizer_config.json`, `chat_template.json`, GGUF metadata.
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
  /** Special tokens that came with a given file; they stand in for the tokenizer's. */
  readonly special?: GivenSpecialTexts;
}

export interface GivenSpecialTexts {
  readonly bosText?: string;
  readonly eosText?: string;
  readonly unkText?: string;
}

export interface ChatTemplatePlaces {
  /** A `.jinja` file that the user gave and that is stronger than everything (`--jinja-explicit`). */
  readonly explicitFile?: string | undefined;
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

/** `bos_token` and its like beside a template: texts, or objects with a `content` as tokenizers have them. */
function specialFromJson(path: string): GivenSpecialTexts {
  const stored = readJson(path);
  const textOf = (name: string): string | undefined => {
    const value = stored[name];
    if (value === undefined || value === null) return undefined;
    const text = typeof value === "object" ? (value as { readonly content?: unknown }).content : value;
    if (typeof text !== "string") throw invalid(path, `${name} is not a text`);
    return text;
  };
  const texts = { bosText: textOf("bos_token"), eosText: textOf("eos_token"), unkText: textOf("unk_token") };
  return Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== undefined));
}

function fromGivenJson(path: string): ChatTemplateSource | undefined {
  const source = fromJson(path);
  return source === undefined ? undefined : { ...source, special: specialFromJson(path) };
}

function fromFile(
  path: string,
  parameter: string,
  readers: Readonly<Record<string, (path: string) => ChatTemplateSource | undefined>>,
): ChatTemplateSource {
  const read = readers[extname(path)];
  if (read === undefined) {
    const allowed = Object.keys(readers).join(" or a ");
    throw new MistralError("invalid_configuration", `${path}: a chat template is a ${allowed} file`, {
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
  const { explicitFile, file, folder, ggufMetadata } = places;
  if (explicitFile !== undefined) return fromFile(explicitFile, "--jinja-explicit", { ".jinja": fromText });
  const ofProcessor = folder === undefined ? undefined : fromJson(join(folder, "processor_config.json"));
  if (ofProcessor !== undefined) return ofProcessor;
  if (file !== undefined)
    return fromFile(file, "--chat-template", { ".jinja": fromText, ".json": fromGivenJson });
  const found =
    folder === undefined
      ? undefined
      : (fromText(join(folder, "chat_template.jinja")) ??
        fromJson(join(folder, "tokenizer_config.json")) ??
        fromJson(join(folder, "chat_template.json")));
  return found ?? (ggufMetadata === undefined ? undefined : fromGguf(ggufMetadata));
}
