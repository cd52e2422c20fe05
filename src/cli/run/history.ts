/** The questions of earlier conversations, so that the arrow keys bring them back. */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Environment } from "../../weights/cache-paths.ts";
import { ownCacheFolder } from "../../weights/cache-paths.ts";

export const HISTORY_LINES_MAX = 1000;
const OWNER_ONLY = 0o600;

/** The most recent line first, as readline wants them; none when there is no file. */
export function readHistory(environment: Environment): string[] {
  try {
    const lines = readFileSync(historyPath(environment), "utf8").split("\n");
    return lines.filter((line) => line !== "").slice(0, HISTORY_LINES_MAX);
  } catch {
    return [];
  }
}

/** Keeps the lines for the next conversation. A place that cannot be written is no reason to fail. */
export function writeHistory(environment: Environment, lines: readonly string[]): void {
  const path = historyPath(environment);
  try {
    mkdirSync(dirname(path), { recursive: true });
    const text = lines.slice(0, HISTORY_LINES_MAX).map((line) => `${line}\n`);
    writeFileSync(path, text.join(""), { mode: OWNER_ONLY });
  } catch {
    // The conversation itself went well.
  }
}

function historyPath(environment: Environment): string {
  return join(ownCacheFolder(environment), "history");
}
