import { expect, test } from "bun:test";
import { didYouMean, nearestWord } from "../../src/config/suggest.ts";

test("finds the word that was meant", () => {
  expect(nearestWord("srve", ["serve", "bench"])).toBe("serve");
  expect(nearestWord("becnh", ["serve", "bench"])).toBe("bench");
  expect(nearestWord("F16", ["auto", "f16", "bf16"])).toBe("f16");
  expect(didYouMean("--prot", ["--port", "--host"])).toBe(" (did you mean --port?)");
});

test("stays silent when nothing is near", () => {
  expect(nearestWord("q", ["auto", "f16"])).toBeUndefined();
  expect(nearestWord("completely-else", ["serve", "bench"])).toBeUndefined();
  expect(didYouMean("x", [])).toBe("");
});
