/**
 * A CUDA device does not recover from a failed kernel: every later call of it says what happened, as an error of the
 * backend; other devices go on, and what it held can still be freed. In processes of their own, whose devices may break.
 */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { emulatedCudaDriver } from "../../src/backend/library.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import type { Report } from "./cuda-failing.ts";

const folder = temporaryFolder("cuda-failure");
const SCRIPT = new URL("./cuda-failing.ts", import.meta.url).pathname;

function reportOf(mode: string, driver: string): Report {
  const fault = join(folder, mode);
  const environment = { MISTRALRS_CUDA_DRIVER: driver, MISTRALRS_EMULATED_FAULT: fault };
  const { stdout, stderr, exitCode } = Bun.spawnSync([process.execPath, SCRIPT, mode], {
    env: { ...process.env, ...environment },
  });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString()) as Report;
}

const driver = emulatedCudaDriver();

if (driver !== undefined) {
  test.each(["launched", "captured"])("a kernel that fails ends its device, %s", (mode) => {
    const { before, failing, after, other, tidied, replays } = reportOf(mode, driver);
    expect(before).toEqual(["ok", "ok", "ok", "ok"]);
    expect(replays > 0).toBe(mode === "captured");
    expect(failing).toMatchObject({ code: "backend" });
    const { message } = failing as { message: string };
    expect(message).toStartWith("CUDA device 0 failed ");
    expect(message).toEndWith("CUDA_ERROR_LAUNCH_FAILED (soft_cap was told to fail)");
    for (const [call, answer] of Object.entries(after)) {
      expect({ call, answer }).toEqual({ call, answer: { code: "backend", message } });
    }
    expect(other).toBe("ok");
    expect(tidied).toEqual({ "program.free": "ok", "buffer.free": "ok", "device.close": "ok" });
  });
}
