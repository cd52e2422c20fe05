import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Value } from "@sinclair/typebox/value";
import { readRemoteHeaders } from "../../../src/cli/tune/remote-headers.ts";
import { TuneReport, tuneTable } from "../../../src/cli/tune/report.ts";
import { tuneReport } from "../../../src/cli/tune/tune.ts";
import { parseConfigFile } from "../../../src/config/config-file.ts";
import { resolveSettings } from "../../../src/config/resolve.ts";
import type { Settings } from "../../../src/config/settings.ts";
import { openCheckpoint } from "../../../src/weights/checkpoint.ts";
import { readGolden, writeGgufTwin } from "../../reference/tiny-checkpoint.ts";
import { FakeHub } from "../../support/fake-hub.ts";
import { writeOldLlama } from "../../support/old-llama.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { runCommand, startServing, stopServersAfterEach } from "../processes.ts";

const folder = temporaryFolder("tune");
const model = join(folder, "tiny");
writeTinyModel(model);
stopServersAfterEach();

const GIGABYTE = 1e9;
/** Much more than the tiny model can use. */
const ROOMY = { totalBytes: GIGABYTE, availableBytes: GIGABYTE };

function report(changes: Partial<Settings> = {}, memory = ROOMY): TuneReport {
  const settings = { ...resolveSettings("tune", {}).settings, model, threads: 1, ...changes };
  const stored = [{ checkpoint: openCheckpoint(model), command: ["-m", model], label: undefined }];
  const made = tuneReport("tiny", stored, settings, memory);
  expect([...Value.Errors(TuneReport, made)]).toEqual([]);
  return made;
}

describe("what tune recommends", () => {
  test("sizes fall from the stored model down, worked out from shapes", () => {
    const { candidates } = report();
    const names = candidates.map(({ isq_name }) => isq_name);
    expect(names[0]).toBe("None");
    expect(names).toEqual(expect.arrayContaining(["Q8_0", "Q4K"]));
    const sizes = candidates.map(({ estimated_size_bytes }) => estimated_size_bytes);
    expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
    const parameters = Object.values(readGolden("smollm2").parameters).map((shape) =>
      shape.reduce((product, size) => product * size, 1),
    );
    expect(sizes[0]).toBe(4 * parameters.reduce((sum, count) => sum + count, 0));
  });

  test("each profile begins where it should", () => {
    const choose = (profile: Settings["profile"]) => report({ profile }).recommended_isq;
    expect(choose("quality")).toBe("Q8_0");
    expect(choose("balanced")).toBe("Q6K");
    expect(choose("fast")).toBe("Q4K");
    // What would have to be made is not promised: the command serves what is there.
    expect(report().recommended_command).toBe(`mistral serve -m ${model}`);
    expect(report().notes.join()).toContain("quantising is not built");
  });

  test("a stored model is one choice, beside those that could be made of it", () => {
    const gguf = join(folder, "twin.gguf");
    writeGgufTwin(readGolden("smollm2"), gguf);
    const stored = [{ checkpoint: openCheckpoint(gguf), command: ["-f", gguf], label: undefined }];
    const settings = { ...resolveSettings("tune", {}).settings, threads: 1 };
    const { candidates } = tuneReport("twin", stored, settings, ROOMY);
    expect(candidates.filter(({ stored }) => stored)).toHaveLength(1);
  });

  test("with little memory, contexts shrink, then models do not fit", () => {
    const roomy = report().candidates[0]!;
    expect(roomy).toMatchObject({ context_is_model_max: true, max_context_tokens: 2048, fit_status: "fits" });
    const small = (availableBytes: number) => report({}, { totalBytes: availableBytes, availableBytes });
    const tight = small(2_800_000).candidates[0]!;
    expect(tight.context_is_model_max).toBe(false);
    expect(tight.max_context_tokens).toBeLessThan(2048);
    const none = small(100_000);
    expect(none.candidates.every(({ fit_status }) => fit_status === "too-large")).toBe(true);
    expect(none).toMatchObject({ recommended_isq: null, recommended_command: null });
    expect(none.warnings.join()).toContain("exceeds available VRAM");
    expect(none.notes.join()).toContain("no choice fits");
  });

  test("the table has the layout of mistral.rs", () => {
    const text = tuneTable(report(), false);
    expect(text).toStartWith(
      "Tuning Analysis\n===============\nModel: tiny\nProfile: balanced\nBackend: cpu\n",
    );
    expect(text).toContain("Quantization Options\n--------------------\n┌");
    expect(text).toMatch(/│ Quant +│ Est\. Size +│ VRAM % │ Context Room │ Quality +│ Status +│/);
    expect(text).toMatch(/│ Q6K +│ .*2k \(max\) +│ Good +│ 🚀 Recommended │/);
    expect(text).toContain("Recommended Command\n-------------------\n  mistral serve -m ");
    expect(text).toContain("[INFO] PagedAttention is available (mode: auto)");
    const widths = text
      .split("\n")
      .filter((line) => /^[┌│├└]/.test(line))
      .map((line) => Bun.stringWidth(line));
    expect(new Set(widths).size).toBe(1);
  });
});

