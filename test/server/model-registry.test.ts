import { describe, expect, test } from "bun:test";
import { HttpFailure } from "../../src/server/failure.ts";
import { type ModelLoader, ModelRegistry, type ModelSource } from "../../src/server/model-registry.ts";
import type { ServedModel } from "../../src/server/served-model.ts";
import { COMPLETIONS, errorOf, get, harness, post } from "./harness.ts";

function model(id: string): ServedModel {
  return { ...harness().models.list()[0]!, id };
}

async function refusal(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof HttpFailure) return `${error.failure.status} ${error.failure.code}`;
    return String(error);
  }
  return "no refusal";
}

/** A registry of "first", which came from /m/first, and what its loader was asked for. */
function registry(load?: ModelLoader) {
  const asked: ModelSource[] = [];
  const loader: ModelLoader = async (source) => {
    asked.push(source);
    return load === undefined ? model(source.model ?? "first") : load(source);
  };
  const models = new ModelRegistry([model("first")], {
    load: loader,
    sources: { first: { model: "/m/first" } },
  });
  return { models, asked };
}

describe("a model", () => {
  test("that is unloaded has its engine closed, and comes back by reloading", async () => {
    const { models, asked } = registry();
    const { engine } = models.get("first");
    expect((await models.unload("first")).status).toBe("unloaded");
    expect(engine.state).toBe("draining");
    expect(models.list()).toEqual([]);
    expect(() => models.get("default")).toThrow("/v1/models/reload");
    expect((await models.reload("first")).status).toBe("loaded");
    expect(models.get("default").id).toBe("first");
    expect(asked).toEqual([{ model: "/m/first" }]);
  });

  test("that is unloaded leaves the default to another", async () => {
    const { models } = registry();
    await models.load({ model: "second" });
    await models.unload("default");
    expect(models.get("default").id).toBe("second");
    expect(models.get(undefined).id).toBe("second");
  });

  test("is loaded once, however many ask at the same time", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { models, asked } = registry(async (source) => {
      await promise;
      return model(source.model ?? "");
    });
    const loads = Array.from({ length: 100 }, () => models.load({ model: "second" }));
    resolve();
    for (const entry of await Promise.all(loads)) expect(entry.id).toBe("second");
    await models.unload("second");
    await Promise.all(Array.from({ length: 100 }, () => models.reload("second")));
    await models.load({ model: "second" });
    expect(asked).toHaveLength(2);
  });

  test("that cannot be loaded is tried once, and everybody is told why", async () => {
    const { models, asked } = registry(async () => {
      throw new Error("no such disk");
    });
    await models.unload("first");
    const reasons = await Promise.all(Array.from({ length: 100 }, () => refusal(models.reload("first"))));
    expect(asked).toHaveLength(1);
    expect(reasons[0]).toContain("no such disk");
    expect(new Set(reasons.slice(1))).toEqual(new Set(["503 model_load_failed"]));
    expect(models.entry("first")).toMatchObject({ status: "failed", error: "no such disk" });
    expect(() => models.get("first")).toThrow("failed");
  });

  test("keeps the name it has, and takes nobody else's", async () => {
    const { models } = registry(async () => model("first"));
    expect(await refusal(models.load({ model: "another/path" }))).toBe("409 model_name_in_use");
    await models.unload("first");
    expect((await models.reload("first")).id).toBe("first");
  });

  test("of a registry without a loader can go, but not come", async () => {
    const models = new ModelRegistry([model("only")]);
    await models.unload("only");
    expect(await refusal(models.reload("only"))).toBe("409 no_loader_config");
    expect(await refusal(models.load({ model: "x" }))).toBe("409 no_loader_config");
  });
});

test("the routes tell and change what is loaded", async () => {
  const { app } = harness();
  const status = async (path: string, body: object) => {
    const response = await post(app, `/v1/models/${path}`, body);
    return [response.status, await response.json()];
  };
  const loaded = { model_id: "test/scripted", status: "loaded" };
  expect(await status("status", { model_id: "default" })).toEqual([200, loaded]);
  expect(await status("unload", { model_id: "test/scripted" })).toEqual([
    200,
    { ...loaded, status: "unloaded" },
  ]);
  expect(await status("status", { model_id: "test/scripted" })).toEqual([
    200,
    { ...loaded, status: "unloaded" },
  ]);
  for (const path of ["status", "unload", "reload"]) {
    const { status: code, error } = await errorOf(
      await post(app, `/v1/models/${path}`, { model_id: "gpt-9" }),
    );
    expect([code, error.code]).toEqual([404, "model_not_found"]);
    expect((await errorOf(await post(app, `/v1/models/${path}`, {}))).error.param).toBe("model_id");
  }
  for (const response of [
    await post(app, COMPLETIONS, { prompt: "Hi" }),
    await get(app, "/v1/models/test%2Fscripted"),
  ]) {
    expect(await errorOf(response)).toMatchObject({ status: 404, error: { code: "model_not_loaded" } });
  }
  expect(await (await get(app, "/v1/models")).json()).toEqual({ object: "list", data: [] });
});
