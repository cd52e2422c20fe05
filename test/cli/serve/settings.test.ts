/** Settings seen from outside a running server: its log, its answers, its memory map, its files, its bytes. */

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SettingReport } from "../../../src/config/explain.ts";
import { readGolden, writeGgufTwin } from "../../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { childrenOf, LOOPBACK, post, runCommand, startServing, stopServersAfterEach } from "../processes.ts";

const folder = temporaryFolder("settings");
const model = join(folder, "tiny");
writeTinyModel(model);
stopServersAfterEach();

const TINY = ["-m", model, "--threads", "1"] as const;
const BODY_BYTES_MAX = 50 * 1024 * 1024;

function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: "0.0.0.0", port, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

/** The status that the server gives to a body of this announced length, of which it sees nothing. */
async function statusForLength(port: number, length: number): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data: (_socket, data) => resolve(data.toString().split("\r\n")[0] ?? ""),
      close: () => resolve("closed"),
    },
  });
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`,
  );
  const answer = await Promise.race([promise, Bun.sleep(500).then(() => "waiting for the body")]);
  socket.end();
  return answer;
}

test("a server without settings has the defaults of mistral.rs", async () => {
  // Where something else has the port, the complaint names the default address.
  if (!isFree(1234)) {
    console.warn("port 1234 is in use: the defaults were not read from a running server");
    const { stderr } = await runCommand(["serve", ...TINY]);
    expect(stderr).toContain("cannot listen on 0.0.0.0:1234");
    return;
  }
  const { log, url } = await startServing(["serve", ...TINY, "-v"]);
  expect(url).toBe("http://127.0.0.1:1234");
  const said = (pattern: RegExp) => expect(log()).toMatch(pattern);
  said(/address +http:\/\/0\.0\.0\.0:1234/);
  said(/host +0\.0\.0\.0 \(default\)/);
  said(/port +1234 \(default\)/);
  said(/sequencesMax +16 \(default\)/);
  said(/prefixCacheEntries +16 \(default\)/);
  said(/keepAliveIntervalMs +10000 ms \(default\)/);
  said(/cacheBlockSize +32 \(default\)/);
  said(/pagedAttention +auto \(default\)/);
  said(/cacheMemoryFraction +0\.9/);
  const info = (await (await fetch(`${url}/v1/system/info`)).json()) as { settings: SettingReport[] };
  const inForce = Object.fromEntries(info.settings.map(({ key, value }) => [key, value]));
  expect(inForce).toMatchObject({
    host: "0.0.0.0",
    port: "1234",
    keepAliveIntervalMs: "10000 ms",
    sequencesMax: "16",
    prefixCacheEntries: "16",
    cacheBlockSize: "32",
    pagedAttention: "auto",
  });
  // And in force, not only said.
  said(/blocks of 32 tokens, f16.*room for all 16 at full context/);
  expect(await statusForLength(1234, BODY_BYTES_MAX + 1)).toContain(" 413 ");
  expect(await statusForLength(1234, BODY_BYTES_MAX)).toBe("waiting for the body");
}, 60_000);

test("MISTRALRS_NO_MMAP=1 leaves the weights unmapped", async () => {
  const mapsOf = async (environment: Record<string, string>) => {
    const { child } = await startServing(["serve", ...TINY, ...LOOPBACK], { environment });
    const [engine] = childrenOf(child.pid);
    return readFileSync(`/proc/${engine}/maps`, "utf8");
  };
  const [mapped, read] = await Promise.all([mapsOf({}), mapsOf({ MISTRALRS_NO_MMAP: "1" })]);
  expect(mapped).toContain(join(model, "model.safetensors"));
  expect(read).not.toContain("model.safetensors");
}, 60_000);

test("KEEP_ALIVE_INTERVAL is the silence between comments on the wire", async () => {
  const comments = async (intervalMs: string): Promise<number> => {
    const flags = ["--max-seqs", "1", ...LOOPBACK];
    const { url } = await startServing(["serve", ...TINY, ...flags], {
      environment: { KEEP_ALIVE_INTERVAL: intervalMs },
    });
    const ask = () =>
      fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          prompt: "a",
          max_tokens: 1500,
          stream: true,
          ignore_eos: true,
          temperature: 0,
        }),
      });
    // The second waits for the first, in silence.
    const [first, second] = [await ask(), await ask()];
    const [, text] = await Promise.all([first.text(), second.text()]);
    expect(text).toEndWith("data: [DONE]\n\n");
    return text.split(": keep-alive\n").length - 1;
  };
  expect(await comments("10")).toBeGreaterThan(3);
  expect(await comments("60000")).toBe(0);
}, 60_000);

describe("MISTRALRS_DEBUG", () => {
  const golden = readGolden("llama3");
  const gguf = join(folder, "llama3.gguf");
  writeGgufTwin(golden, gguf);
  const bench = ["bench", "-f", gguf, "--threads", "1", "--prompt-len", "4", "--gen-len", "1"];
  const options = ["--repetitions", "1", "--warmup", "0"];

  test("with a 1 in it lists the tensors of a GGUF file in the working directory, sorted", async () => {
    const place = join(folder, "debug");
    mkdirSync(place);
    const listed = await runCommand([...bench, ...options], {
      folder: place,
      environment: { MISTRALRS_DEBUG: "x1" },
    });
    expect(listed.stderr).toContain("general.architecture = llama");
    expect(listed.stderr).not.toContain("tokenizer.ggml");
    const lines = JSON.parse(readFileSync(join(place, "mistralrs_gguf_tensors.txt"), "utf8")) as string[];
    expect(lines).toContain("name = `blk.0.attn_q.weight`, shape = [64, 64], dtype = F32");
    expect(lines).toEqual([...lines].sort());
    expect(lines.length).toBe(Object.keys(golden.parameters).length + 1);
  }, 60_000);

  test("logs every step and the tokenizer of a server, and no text", async () => {
    const place = join(folder, "debug-steps");
    mkdirSync(place);
    const options = { folder: place, environment: { MISTRALRS_DEBUG: "11" } };
    const { url, log } = await startServing(["serve", ...TINY, ...LOOPBACK], options);
    await post(url, "/v1/completions", { prompt: "quick", max_tokens: 3, ignore_eos: true });
    expect(log()).toMatch(/info +tokenizer +\d+ tokens, 3 of them special\n/);
    expect(log()).toMatch(/info +special tokens +0 "<unk>", 1 "<s>", 2 "<\/s>"\n/);
    const steps = log().match(/debug +step: .*/g) ?? [];
    expect(steps.map((line) => line.replace(/.*step/, "step").replace(/, \S+ ms$/, ""))).toEqual([
      "step: prompts [5], completions []",
      "step: prompts [], completions [6]",
      "step: prompts [], completions [7]",
    ]);
    for (const line of steps) expect(line).toMatch(/, \d+\.\d ms$/);
    expect(log()).not.toContain("quick");
    // Safetensors have no list.
    expect(readdirSync(place)).toEqual([]);
  }, 60_000);

  test("without one does not", async () => {
    const place = join(folder, "no-debug");
    mkdirSync(place);
    const { status, stderr } = await runCommand([...bench, ...options], {
      folder: place,
      environment: { MISTRALRS_DEBUG: "true" },
    });
    expect(status).toBe(0);
    expect(stderr).not.toContain("general.architecture");
    expect(existsSync(join(place, "mistralrs_gguf_tensors.txt"))).toBe(false);
  }, 60_000);
});

test("what has no effect is said in the start log, never passed over", async () => {
  const ring = join(folder, "ring.json");
  writeFileSync(
    ring,
    JSON.stringify({
      master_port: 9000,
      port: 9001,
      right_port: 9001,
      right_ip: "x",
      rank: 0,
      world_size: 2,
    }),
  );
  const environment = {
    MISTRALRS_METAL_PRECOMPILE: "0",
    MISTRALRS_METAL_PLATFORMS: "macos",
    MISTRALRS_NO_MLA: "1",
    MISTRALRS_ISQ_SINGLETHREAD: "",
    MCP_CONFIG_PATH: "mcp.json",
    RING_CONFIG: ring,
    MISTRALRS_NO_MMPA: "1",
  };
  const { log } = await startServing(["serve", ...TINY, ...LOOPBACK, "--max-batch-size", "4"], {
    environment,
  });
  const warnings = log()
    .split("\n")
    .filter((line) => line.includes(" warning "));
  for (const [name, reason] of [
    ["MISTRALRS_METAL_PRECOMPILE", "no Metal kernels in this build"],
    ["MISTRALRS_METAL_PLATFORMS", "no Metal kernels in this build"],
    ["MISTRALRS_NO_MLA", "latent attention"],
    ["MISTRALRS_ISQ_SINGLETHREAD", "quantising a model is not built"],
    ["MCP_CONFIG_PATH", "tools that run on the server are not built"],
    ["RING_CONFIG", "several nodes is not built"],
    ["--max-batch-size", "a model runs on one device"],
  ] as const) {
    expect(warnings.filter((line) => line.includes(`${name} `) && line.includes(reason))).toHaveLength(1);
  }
  expect(warnings.join("\n")).toContain("did you mean MISTRALRS_NO_MMAP?");
}, 60_000);

test("--format, --tokenizer and --served-name", async () => {
  const gguf = await runCommand(["serve", ...TINY, ...LOOPBACK, "--format", "gguf"]);
  expect(gguf).toMatchObject({ status: 2, stdout: "" });
  expect(gguf.stderr).toContain("--format is gguf, but the weights that were found are safetensors");

  const other = join(folder, "other-tokenizer");
  writeTinyModel(other);
  const flags = ["--tokenizer", join(other, "tokenizer.json"), "--served-name", "mine", "--format", "plain"];
  const { url } = await startServing(["serve", ...TINY, ...LOOPBACK, ...flags]);
  const { status, body } = await post(url, "/v1/completions", { model: "mine", prompt: "a", max_tokens: 2 });
  expect({ status, model: (body as { model: string }).model }).toEqual({ status: 200, model: "mine" });
}, 60_000);

test("--seed makes a series of answers that comes again with the next start", async () => {
  const series = async (seed: string): Promise<string[]> => {
    const { url } = await startServing(["serve", ...TINY, ...LOOPBACK, "--seed", seed]);
    const texts: string[] = [];
    for (let index = 0; index < 2; index++) {
      const { body } = await post(url, "/v1/completions", { prompt: "a", max_tokens: 12, ignore_eos: true });
      texts.push((body as { choices: { text: string }[] }).choices[0]!.text);
    }
    return texts;
  };
  const [first, again, other] = await Promise.all([series("7"), series("7"), series("8")]);
  expect(first[0]).not.toBe(first[1]);
  expect(again).toEqual(first);
  expect(other).not.toEqual(first);
}, 60_000);

test("--log appends requests and answers, streams and failures, each block followed by an empty line", async () => {
  const path = join(folder, "requests.log");
  writeFileSync(path, "before\n\n");
  const { url, log } = await startServing(["serve", ...TINY, ...LOOPBACK, "-l", path]);
  const whole = await post(url, "/v1/completions", {
    prompt: "quick fox",
    max_tokens: 3,
    ignore_eos: true,
    seed: 1,
  });
  const { text } = (whole.body as { choices: { text: string }[] }).choices[0]!;
  const chat = { messages: [{ role: "user", content: "hi" }], max_tokens: 2, stream: true };
  const streamed = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(chat),
  });
  await streamed.text();
  await post(url, "/v1/completions", { prompt: "x".repeat(5000) });
  await fetch(`${url}/health`);
  await Bun.sleep(50);
  const blocks = readFileSync(path, "utf8").split("\n\n");
  expect(blocks.shift()).toBe("before");
  expect(blocks.pop()).toBe("");
  const time = /^(Request|Response|Error response) at \d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d: /;
  for (const block of blocks) expect(block).toMatch(time);
  expect(blocks.map((block) => time.exec(block)?.[1])).toEqual([
    "Request",
    "Response",
    "Request",
    "Response",
    "Request",
    "Error response",
  ]);
  const parsed = (index: number) => JSON.parse(blocks[index]!.replace(time, "")) as Record<string, unknown>;
  expect(parsed(0)).toMatchObject({ prompt: "quick fox", max_tokens: 3 });
  expect(parsed(1)).toMatchObject({
    model: "tiny",
    choices: [{ content: text }],
    usage: { completionTokens: 3 },
  });
  expect(parsed(2)).toEqual(chat);
  expect(parsed(3)).toMatchObject({ route: "/v1/chat/completions", stream: true });
  // The log for people has no texts.
  expect(log()).not.toContain("quick");
  const refused = await runCommand(["serve", ...TINY, ...LOOPBACK, "--log", folder]);
  expect(refused.status).toBe(2);
  expect(refused.stderr).toContain(`--log ${folder} cannot be written`);
}, 60_000);

test("memory: the plan stands before the load, a refusal says what would fit", async () => {
  const { log } = await startServing(["serve", ...TINY, ...LOOPBACK]);
  const rows = log();
  expect(rows).toMatch(/memory plan +tiny \(LlamaForCausalLM\), 2,048 tokens of context/);
  expect(rows).toMatch(/weights +\S+ [kM]B, mapped/);
  expect(rows).toMatch(/left +\S+ GB free, \S+ GB left with a full cache/);
  expect(rows.indexOf("memory plan")).toBeLessThan(rows.indexOf("loaded"));

  const small = ["serve", ...TINY, ...LOOPBACK, "--pa-cache-type", "f32", "--pa-memory-mb", "1"];
  const refused = await runCommand(small);
  expect(refused).toMatchObject({ status: 1, stdout: "" });
  expect(refused.stderr).toMatch(/error: the KV cache of one sequence of 2048 tokens needs .* available are/);
  const fitting = /--pa-context-len (\d+)\)/.exec(refused.stderr)?.[1];
  expect(fitting).toBeDefined();
  // And what it says does fit.
  const { url } = await startServing([
    "serve",
    ...TINY,
    ...LOOPBACK,
    "--pa-cache-type",
    "f32",
    "--pa-context-len",
    fitting!,
  ]);
  expect((await fetch(`${url}/health`)).status).toBe(200);
}, 60_000);
