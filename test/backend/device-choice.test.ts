/**
 * `--device` against what a machine has: what is named is used or refused with the reason, "auto" falls back and
 * says why where somebody could expect CUDA. Each in a process of its own, which opens its own driver.
 */

import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ChosenDevice } from "../../src/backend/device-choice.ts";
import { emulatedCudaDriver } from "../../src/backend/library.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MODULE = new URL("../../src/backend/device-choice.ts", import.meta.url).pathname;

type Answer = { readonly chosen: ChosenDevice } | { readonly code: string; readonly message: string };

function choose(wanted: string, environment: Record<string, string>): Answer {
  const script = `
    const { chooseDevice } = await import(${JSON.stringify(MODULE)});
    let answer;
    try { answer = { chosen: chooseDevice(${JSON.stringify(wanted)}) }; }
    catch ({ code, message }) { answer = { code, message }; }
    process.stdout.write(JSON.stringify(answer));`;
  const { stdout, stderr, exitCode } = Bun.spawnSync([process.execPath, "-e", script], {
    env: { ...process.env, ...environment },
  });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString()) as Answer;
}

const driver = emulatedCudaDriver();
const NO_DRIVER = { MISTRALRS_CUDA_DRIVER: "/nonexistent/libcuda.so.1" };

test("the processor can always be had, Metal never, other words are no devices", () => {
  expect(choose("cpu", NO_DRIVER)).toEqual({ chosen: { choice: { kind: "cpu" } } });
  expect(choose("metal", NO_DRIVER)).toMatchObject({
    code: "invalid_configuration",
    message: expect.stringContaining("no Metal kernels in this build"),
  });
  expect(choose("gpu", NO_DRIVER)).toMatchObject({
    message: '"gpu" is no device; allowed: auto, cpu, cuda, cuda:N with the number of a device, and metal',
  });
});

if (driver !== undefined) {
  const EMULATED = { MISTRALRS_CUDA_DRIVER: driver };

  test("a device that is there is taken, by name and by itself", () => {
    for (const wanted of ["auto", "cuda", "cuda:0"]) {
      expect(choose(wanted, EMULATED)).toMatchObject({
        chosen: { choice: { kind: "cuda", index: 0 }, cuda: { info: { instructionSet: "sm_80" } } },
      });
    }
    expect(choose("cuda:1", EMULATED)).toMatchObject({ chosen: { choice: { kind: "cuda", index: 1 } } });
    expect(choose("cuda:2", EMULATED)).toMatchObject({
      code: "invalid_configuration",
      message: "CUDA device 2 does not exist; 0 to 1 do",
    });
  });

  test("a driver without devices: said by auto, refused by name", () => {
    const hidden = { ...EMULATED, CUDA_VISIBLE_DEVICES: "" };
    const reason = expect.stringContaining("CUDA_ERROR_NO_DEVICE");
    expect(choose("auto", hidden)).toMatchObject({ chosen: { choice: { kind: "cpu" }, reason } });
    expect(choose("cuda", hidden)).toMatchObject({ code: "invalid_configuration", message: reason });
  });

  test("no driver is refused with the library that was looked for", () => {
    expect(choose("cuda", NO_DRIVER)).toMatchObject({
      code: "invalid_configuration",
      message: expect.stringContaining("the driver /nonexistent/libcuda.so.1 cannot be opened"),
    });
    expect(choose("auto", NO_DRIVER)).toMatchObject({ chosen: { choice: { kind: "cpu" } } });
  });

  test("kernels that are not built are named, with how to build them", () => {
    const folder = join(temporaryFolder("device-choice"), "lib");
    mkdirSync(folder);
    const unbuilt = { ...EMULATED, MISTRALRS_KERNEL_FOLDER: folder };
    const reason = `the CUDA kernels are not built (there is no ${folder}/libmistral_cuda.so); \`bun run build --all\` builds them`;
    expect(choose("auto", unbuilt)).toEqual({ chosen: { choice: { kind: "cpu" }, reason } });
    expect(choose("cuda:0", unbuilt)).toEqual({ code: "invalid_configuration", message: reason });
    expect(choose("cuda", { ...unbuilt, ...NO_DRIVER })).toMatchObject({
      message: expect.stringContaining("and no CUDA driver (libcuda.so.1) is found; `bun run build --all`"),
    });
  });
}
