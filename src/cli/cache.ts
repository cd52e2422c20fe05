/** `cache list` and `cache delete`: what models take on this disk, and getting it back. */

import { existsSync, lstatSync, readdirSync, rmSync, type Stats } from "node:fs";
import { dirname, join } from "node:path";
import type { Resolution } from "../config/resolve.ts";
import { didYouMean } from "../config/suggest.ts";
import { MistralError } from "../errors.ts";
import { hubCacheFolder, ownCacheFolder } from "../weights/cache-paths.ts";
import { hubEnvironment } from "./hub-environment.ts";
import { textTable } from "./text-table.ts";
import { formatAge, formatBytes } from "./units.ts";

interface CachedModel {
  readonly model: string;
  readonly folder: string;
  readonly bytes: number;
  readonly lastUsed: Date;
}

const REPOSITORY = /^models--(.+)$/;

/** Prints the models of the hub's cache, and those that came as Python packages. */
export function listCache({ settings }: Resolution): void {
  const environment = hubEnvironment(settings);
  const models = cachedModels(hubCacheFolder(environment), join(ownCacheFolder(environment), "wheels"));
  const total = models.reduce((sum, { bytes }) => sum + bytes, 0);
  if (settings.json) {
    const rows = models.map(({ model, folder, bytes, lastUsed }) => ({
      model,
      folder,
      size_bytes: bytes,
      last_used: lastUsed.toISOString(),
    }));
    const report = { cache: hubCacheFolder(environment), total_bytes: total, models: rows };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    return;
  }
  const rows = models.map(({ model, bytes, lastUsed }) => [model, formatBytes(bytes), formatAge(lastUsed)]);
  const folders = [...new Set([hubCacheFolder(environment), ...models.map(({ folder }) => dirname(folder))])];
  process.stdout.write(
    `HuggingFace Model Cache\n\n${textTable([["Model", "Size", "Last Used"], ...rows], { alignRight: [1] })}\n` +
      `${models.length} ${models.length === 1 ? "model" : "models"}, ${formatBytes(total)} in ${folders.join(" and ")}\n`,
  );
}

/** Deletes the model of `--model-id`. Throws MistralError for one that is not there. */
export function deleteFromCache({ settings }: Resolution): void {
  const environment = hubEnvironment(settings);
  const models = cachedModels(hubCacheFolder(environment), join(ownCacheFolder(environment), "wheels"));
  const id = settings.model;
  if (id === undefined) {
    throw new MistralError("invalid_configuration", "cache delete needs the model: cache delete -m ID", {
      parameter: "--model-id",
    });
  }
  const found = models.find(({ model }) => model === id);
  if (found === undefined) {
    const suggestion = didYouMean(
      id,
      models.map(({ model }) => model),
    );
    throw new MistralError(
      "model_not_found",
      `the cache has no model ${id}${suggestion}; \`cache list\` shows what it has`,
    );
  }
  rmSync(found.folder, { recursive: true, force: true });
  process.stdout.write(`✅ deleted ${id}: ${formatBytes(found.bytes)} freed\n`);
}

/** Most recently used first. */
function cachedModels(hubFolder: string, wheelFolder: string): CachedModel[] {
  const fromHub = foldersIn(hubFolder).flatMap((name) => {
    const id = REPOSITORY.exec(name)?.[1]?.replaceAll("--", "/");
    return id === undefined ? [] : [measure(id, join(hubFolder, name))];
  });
  const fromWheels = foldersIn(wheelFolder).map((name) => measure(name, join(wheelFolder, name)));
  return [...fromHub, ...fromWheels].sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
}

function foldersIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
}

/** Sizes count each file once: a link of a snapshot is not the blob it points at. */
function measure(model: string, folder: string): CachedModel {
  let bytes = 0;
  let lastUsedMs = 0;
  const visit = (path: string, stats: Stats): void => {
    if (stats.isDirectory()) {
      for (const name of readdirSync(path)) visit(join(path, name), lstatSync(join(path, name)));
    } else if (stats.isFile()) {
      bytes += stats.size;
      lastUsedMs = Math.max(lastUsedMs, stats.atimeMs, stats.mtimeMs);
    }
  };
  const stats = lstatSync(folder);
  visit(folder, stats);
  return { model, folder, bytes, lastUsed: new Date(lastUsedMs || stats.mtimeMs) };
}
