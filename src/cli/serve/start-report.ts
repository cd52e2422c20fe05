/** What a started server tells about itself: model, memory, speed of the start, addresses. */

import type { EngineInfo } from "../../engine/messages.ts";
import type { ResolvedModel } from "../../weights/resolve.ts";
import { formatBytes, formatCount, formatDuration } from "../units.ts";

export interface ModelFacts {
  /** The name clients use. */
  readonly id: string;
  readonly resolved: ResolvedModel;
  readonly engine: EngineInfo;
  /** Which file or metadata the chat template came from. */
  readonly chatTemplateFrom: string;
  readonly cacheType: string;
  readonly mapped: boolean;
}

export interface AddressFacts {
  /** Where clients on this machine reach the server. */
  readonly url: string;
  /** The address it is bound to. */
  readonly host: string;
  readonly port: number;
  /** From the start of the process until the port answers. */
  readonly readySeconds: number;
  /** Of it, the loading of models. */
  readonly loadSeconds: number;
}

type Rows = readonly (readonly [string, string])[];

const SOURCES: Readonly<Record<ResolvedModel["source"], string>> = {
  local: "local path",
  "hub-cache": "Hugging Face cache",
  hub: "fetched from the hub",
  wheel: "Python package",
};

/** What is to be known of a loaded model: rows of name and value, in the order a person asks for them. */
export function modelReport(facts: ModelFacts): Rows {
  const { id, resolved, engine } = facts;
  // Block 0 is never handed out.
  const blocks = engine.blockCount - 1;
  const cacheTokens = blocks * engine.blockSize;
  const tokenBytes = engine.kvBytes / (engine.blockCount * engine.blockSize);
  const fullSequences = Math.floor(cacheTokens / engine.contextLength);
  const room =
    fullSequences >= engine.sequencesMax
      ? `room for all ${engine.sequencesMax} at full context`
      : `room for ${formatCount(cacheTokens)} tokens of ${engine.sequencesMax} sequences`;
  return [
    ["model", `${id} (${engine.architecture}, ${formatBytes(engine.weightBytes)})`],
    ["source", `${SOURCES[resolved.source]}, ${resolved.checkpointPath}`],
    [
      "loaded",
      `in ${formatDuration(engine.loadSeconds)}, of which ${engine.device !== undefined ? "uploading" : facts.mapped ? "mapping" : "reading"} the weights ${formatDuration(engine.mapSeconds)}`,
    ],
    ["template", facts.chatTemplateFrom],
    ["context", contextText(engine)],
    [
      "kv cache",
      `${formatCount(blocks)} blocks of ${formatCount(engine.blockSize)} tokens, ${facts.cacheType}, ${formatBytes(tokenBytes)} a token, ${formatBytes(engine.kvBytes)}: ${room}`,
    ],
    [
      "compute",
      `${engine.device ?? `${engine.threads} ${engine.threads === 1 ? "thread" : "threads"}`}, ${engine.instructionSet}, up to ${formatCount(engine.tokensMax)} tokens a step`,
    ],
  ];
}

/** Where the server is reached, and how long it took to come up. */
export function addressReport({ url, host, port, readySeconds, loadSeconds }: AddressFacts): Rows {
  const scheme = url.slice(0, url.indexOf(":"));
  return [
    ["address", `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`],
    ["OpenAI API", `${url}/v1`],
    [
      "ready",
      `${formatDuration(readySeconds)} after the start of the process, ${formatDuration(Math.max(0, readySeconds - loadSeconds))} without loading the model`,
    ],
  ];
}

function contextText({ contextLength, modelContextLength = contextLength }: EngineInfo): string {
  if (contextLength === modelContextLength) return `${formatCount(contextLength)} tokens`;
  return `${formatCount(contextLength)} tokens of the model's ${formatCount(modelContextLength)}`;
}
