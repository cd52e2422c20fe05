/** Configuration files as processes: two models in one server, what a file may say, and what it is told otherwise. */

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import {
  childrenOf,
  post,
  residentBytes,
  runCommand,
  startServing,
  stopServersAfterEach,
} from "../processes.ts";

const folder = temporaryFolder("from-config");
const first = join(folder, "first");
const second = join(folder, "second");
writeTinyModel(first);
writeTinyModel(second, { contextLength: 512 });
stopServersAfterEach();

let files = 0;
function writeConfig(text: string): string {
  files += 1;
  const path = join(folder, `config-${files}.toml`);
  writeFileSync(path, text);
  return path;
}

const SERVER = `command = "serve"
default_model_id = "second"

[global]
seed = 7
token_source = "none"

[server]
port = 0
host = "127.0.0.1"
ui = false

[runtime]
max_seqs = 2
prefix_cache_n = 16
threads = 1

[paged_attn]
mode = "auto"
block_size = 16
cache_type = "auto"
`;

const TWO_MODELS = `${SERVER}
[[models]]
kind = "text"
model_id = ${JSON.stringify(first)}
alias = "first"
dtype = "auto"

[models.format]
format = "plain"
gqa = 1

[models.device]
cpu = false
max_seq_len = 4096

[[models]]
kind = "auto"
model_id = ${JSON.stringify(second)}
alias = "second"
chat_template = ${JSON.stringify(join(second, "chat_template.jinja"))}
`;

interface Completion {
  readonly model: string;
  readonly usage: { readonly completion_tokens: number };
}

async function complete(url: string, model: string | undefined): Promise<Completion> {
  const { status, body } = await post(url, "/v1/completions", {
    model,
    prompt: "abc",
    max_tokens: 4,
    ignore_eos: true,
  });
  expect(status).toBe(200);
  return body as Completion;
}

