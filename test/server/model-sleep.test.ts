/** Models that come with the first request for them and go when nobody asks. */

import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/server/app.ts";
import { HttpFailure } from "../../src/server/failure.ts";
import { LIMITS } from "../../src/server/limits.ts";
import { ModelRegistry } from "../../src/server/model-registry.ts";
import type { ServedModel } from "../../src/server/served-model.ts";
import { COMPLETIONS, get, harness, post } from "./harness.ts";

function model(id: string): ServedModel {
  return { ...harness().models.list()[0]!, id };
}

function registry(load: () => Promise<void> = async () => {}) {
  const asked: string[] = [];
  const models = new ModelRegistry([model("awake")], {
    asleep: [model("asleep")],
    sources: { awake: { model: "/m/awake" }, asleep: { model: "/m/asleep" } },
    load: async (source) => {
      asked.push(source.model ?? "");
      await load();
      return model(source.model === "/m/awake" ? "awake" : "asleep");
    },
  });
  return { models, asked };
}

describe("a model that sleeps", () => {
  test("is offered, but not loaded until a request wakes it; one load for all who ask", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { models, asked } = registry(() => promise);
    expect(models.list().map(({ id }) => id)).toEqual(["awake"]);
    expect(models.available().map(({ id }) => id)).toEqual(["awake", "asleep"]);
    expect(models.wake("awake")).toBeUndefined();
    expect(models.wake("nobody")).toBeUndefined();
    const waking = Array.from({ length: 100 }, () => models.wake("asleep"));
    resolve();
    await Promise.all(waking);
    expect(asked).toEqual(["/m/asleep"]);
    expect(models.get("asleep").id).toBe("asleep");
    expect(models.wake("asleep")).toBeUndefined();
  });

  test("keeps being the default while it sleeps", async () => {
    const { models } = registry();
    await models.wake("asleep");
    await Bun.sleep(2);
    models.get("asleep");
    expect(await models.sleepIdle(60_000)).toEqual([]);
    expect(await models.sleepIdle(0)).toEqual(["awake", "asleep"]);
    expect(models.idOf(undefined)).toBe("awake");
    await models.wake(undefined);
    expect(models.get("default").id).toBe("awake");
  });

  test("does not fall asleep over its work", async () => {
    const { models } = registry();
    const { engine } = models.get("awake");
    const busy = { ...engine.statistics(), running: 1 };
    engine.statistics = () => busy;
    expect(await models.sleepIdle(0)).toEqual([]);
    engine.statistics = () => ({ ...busy, running: 0 });
    await Bun.sleep(20);
    expect(await models.sleepIdle(15)).toEqual(["awake"]);
  });

  test("without a loader nobody wakes it, and it is not put to sleep", async () => {
    const models = new ModelRegistry([model("only")]);
    expect(await models.sleepIdle(0)).toEqual([]);
    await models.unload("only");
    expect(models.wake("only")).toBeUndefined();
  });

  test("that cannot be loaded is tried again ever more seldom", async () => {
    const { models, asked } = registry(async () => {
      throw new Error("no such disk");
    });
    const retryAfter = async (): Promise<number> => {
      try {
        await models.wake("asleep");
      } catch (error) {
        if (error instanceof HttpFailure) return Number(error.failure.headers?.["retry-after"]);
        return 0; // it was tried
      }
      throw new Error("it was loaded");
    };
    const clock = { now: performance.now() };
    const original = performance.now;
    performance.now = () => clock.now;
    try {
      for (const factor of [1, 2, 4, 8]) {
        expect(await retryAfter()).toBe(0);
        expect(await retryAfter()).toBe((factor * LIMITS.loadRetryMs) / 1000);
        clock.now += factor * LIMITS.loadRetryMs + 1;
      }
      clock.now += LIMITS.loadRetryMaxMs;
      for (let failure = 0; failure < 10; failure++) {
        await retryAfter();
        clock.now += LIMITS.loadRetryMaxMs + 1;
      }
      await retryAfter();
      expect(await retryAfter()).toBe(LIMITS.loadRetryMaxMs / 1000);
    } finally {
      performance.now = original;
    }
    expect(asked).toHaveLength(15);
  });
});

test("a request to an unloaded model waits for it; administration wakes nothing", async () => {
  const models = new ModelRegistry([model("test/scripted")], {
    sources: { "test/scripted": { model: "/m" } },
    load: async () => model("test/scripted"),
  });
  const app = createApp({ models, settings: harness().settings });
  const status = async () =>
    (
      (await (await post(app, "/v1/models/status", { model_id: "test/scripted" })).json()) as {
        status: string;
      }
    ).status;
  await post(app, "/v1/models/unload", { model_id: "test/scripted" });
  expect(await status()).toBe("unloaded");
  expect(await (await get(app, "/v1/models")).json()).toMatchObject({ data: [] });
  expect((await post(app, COMPLETIONS, { prompt: "Hi" })).status).toBe(200);
  expect(await status()).toBe("loaded");
});
