import { expect, test } from "bun:test";
import { COMPLETIONS, eventually, get, type Harness, harness, post, says, withServer } from "./harness.ts";
import { RawClient } from "./raw-client.ts";

async function metrics({ app }: Pick<Harness, "app">): Promise<Map<string, number>> {
  const lines = (await (await get(app, "/metrics")).text())
    .split("\n")
    .filter((line) => !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

const PLACE = `method="POST",path="${COMPLETIONS}",model="test/scripted"`;

test("requests are counted and timed by route, model and status", async () => {
  const made = harness({ script: () => says("Hello", { stepDelayMs: 2, cachedTokens: 2 }) });
  for (let time = 0; time < 3; time += 1) await (await post(made.app, COMPLETIONS, { prompt: "Hi" })).text();
  const body = { prompt: "Hi", stream: true };
  await (await post(made.app, COMPLETIONS, body, { headers: { "content-length": "40" } })).text();
  await post(made.app, COMPLETIONS, { prompt: "Hi", model: "made-up" });
  await get(made.app, "/made/up");
  await Bun.sleep(20);
  const figures = await metrics(made);
  expect(figures.get(`http_requests_total{${PLACE},status="200"}`)).toBe(4);
  expect(
    figures.get(`http_requests_total{method="POST",path="${COMPLETIONS}",model="none",status="404"}`),
  ).toBe(1);
  expect(figures.get('http_requests_total{method="GET",path="<unmatched>",model="none",status="404"}')).toBe(
    1,
  );
  expect(figures.get(`http_request_duration_seconds_count{${PLACE},status="200"}`)).toBe(4);
  expect(figures.get(`http_request_duration_seconds_sum{${PLACE},status="200"}`)).toBeGreaterThan(0.04);
  expect(figures.get(`http_request_body_bytes_bucket{le="128",${PLACE}}`)).toBe(1);
  expect(figures.get(`mistralrs_time_to_first_token_seconds_count{${PLACE},status="200"}`)).toBe(1);
  expect(figures.get(`mistralrs_inter_token_latency_seconds_count{${PLACE},status="200"}`)).toBeGreaterThan(
    2,
  );
  expect(figures.get(`http_requests_in_flight{${PLACE}}`)).toBe(0);
  expect(figures.get("mistralrs_prompt_tokens_cached_total")).toBe(8);
  // What a client makes up is no label, and who asks for figures does not change them.
  expect([...figures.keys()].filter((key) => key.includes("made"))).toEqual([]);
  expect([...(await metrics(made))]).toEqual([...figures]);
});

test("what runs is in flight, and why it ended early is told", async () => {
  await withServer({ script: () => says("x".repeat(500), { stepDelayMs: 5 }) }, async ({ port, url }) => {
    const ask = async () => (await fetch(`${url}/metrics`)).text();
    const client = await RawClient.open(port);
    client.post(COMPLETIONS, { prompt: "x", stream: true });
    await eventually("it streams", () => client.received.includes('"text":"x"'));
    expect(await ask()).toContain(`http_requests_in_flight{${PLACE}} 1`);
    client.leave();
    await Bun.sleep(50);
    const after = await ask();
    expect(after).toContain(`http_requests_in_flight{${PLACE}} 0`);
    expect(after).toContain('mistralrs_requests_aborted_total{cause="client_left"} 1');
  });
});

test("each sequence's wait for its first step is timed", async () => {
  const made = harness({ script: () => says("Hello", { queueSeconds: 0.3 }) });
  await (await post(made.app, COMPLETIONS, { prompt: "Hi", n: 2 })).text();
  const figures = await metrics(made);
  expect(figures.get(`mistralrs_queue_time_seconds_bucket{le="0.25",${PLACE}}`)).toBe(0);
  expect(figures.get(`mistralrs_queue_time_seconds_bucket{le="0.5",${PLACE}}`)).toBe(2);
  expect(figures.get(`mistralrs_queue_time_seconds_sum{${PLACE}}`)).toBeCloseTo(0.6);
});
