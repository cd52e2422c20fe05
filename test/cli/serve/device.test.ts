/** `--device` from outside: what a server computes on, what it says of it, and what it refuses. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { emulatedCudaDriver } from "../../../src/backend/library.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { LOOPBACK, post, runCommand, startServing, stopServersAfterEach } from "../processes.ts";

const model = join(temporaryFolder("device"), "tiny");
writeTinyModel(model);
stopServersAfterEach();

const TINY = ["serve", "-m", model, "--threads", "1", ...LOOPBACK] as const;
const driver = emulatedCudaDriver();

async function refusal(
  flags: readonly string[],
  environment: Record<string, string> = {},
  expected = 2,
): Promise<string> {
  const { status, stdout, stderr } = await runCommand([...TINY, ...flags], { environment });
  expect({ status, stdout }).toEqual({ status: expected, stdout: "" });
  return stderr;
}

async function complete(url: string): Promise<string> {
  const { status, body } = await post(url, "/v1/completions", {
    model: "default",
    prompt: "once upon a time",
    max_tokens: 12,
    temperature: 0,
  });
  expect(status).toBe(200);
  return (body as { choices: { text: string }[] }).choices[0]!.text;
}

test("a device that is not there ends the start with the reason", async () => {
  expect(await refusal(["--device", "metal"])).toContain("there are no Metal kernels in this build");
  expect(await refusal(["--cpu", "--device", "cuda:1"])).toContain(
    "flag --cpu and flag --device (cuda:1) contradict each other; give one of them",
  );
  expect(await refusal(["--device", "cuda"], { MISTRALRS_CUDA_DRIVER: "/nonexistent/libcuda.so.1" })).toMatch(
    /the driver \/nonexistent\/libcuda\.so\.1 cannot be opened|the CUDA kernels are not built/,
  );
});

if (driver !== undefined) {
  // The memory of a small device, so that a test can fill it.
  const memory = 2 ** 30;
  const emulated = { MISTRALRS_CUDA_DRIVER: driver, MISTRALRS_EMULATED_MEMORY: String(memory) };

  test("by itself a server takes a CUDA device, fills its memory, and says the same as on the processor", async () => {
    const onCpu = await startServing([...TINY, "--cpu"], { environment: emulated });
    const onCuda = await startServing(TINY, { environment: emulated });
    const log = onCuda.log();
    expect(onCpu.log()).toMatch(/compute +1 thread, /);
    expect(log).toMatch(
      /compute +emulated device, rising order \(cuda:0\), products by its own kernels, sm_80, up to 512 tokens a step/,
    );
    expect(log).toMatch(/weights +[\d.]+ .B, copied to the device/);
    expect(log).toMatch(/of which uploading the weights/);
    // Half a gigabyte stays free, and the steps have their part.
    const blocks = Number(/kv cache +([\d,]+) blocks/.exec(log)?.[1]?.replaceAll(",", ""));
    const tokenBytes = Number(/(\d+) B a token/.exec(log)?.[1]);
    expect(blocks * 32 * tokenBytes).toBeLessThan(memory / 2);
    expect(blocks * 32 * tokenBytes).toBeGreaterThan(memory / 3);
    const expected = await complete(onCpu.url);
    expect(expected.length).toBeGreaterThan(0);
    expect(await complete(onCuda.url)).toBe(expected);
  }, 120_000);

  test("a device that is too small says what is needed, what is free and what would fit", async () => {
    const pool = await refusal(["--pa-memory-mb", "600"], emulated, 1);
    expect(pool).toMatch(/the KV cache was to have 0\.629 GB .* At most --pa-memory-mb \d+ fits/);
    const small = { ...emulated, MISTRALRS_EMULATED_MEMORY: String(513 * 2 ** 20) };
    expect(await refusal([], small, 1)).toMatch(/but the CUDA device has [\d.]+ GB free of 0\.538 GB/);
  }, 60_000);

  test("a driver without devices: the processor computes, and one line says why", async () => {
    const { url, log } = await startServing(TINY, {
      environment: { ...emulated, CUDA_VISIBLE_DEVICES: "" },
    });
    expect((await complete(url)).length).toBeGreaterThan(0);
    const lines = log()
      .split("\n")
      .filter((line) => line.includes("CUDA is not used"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(
      "CUDA is not used, the processor computes: CUDA cannot be used: CUDA_ERROR_NO_DEVICE",
    );
  }, 60_000);
}
