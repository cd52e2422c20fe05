/**
 * One call on a machine with a GPU: builds the kernels or takes those that were carried there, holds them against
 * float64 and the processor on the device, measures a Llama-3.1-8B shape against what the device can do at best and
 * against PyTorch, prints a table and leaves a JSON file in test/bench/results/. `--dry` does all of it with a tiny
 * shape on the emulated device, to see that the script works. `kernels/README.md` says how to run it.
 */

import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Floors, findCublasLt } from "./gpu/floors.ts";
import type { ModelTimes, Plan } from "./gpu/measure-model.ts";
import { type Checked, formatReport, type GpuReport, type TorchTimes } from "./gpu/report.ts";
import { writeSeededModel } from "./gpu/seeded-model.ts";
import { LLAMA_8B, TINY, type WeightType } from "./gpu/shapes.ts";

const ROOT = join(import.meta.dir, "..", "..");
/** Where `gpu/pack.ts` puts what is carried to a machine that can build nothing. */
const CARRIED = join(ROOT, ".gpu", "lib");
const BUILT = join(ROOT, "zig-out", "lib");
const WEIGHT_TYPES = ["bf16", "q8_0", "q4_k"] as const satisfies readonly WeightType[];

const { values: options } = parseArgs({
  options: {
    dry: { type: "boolean", default: false },
    /** bf16, q8_0, q4_k, comma-separated. */
    weights: { type: "string", default: WEIGHT_TYPES.join() },
    /** fast, as a server on a GPU has them, or precise. */
    activations: { type: "string", default: "fast" },
    "skip-tests": { type: "boolean", default: false },
    "skip-torch": { type: "boolean", default: false },
    /** Also holds the conformance tests under compute-sanitizer, where there is one. */
    sanitize: { type: "boolean", default: false },
    /** Where model files are written for a while. */
    scratch: { type: "string", default: tmpdir() },
    /** Where a copy of the JSON file goes. */
    out: { type: "string" },
  },
});

const { activations } = options;
if (activations !== "fast" && activations !== "precise")
  throw new Error(`--activations ${activations} is neither fast nor precise`);

const shape = options.dry ? TINY : LLAMA_8B;
const plan: Omit<Plan, "path"> = options.dry
  ? {
      decode: [1, 3].map((batch) => ({ batch, context: 40 })),
      prefill: [24],
      steps: 2,
      prefillRepetitions: 1,
      activations,
    }
  : {
      decode: [1024, 8192].flatMap((context) => [1, 8, 64].map((batch) => ({ batch, context }))),
      prefill: [512, 2048, 8192],
      steps: 50,
      prefillRepetitions: 5,
      activations,
    };

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A kernel is an order of magnitude slower under a tool that watches it. */
const SANITIZE_SECONDS = 1800;

const environment: Record<string, string | undefined> = { ...process.env };

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program here with the environment of the kernels; what it prints on stderr is also shown. */
async function run(command: readonly string[], timeoutSeconds: number): Promise<Ended> {
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn([...command], {
      cwd: ROOT,
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: timeoutSeconds * 1000,
    });
  } catch (error) {
    return { status: 127, stdout: "", stderr: String(error) };
  }
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, stdout, stderr };
}

/** What a program that failed said: from its error on. */
function lastLines(text: string, count = 15): string {
  const lines = text.trim().split("\n");
  const error = lines.findIndex((line) => /error/i.test(line));
  return (error < 0 ? lines.slice(-count) : lines.slice(error, error + count)).join("\n");
}

/** Chooses the kernels: those carried along, those built before, or new ones. */
async function takeKernels(): Promise<void> {
  if (environment.MISTRALRS_KERNEL_FOLDER === undefined) {
    if (existsSync(join(CARRIED, "libmistral_cuda.so"))) {
      environment.MISTRALRS_KERNEL_FOLDER = CARRIED;
    } else if (!existsSync(join(BUILT, "libmistral_cuda.so"))) {
      say("building the kernels");
      const { status, stderr } = await run([process.execPath, "src/cli/main.ts", "build", "--all"], 1800);
      if (status !== 0) throw new Error(`the kernels cannot be built:\n${lastLines(stderr)}`);
    }
  }
  const folder = environment.MISTRALRS_KERNEL_FOLDER ?? BUILT;
  const emulated = join(folder, "libmistral_cuda_emulated.so");
  if (options.dry) environment.MISTRALRS_CUDA_DRIVER = emulated;
  environment.MISTRALRS_CUDA_CUBLASLT ??= options.dry ? emulated : findCublasLt();
  say(`kernels: ${folder}`);
}