test("two models of a file are two engine processes; each answers by its id, unloads and comes back", async () => {
  const { child, log, url } = await startServing(["from-config", writeConfig(TWO_MODELS)]);
  expect(log()).toMatch(/model +first \(LlamaForCausalLM/);
  expect(log()).toMatch(/model +second \(LlamaForCausalLM/);
  expect(log()).toContain("blocks of 16 tokens");
  const names = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  expect(names.data.map(({ id }) => id).sort()).toEqual(["first", "second"]);
  for (const model of ["first", "second"]) expect((await complete(url, model)).model).toBe(model);
  expect((await complete(url, undefined)).model).toBe("second");
  expect((await complete(url, "default")).model).toBe("second");

  const engines = childrenOf(child.pid);
  expect(engines).toHaveLength(2);
  const bytes = () => childrenOf(child.pid).reduce((sum, pid) => sum + residentBytes(pid), 0);
  const before = bytes();
  const status = async (path: string) => (await post(url, `/v1/models/${path}`, { model_id: "first" })).body;
  expect(await status("unload")).toEqual({ model_id: "first", status: "unloaded" });
  expect(await status("status")).toEqual({ model_id: "first", status: "unloaded" });
  expect(childrenOf(child.pid)).toHaveLength(1);
  const freed = before - bytes();
  // A Bun process alone takes tens of megabytes, and all of it comes back.
  expect(freed).toBeGreaterThan(before / 3);
  console.log(
    `engines took ${(before / 1e6).toFixed(0)} MB; unloading one freed ${(freed / 1e6).toFixed(0)} MB`,
  );
  expect((await complete(url, "second")).model).toBe("second");

  expect(await status("reload")).toEqual({ model_id: "first", status: "loaded" });
  expect((await complete(url, "first")).model).toBe("first");
  expect(childrenOf(child.pid)).toHaveLength(2);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  expect(engines.filter((pid) => childrenOf(child.pid).includes(pid))).toEqual([]);
}, 60_000);

test("a model is loaded by its first request and goes when nobody uses it, memory and all", async () => {
  const path = writeConfig(
    TWO_MODELS.replace('default_model_id = "second"\n', "").replace(
      "ui = false",
      "load_on_demand = true\nidle_unload = 1",
    ),
  );
  const { child, log, url } = await startServing(["from-config", path]);
  expect(childrenOf(child.pid)).toHaveLength(1);
  const names = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  expect(names.data.map(({ id }) => id)).toEqual(["first", "second"]);

  const answers = await Promise.all(Array.from({ length: 8 }, () => complete(url, "second")));
  expect(answers.map(({ model }) => model)).toEqual(Array.from({ length: 8 }, () => "second"));
  expect(childrenOf(child.pid)).toHaveLength(2);

  for (const start = Date.now(); childrenOf(child.pid).length > 0; await Bun.sleep(50)) {
    if (Date.now() - start > 20_000) throw new Error(`the models stay:\n${log()}`);
  }
  // The line comes when the process has gone.
  const line = "second was not used for 1.0 s and is unloaded until a request comes";
  for (const start = Date.now(); !log().includes(line) && Date.now() - start < 20_000; ) await Bun.sleep(50);
  expect(log()).toContain(line);
  expect((await fetch(`${url}/health`)).status).toBe(200);
  expect((await complete(url, undefined)).model).toBe("first");
  expect(childrenOf(child.pid)).toHaveLength(1);
}, 60_000);

test("flags and variables are stronger than the file", async () => {
  const path = writeConfig(`[server]
port = 1
host = "0.0.0.0"
[runtime]
max_seqs = 5
threads = 1
[[models]]
model_id = ${JSON.stringify(first)}
`);
  const flags = ["--config", path, "--port", "0", "--host", "127.0.0.1", "-v"];
  const { log, url } = await startServing(["serve", ...flags], { environment: { RAYON_NUM_THREADS: "2" } });
  expect(log()).toMatch(/port +0 \(flag --port\)/);
  expect(log()).toMatch(/threads +2 \(variable RAYON_NUM_THREADS\)/);
  expect(log()).toMatch(/sequencesMax +5 \(key runtime\.max_seqs in .*\.toml\)/);
  expect((await complete(url, first)).model).toBe(first);
}, 60_000);

test("a file can ask for a conversation", async () => {
  const path = writeConfig(`command = "run"
thinking = false
[runtime]
threads = 1
[[models]]
model_id = ${JSON.stringify(first)}
`);
  const { status, stdout, stderr } = await runCommand([
    "from-config",
    "-f",
    path,
    "-i",
    "hi",
    "--max-tokens",
    "5",
    // Drawn tokens may be the end of the text.
    "--temperature",
    "0",
  ]);
  expect({ status, lines: stdout.split("\n").length > 1 }).toEqual({ status: 0, lines: true });
  expect(stderr).toContain("Decode: 5 tokens");
}, 60_000);

describe("one line says what is wrong with a file", () => {
  const model = `[[models]]\nmodel_id = ${JSON.stringify(first)}\n`;
  const cases: [string, string, string[], string][] = [
    [
      "a misspelt key",
      `[server]\nprot = 1\n${model}`,
      [],
      "key server.prot in FILE is not a key of a configuration file (did you mean server.port?)",
    ],
    [
      "a value that is none",
      `[server]\nport = 99999\n${model}`,
      [],
      "key server.port in FILE has the value 99999; allowed: a whole number from 0 to 65535",
    ],
    [
      "a text for a number",
      `[server]\nport = "1234"\n${model}`,
      [],
      'key server.port in FILE has the value "1234"; allowed: a whole number from 0 to 65535',
    ],
    [
      "a near miss",
      `[paged_attn]\nmode = "onn"\n${model}`,
      [],
      'key paged_attn.mode in FILE has the value "onn"; allowed: one of auto, on, off (did you mean on?)',
    ],
    ["no model", "[server]\nport = 0\n", [], "FILE names no model; add a table [[models]] with model_id"],
    [
      "a default model that is none",
      `default_model_id = "x"\n${model}`,
      [],
      `key default_model_id in FILE has the value "x"; allowed: one of ${first}`,
    ],
    ["no TOML", `${model}port = \n`, [], "FILE, at or after line 3: not TOML:"],
    [
      "what is not built",
      `${model}[models.quantization]\nin_situ_quant = "Q4K"\n`,
      [],
      "key models.quantization.in_situ_quant in FILE (Q4K) is not available: quantising a model is not built",
    ],
    [
      "a search model without search",
      `[runtime]\nsearch_embedding_model = "embedding-gemma"\n${model}`,
      [],
      "key runtime.search_embedding_model in FILE (embedding-gemma) is not available",
    ],
    ["two models of one name", `${model}${model}`, [], "give one of them another with the key models.alias"],
    [
      "a flag of another command",
      `command = "run"\n${model}`,
      ["--port", "1"],
      "flag --port is none of run, which is what FILE asks for",
    ],
  ];
  for (const [name, text, flags, message] of cases) {
    test(name, async () => {
      const path = writeConfig(text);
      const { status, stdout, stderr } = await runCommand(["from-config", path, ...flags]);
      expect({ status, stdout, lines: stderr.split("\n").length }).toEqual({
        status: 2,
        stdout: "",
        lines: 2,
      });
      expect(stderr.replaceAll(path, "FILE")).toStartWith("error: ");
      expect(stderr.replaceAll(path, "FILE")).toContain(message);
    });
  }

  test("a file that is not there, or is not called .toml", async () => {
    const missing = await runCommand(["from-config", join(folder, "none.toml")]);
    expect(missing.status).toBe(2);
    expect(missing.stderr).toContain("none.toml, which cannot be read: ENOENT");
    const other = await runCommand(["serve", "--config", "x.yaml"]);
    expect(other.stderr).toBe(
      'error: flag --config has the value "x.yaml"; allowed: a path that ends in .toml\n',
    );
    const none = await runCommand(["from-config"]);
    expect(none.stderr).toBe("error: from-config needs a file: from-config FILE.toml\n");
  });

  test("a ring that cannot be is told before anything is loaded", async () => {
    const path = join(folder, "ring.json");
    writeFileSync(path, '{"rank": 0, "world_size": 3}');
    const { status, stderr } = await runCommand(["serve", "-m", first], {
      environment: { RING_CONFIG: path },
    });
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: `error: RING_CONFIG file ${path}: world_size is 3, not a power of two\n`,
    });
  });
});
