/** `bun run build` tells about the variables that building reads. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { PROJECT_ROOT } from "../../src/cli/setup.ts";
import { childEnvironment } from "./processes.ts";

async function build(environment: Record<string, string>): Promise<{ status: number; stderr: string }> {
  const child = Bun.spawn([process.execPath, join(PROJECT_ROOT, "src/cli/start.ts"), "build"], {
    env: childEnvironment(environment),
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const [stderr, status] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  return { status, stderr };
}

test("variables of backends that do not exist are said to have no effect", async () => {
  const { status, stderr } = await build({
    NVCC_CCBIN: "gcc-12",
    CUDA_NVCC_FLAGS: "-fPIE",
    CUDA_COMPUTE_CAP: "8.9,90",
    MISTRALRS_METAL_PRECOMPILE: "0",
    MISTRALRS_METAL_PLATFORMS: "macos,ios",
  });
  expect(status).toBe(0);
  for (const name of ["NVCC_CCBIN", "CUDA_NVCC_FLAGS", "CUDA_COMPUTE_CAP"]) {
    expect(stderr).not.toContain(name);
  }
  for (const name of ["MISTRALRS_METAL_PRECOMPILE", "MISTRALRS_METAL_PLATFORMS"]) {
    expect(stderr).toMatch(
      new RegExp(
        `^warning: variable ${name}.* is not in effect: there are no Metal kernels in this build$`,
        "m",
      ),
    );
  }
}, 120_000);

test("an unknown platform or capability ends the build with one line", async () => {
  const platform = await build({ MISTRALRS_METAL_PLATFORMS: "macos,windows" });
  expect(platform).toEqual({
    status: 2,
    stderr:
      'error: variable MISTRALRS_METAL_PLATFORMS has the value "macos,windows"; allowed: macos, ios, tvos and all, separated by commas\n',
  });
  expect((await build({ CUDA_COMPUTE_CAP: "sm_90" })).stderr).toContain(
    "allowed: compute capabilities from 7.5 to 12.1, as 89 or 8.9, separated by commas",
  );
}, 120_000);
