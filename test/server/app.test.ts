import { describe, expect, test } from "bun:test";
import packageJson from "../../package.json" with { type: "json" };
import { ModelRegistry } from "../../src/server/model-registry.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { CHAT, COMPLETIONS, errorOf, harness, minimalBody, post, RESPONSES } from "./harness.ts";

const get = (path: string, made = harness()) => made.app.handle(new Request(`http://localhost${path}`));

test("the root says what answers", async () => {
  const { name, version } = packageJson;
  expect(await (await get("/")).json()).toEqual({ name, version, models: ["test/scripted"] });
});

test("models are listed in OpenAI's shape", async () => {
  const model = {
    id: "test/scripted",
    object: "model",
    created: 1_700_000_000,
    owned_by: "mistral.ts",
    max_model_len: 4096,
  };
  expect(await (await get("/v1/models")).json()).toEqual({ object: "list", data: [model] });
  for (const name of ["test/scripted", "test%2Fscripted", "default"]) {
    expect(await (await get(`/v1/models/${name}`)).json()).toEqual(model);
  }
  expect((await get("/v1/models/other")).status).toBe(404);
});

test("a name can mean one model only, and there is always one", () => {
  const [model] = harness().models.list();
  expectMistralError(() => new ModelRegistry([]), "invalid_configuration", "no model");
  expectMistralError(() => new ModelRegistry([model!, model!]), "invalid_configuration", "test/scripted");
  expectMistralError(
    () => new ModelRegistry([{ ...model!, id: "default" }]),
    "invalid_configuration",
    "default",
  );
});

describe("what has no effect", () => {
  for (const path of [CHAT, COMPLETIONS]) {
    for (const stream of [false, true]) {
      test(`is told in a header of ${path}${stream ? ", streamed" : ""}, and logged once`, async () => {
        const made = harness();
        const body = { ...minimalBody(path), stream, user: "u", made_up: 1, metadata: null };
        for (let time = 0; time < 2; time += 1) {
          const response = await post(made.app, path, body);
          expect(response.status).toBe(200);
          expect(response.headers.get("x-mistral-warning")).toBe(
            "parameter 'user' has no effect here; unknown parameter 'made_up' is ignored",
          );
          await response.text();
        }
        expect(made.log).toHaveLength(2);
      });
    }
  }

  test("is not claimed of a request that names nothing of the kind", async () => {
    expect((await post(harness().app, CHAT, minimalBody(CHAT))).headers.get("x-mistral-warning")).toBeNull();
  });

  test("cannot break the header, whatever the field is called", async () => {
    const fields = { "a\r\nset-cookie: b": 1, "\u{1f600}": 2, ["y".repeat(5_000)]: 3 };
    const response = await post(harness().app, CHAT, { ...minimalBody(CHAT), ...fields });
    expect(response.status).toBe(200);
    expect(response.headers.get("set-cookie")).toBeNull();
    expect(response.headers.get("x-mistral-warning")).toContain("'a??set-cookie: b'");
  });
});

test("null is taken wherever a field may be left out, and so are values that ask for nothing", async () => {
  const { CHAT_PARAMETERS } = await import("../../src/server/openai/chat-parameters.ts");
  const { COMPLETION_PARAMETERS } = await import("../../src/server/openai/completion-parameters.ts");
  for (const [path, table] of [
    [CHAT, CHAT_PARAMETERS],
    [COMPLETIONS, COMPLETION_PARAMETERS],
  ] as const) {
    const nulls = Object.fromEntries(Object.keys(table).map((field) => [field, null]));
    expect((await post(harness().app, path, { ...nulls, ...minimalBody(path) })).status).toBe(200);
  }
  const nothing = { tools: [], tool_choice: "auto", response_format: { type: "text" }, modalities: ["text"] };
  expect((await post(harness().app, CHAT, { ...minimalBody(CHAT), ...nothing })).status).toBe(200);
});

test("a number written as a text is a text", async () => {
  for (const [path, fields] of [
    [CHAT, { max_tokens: "5" }],
    [CHAT, { top_k: "" }],
    [COMPLETIONS, { seed: "1" }],
    [COMPLETIONS, { prompt: ["1", 2] }],
    ["/v1/messages", { max_tokens: "5", messages: [{ role: "user", content: "Hi" }] }],
    [RESPONSES, { max_output_tokens: "5" }],
  ] as const) {
    const response = await post(harness().app, path, { ...minimalBody(path), ...fields });
    expect([path, fields, response.status]).toEqual([path, fields, 400]);
  }
});

test("a query that cannot be meant is the client's fault, and named", async () => {
  for (const query of ["stream=yes", "starting_after=x", "starting_after=-1"]) {
    const { status, error } = await errorOf(await get(`/v1/responses/resp_1?${query}`));
    expect([query, status, error.param]).toEqual([query, 400, query.split("=")[0]!]);
  }
});

test("a path of its own answers its own methods, whatever pattern it also fits", async () => {
  const response = await harness().app.handle(
    new Request("http://localhost/v1/models/load", { method: "PUT" }),
  );
  expect([response.status, response.headers.get("allow")]).toEqual([405, "POST"]);
  const model = await harness().app.handle(new Request("http://localhost/v1/models/x", { method: "PUT" }));
  expect(model.headers.get("allow")).toBe("GET, HEAD");
});

describe("a strict server", () => {
  const paths = [CHAT, COMPLETIONS, RESPONSES, "/tokenize", "/v1/models/status", "/v1/messages"];
  for (const path of paths) {
    test(`refuses unknown fields of ${path} by name, with a guess`, async () => {
      const strict = harness({ settings: { strict: true } });
      const body = { ...minimalBody(path), ...(path === "/v1/models/status" ? { model_id: "default" } : {}) };
      const messages =
        path === "/v1/messages" ? { max_tokens: 5, messages: [{ role: "user", content: "Hi" }] } : {};
      const known =
        path === "/v1/messages" ? messages : path === "/v1/models/status" ? { model_id: "default" } : body;
      expect((await post(strict.app, path, { ...known, made_up: null })).status).toBe(200);
      const refused = await post(strict.app, path, { ...known, modle: 1, modle_id: 1 });
      expect(refused.status).toBe(400);
      const { error } = (await refused.json()) as { error: { message: string } };
      expect(error.message).toContain("Unknown parameter: 'modle'");
      if (path !== "/v1/models/status") expect(error.message).toContain("(did you mean model?)");
      expect(strict.engine.requests.length).toBeLessThanOrEqual(1);
      expect((await post(harness().app, path, { ...known, modle: 1 })).status).toBe(200);
    });
  }
});
