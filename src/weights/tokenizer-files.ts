/**
 * The tokenizer and chat template of a model without its weights, for weights that come without them: a folder on this
 * machine, the cache of the hub, or the hub, in this order.
 */

import { existsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { MistralError } from "../errors.ts";
import { type Environment, expandHome, hubCacheFolder } from "./cache-paths.ts";
import { Hub, isHubOffline } from "./hub.ts";
import { HubCacheRepository } from "./hub-cache.ts";
import { NETWORK_TIMING } from "./network.ts";

const TOKENIZER_FILE = "tokenizer.json";
const FILES = [
  TOKENIZER_FILE,
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
  "processor_config.json",
];
const REVISION = "main";
const HUB_ID = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(\/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?$/;

/** The folder that holds the tokenizer of `model`, a folder or a hub id. Throws `model_not_found` or `network`. */
export async function findTokenizerFolder(model: string, environment: Environment): Promise<string> {
  const path = expandHome(model, environment);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
    if (existsSync(join(path, TOKENIZER_FILE))) return resolve(path);
    throw notFound(model, `the folder has no ${TOKENIZER_FILE}`);
  }
  if (!HUB_ID.test(model) || model.includes("..") || model.includes("--")) {
    throw notFound(model, "it is neither a folder on this machine nor a hub id (owner/name)");
  }
  const cache = new HubCacheRepository(hubCacheFolder(environment), model);
  const snapshot = cache.findSnapshot(REVISION);
  if (snapshot !== undefined && existsSync(join(snapshot, TOKENIZER_FILE))) return snapshot;
  if (isHubOffline(environment)) {
    throw notFound(model, "it is not in the cache, and the hub is not asked because HF_HUB_OFFLINE is set");
  }
  const hub = new Hub(environment, NETWORK_TIMING);
  const repository = await hub.list(model, REVISION);
  if (!repository.files.has(TOKENIZER_FILE)) throw notFound(model, `the repository has no ${TOKENIZER_FILE}`);
  const names = FILES.filter((name) => repository.files.has(name));
  await hub.download(repository, names, cache, () => {});
  cache.writeRef(REVISION, repository.commit);
  return cache.snapshotFolder(repository.commit);
}

function notFound(model: string, reason: string): MistralError {
  return new MistralError("model_not_found", `cannot take the tokenizer of ${model}: ${reason}`, {
    parameter: "--tok-model-id",
  });
}
