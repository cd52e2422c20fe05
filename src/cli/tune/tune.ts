/**
 * `tune`: which quantisations of a model this machine has room for, from the headers of its files alone. What is
 * there as files is told apart from what would have to be made.
 */

import { statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Resolution } from "../../config/resolve.ts";
import type { Settings } from "../../config/settings.ts";
import { MistralError } from "../../errors.ts";
import { type HostMemory, hostMemory } from "../../models/host-memory.ts";
import { groupGgufFiles, openCheckpoint } from "../../weights/checkpoint.ts";
import { listFilesBelow } from "../../weights/hub-cache.ts";
import { type ResolvedModel, resolveModel } from "../../weights/resolve.ts";
import type { Checkpoint } from "../../weights/types.ts";
import { fetchModel } from "../fetch-model.ts";
import { hubEnvironment } from "../hub-environment.ts";
import { type Log, openLog } from "../log.ts";
import { candidatesFor, type StoredModel } from "./candidates.ts";
import { readRemoteHeaders } from "./remote-headers.ts";
import { type TuneReport, tuneTable } from "./report.ts";

/** Prints the analysis on stdout. Throws MistralError when the model cannot be found or read. */
export async function tune({ settings, warnings }: Resolution): Promise<void> {
  const log = openLog(settings);
  for (const warning of warnings) log.write("warning", warning);
  const { stored, id } = await findStored(settings, log);
  const report = tuneReport(id, stored, settings, hostMemory());
  process.stdout.write(
    settings.json ? `${JSON.stringify(report, null, 2)}\n` : tuneTable(report, process.stdout.isTTY),
  );
  if (settings.emitConfig !== undefined) {
    writeFileSync(settings.emitConfig, configFile(report, settings));
    log.write(
      "info",
      `configuration written to ${settings.emitConfig}; from-config ${settings.emitConfig} serves it`,
    );
  }
}

/** The model that was named, and every other GGUF file of its folder. */
async function findStored(
  settings: Settings,
  log: Log,
): Promise<{ readonly id: string; readonly stored: readonly StoredModel[] }> {
  const { model, file } = settings;
  if (model !== undefined && file === undefined && isFolder(model)) {
    const candidates = groupGgufFiles(listFilesBelow(model));
    if (candidates.length > 1) {
      const stored = candidates.map(({ name }): StoredModel => {
        const checkpoint = openCheckpoint(join(model, name));
        return { checkpoint, command: ["-m", model, "-f", name], label: name };
      });
      return { id: model, stored };
    }
  }
  const resolved = model === undefined ? await fetchModel(settings, log) : await findHere(settings);
  if (resolved === undefined) return { id: model ?? "", stored: await findOnHub(settings, log) };
  const checkpoint: Checkpoint = openCheckpoint(resolved.checkpointPath);
  const command = [
    ...(model === undefined ? [] : ["-m", model]),
    ...(file === undefined ? [] : ["-f", file]),
  ];
  return { id: resolved.id, stored: [{ checkpoint, command, label: undefined }] };
}

/** A model on this machine; undefined for one that would have to be fetched. */
async function findHere(settings: Settings): Promise<ResolvedModel | undefined> {
  const { model, file, revision, hubOffline } = settings;
  const environment = { ...hubEnvironment(settings), HF_HUB_OFFLINE: "1" };
  try {
    return await resolveModel({
      model,
      file,
      ...(revision === undefined ? {} : { revision }),
      environment,
      onProgress: () => {},
    });
  } catch (error) {
    const isAbsent = error instanceof MistralError && error.code === "model_not_found";
    if (!isAbsent || hubOffline || model === undefined || !/^[^./~][^/]*\/[^/]+$/.test(model)) throw error;
    return undefined;
  }
}

async function findOnHub(settings: Settings, log: Log): Promise<readonly StoredModel[]> {
  const { model = "", file, revision = "main" } = settings;
  log.write("info", `${model} is not on this machine: reading the headers of its files on the hub`);
  const models = await readRemoteHeaders(model, revision, file, hubEnvironment(settings));
  return models.map((remote) => ({
    checkpoint: remote.checkpoint,
    command: ["-m", model, ...(remote.file === undefined ? [] : ["-f", remote.file])],
    label: models.length > 1 ? remote.file : undefined,
  }));
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** The analysis for models of the same name; pure but for the headers that were read. */
export function tuneReport(
  id: string,
  stored: readonly StoredModel[],
  settings: Settings,
  memory: HostMemory,
): TuneReport {
  const { candidates, recommended, command, warnings, notes, budgetBytes } = candidatesFor(
    stored,
    settings,
    memory,
  );
  return {
    model_id: id,
    profile: settings.profile,
    backend: "cpu",
    total_vram_bytes: memory.totalBytes,
    budget_bytes: budgetBytes,
    candidates: [...candidates],
    recommended_isq: recommended?.isq ?? null,
    recommended_command:
      command === undefined ? null : ["mistral", "serve", ...command].map(shellWord).join(" "),
    device_layers: null,
    device_layers_cli: null,
    paged_attn_mode: settings.pagedAttention,
    warnings: [...warnings],
    notes: [...notes],
  };
}

function shellWord(word: string): string {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A file for `from-config` that serves what is recommended, with a context that fits. */
function configFile(report: TuneReport, settings: Settings): string {
  const chosen = report.candidates.find(({ recommended }) => recommended) ?? report.candidates[0]!;
  const words = report.recommended_command?.split(" ") ?? [];
  const file = settings.file ?? (words.includes("-f") ? words[words.indexOf("-f") + 1] : undefined);
  const text = JSON.stringify;
  const context = chosen.context_is_model_max
    ? ""
    : `\n[paged_attn]\ncontext_len = ${Math.max(1, chosen.max_context_tokens)}\n`;
  const model = settings.model ?? (settings.file === undefined ? report.model_id : dirname(settings.file));
  const fileName = settings.model === undefined && file !== undefined ? basename(file) : file;
  const format = fileName === undefined ? "" : `\n[models.format]\nquantized_file = ${text(fileName)}\n`;
  return `# Written by \`mistral tune\` for this machine: ${chosen.isq_name}, profile ${report.profile}.
command = "serve"
${context}
[[models]]
kind = "text"
model_id = ${text(model)}
${format}`;
}
