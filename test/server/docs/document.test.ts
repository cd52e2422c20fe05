import { beforeAll, describe, expect, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { KeyRing } from "../../../src/server/api-keys.ts";
import { EMBEDDING_PARAMETERS } from "../../../src/server/embeddings/parameters.ts";
import { CHAT_PARAMETERS } from "../../../src/server/openai/chat-parameters.ts";
import { COMPLETION_PARAMETERS } from "../../../src/server/openai/completion-parameters.ts";
import { RESPONSE_PARAMETERS } from "../../../src/server/responses/parameters.ts";
import { CHAT, COMPLETIONS, get, type HarnessOptions, harness, RESPONSES } from "../harness.ts";

interface Operation {
  readonly operationId: string;
  readonly summary?: string;
  readonly tags?: readonly string[];
  readonly security?: unknown;
  readonly requestBody?: {
    content: Record<
      string,
      { schema: { properties: Record<string, Field>; additionalProperties?: boolean } }
    >;
  };
  readonly responses: Record<string, { content?: Record<string, unknown> }>;
}
interface Field {
  readonly description?: string;
  readonly "x-parameter-state"?: string;
}
interface Document {
  readonly openapi: string;
  readonly security?: unknown;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: Record<string, unknown> };
}

async function document(options: HarnessOptions = {}, headers = {}): Promise<Document> {
  return (await get(harness(options).app, "/api-doc/openapi.json", { headers })).json() as Promise<Document>;
}

let api: Document;
beforeAll(async () => {
  api = await document();
});

const operations = () =>
  Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

test("the document is valid OpenAPI 3.1, with keys and strictness too", async () => {
  expect(api.openapi).toBe("3.1.0");
  const apiKeys = new KeyRing(["k"]);
  for (const one of [api, await document({ settings: { apiKeys, strict: true } }, { "x-api-key": "k" })]) {
    const { valid, errors } = await new Validator().validate(JSON.parse(JSON.stringify(one)));
    expect(errors).toBeUndefined();
    expect(valid).toBe(true);
  }
});

test("every route is in it, once, described", () => {
  const served = (harness().app.routes as readonly { method: string; path: string }[])
    .filter(({ path }) => !path.includes("*"))
    .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, "{$1}")}`);
  expect(
    operations()
      .map(({ path, method }) => `${method} ${path}`)
      .sort(),
  ).toEqual(served.sort());
  const ids = operations().map(({ operation }) => operation.operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { path, operation } of operations()) {
    expect(operation.summary, path).toBeString();
    expect(operation.tags, path).toHaveLength(1);
    expect(Object.keys(operation.responses), path).toContain("200");
  }
});

describe("the fields of a body", () => {
  for (const [path, table] of [
    [CHAT, CHAT_PARAMETERS],
    [COMPLETIONS, COMPLETION_PARAMETERS],
    [RESPONSES, RESPONSE_PARAMETERS],
    ["/v1/embeddings", EMBEDDING_PARAMETERS],
  ] as const) {
    test(`of ${path} are those of its table, each in its state`, () => {
      const { properties } = api.paths[path]!.post!.requestBody!.content["application/json"]!.schema;
      expect(Object.keys(properties).sort()).toEqual(Object.keys(table).sort());
      for (const [field, { state, description }] of Object.entries(table)) {
        expect([field, properties[field]?.["x-parameter-state"]]).toEqual([field, state]);
        expect(properties[field]?.description).toBe(
          state === "refused" ? `Refused: ${description}.` : description,
        );
      }
    });
  }

  test("may be more than those, unless the server is strict", async () => {
    const open = (one: Document) =>
      one.paths[CHAT]!.post!.requestBody!.content["application/json"]!.schema.additionalProperties;
    expect(open(api)).toBe(true);
    expect(open(await document({ settings: { strict: true } }))).toBe(false);
  });
});

test("words of our own are not left in schemas, and every reference leads somewhere", () => {
  const text = JSON.stringify(api);
  expect(text).not.toContain('"expects"');
  expect(text).not.toContain('"refused":');
  const named = Object.keys(api.components.schemas);
  for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) expect(named).toContain(name!);
  expect(named).toContain("Error");
});

test("routes that stream say so", () => {
  const streaming = operations()
    .filter(({ operation }) => "text/event-stream" in (operation.responses["200"]?.content ?? {}))
    .map(({ method, path }) => `${method} ${path}`);
  expect(streaming).toEqual([
    `post ${CHAT}`,
    `post ${COMPLETIONS}`,
    "post /v1/messages",
    `post ${RESPONSES}`,
    "get /v1/responses/{id}",
  ]);
});

test("keys are asked for everywhere but on /health", async () => {
  expect(api.security).toBeUndefined();
  const guarded = await document({ settings: { apiKeys: new KeyRing(["k"]) } }, { "x-api-key": "k" });
  expect(guarded.security).toEqual([{ bearer: [] }, { key: [] }]);
  const open = Object.entries(guarded.paths).filter(([, methods]) =>
    Object.values(methods).some(({ security }) => security !== undefined),
  );
  expect(open.map(([path]) => path)).toEqual(["/health"]);
});

describe("the page", () => {
  test("needs nothing from anywhere else, and says so to the browser", async () => {
    const response = await get(harness().app, "/docs");
    expect(response.headers.get("content-type")).toStartWith("text/html");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    const page = await response.text();
    expect(page).not.toMatch(/https?:\/\//);
    expect(page).not.toMatch(/\b(src|href)="(?!#)/);
    expect(page).not.toContain("innerHTML");
  });

  test("has a script that a browser can read", async () => {
    const page = await (await get(harness().app, "/docs")).text();
    const script = /<script>([\s\S]*)<\/script>/.exec(page)![1]!;
    expect(() => new Bun.Transpiler({ loader: "js" }).transformSync(script)).not.toThrow();
    for (const id of ["title", "about", "key", "contents", "operations"])
      expect(page).toContain(`id="${id}"`);
  });
});
