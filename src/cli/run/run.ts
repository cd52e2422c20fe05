/** `run`: loads a model in an engine process and talks with it, or answers the one question of `--input`. */

import type { Resolution } from "../../config/resolve.ts";
import { MistralError } from "../../errors.ts";
import { logBlock } from "../../server/request-log.ts";
import { hubEnvironment } from "../hub-environment.ts";
import { openLog } from "../log.ts";
import { requestLogFile } from "../request-log-file.ts";
import { loadServedModel } from "../serve/load-model.ts";
import { formatBytes, formatDuration } from "../units.ts";
import { AnswerView } from "./answer-view.ts";
import type { Conversation } from "./conversation.ts";

/** Resolves when the person leaves or the question is answered. Throws MistralError. */
export async function run({ settings, sources, warnings }: Resolution): Promise<void> {
  const log = openLog(settings, true);
  for (const warning of warnings) log.write("warning", warning);
  const append = settings.requestLog === undefined ? undefined : requestLogFile(settings.requestLog);
  // One conversation is one sequence, unless somebody wants otherwise.
  const isDefault = sources.sequencesMax.kind === "default";
  const sequencesMax = isDefault ? 1 : settings.sequencesMax;
  const [{ served, engine }, { Conversation }] = await Promise.all([
    loadServedModel({ ...settings, sequencesMax }, log, { meanwhile: openStreams }),
    import("./conversation.ts"),
  ]);
  if (served.chatTemplate === undefined) {
    await engine.close();
    throw new MistralError(
      "invalid_configuration",
      `${served.id} has no chat template, without which it cannot converse; give one with --chat-template FILE.jinja`,
      { parameter: "--chat-template" },
    );
  }
  const conversation = new Conversation(
    served,
    {
      system: settings.systemPrompt,
      maxTokens: settings.tokensMax,
      temperature: settings.temperature,
      topK: settings.topK,
      topP: settings.topP,
      seed: settings.seed,
      thinking: settings.thinking,
      effort: settings.reasoningEffort,
    },
    append === undefined ? undefined : (title, text) => append(logBlock(title, text)),
  );
  try {
    if (settings.input !== undefined) await answerOnce(conversation, settings.input);
    else {
      const { architecture, weightBytes, loadSeconds } = engine.info;
      process.stderr.write(
        `${served.id} (${architecture}, ${formatBytes(weightBytes)}), loaded in ${formatDuration(loadSeconds)}. /help lists commands.\n`,
      );
      const { chatInTerminal } = await import("./terminal-chat.ts");
      await chatInTerminal(conversation, hubEnvironment(settings));
    }
  } finally {
    await engine.close();
  }
}

/** The process's streams take milliseconds to come into being, which the answer would wait for. */
function openStreams(): unknown {
  return [process.stdout, process.stderr];
}

async function answerOnce(conversation: Conversation, question: string): Promise<void> {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  process.on("SIGINT", stop);
  const view = new AnswerView(process.stdout, process.stderr);
  try {
    const statistics = await conversation.ask(question, stopping.signal, (piece) => view.show(piece));
    view.end();
    view.showStatistics(statistics);
  } finally {
    process.off("SIGINT", stop);
  }
}