const DESCRIBE = `
  const { chooseDevice } = await import("./src/backend/device-choice.ts");
  const { cuda } = chooseDevice("cuda");
  process.stdout.write(JSON.stringify(cuda));`;

async function describeMachine(): Promise<{ machine: Record<string, string>; emulated: boolean }> {
  const { status, stdout, stderr } = await run([process.execPath, "-e", DESCRIBE], 60);
  if (status !== 0) throw new Error(`no CUDA device can be used:\n${lastLines(stderr)}`);
  const { info, memory } = JSON.parse(stdout) as {
    info: { name: string; instructionSet: string; multiprocessors: number };
    memory: { total: number };
  };
  const query = [
    "nvidia-smi",
    "--query-gpu=driver_version,clocks.max.sm,power.limit",
    "--format=csv,noheader",
  ];
  const smi = await run(query, 30);
  return {
    emulated: info.name.startsWith("emulated"),
    machine: {
      device: `${info.name}, ${info.instructionSet}, ${info.multiprocessors} multiprocessors, ${(memory.total / 1e9).toFixed(1)} GB`,
      driver: smi.status === 0 ? smi.stdout.trim() : "nvidia-smi says nothing",
      processor: `${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`,
      bun: Bun.version,
    },
  };
}

/** Runs test files and counts. */
async function test(title: string, files: readonly string[], timeoutSeconds: number): Promise<Checked> {
  if (options["skip-tests"]) return { skipped: "--skip-tests" };
  say(`${title} ...`);
  const started = performance.now();
  const ended = await run(
    [process.execPath, "test", "--timeout", String(timeoutSeconds * 1000), ...files],
    timeoutSeconds,
  );
  const count = (word: string): number =>
    Number(new RegExp(`^\\s*(\\d+) ${word}$`, "m").exec(ended.stderr)?.[1] ?? 0);
  const failed = count("fail");
  say(
    `${title}: ${count("pass")} passed, ${failed} failed, ${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
  if (ended.status !== 0)
    say(
      ended.stderr
        .split("\n")
        .filter((line) => /error:|\(fail\)/.test(line))
        .slice(0, 40)
        .join("\n"),
    );
  // A process that died has counted nothing.
  return { passed: count("pass"), failed: failed === 0 && ended.status !== 0 ? 1 : failed };
}

const RESOLVE = `
  const { resolveModel } = await import("./src/weights/resolve.ts");
  await resolveModel({ model: undefined, file: undefined, onProgress() {}, environment: process.env });`;

async function testRealModel(): Promise<Checked> {
  const { status, stderr } = await run([process.execPath, "-e", RESOLVE], 300);
  if (status === 0) return await test("real model", ["test/real-model/cuda-greedy.test.ts"], 600);
  return { skipped: `SmolLM2 cannot be had here: ${lastLines(stderr, 1)}` };
}

/** The conformance tests under each tool: what it found, by its last lines. */
async function sanitize(): Promise<GpuReport["sanitizers"]> {
  const tests = [...new Bun.Glob("*.test.ts").scanSync("test/kernels")].filter(
    // It runs compilers, not kernels.
    (name) => name !== "cuda-budget.test.ts",
  );
  const command = [
    process.execPath,
    "test",
    "--timeout",
    "600000",
    ...tests.map((name) => `test/kernels/${name}`),
  ];
  const sanitizers: Record<string, { readonly status: number; readonly says: string }> = {};
  for (const tool of ["memcheck", "racecheck"]) {
    const { status, stdout, stderr } = await run(
      ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", ...command],
      SANITIZE_SECONDS,
    );
    sanitizers[tool] = { status, says: lastLines(stdout || stderr, 5) };
    say(`compute-sanitizer ${tool}: status ${status}\n${sanitizers[tool].says}`);
  }
  return sanitizers;
}

async function measureFloors(): Promise<GpuReport["floors"]> {
  const sizes = options.dry ? [1 << 20, 64, 1] : [2 ** 31, 8192, 10];
  const ended = await run([process.execPath, "test/bench/gpu/floors.ts", ...sizes.map(String)], 120);
  if (ended.status === 0) return JSON.parse(ended.stdout) as Floors;
  return { skipped: `not measured: ${lastLines(ended.stderr, 3)}` };
}

async function measureWeights(type: WeightType, folder: string): Promise<ModelTimes | { failed: string }> {
  const path = join(folder, `${type}.gguf`);
  say(`${type}: writing ...`);
  const bytes = writeSeededModel(path, shape, type, 7);
  say(`${type}: ${(bytes / 1e9).toFixed(2)} GB; measuring ...`);
  const json = JSON.stringify({ ...plan, path } satisfies Plan);
  const ended = await run([process.execPath, "test/bench/gpu/measure-model.ts", json], 900);
  rmSync(path);
  if (ended.status === 0) return JSON.parse(ended.stdout) as ModelTimes;
  say(lastLines(ended.stderr));
  return { failed: lastLines(ended.stderr, 5) };
}

async function measureTorch(): Promise<GpuReport["torch"]> {
  if (options["skip-torch"]) return { skipped: "--skip-torch" };
  const probe = await run(
    ["python3", "-c", "import torch, transformers; print(torch.cuda.is_available())"],
    120,
  );
  if (probe.status !== 0) return { skipped: "there is no python3 with torch and transformers" };
  const onGpu = probe.stdout.trim() === "True";
  if (!onGpu && !options.dry) return { skipped: "PyTorch here cannot use the device" };
  say("PyTorch ...");
  const job = JSON.stringify({ ...plan, shape, device: onGpu ? "cuda" : "cpu" });
  const ended = await run(["python3", "test/bench/gpu/torch_bench.py", job], 900);
  if (ended.status === 0) return JSON.parse(ended.stdout) as TorchTimes;
  return { skipped: `failed: ${lastLines(ended.stderr, 3)}` };
}

function revision(): string {
  const { exitCode, stdout } = Bun.spawnSync(["git", "rev-parse", "HEAD"], { cwd: ROOT, stderr: "ignore" });
  if (exitCode === 0) return stdout.toString().trim();
  const carried = join(ROOT, ".gpu", "revision");
  return existsSync(carried) ? readFileSync(carried, "utf8").trim() : "unknown";
}

async function main(): Promise<void> {
  await takeKernels();
  const { machine, emulated } = await describeMachine();
  say(machine.device!);
  if (emulated !== options.dry)
    throw new Error(
      emulated ? "this is the emulated device; --dry is for it" : "--dry is for the emulated device",
    );
  const conformance = await test(
    "conformance",
    options.dry ? ["test/kernels/rows.test.ts"] : ["test/kernels", "test/backend"],
    900,
  );
  const models = await test(
    "tiny models",
    ["test/engine/cuda.test.ts", ...(options.dry ? ["-t", "smollm2"] : [])],
    600,
  );
  const realModel = options.dry ? { skipped: "--dry" } : await testRealModel();
  const sanitizers = options.sanitize ? await sanitize() : undefined;
  const floors = await measureFloors();
  const folder = mkdtempSync(join(options.scratch, "mistral-gpu-"));
  const weights: GpuReport["weights"] = {};
  try {
    for (const type of WEIGHT_TYPES) {
      if (options.weights.split(",").includes(type)) weights[type] = await measureWeights(type, folder);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const report: GpuReport = {
    date: new Date().toISOString(),
    revision: revision(),
    machine,
    shape: shape.name,
    emulated,
    conformance,
    models,
    realModel,
    ...(sanitizers === undefined ? {} : { sanitizers }),
    floors,
    weights,
    torch: await measureTorch(),
  };
  process.stdout.write(`\n${formatReport(report, shape)}`);
  // What an emulated device takes is no result.
  const results = options.dry
    ? mkdtempSync(join(tmpdir(), "mistral-gpu-dry-"))
    : join(ROOT, "test/bench/results");
  mkdirSync(results, { recursive: true });
  const name = `${machine
    .device!.split(",")[0]!
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")}-${report.date.slice(0, 16).replace(":", "")}.json`;
  const path = join(results, name);
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  say(`\n${path}`);
  if (options.out !== undefined) {
    mkdirSync(options.out, { recursive: true });
    cpSync(path, join(options.out, name));
  }
  const isBroken = [conformance, models, realModel].some(
    (checked) => "failed" in checked && checked.failed > 0,
  );
  if (isBroken || Object.values(weights).some((times) => "failed" in times)) process.exitCode = 1;
}

await main();
