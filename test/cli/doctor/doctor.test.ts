import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Value } from "@sinclair/typebox/value";
import { emulatedCudaDriver, isCudaBuilt } from "../../../src/backend/library.ts";
import { doctorText } from "../../../src/cli/doctor/doctor.ts";
import { DoctorReport } from "../../../src/cli/doctor/report.ts";
import { parseProcessorList } from "../../../src/config/threads.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { type ProcessOptions, runCommand } from "../processes.ts";

const folder = temporaryFolder("doctor");
// No network is asked, and nothing of this machine's caches counts.
const QUIET = { HF_HUB_OFFLINE: "1", HF_HOME: folder };

async function doctor(
  flags: readonly string[],
  environment: Record<string, string> = {},
  options: ProcessOptions = {},
) {
  const outcome = await runCommand(["doctor", "--json", ...flags], {
    ...options,
    environment: { ...QUIET, ...environment },
  });
  const report = JSON.parse(outcome.stdout) as DoctorReport;
  expect([...Value.Errors(DoctorReport, report)]).toEqual([]);
  return { ...outcome, report };
}

function find(report: DoctorReport, name: string) {
  return report.checks.filter((check) => check.name === name);
}

describe("doctor --json", () => {
  test("fits its schema, and finds a machine that can serve", async () => {
    const { status, report } = await doctor([]);
    expect(status).toBe(0);
    for (const name of ["cpu_extensions", "binary_hardware_match", "hf_cache_writable", "kernels_load"]) {
      expect(find(report, name)).toHaveLength(1);
    }
    expect(find(report, "kernels_load")[0]?.status).toBe("ok");
    expect(find(report, "cuda_devices")[0]?.status).toBe("ok");
    expect(report.system.hf_cache_path).toBe(join(folder, "hub"));
    expect(report.not_in_effect).toEqual([]);
  });

  test("opens CUDA devices where there are some, and says what is wrong with a driver that shows none", async () => {
    const driver = emulatedCudaDriver();
    if (driver === undefined) return expect(isCudaBuilt()).toBe(false);
    const { report } = await doctor([], { MISTRALRS_CUDA_DRIVER: driver });
    expect(report.system.build.cuda).toBe(true);
    expect(report.system.devices.slice(1)).toMatchObject([
      { kind: "cuda", ordinal: 0, compute_capability: "8.0", unified_memory: false },
      { kind: "cuda", ordinal: 1, available_memory_bytes: null },
    ]);
    expect(find(report, "cuda_devices")[0]?.message).toMatch(
      /^CUDA can be used: cuda:0 \(.*\) has .*GB free of 17\.\d GB, cuda:1/,
    );
    const hidden = await doctor([], { MISTRALRS_CUDA_DRIVER: driver, CUDA_VISIBLE_DEVICES: "" });
    expect(find(hidden.report, "cuda_devices")[0]).toMatchObject({
      status: "warn",
      message: expect.stringContaining("CUDA_ERROR_NO_DEVICE"),
    });
    expect(hidden.report.system.devices).toHaveLength(1);
  });

  test("reports what is set and has no effect", async () => {
    const { report } = await doctor([], {
      MISTRALRS_NO_MLA: "1",
      NVCC_CCBIN: "gcc-12",
      MISTRALRS_CUDA_GRAPHS: "off",
      MISTRALRS_FLASHINFER_DECODE: "0",
    });
    expect(report.not_in_effect.map(({ key, source }) => [key, source]).sort()).toEqual([
      ["flashInfer", "variable MISTRALRS_FLASHINFER_DECODE"],
      ["noMla", "variable MISTRALRS_NO_MLA"],
    ]);
    expect(find(report, "configuration")).toEqual([expect.objectContaining({ status: "warn" })]);
  });

  test.if(process.platform === "linux")(
    "pins threads as it is asked to, and says which processor cannot be had",
    async () => {
      expect(find((await doctor([])).report, "thread_pinning")).toEqual([]);
      const [processor] = parseProcessorList(
        /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]!,
      );
      const { report } = await doctor([], { CANDLE_CPU_MASK: String(processor) });
      expect(find(report, "thread_pinning")).toEqual([
        {
          name: "thread_pinning",
          status: "ok",
          message: `1 thread can be pinned to the processors ${processor}.`,
        },
      ]);
      const impossible = await doctor(["--strict"], { CANDLE_CPU_MASK: `${processor},8191` });
      expect(impossible.status).toBe(1);
      expect(find(impossible.report, "thread_pinning")).toMatchObject([
        { status: "error", message: expect.stringContaining("processor 8191, which does not exist") },
      ]);
    },
  );

  test("reports what is wrong instead of stopping at it; only --strict makes it the exit status", async () => {
    const environment = { MISTRALRS_MN_HEAD_NUM_WORKERS: "2" };
    const { status, report } = await doctor([], environment);
    expect(status).toBe(0);
    expect(find(report, "configuration")).toEqual([
      {
        name: "configuration",
        status: "error",
        message:
          "MISTRALRS_MN_HEAD_NUM_WORKERS is 2, but MISTRALRS_MN_HEAD_PORT is not set; they belong together",
      },
    ]);
    expect((await doctor(["--strict"], environment)).status).toBe(1);
    expect((await doctor(["--strict"])).status).toBe(0);
  });

  test("reads a configuration file as serve would", async () => {
    const path = join(folder, "bad.toml");
    writeFileSync(path, "[server]\nprot = 1\n");
    const { report } = await doctor(["--config", path]);
    expect(find(report, "configuration")[0]).toMatchObject({
      status: "error",
      message: expect.stringContaining("did you mean server.port?"),
    });
  });
});

test("the text has every section, and each check with its mark", async () => {
  const { stdout, status } = await runCommand(["doctor"], {
    environment: { ...QUIET, MISTRALRS_NO_MLA: "1" },
  });
  expect(status).toBe(0);
  for (const title of ["Environment Diagnosis", "Accelerator Check", "Build", "System Checks", "Summary"]) {
    expect(stdout).toContain(`${title}\n${"-".repeat(title.length)}\n`);
  }
  expect(stdout).toMatch(/\[PASS\] ✅ kernels_load: /);
  expect(stdout).toMatch(/variable MISTRALRS_NO_MLA +families with latent attention are not built/);
  expect(stdout).not.toContain("\x1b[");
});

test("an error shows its mark and what to do", async () => {
  const { report } = await doctor([]);
  const broken: DoctorReport = {
    ...report,
    checks: [{ name: "kernels_load", status: "error", message: "They do not.", suggestion: "Build them." }],
  };
  expect(doctorText(broken, false)).toContain("[ERROR] ❌ kernels_load: They do not.\n        Build them.\n");
  expect(doctorText(broken, false)).toContain("0 passed, 0 warnings, 1 error\n");
  expect(doctorText(broken, true)).toContain("\x1b[1mSystem Checks\x1b[0m");
});