describe("tune as a process", () => {
  test("--json fits its schema, alone on stdout; --emit-config writes a file that serves", async () => {
    const path = join(folder, "tuned.toml");
    const { status, stdout } = await runCommand(["tune", "-m", model, "--json", "--emit-config", path]);
    expect(status).toBe(0);
    const parsed = JSON.parse(stdout) as TuneReport;
    expect([...Value.Errors(TuneReport, parsed)]).toEqual([]);
    expect(parsed.model_id).toBe("tiny");
    const file = parseConfigFile(readFileSync(path, "utf8"), path);
    expect(resolveSettings("serve", { file }).settings.model).toBe(model);
    const { url } = await startServing([
      "from-config",
      path,
      "--port",
      "0",
      "--host",
      "127.0.0.1",
      "--threads",
      "1",
    ]);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  }, 60_000);

  test("a folder of several GGUF files is a choice among them; only headers are read", async () => {
    const many = join(folder, "many");
    mkdirSync(many);
    writeGgufTwin(readGolden("llama3"), join(many, "a-F32.gguf"));
    writeGgufTwin(readGolden("qwen3"), join(many, "b-F32.gguf"));
    const { status, stdout } = await runCommand(["tune", "-m", many, "--json"]);
    expect(status).toBe(0);
    const { candidates } = JSON.parse(stdout) as TuneReport;
    const stored = candidates.filter((candidate) => candidate.stored).map(({ isq_name }) => isq_name);
    expect(stored.sort()).toEqual(["a-F32.gguf", "b-F32.gguf"]);
    expect(existsSync(join(many, "mistralrs_gguf_tensors.txt"))).toBe(false);
  });
});

