/** Where models are kept on this machine, from environment variables; the Hugging Face names are shared with Python. */

import { homedir } from "node:os";
import { join } from "node:path";

export type Environment = Readonly<Record<string, string | undefined>>;

/** `HF_HOME`, which holds the token file and, unless told otherwise, the cache of the hub. */
export function huggingFaceHome(environment: Environment): string {
  return folderFrom(environment, ["HF_HOME"]) ?? join(cacheHome(environment), "huggingface");
}

/** The cache of the hub: one folder per repository, in the layout of the Python client. */
export function hubCacheFolder(environment: Environment): string {
  const named = folderFrom(environment, ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]);
  return named ?? join(huggingFaceHome(environment), "hub");
}

/** Our own cache, for models that do not come from the hub. */
export function ownCacheFolder(environment: Environment): string {
  return join(cacheHome(environment), "mistral.ts");
}

/** `path` with a leading `~` replaced by the home folder. */
export function expandHome(path: string, environment: Environment): string {
  return path === "~" || path.startsWith("~/") ? join(homeFolder(environment), path.slice(1)) : path;
}

function cacheHome(environment: Environment): string {
  return folderFrom(environment, ["XDG_CACHE_HOME"]) ?? join(homeFolder(environment), ".cache");
}

function homeFolder(environment: Environment): string {
  return environment.HOME || homedir();
}

/** The first of these variables that is set and not empty. */
function folderFrom(environment: Environment, names: readonly string[]): string | undefined {
  const value = names.map((name) => environment[name]).find((text) => text !== undefined && text !== "");
  return value === undefined ? undefined : expandHome(value, environment);
}
