import { describe, expect, test } from "bun:test";
import { availableParallelism, totalmem } from "node:os";
import { type DoctorReport, examine } from "../../../src/server/admin/doctor.ts";
import type { SystemInfo } from "../../../src/server/admin/system-info.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { get, harness, post } from "../harness.ts";

const folder = temporaryFolder("doctor");
const OFFLINE = { HF_HUB_OFFLINE: "1", HF_HOME: folder };

const check = ({ checks }: DoctorReport, name: string) => checks.find((one) => one.name === name);

test("the system is described as it is", async () => {
  const info = (await (await get(harness().app, "/v1/system/info")).json()) as SystemInfo;
  expect(info.memory.total_bytes).toBe(totalmem());
  expect(info.memory.available_bytes).toBeLessThanOrEqual(info.memory.total_bytes);
  expect(info.cpu.logical_cores).toBe(availableParallelism());
  const [processor, ...others] = info.devices;
  expect(processor).toMatchObject({ kind: "cpu", ordinal: 0 });
  // A GPU of this machine, or the emulated ones where another test of this process opened them.
  for (const [ordinal, device] of others.entries()) expect(device).toMatchObject({ kind: "cuda", ordinal });
  expect(info.build.bun).toBe(Bun.version);
});

describe("the doctor", () => {
  test("answers with the system and its checks", async () => {
    const report = (await (await post(harness().app, "/v1/system/doctor", {})).json()) as DoctorReport;
    expect(report.checks.map(({ name }) => name)).toEqual([
      "cpu_extensions",
      "binary_hardware_match",
      "hf_cache_writable",
      "hf_connectivity",
      "disk_space",
      "engine",
    ]);
    expect(check(report, "engine")).toMatchObject({ status: "ok" });
  }, 15_000);

  test("finds an engine that failed, and one that starts", async () => {
    const made = harness();
    made.engine.state = "failed";
    const failed = await examine({ environment: OFFLINE, models: made.models.entries() });
    expect(check(failed, "engine")).toMatchObject({ status: "error" });
    expect(check(failed, "engine")?.suggestion).toContain("/v1/models/reload");
    made.engine.state = "starting";
    const starting = await examine({ environment: OFFLINE, models: made.models.entries() });
    expect(check(starting, "engine")).toMatchObject({ status: "warn" });
  });

  test("finds a cache that cannot be written", async () => {
    const report = await examine({ environment: { HF_HUB_OFFLINE: "1", HF_HUB_CACHE: "/proc/no/cache" } });
    expect(check(report, "hf_cache_writable")).toMatchObject({ status: "error" });
    expect(check(report, "hf_cache_writable")?.suggestion).toContain("HF_HOME");
    const writable = await examine({ environment: OFFLINE });
    expect(check(writable, "hf_cache_writable")).toMatchObject({ status: "ok" });
  });

  test("finds a hub that answers, one that fails and one that is not there, and asks none when told not to", async () => {
    let status = 200;
    const hub = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(null, { status }) });
    const asked = async (endpoint: string, more: Record<string, string> = {}) => {
      const environment = { HF_HOME: folder, HF_ENDPOINT: endpoint, ...more };
      return check(await examine({ environment, networkTimeoutMs: 1_000 }), "hf_connectivity");
    };
    const endpoint = `http://127.0.0.1:${hub.port}`;
    expect(await asked(endpoint)).toMatchObject({ status: "ok" });
    status = 502;
    expect(await asked(endpoint)).toMatchObject({ status: "warn" });
    await hub.stop(true);
    expect(await asked(endpoint)).toMatchObject({ status: "warn" });
    expect((await asked(endpoint, { HF_HUB_OFFLINE: "1" }))?.message).toContain("not asked");
  });
});
