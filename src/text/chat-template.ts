/**
 * Chat templates: Jinja as `transformers` runs it in `apply_chat_template`. Owns what a template is given besides
 * the messages; the language is the Jinja library's, corrected in jinja/ where it is not Python's.
 */

import { Environment } from "@huggingface/jinja";
import { MistralError } from "../errors.ts";
import { RENDER_LIMITS, type RenderLimits } from "./jinja/limits.ts";
import { PythonInterpreter } from "./jinja/python-interpreter.ts";
import { type Program, readTemplate } from "./jinja/read-template.ts";
import {
  callable,
  integer,
  isInteger,
  list,
  mapping,
  str,
  text,
  toValue,
  type Value,
} from "./jinja/values.ts";
import { strftime } from "./strftime.ts";
import type { ChatTemplate, ChatTemplateInput } from "./types.ts";

/** Texts of the special tokens; "" where the model has none, which leaves the variable undefined. */
export interface SpecialTexts {
  readonly bosText: string;
  readonly eosText: string;
  readonly unkText: string;
}

/** `range` in a sandboxed template makes at most this many numbers. */
const RANGE_LENGTH_MAX = 100_000;

function range(args: readonly Value[]): Value {
  const bounds = args.map((arg) => {
    if (!isInteger(arg)) throw new TypeError("range: not an integer");
    return arg.value;
  });
  const [start, stop, step] =
    bounds.length === 1 ? [0, bounds[0]!, 1] : [bounds[0]!, bounds[1]!, bounds[2] ?? 1];
  if (step === 0) throw new Error("range: the step is zero");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > RANGE_LENGTH_MAX)
    throw new Error(`range: ${length} numbers, at most ${RANGE_LENGTH_MAX} are allowed`);
  return list(Array.from({ length }, (_, index) => integer(start + index * step)));
}

/** `dict(a=1)` and `dict(mapping, a=1)`. */
function dict(args: readonly Value[]): Value {
  const entries = new Map<unknown, Value>();
  for (const arg of args)
    for (const [key, value] of arg.value as unknown as Map<unknown, Value>) entries.set(key, value);
  return mapping(entries);
}

function raiseException([message]: readonly Value[]): never {
  throw new MistralError(
    "invalid_request",
    message === undefined ? "the chat template refused" : str(message),
    {
      parameter: "messages",
    },
  );
}

function globals(now: () => Date): Map<string, Value> {
  const constants: [string, unknown][] = [
    ["true", true],
    ["True", true],
    ["false", false],
    ["False", false],
    ["none", null],
    ["None", null],
  ];
  return new Map([
    ...constants.map(([name, value]): [string, Value] => [name, toValue(value)]),
    ["range", callable(range)],
    ["dict", callable(dict)],
    ["raise_exception", callable(raiseException)],
    ["strftime_now", callable(([format]) => text(strftime(now(), str(format ?? text("")))))],
  ]);
}

function parseTemplate(source: string): Program {
  try {
    return readTemplate(source);
  } catch (cause) {
    const { message } = cause as Error;
    throw new MistralError("invalid_model_file", `the chat template cannot be read: ${message}`, { cause });
  }
}

/** Variables of the template; `undefined` values are not set at all. */
function variables(input: ChatTemplateInput, special: SpecialTexts): Record<string, unknown> {
  return {
    bos_token: special.bosText === "" ? undefined : special.bosText,
    eos_token: special.eosText === "" ? undefined : special.eosText,
    unk_token: special.unkText === "" ? undefined : special.unkText,
    ...input.variables,
    messages: input.messages,
    add_generation_prompt: input.addGenerationPrompt,
    tools: input.tools ?? null,
    documents: input.variables?.documents ?? null,
  };
}

/**
 * Compiles a chat template. Throws `invalid_model_file` when it is not Jinja. Rendering throws `invalid_request`
 * with the template's own message when the template refuses the conversation (`raise_exception`), and with the
 * reason when it cannot be rendered with it, or not within `limits`. `now` is the clock of `strftime_now`.
 */
export function chatTemplateFrom(
  source: string,
  special: SpecialTexts,
  now: () => Date = () => new Date(),
  limits: RenderLimits = RENDER_LIMITS,
): ChatTemplate {
  const program = parseTemplate(source);
  const shared = globals(now);
  return {
    source,
    render(input) {
      const environment = new Environment();
      for (const [name, value] of shared) environment.setVariable(name, value);
      for (const [name, value] of Object.entries(variables(input, special))) {
        if (value !== undefined) environment.setVariable(name, toValue(value));
      }
      try {
        return str(new PythonInterpreter(environment, limits).run(program));
      } catch (cause) {
        if (cause instanceof MistralError) throw cause;
        const { message } = cause as Error;
        throw new MistralError(
          "invalid_request",
          `the chat template cannot render these messages: ${message}`,
          {
            parameter: "messages",
            cause,
          },
        );
      }
    },
  };
}

/**
 * Parses JSON for a template (arguments of tool calls in a conversation). Numbers written with a fraction or an
 * exponent stay floats, as Python reads them: `1.0` prints as `1.0`. They come out as boxed numbers.
 */
export function parseTemplateJson(json: string): unknown {
  const revive = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === "number" && /[.eE]/.test(context?.source ?? "") ? Object(value) : value;
  return JSON.parse(json, revive as (key: string, value: unknown) => unknown);
}
