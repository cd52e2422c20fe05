/** GGML files as a user serves them: named as in mistral.rs, answering as the GGUF twin does, listed and refused. */

import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FakeHub } from "../../support/fake-hub.ts";
import { writeOldLlama, writeOldLlamaTwin } from "../../support/old-llama.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { LOOPBACK, post, runCommand, startServing, stopServersAfterEach } from "../processes.ts";

const folder = temporaryFolder("ggml-serve");
const COMMON = ["--threads", "1", "--max-seqs", "1"] as const;
writeOldLlama(join(folder, "old.bin"), "q4_0");
writeOldLlamaTwin(join(folder, "twin.gguf"), "q4_0");
writeOldLlama(join(folder, "older.bin"), "q4_0", { version: 2 });
const template = join(folder, "plain.jinja");
writeFileSync(template, "{% for message in messages %}{{ message.content }}{% endfor %}");
stopServersAfterEach();

test("a server answers from the file as from its GGUF twin, raw and in chat; the tensors are listed", async () => {
  const place = join(folder, "debug");
  mkdirSync(place);
  const old = ["--format", "ggml", "-m", folder, "-f", "old.bin", "--gqa", "2"];
  const answers = async (flags: readonly string[], debug: string): Promise<unknown[]> => {
    const command = ["serve", ...flags, ...COMMON, ...LOOPBACK, "-c", template, "--served-name", "x"];
    const { url } = await startServing(command, { folder: place, environment: { MISTRALRS_DEBUG: debug } });
    const common = { temperature: 0, max_tokens: 16, ignore_eos: true };
    const messages = [{ role: "user", content: "hello the hello" }];
    const raw = await post(url, "/v1/completions", { ...common, prompt: "the hello", logprobs: 1 });
    const chat = await post(url, "/v1/chat/completions", { ...common, messages });
    return [raw, chat].map(({ status, body }) => {
      const { choices, usage } = body as { choices: unknown; usage: unknown };
      return { status, choices, tokens: (usage as { completion_tokens: number }).completion_tokens };
    });
  };
  const expected = await answers(["-f", join(folder, "twin.gguf")], "0");
  expect(expected).toMatchObject([
    { status: 200, tokens: 16 },
    { status: 200, tokens: 16 },
  ]);
  expect(await answers(old, "1")).toEqual(expected);

  const lines = JSON.parse(readFileSync(join(place, "mistralrs_ggml_tensors.txt"), "utf8")) as string[];
  expect(lines).toContain("name = `layers.0.attention.wk.weight`, shape = [32, 64], dtype = Q4_0");
  expect(lines).toContain("name = `norm.weight`, shape = [64], dtype = F32");
  expect(lines).toEqual([...lines].sort());
  expect(lines).toHaveLength(3 + 3 * 9);
}, 60_000);

describe("--tok-model-id", () => {
  const other = join(folder, "other");
  writeTinyModel(other);
  const twin = ["-f", join(folder, "old.bin"), "--max-tokens", "2", ...COMMON];
  const ask = (id: string, environment: Record<string, string> = {}) =>
    runCommand(["run", ...twin, "--tok-model-id", id, "-i", "quick"], { environment });

  test("takes tokenizer and template of a folder, as mistral.rs wants it for GGML files", async () => {
    const { status, stderr } = await ask(other);
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining("Stats:") });
    // "user: quick\nassistant: " in characters, which are that tokenizer's tokens.
    expect(stderr).toContain("Prompt: 23 tokens");
  }, 60_000);

  test("fetches only those from the hub, and finds them in the cache after that", async () => {
    const hub = new FakeHub();
    const names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"];
    hub.repositories.set("owner/other", {
      commit: "0123456789abcdef0123456789abcdef01234567",
      files: Object.fromEntries(names.map((name) => [name, new Uint8Array(readFileSync(join(other, name)))])),
    });
    const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: join(folder, "cache"), HF_HOME: folder };
    const fetched = await ask("owner/other", environment);
    expect({ status: fetched.status, stderr: fetched.stderr }).toEqual({
      status: 0,
      stderr: expect.stringContaining("Prompt: 23 tokens"),
    });
    for (const name of names) {
      const isAsked = hub.requests.some(({ path }) => path.endsWith(`/${name}`));
      expect({ name, isAsked }).toEqual({ name, isAsked: name !== "model.safetensors" });
    }
    const offline = await ask("owner/other", { ...environment, HF_HUB_OFFLINE: "1" });
    expect(offline.stderr).toContain("Prompt: 23 tokens");
    const missing = await ask("owner/none", { ...environment, HF_HUB_OFFLINE: "1" });
    expect(missing).toMatchObject({ status: 1, stdout: "" });
    expect(missing.stderr).toBe(
      "error: cannot take the tokenizer of owner/none: it is not in the cache, and the hub is not asked because HF_HUB_OFFLINE is set\n",
    );
  }, 60_000);

  test("says what a folder lacks", async () => {
    const { status, stderr } = await ask(folder);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: `error: cannot take the tokenizer of ${folder}: the folder has no tokenizer.json\n`,
    });
  });
});

test("what does not fit is one line with the way out", async () => {
  const refused = async (...flags: string[]) => {
    const { status, stdout, stderr } = await runCommand([
      "run",
      ...COMMON,
      "-i",
      "hm",
      "-c",
      template,
      ...flags,
    ]);
    expect({ stdout, lines: stderr.split("\n").length }).toEqual({ stdout: "", lines: 2 });
    return { status, stderr };
  };
  const old = join(folder, "old.bin");
  expect(await refused("-f", old, "--gqa", "8")).toEqual({
    status: 2,
    stderr: "error: --gqa is 8, but the file has 2 query heads for each key/value head; leave the flag out\n",
  });
  expect(await refused("-f", old, "--format", "gguf")).toEqual({
    status: 2,
    stderr: "error: --format is gguf, but the weights that were found are ggml\n",
  });
  const older = await refused("-f", join(folder, "older.bin"));
  expect(older.status).toBe(1);
  expect(older.stderr).toContain("a ggjt file of version 2; its q4_0 blocks");
  expect(older.stderr).toContain("Use a GGUF file of the model");
});

test("--gqa without a GGML file is said to have no effect", async () => {
  const twin = ["-f", join(folder, "twin.gguf"), "-c", template, "--max-tokens", "2"];
  const run = (gqa: string) => runCommand(["run", ...COMMON, ...twin, "-i", "hm", "--gqa", gqa]);
  expect((await run("8")).stderr).toContain(
    "--gqa (8) is not in effect: it is for GGML files, and the weights are gguf",
  );
  // What mistral.rs writes into configuration files when nobody asked for anything.
  expect((await run("1")).stderr).not.toContain("gqa");
}, 60_000);
