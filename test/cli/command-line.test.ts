import { afterEach, beforeEach, expect, spyOn, test } from "bun:test";
import { parseCommandLine } from "../../src/cli/command-line.ts";
import { settingEntries } from "../../src/config/settings.ts";
import { MistralError } from "../../src/errors.ts";

let printed = "";
const stdout = spyOn(process.stdout, "write");
beforeEach(() => {
  printed = "";
  stdout.mockImplementation((text) => {
    printed += text;
    return true;
  });
});
afterEach(() => stdout.mockReset());

function parse(...commandArguments: string[]) {
  return parseCommandLine(commandArguments, "9.8.7");
}

function complaint(...commandArguments: string[]): string {
  try {
    parse(...commandArguments);
  } catch (error) {
    expect(error).toBeInstanceOf(MistralError);
    return (error as MistralError).message;
  }
  throw new Error(`accepted ${commandArguments.join(" ")}`);
}

test("collects flags under their setting, with the spelling that was typed", () => {
  const line = parse("serve", "-p", "4321", "--model", "a/b", "--quantized-file=c.gguf", "--threads", "2");
  expect(line).toEqual({
    kind: "command",
    command: "serve",
    operand: undefined,
    flags: new Map([
      ["port", { name: "--port", text: "4321" }],
      ["model", { name: "--model", text: "a/b" }],
      ["file", { name: "--quantized-file", text: "c.gguf" }],
      ["threads", { name: "--threads", text: "2" }],
    ]),
  });
});

test("the last of a repeated flag counts; -v counts its repetitions", () => {
  const line = parse("serve", "--port", "1", "-vv", "--port", "2");
  if (line.kind !== "command") throw new Error("not a command");
  expect(line.flags.get("port")?.text).toBe("2");
  expect(line.flags.get("verbosity")?.text).toBe(2);
});

test("a flag for several texts may be repeated, or hold them all", () => {
  const line = parse("serve", "--api-key", "one", "--api-key=two,three");
  if (line.kind !== "command") throw new Error("not a command");
  expect(line.flags.get("apiKeys")?.text).toBe("one,two,three");
});

test("help of the program shows every command with what it takes, whatever else was typed", () => {
  expect(parse("--help")).toEqual({ kind: "done" });
  const whole = printed;
  for (const line of ["serve [options] [kind]", "bench [options] [kind]", "tune [options] [kind]"])
    expect(whole).toContain(line);
  for (const more of [["-h"], []]) {
    printed = "";
    parse(...more);
    expect(printed).toBe(whole);
  }
});

test("help of a command names every setting that has an effect, by flag and variable, and no flag of another", () => {
  for (const command of ["serve", "bench"] as const) {
    printed = "";
    expect(parse(command, "--help")).toEqual({ kind: "done" });
    const words = new Set(printed.match(/--?[\w-]+|[A-Z_][A-Z0-9_]+/g));
    const mine = settingEntries()
      .filter(([, { commands }]) => commands.includes(command))
      .filter(([, { notBuilt }]) => notBuilt === undefined || notBuilt.except !== undefined);
    const names = mine.flatMap(([, { flag, environment }]) => [
      ...(flag === undefined ? [] : [flag]),
      ...(environment ?? []),
    ]);
    const foreign = settingEntries().flatMap(([, { flag }]) => flag ?? []);
    expect({ command, missing: names.filter((name) => !words.has(name)) }).toEqual({ command, missing: [] });
    const extra = foreign.filter(
      (flag) => !names.includes(flag) && new RegExp(`^  .*${flag} `, "m").test(printed),
    );
    expect({ command, extra }).toEqual({ command, extra: [] });
    expect(printed).toContain("features that are not built yet are in docs/configuration.md");
  }
});

test("no arguments print the commands, --version the version", () => {
  expect(parse()).toEqual({ kind: "done" });
  expect(printed).toContain("serve");
  expect(printed).toContain("bench");
  printed = "";
  expect(parse("--version")).toEqual({ kind: "done" });
  expect(printed.trim()).toBe("9.8.7");
});

test("typing errors end in one line with a suggestion", () => {
  expect(complaint("srve")).toBe("unknown command 'srve' (Did you mean serve?)");
  expect(complaint("serve", "--prot", "1")).toBe("unknown option '--prot' (Did you mean --port?)");
  expect(complaint("serve", "--port")).toContain("--port");
  expect(complaint("serve", "extra")).toContain("extra");
  expect(complaint("bench", "--port", "1")).toContain("--port");
});
