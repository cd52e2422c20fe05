import { expect, test } from "bun:test";
import { Log } from "../../src/cli/log.ts";

const NOON = () => new Date(Date.UTC(2026, 0, 2, 12, 0, 0, 7));

function capture(verbosity: number, isTTY = false) {
  const output = {
    text: "",
    isTTY,
    write(text: string) {
      this.text += text;
    },
  };
  return { output, log: new Log(verbosity, output, NOON) };
}

test("a line has time, level and message", () => {
  const { output, log } = capture(0);
  log.write("info", "ready");
  log.write("warning", "slow");
  expect(output.text).toBe("2026-01-02T12:00:00.007Z info    ready\n2026-01-02T12:00:00.007Z warning slow\n");
});

test("verbosity opens one level each", () => {
  const visible = (verbosity: number) => {
    const { output, log } = capture(verbosity);
    for (const level of ["error", "info", "debug", "trace"] as const) log.write(level, level);
    return output.text
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ").at(-1));
  };
  expect(visible(0)).toEqual(["error", "info"]);
  expect(visible(1)).toEqual(["error", "info", "debug"]);
  expect(visible(2)).toEqual(["error", "info", "debug", "trace"]);
});

test("colours only on a terminal, the stack of a cause below its line, tables aligned", () => {
  const terminal = capture(0, true);
  terminal.log.write("error", "broken", new Error("the reason"));
  expect(terminal.output.text).toContain("\x1b[31merror");
  expect(terminal.output.text).toMatch(/broken\nError: the reason\n\s+at /);
  const plain = capture(0);
  plain.log.table("info", [
    ["a", "1"],
    ["longer", "2"],
  ]);
  expect(plain.output.text).toMatch(/info {4}a {7}1\n.*info {4}longer {2}2\n$/);
});