describe("a model on the hub", () => {
  const hub = new FakeHub();
  const cache = join(folder, "cache");
  const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_HOME: folder };
  const commit = "0123456789abcdef0123456789abcdef01234567";

  /** Padded behind its header, so that fetching it whole would show. */
  function padded(path: string, bytes: number): Uint8Array {
    const content = readFileSync(path);
    const longer = new Uint8Array(content.length + bytes);
    longer.set(content);
    return longer;
  }

  test("is judged by the headers of its files, which is all that is fetched", async () => {
    const files = ["config.json", "tokenizer.json", "tokenizer_config.json"].map(
      (name) => [name, new Uint8Array(readFileSync(join(model, name)))] as const,
    );
    const weights = new Uint8Array(readFileSync(join(model, "model.safetensors")));
    hub.repositories.set("owner/tiny", {
      commit,
      files: { ...Object.fromEntries(files), "model.safetensors": weights },
    });
    const { status, stdout, stderr } = await runCommand(["tune", "-m", "owner/tiny", "--json"], {
      environment,
    });
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const found = JSON.parse(stdout) as TuneReport;
    expect([...Value.Errors(TuneReport, found)]).toEqual([]);
    expect(found.candidates[0]?.estimated_size_bytes).toBe(report().candidates[0]!.estimated_size_bytes);
    expect(found.recommended_command).toBe("mistral serve -m owner/tiny");
    expect(hub.requests.filter(({ range }) => range !== null).length).toBeGreaterThan(0);
    expect(existsSync(cache)).toBe(false);
  });

  test("with several GGUF files is a choice among them, however long their headers are", async () => {
    const path = join(folder, "remote.gguf");
    writeGgufTwin(readGolden("smollm2"), path);
    const bytes = padded(path, 6 << 20);
    hub.repositories.set("owner/many", { commit, files: { "a-F32.gguf": bytes, "b-F32.gguf": bytes } });
    const { status, stdout } = await runCommand(["tune", "-m", "owner/many", "--json"], { environment });
    expect(status).toBe(0);
    const { candidates, recommended_command } = JSON.parse(stdout) as TuneReport;
    expect(candidates.filter((candidate) => candidate.stored).map(({ isq_name }) => isq_name)).toEqual([
      "a-F32.gguf",
      "b-F32.gguf",
    ]);
    expect(recommended_command).toStartWith("mistral serve -m owner/many -f ");
    // The first piece held the header: no second, larger one was asked for.
    const ranges = hub.transfersOf("a-F32.gguf").map(({ range }) => range);
    expect(ranges).toEqual(["bytes=0-1048575"]);
  });

  test("is fetched in ever larger pieces until its header is whole", async () => {
    const path = join(folder, "grown.gguf");
    writeGgufTwin(readGolden("smollm2"), path);
    const bytes = padded(path, 1 << 20);
    hub.repositories.set("owner/grown", { commit, files: { "grown.gguf": bytes } });
    const [found] = await readRemoteHeaders("owner/grown", "main", undefined, environment, 64);
    const ranges = hub.transfersOf("grown.gguf").map(({ range }) => range);
    expect(ranges.slice(0, 3)).toEqual(["bytes=0-63", "bytes=0-255", "bytes=0-1023"]);
    const whole = openCheckpoint(path);
    expect([...found!.checkpoint.tensors.values()]).toEqual([...whole.tensors.values()]);
    // It stopped at the header, far from the end.
    expect(Number(ranges.at(-1)!.slice("bytes=0-".length))).toBeLessThan(whole.files[0]!.bytes);
  });

  test("in a GGML file is not fetched whole to be judged; on this machine it is", async () => {
    const path = join(folder, "old.bin");
    writeOldLlama(path, "q8_0");
    hub.repositories.set("owner/old", { commit, files: { "old.bin": padded(path, 2 << 20) } });
    const remote = await runCommand(["tune", "-m", "owner/old", "-f", "old.bin"], { environment });
    expect(remote).toMatchObject({ status: 1, stdout: "" });
    expect(remote.stderr).toContain(
      "old.bin is a GGML file, whose tensors are known only when all of it is here",
    );
    expect(hub.transfersOf("old.bin").map(({ range }) => range)).toEqual(["bytes=0-1048575"]);
    const local = await runCommand(["tune", "-f", path, "--json"], { environment });
    const { candidates } = JSON.parse(local.stdout) as TuneReport;
    expect(candidates[0]).toMatchObject({ isq_name: "Q8_0", stored: true, fit_status: "fits" });
  });

  test("that is not there is told; offline it is not asked for", async () => {
    const missing = await runCommand(["tune", "-m", "owner/none"], { environment });
    expect(missing.status).toBe(1);
    expect(missing.stderr).toContain("owner/none");
    const offline = await runCommand(["tune", "-m", "owner/tiny"], {
      environment: { ...environment, HF_HUB_OFFLINE: "1" },
    });
    expect(offline.status).toBe(1);
    expect(offline.stderr).toContain("HF_HUB_OFFLINE is set");
  });
});
