/** Looks for what commonly goes wrong and says what to do about it: behind `/v1/system/doctor` and for a command. */

import { constants } from "node:fs";
import { access, mkdir, statfs } from "node:fs/promises";
import { t } from "elysia";
import { supportedInstructionSets } from "../../backend/instruction-set.ts";
import type { Environment } from "../../weights/cache-paths.ts";
import type { ModelEntry } from "../model-registry.ts";
import { SystemInfo, systemInfo } from "./system-info.ts";

export const DoctorCheck = t.Object({
  name: t.String(),
  status: t.Union([t.Literal("ok"), t.Literal("warn"), t.Literal("error")]),
  message: t.String(),
  /** What to do about it. */
  suggestion: t.Optional(t.String()),
});
export type DoctorCheck = typeof DoctorCheck.static;

export const DoctorReport = t.Object({ system: SystemInfo, checks: t.Array(DoctorCheck) });
export type DoctorReport = typeof DoctorReport.static;

export interface DoctorOptions {
  readonly environment: Environment;
  /** Of a running server. */
  readonly models?: readonly ModelEntry[];
  readonly networkTimeoutMs?: number;
}

const DISK_BYTES_MIN = 10 * 1024 ** 3;
const NETWORK_TIMEOUT_MS = 5_000;
const HUB = "https://huggingface.co";

/** Every check; none of them throws, and none takes longer than the network is given. */
export async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const system = systemInfo(options.environment);
  const checks = await Promise.all([
    processorExtensions(system),
    kernelsMatchProcessor(system),
    cacheIsWritable(system),
    hubAnswers(options),
    diskHasRoom(system),
    ...(options.models ?? []).map(engineWorks),
  ]);
  return { system, checks };
}

function processorExtensions({ cpu }: SystemInfo): DoctorCheck {
  const name = "cpu_extensions";
  const present = (["avx", "avx2", "avx512", "fma", "neon"] as const).filter((key) => cpu[key]);
  if (cpu.avx2 || cpu.neon) return ok(name, `This processor has ${present.join(", ")}.`);
  return warn(
    name,
    "This processor has neither AVX2 nor NEON; computing will be slow.",
    "Use a machine with a newer processor.",
  );
}

function kernelsMatchProcessor({ build }: SystemInfo): DoctorCheck {
  const name = "binary_hardware_match";
  const [best] = supportedInstructionSets();
  if (best === undefined) {
    return {
      name,
      status: "error",
      message: `There are no kernels for ${process.platform} on ${process.arch}.`,
    };
  }
  const advice = "Build the kernels with `bun run build`.";
  if (build.kernels.length === 0)
    return { name, status: "error", message: "No kernels are built.", suggestion: advice };
  if (build.kernels.includes(best)) return ok(name, `Kernels for this processor (${best}) are built.`);
  return warn(name, `Kernels are built for ${build.kernels.join(", ")}, not for ${best}.`, advice);
}

async function cacheIsWritable({ hf_cache_path: folder }: SystemInfo): Promise<DoctorCheck> {
  const name = "hf_cache_writable";
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
    return ok(name, `The model cache ${folder} can be written.`);
  } catch (error) {
    return {
      name,
      status: "error",
      message: `The model cache cannot be written: ${(error as Error).message}.`,
      suggestion: "Set HF_HOME or HF_HUB_CACHE to a folder that can.",
    };
  }
}

async function hubAnswers({ environment, networkTimeoutMs }: DoctorOptions): Promise<DoctorCheck> {
  const name = "hf_connectivity";
  if (/^(1|true|yes|on)$/i.test(environment.HF_HUB_OFFLINE ?? "")) {
    return ok(name, "The hub is not asked: HF_HUB_OFFLINE is set.");
  }
  const endpoint = environment.HF_ENDPOINT || HUB;
  const advice = "Models on this machine can be served all the same; HF_ENDPOINT names a mirror of the hub.";
  try {
    const signal = AbortSignal.timeout(networkTimeoutMs ?? NETWORK_TIMEOUT_MS);
    const { status } = await fetch(endpoint, { method: "HEAD", signal });
    if (status < 500) return ok(name, `${endpoint} answers.`);
    return warn(name, `${endpoint} answers with status ${status}.`, advice);
  } catch (error) {
    return warn(name, `${endpoint} cannot be reached: ${(error as Error).message}.`, advice);
  }
}

async function diskHasRoom({ hf_cache_path: folder }: SystemInfo): Promise<DoctorCheck> {
  const name = "disk_space";
  try {
    const { bavail, bsize } = await statfs(folder);
    const gibibytes = ((bavail * bsize) / 1024 ** 3).toFixed(1);
    if (bavail * bsize >= DISK_BYTES_MIN) return ok(name, `${gibibytes} GiB are free for models.`);
    return warn(
      name,
      `Only ${gibibytes} GiB are free for models.`,
      "Free some, or move the cache with HF_HOME.",
    );
  } catch (error) {
    return warn(name, `The free space could not be read: ${(error as Error).message}.`);
  }
}

function engineWorks({ id, status, model, error }: ModelEntry): DoctorCheck {
  const name = "engine";
  if (status === "failed") {
    return { name, status: "error", message: `"${id}" could not be loaded: ${error ?? "no reason given"}` };
  }
  if (status !== "loaded") return ok(name, `"${id}" is ${status}.`);
  const { state } = model.engine;
  if (state === "ready") return ok(name, `The engine of "${id}" takes requests.`);
  if (state !== "failed") return warn(name, `The engine of "${id}" is ${state}.`);
  return {
    name,
    status: "error",
    message: `The engine of "${id}" has failed and was not brought back.`,
    suggestion: "The log says why; POST /v1/models/unload and /v1/models/reload start it again.",
  };
}

function ok(name: string, message: string): DoctorCheck {
  return { name, status: "ok", message };
}

function warn(name: string, message: string, suggestion?: string): DoctorCheck {
  return { name, status: "warn", message, ...(suggestion === undefined ? {} : { suggestion }) };
}
