/**
 * A device that fails while a model runs: its requests end with the device's words, the engine process is replaced,
 * ever more slowly while it goes on failing, and serves as before when the device works again. On the emulated
 * device, whose kernels fail while a file is there.
 */

import { afterEach, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { emulatedCudaDriver, isCudaBuilt } from "../../src/backend/library.ts";
import { ProcessEngine } from "../../src/engine/engine-client.ts";
import { readGolden, writeHuggingFace } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { collect, request, tokensOf } from "./requests.ts";

const folder = temporaryFolder("cuda-fault");
const driver = emulatedCudaDriver();
const fault = join(folder, "fault");

const before = { ...process.env };
let engine: ProcessEngine | undefined;
afterEach(async () => {
  await engine?.close();
  for (const name of ["MISTRALRS_CUDA_DRIVER", "MISTRALRS_EMULATED_FAULT"]) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
});

async function until(condition: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 30_000; !condition(); await Bun.sleep(5)) {
    if (performance.now() > endMs) throw new Error(`still not so after 30 s: ${condition}`);
  }
}

test("its requests end, its process is replaced, and it serves again when the device does", async () => {
  if (driver === undefined) return expect(isCudaBuilt()).toBe(false);
  // The engine process inherits these.
  process.env.MISTRALRS_CUDA_DRIVER = driver;
  process.env.MISTRALRS_EMULATED_FAULT = fault;
  const path = join(folder, "model");
  writeHuggingFace(readGolden("smollm2"), path);
  const lines: string[] = [];
  const progress: number[] = [];
  engine = await ProcessEngine.start({
    model: {
      path,
      device: { kind: "cuda", index: 0 },
      threads: 1,
      sequencesMax: 2,
      tokensMax: 16,
      contextLengthMax: 64,
      kvCacheType: "f16",
      kvMemoryBytes: 1 << 20,
      blockSize: 8,
      mmap: true,
    },
    prefixCache: true,
    restartDelayMs: 10,
    log: (line) => lines.push(line),
    onLoadProgress: (done, total) => progress.push(done / total),
  });
  const running = engine;
  expect(running.info.device).toContain("(cuda:0)");
  expect(progress.at(-1)).toBe(1);
  const ask = () => collect(running.generate(request(0, { maxTokens: 6 })));
  const expected = tokensOf(await ask());
  expect(expected).toHaveLength(6);

  writeFileSync(fault, "");
  for (const failures of [1, 2]) {
    const pid = running.pid;
    const end = (await ask()).at(-1);
    expect(end).toMatchObject({
      type: "error",
      code: "engine_failed",
      message: expect.stringMatching(
        /CUDA device 0 failed launching the kernel step_begin: CUDA_ERROR_LAUNCH_FAILED \(step_begin was told to fail\)/,
      ),
    });
    await until(() => running.state === "ready");
    expect(running.pid).not.toBe(pid);
    expect(running.statistics().restarts).toBe(failures);
  }
  const delays = lines.map((line) => /starting it again in (\d+) ms/.exec(line)?.[1]).filter(Boolean);
  expect(delays).toEqual(["10", "20"]);

  rmSync(fault);
  expect(tokensOf(await ask())).toEqual(expected);
  expect(running.statistics()).toMatchObject({ restarts: 2, hangs: 0 });
}, 60_000);
