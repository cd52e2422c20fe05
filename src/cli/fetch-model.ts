/** Finds the model a command was given, and whose tokenizer it uses, and shows how far a download is. */

import type { Settings } from "../config/settings.ts";
import { type ResolvedModel, resolveModel } from "../weights/resolve.ts";
import { hubEnvironment } from "./hub-environment.ts";
import type { Log } from "./log.ts";
import { TransferProgress } from "./progress.ts";

/** Resolves the model of `--model-id`, `--quantized-file` and `--revision`. Throws `model_not_found` or `network`. */
export function fetchModel(settings: Settings, log: Log): Promise<ResolvedModel> {
  // Most models lie on this machine.
  let progress: TransferProgress | undefined;
  return resolveModel({
    model: settings.model,
    file: settings.file,
    ...(settings.revision === undefined ? {} : { revision: settings.revision }),
    environment: hubEnvironment(settings, (message) => log.write("warning", message)),
    onProgress(event) {
      if (event.type === "note") log.write("info", event.message);
      else {
        const action = event.phase === "download" ? "fetch" : "unpack";
        progress ??= new TransferProgress();
        progress.update({
          action,
          name: event.what,
          bytesDone: event.bytesDone,
          bytesTotal: event.bytesTotal,
        });
      }
    },
  });
}

/** The folder of the tokenizer of `--tok-model-id`; undefined for the model's own. Throws as `fetchModel` does. */
export async function fetchTokenizer(settings: Settings): Promise<string | undefined> {
  const { tokenizerModelId } = settings;
  if (tokenizerModelId === undefined) return undefined;
  const { findTokenizerFolder } = await import("../weights/tokenizer-files.ts");
  return await findTokenizerFolder(tokenizerModelId, hubEnvironment(settings));
}
