/** A served model over a scripted engine, and ways to call it: in process, over the network, with parsed events. */

import { expect } from "bun:test";
import type { EngineInfo } from "../../src/engine/messages.ts";
import { type App, createApp } from "../../src/server/app.ts";
import type { ServerSettings } from "../../src/server/context.ts";
import type { GenerationDefaults } from "../../src/server/generation/defaults.ts";
import { Lifecycle } from "../../src/server/lifecycle.ts";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { ModelRegistry } from "../../src/server/model-registry.ts";
import type { ErrorBody } from "../../src/server/openai/errors.ts";
import type { ChatCompletion, ChatCompletionChunk, Completion } from "../../src/server/openai/responses.ts";
import type { ServedModel } from "../../src/server/served-model.ts";
import type { ChatTemplate } from "../../src/text/types.ts";
import { ByteTokenizer, EOS } from "./byte-tokenizer.ts";
import { checkChunks } from "./event-log.ts";
import { type EngineRequest, type Script, ScriptedEngine } from "./scripted-engine.ts";

export const TEMPLATE: ChatTemplate = {
  source: "<|im_start|>role content<|im_end|>",
  render: ({ messages, addGenerationPrompt }) => {
    const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`);
    return turns.join("") + (addGenerationPrompt ? "<|im_start|>assistant\n" : "");
  },
};

export interface HarnessOptions {
  readonly script?: (request: EngineRequest, prompt: string) => Script;
  readonly info?: Partial<EngineInfo>;
  readonly bos?: boolean;
  /** Special tokens besides the usual ones. */
  readonly specials?: readonly string[];
  readonly chatTemplate?: ChatTemplate | undefined;
  readonly generationDefaults?: GenerationDefaults;
  readonly settings?: Partial<ServerSettings>;
}

export interface Harness {
  readonly engine: ScriptedEngine;
  readonly tokenizer: ByteTokenizer;
  readonly app: App;
  readonly lifecycle: Lifecycle;
  readonly models: ModelRegistry;
  readonly settings: ServerSettings;
  /** Everything the server logged. */
  readonly log: string[];
}

/** A script that says this text, then the end token. */
export function says(
  text: string,
  more: Omit<Script, "tokens"> = {},
  specials: readonly string[] = [],
): Script {
  return {
    tokens: [...new ByteTokenizer({ specials }).encode(text, { addSpecialTokens: false }), EOS],
    ...more,
  };
}

export function harness(options: HarnessOptions = {}): Harness {
  const tokenizer = new ByteTokenizer({
    bos: options.bos ?? false,
    specials: options.specials ?? [],
  });
  const script = options.script ?? (() => says("Hello world, caf\u00e9 \u{1f600}!"));
  const engine = new ScriptedEngine((request) => {
    const prompt = tokenizer.decode([...request.promptTokens], { skipSpecialTokens: false });
    return script(request, prompt);
  }, options.info);
  const model: ServedModel = {
    id: "test/scripted",
    created: 1_700_000_000,
    engine,
    tokenizer,
    chatTemplate: "chatTemplate" in options ? options.chatTemplate : TEMPLATE,
    generationDefaults: options.generationDefaults ?? {},
    eosTokens: [EOS],
  };
  const log: string[] = [];
  const settings: ServerSettings = {
    keepAliveIntervalMs: 10_000,
    log: (level, message, cause) => log.push(`${level}: ${message} ${cause ?? ""}`.trim()),
    ...options.settings,
  };
  const models = new ModelRegistry([model]);
  const lifecycle = new Lifecycle();
  return {
    engine,
    tokenizer,
    lifecycle,
    models,
    settings,
    log,
    app: createApp({ models, settings, lifecycle }),
  };
}

/** Runs `body` against a listening server on a free port of the loopback interface. */
export async function withServer(
  options: HarnessOptions,
  body: (server: RunningServer, harness: Harness) => Promise<void>,
): Promise<void> {
  const made = harness(options);
  const server = startServer({
    hostname: "127.0.0.1",
    port: 0,
    models: made.models,
    settings: made.settings,
  });
  try {
    await body(server, made);
  } finally {
    await server.stop(0);
  }
}

export const CHAT = "/v1/chat/completions";
export const COMPLETIONS = "/v1/completions";
export const RESPONSES = "/v1/responses";

/** The smallest valid body of an endpoint. */
export function minimalBody(path: string): Record<string, unknown> {
  if (path === RESPONSES) return { input: "Hi" };
  return path === CHAT ? { messages: [{ role: "user", content: "Hi" }] } : { prompt: "Hi" };
}

export function post(app: App, path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return app.handle(new Request(`http://localhost${path}`, { method: "POST", body: text, ...init }));
}

async function okBody<Body>(response: Response): Promise<Body> {
  const text = await response.text();
  expect(`${response.status} ${text}`).toStartWith("200 ");
  return JSON.parse(text) as Body;
}

export function get(app: App, path: string, init: RequestInit = {}): Promise<Response> {
  return app.handle(new Request(`http://localhost${path}`, init));
}

export async function chat(app: App, fields: Record<string, unknown> = {}): Promise<ChatCompletion> {
  return okBody(await post(app, CHAT, { ...minimalBody(CHAT), ...fields }));
}

export async function complete(app: App, fields: Record<string, unknown> = {}): Promise<Completion> {
  return okBody(await post(app, COMPLETIONS, { ...minimalBody(COMPLETIONS), ...fields }));
}

/** A refusal: its status, and the error object of the body. */
export async function errorOf(response: Response): Promise<{ status: number; error: ErrorBody["error"] }> {
  const body = (await response.json()) as ErrorBody;
  expect(Object.keys(body)).toEqual(["error"]);
  expect(Object.keys(body.error).sort()).toEqual(["code", "message", "param", "type"]);
  return { status: response.status, error: body.error };
}

export interface EventLog<Chunk> {
  readonly chunks: Chunk[];
  readonly errors: ErrorBody["error"][];
  readonly done: boolean;
  readonly comments: number;
}

/** Reads a stream to its end, checking that every line of it is one of an event stream. */
export async function readEvents<Chunk = ChatCompletionChunk>(response: Response): Promise<EventLog<Chunk>> {
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/event-stream");
  const events = (await response.text()).split("\n\n");
  expect(events.pop()).toBe("");
  const chunks: Chunk[] = [];
  const errors: ErrorBody["error"][] = [];
  let done = false;
  let comments = 0;
  for (const event of events) {
    expect(done).toBe(false);
    if (event.startsWith(":")) comments += 1;
    else if (event === "data: [DONE]") done = true;
    else {
      expect(event).toStartWith("data: {");
      expect(event).not.toContain("\n");
      const data = JSON.parse(event.slice(6)) as Chunk | ErrorBody;
      if (typeof data === "object" && data !== null && "error" in data) errors.push(data.error);
      else chunks.push(data as Chunk);
    }
  }
  // Exactly one ending: the closing mark or one error.
  expect(errors.length + Number(done)).toBe(1);
  checkChunks(chunks, done);
  return { chunks, errors, done, comments };
}

/** Waits for a condition that asynchronous work brings about; fails with its description after the timeout. */
export async function eventually(what: string, condition: () => boolean, timeoutMs = 2_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await Bun.sleep(5);
  }
}
