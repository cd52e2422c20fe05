import { expect, test } from "bun:test";
import { MistralError } from "../../src/errors.ts";
import { startServer } from "../../src/server/listen.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { CHAT, eventually, harness, minimalBody, readEvents, says } from "./harness.ts";

function start(script: Parameters<typeof says>) {
  const made = harness({ script: () => says(...script) });
  const server = startServer({
    hostname: "127.0.0.1",
    port: 0,
    models: made.models,
    settings: made.settings,
  });
  const stream = () =>
    fetch(server.url + CHAT, {
      method: "POST",
      body: JSON.stringify({ ...minimalBody(CHAT), stream: true }),
    });
  return { ...made, server, stream };
}

test("a port in use is named in the error", async () => {
  const { server, models, settings } = start(["x"]);
  const { port } = server;
  expectMistralError(
    () => startServer({ hostname: "127.0.0.1", port, models, settings }),
    "invalid_configuration",
    `127.0.0.1:${port}`,
    "already listens",
  );
  await server.stop(0);
});

test("an address that is not ours is an error", () => {
  const { models, settings } = harness();
  expect(() => startServer({ hostname: "192.0.2.1", port: 0, models, settings })).toThrow(MistralError);
});

test("stopping lets open streams finish and refuses new requests meanwhile", async () => {
  const { server, stream } = start(["d".repeat(60), { stepDelayMs: 5 }]);
  const open = stream().then((response) => readEvents(response));
  await eventually("it runs", () => server.openRequests === 1);
  const stopped = server.stop(5_000);
  const refused = await stream();
  expect(refused.status).toBe(503);
  expect(await (await fetch(`${server.url}/health`)).json()).toMatchObject({ status: "draining" });
  const { chunks, done } = await open;
  expect(done).toBe(true);
  expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe("d".repeat(60));
  expect(await stopped).toEqual({ forced: false });
  await expect(stream()).rejects.toThrow();
});

test("what does not end in time is ended, and its client is told", async () => {
  const { server, stream, engine } = start(["e".repeat(1_000), { stepDelayMs: 20 }]);
  const open = stream().then((response) => readEvents(response));
  const whole = fetch(server.url + CHAT, { method: "POST", body: JSON.stringify(minimalBody(CHAT)) });
  await eventually("both run", () => engine.running === 2);
  const started = performance.now();
  expect(await server.stop(100)).toEqual({ forced: true });
  expect(performance.now() - started).toBeLessThan(2_000);
  expect((await open).errors).toMatchObject([{ code: "shutting_down", type: "server_error" }]);
  expect((await whole).status).toBe(503);
  expect(engine.running).toBe(0);
});

test("stopping an idle server is quick, also with a connection kept open", async () => {
  const { server } = start(["x"]);
  await (await fetch(`${server.url}/health`)).json();
  const started = performance.now();
  expect(await server.stop(5_000)).toEqual({ forced: false });
  expect(performance.now() - started).toBeLessThan(1_000);
});
