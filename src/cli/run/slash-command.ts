/** What a line of a conversation means: a command that begins with a slash, or a question. */

import { didYouMean } from "../../config/suggest.ts";
import type { Sampling } from "./conversation.ts";

export type Line =
  | { readonly kind: "question"; readonly text: string }
  | { readonly kind: "nothing" }
  | { readonly kind: "help" }
  | { readonly kind: "exit" }
  | { readonly kind: "clear" }
  | { readonly kind: "system"; readonly text: string }
  | { readonly kind: "sampling"; readonly change: Partial<Sampling>; readonly shown: string }
  | { readonly kind: "mistake"; readonly message: string };

/** Command, what stands behind it, what it does. */
export const SLASH_COMMANDS = [
  ["/help", "", "show this list"],
  ["/exit", "", "leave, as Ctrl-D does"],
  ["/system", "<text>", "add a system message, without an answer"],
  ["/clear", "", "forget the conversation"],
  ["/temperature", "<0 to 2>", "randomness of the answers"],
  ["/topk", "<n>", "draw among the n most likely tokens"],
  ["/topp", "<0 to 1>", "draw among the most likely tokens of this probability"],
] as const;

export function parseLine(line: string): Line {
  const text = line.trim();
  if (text === "") return { kind: "nothing" };
  if (!text.startsWith("/")) return { kind: "question", text };
  const [command = "", ...words] = text.split(/\s+/);
  const rest = words.join(" ");
  switch (command) {
    case "/help":
      return { kind: "help" };
    case "/exit":
      return { kind: "exit" };
    case "/clear":
      return { kind: "clear" };
    case "/system":
      return rest === ""
        ? mistake("/system needs a text behind it")
        : { kind: "system", text: text.slice(command.length).trim() };
    case "/temperature":
      return sampling(
        command,
        rest,
        "temperature",
        (value) => value >= 0 && value <= 2,
        "a number from 0.0 to 2.0",
      );
    case "/topk":
      return sampling(
        command,
        rest,
        "topK",
        (value) => Number.isSafeInteger(value) && value > 0,
        "a whole number above 0",
      );
    case "/topp":
      return sampling(
        command,
        rest,
        "topP",
        (value) => value > 0 && value <= 1,
        "a number above 0 and at most 1",
      );
    default: {
      const names = SLASH_COMMANDS.map(([name]) => name);
      return mistake(`${command} is no command${didYouMean(command, names)}; /help lists them`);
    }
  }
}

function sampling(
  command: string,
  text: string,
  key: keyof Sampling,
  isAllowed: (value: number) => boolean,
  allowed: string,
): Line {
  const value = text === "" ? Number.NaN : Number(text);
  if (!isAllowed(value)) {
    const found = text === "" ? "nothing" : JSON.stringify(text);
    return mistake(`${command} needs ${allowed}; it has ${found}`);
  }
  return { kind: "sampling", change: { [key]: value }, shown: `${command.slice(1)} is ${value}` };
}

function mistake(message: string): Line {
  return { kind: "mistake", message };
}
