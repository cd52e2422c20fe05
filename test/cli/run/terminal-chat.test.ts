/** `run` on a pseudo-terminal, as a person has it: keys in, characters out. */

import { afterEach, expect, test } from "bun:test";
import { readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "../../../src/cli/setup.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { runCommand } from "../processes.ts";
import { TerminalProcess, visible } from "./terminal.ts";

const CTRL_C = "\x03";
const CTRL_D = "\x04";
const UP = "\x1b[A";
const ENTER = "\r";
const GREY = "\x1b[90m";

const folder = temporaryFolder("run");
const model = join(folder, "tiny");
writeTinyModel(model);
/** A template in which every answer begins with a thought. */
const thinker = join(folder, "thinker");
writeTinyModel(thinker, {
  chatTemplate:
    "{% for message in messages %}{{ message.content }}</think>{% endfor %}{% if add_generation_prompt %}<think>{% endif %}",
});

let started: TerminalProcess | undefined;
afterEach(() => started?.kill());

function chat(flags: readonly string[], environment: Record<string, string> = {}): TerminalProcess {
  const main = join(PROJECT_ROOT, "src/cli/main.ts");
  const common = ["--threads", "1", "--temperature", "0", "--max-tokens", "6"];
  started = new TerminalProcess([process.execPath, main, "run", "-m", model, ...common, ...flags], {
    XDG_CACHE_HOME: folder,
    ...environment,
  });
  return started;
}

test("a conversation: commands, answers with their figures, history, and the way out", async () => {
  const terminal = chat([]);
  expect(visible(await terminal.until("> "))).toMatch(
    /^tiny \(LlamaForCausalLM, .*, loaded in .*\/help lists commands\.\n/,
  );
  terminal.press(`/help${ENTER}`);
  const help = visible(await terminal.until("Ctrl-C"));
  for (const name of ["/exit", "/system", "/clear", "/temperature", "/topk", "/topp"])
    expect(help).toContain(name);

  terminal.press(`hello there${ENTER}`);
  const answer = visible(await terminal.until("Decode: 6 tokens"));
  expect(answer).toContain("Stats:");
  expect(answer).toMatch(/CLI time to first token: \S+ m?s/);
  // "user: hello there\nassistant: " in characters.
  expect(answer).toMatch(/Prompt: 29 tokens, \S+ T\/s/);

  await terminal.until("> ");
  terminal.press(`/system be brief${ENTER}`);
  await terminal.until("> ");
  terminal.press(UP + UP + ENTER);
  const longer = visible(await terminal.until("Decode: 6 tokens"));
  expect(longer).toContain("hello there");
  // Both questions, the answer and the system message.
  expect(Number(/Prompt: (\d+) tokens/.exec(longer)?.[1])).toBeGreaterThan(75);

  await terminal.until("> ");
  terminal.press(`/clear${ENTER}`);
  await terminal.until("forgotten");
  terminal.press(`/temperature 9${ENTER}`);
  await terminal.until('/temperature needs a number from 0.0 to 2.0; it has "9"');
  terminal.press(`/topk 3${ENTER}`);
  await terminal.until("topk is 3");
  terminal.press(`/topp 0${ENTER}`);
  await terminal.until("/topp needs a number above 0 and at most 1");
  terminal.press(`/tpok 3${ENTER}`);
  await terminal.until("/tpok is no command (did you mean /topk?)");
  terminal.press(`two\\${ENTER}lines${ENTER}`);
  // The conversation was forgotten: only this question, its line break included.
  expect(visible(await terminal.until("Decode: 6 tokens"))).toContain("Prompt: 27 tokens");
  await terminal.until("> ");
  terminal.press(`/exit${ENTER}`);
  expect(await terminal.exited()).toBe(0);
}, 60_000);

test("every slash command, done and refused", async () => {
  const terminal = chat([]);
  await terminal.until("> ");
  for (const [line, shown] of [
    ["/temperature 0.5", "temperature is 0.5"],
    ["/temperature -1", '/temperature needs a number from 0.0 to 2.0; it has "-1"'],
    ["/topk 40", "topk is 40"],
    ["/topk 0", '/topk needs a whole number above 0; it has "0"'],
    ["/topk", "/topk needs a whole number above 0; it has nothing"],
    ["/topp 0.9", "topp is 0.9"],
    ["/topp 2", '/topp needs a number above 0 and at most 1; it has "2"'],
    ["/system", "/system needs a text behind it"],
    ["/clear", "the conversation is forgotten"],
    ["/adapter x", "/adapter is no command; /help lists them"],
  ] as const) {
    terminal.press(`${line}${ENTER}`);
    expect(visible(await terminal.until(shown))).toContain(line);
    await terminal.until("> ");
  }
  // Commands are offered at the tab key, and kept as history as questions are.
  terminal.press("/temp\t");
  await terminal.until("/temperature");
  // The history that begins with what was typed.
  terminal.press(UP);
  await terminal.until("/temperature -1");
  terminal.press(UP);
  await terminal.until("/temperature 0.5");
  terminal.press("\x15/exit\r");
  expect(await terminal.exited()).toBe(0);
}, 60_000);

test("a model without a template is told what it lacks", async () => {
  const raw = join(folder, "raw");
  writeTinyModel(raw);
  rmSync(join(raw, "chat_template.jinja"));
  const { status, stdout, stderr } = await runCommand(["run", "-m", raw, "--threads", "1", "-i", "hm"]);
  expect({ status, stdout, stderr }).toEqual({
    status: 2,
    stdout: "",
    stderr:
      "error: raw has no chat template, without which it cannot converse; give one with --chat-template FILE.jinja\n",
  });
}, 60_000);

test("Ctrl-C stops the answer under way, and leaves at the prompt; the history is kept", async () => {
  const terminal = chat(["--max-tokens", "2000"]);
  await terminal.until("> ");
  terminal.press(`go on${ENTER}`);
  await terminal.until("go on\r");
  await terminal.until("\n");
  const { length } = terminal.shown;
  while (terminal.shown.length < length + 4) await Bun.sleep(1);
  terminal.press(CTRL_C);
  await terminal.until("Stats: (stopped)");
  const figures = visible(await terminal.until("\x1b[0m"));
  const said = Number(/Decode: (\d+) tokens/.exec(figures)?.[1]);
  expect(said).toBeGreaterThan(0);
  expect(said).toBeLessThan(2000);
  await terminal.until("> ");
  terminal.press(CTRL_C);
  expect(await terminal.exited()).toBe(0);

  const again = chat([]);
  await again.until("> ");
  again.press(UP);
  await again.until("go on");
  again.press(CTRL_C);
  expect(await again.exited()).toBe(0);

  const third = chat([]);
  await third.until("> ");
  third.press(CTRL_D);
  expect(await third.exited()).toBe(0);
}, 60_000);

test("thoughts are grey, and do not go where a program reads the answer", async () => {
  const terminal = chat(["-m", thinker, "-i", "hm"]);
  await terminal.until(GREY);
  const thought = await terminal.until("\x1b[0m");
  expect(thought.length).toBeGreaterThan(6);
  expect(await terminal.exited()).toBe(0);

  const flags = ["--threads", "1", "--temperature", "0", "--max-tokens", "6"];
  const piped = await runCommand(["run", "-m", thinker, ...flags, "-i", "hm"]);
  expect({ status: piped.status, stdout: piped.stdout }).toEqual({ status: 0, stdout: "" });
  expect(piped.stderr).toContain("Decode: 6 tokens");
  expect(piped.stderr + piped.stdout).not.toContain("\x1b[");
}, 60_000);

test("over pipes: questions in, answers alone on stdout, the same seed the same answers", async () => {
  const ask = (seed: string) =>
    runCommand(["run", "-m", model, "--threads", "1", "--max-tokens", "8", "--seed", seed], {
      input: "one\n/system x\ntwo\n",
    });
  const [first, same, other] = await Promise.all([ask("1"), ask("1"), ask("2")]);
  expect(first.status).toBe(0);
  expect(first.stderr.match(/Stats:/g)).toHaveLength(2);
  expect(first.stdout.length).toBeGreaterThan(4);
  expect(same.stdout).toBe(first.stdout);
  expect(other.stdout).not.toBe(first.stdout);
}, 60_000);

test("--log appends what is asked and answered, failures too, for the owner alone", async () => {
  const path = join(folder, "run.log");
  const flags = ["--threads", "1", "--temperature", "0", "--max-tokens", "6", "--log", path];
  const answered = await runCommand(["run", "-m", thinker, ...flags, "-i", "hm"]);
  expect(answered.status).toBe(0);
  await runCommand(["run", "-m", model, ...flags, "-i", "x".repeat(3000)]);
  const blocks = readFileSync(path, "utf8").split("\n\n");
  expect(blocks.pop()).toBe("");
  const time = /^(Request|Response|Error response) at \d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d: /;
  const titles = blocks.map((block) => time.exec(block)?.[1]);
  expect(titles).toEqual(["Request", "Response", "Request", "Error response"]);
  const [request, response, , failure] = blocks.map((block) => block.replace(time, ""));
  expect(JSON.parse(request!)).toEqual({
    model: "thinker",
    messages: [{ role: "user", content: "hm" }],
    temperature: 0,
  });
  expect(JSON.parse(response!)).toMatchObject({
    model: "thinker",
    stopped: false,
    usage: { completionTokens: 6 },
    choices: [{ content: "", reasoning: expect.any(String) }],
  });
  expect(failure).toStartWith("The prompt has 3");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const refused = await runCommand(["run", "-m", model, ...flags, "-l", folder, "-i", "hm"]);
  expect(refused.status).toBe(2);
  expect(refused.stderr).toContain(`--log ${folder} cannot be written`);
}, 60_000);

test("a question that does not fit ends with status 1 and the numbers", async () => {
  const question = "x".repeat(3000);
  const { status, stderr } = await runCommand(["run", "-m", model, "--threads", "1", "-i", question]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/error: The prompt has 3,?018 tokens; this model holds 2,?048/);
}, 60_000);
