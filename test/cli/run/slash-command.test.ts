import { expect, test } from "bun:test";
import { parseLine } from "../../../src/cli/run/slash-command.ts";

test("what is no command is a question, as it was typed", () => {
  expect(parseLine("  What is 1/2?  ")).toEqual({ kind: "question", text: "What is 1/2?" });
  expect(parseLine("two\nlines")).toEqual({ kind: "question", text: "two\nlines" });
  expect(parseLine("   ")).toEqual({ kind: "nothing" });
});

test("commands", () => {
  for (const kind of ["help", "exit", "clear"] as const) expect(parseLine(`/${kind}`)).toEqual({ kind });
  expect(parseLine("/system be  brief")).toEqual({ kind: "system", text: "be  brief" });
  expect(parseLine("/temperature 0.5")).toMatchObject({ kind: "sampling", change: { temperature: 0.5 } });
  expect(parseLine("/topk 40")).toMatchObject({ kind: "sampling", change: { topK: 40 } });
  expect(parseLine("/topp 1")).toMatchObject({ kind: "sampling", change: { topP: 1 } });
});

test("numbers out of range, missing or no numbers are told", () => {
  for (const line of ["/temperature 2.1", "/temperature -1", "/temperature", "/temperature warm"]) {
    expect(parseLine(line)).toMatchObject({
      kind: "mistake",
      message: expect.stringContaining("0.0 to 2.0"),
    });
  }
  for (const line of ["/topk 0", "/topk 1.5", "/topk"]) expect(parseLine(line).kind).toBe("mistake");
  for (const line of ["/topp 0", "/topp 1.01", "/topp"]) expect(parseLine(line).kind).toBe("mistake");
  expect(parseLine("/system")).toMatchObject({ kind: "mistake" });
  expect(parseLine("/hlep")).toMatchObject({
    message: "/hlep is no command (did you mean /help?); /help lists them",
  });
});
