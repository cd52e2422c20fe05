import { expect, test } from "bun:test";
import { armLevelsOf, supportedInstructionSets, x86LevelsOf } from "../../src/backend/instruction-set.ts";

const V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3";
const V3 = `${V2} avx avx2 bmi1 bmi2 f16c fma abm movbe`;
const V4 = `${V3} avx512f avx512bw avx512cd avx512dq avx512vl`;
const levels = (flags: string) => x86LevelsOf(new Set(flags.split(" ")));

test("a processor runs its level and all below it, best first", () => {
  expect(levels(V2)).toEqual(["x86_64_v2"]);
  expect(levels(V3)).toEqual(["x86_64_v3", "x86_64_v2"]);
  expect(levels(V4)).toEqual(["x86_64_v4", "x86_64_v3", "x86_64_v2"]);
  expect(levels(`${V4} avx512_vnni avx512vbmi`)).toEqual([
    "x86_64_v4_vnni",
    "x86_64_v4",
    "x86_64_v3",
    "x86_64_v2",
  ]);
});

test("tiles come on top of everything else", () => {
  const all = `${V4} avx512_vnni avx512vbmi amx_tile amx_int8 amx_bf16 gfni`;
  expect(levels(all)[0]).toBe("x86_64_v4_amx");
  expect(levels(all.replace(" avx512_vnni", ""))[0]).toBe("x86_64_v4");
  expect(levels(all.replace(" gfni", ""))[0]).toBe("x86_64_v4_vnni");
});

test("byte products in 256 bits are a level of their own, below all with 512", () => {
  expect(levels(`${V3} avx_vnni`)).toEqual(["x86_64_v3_vnni", "x86_64_v3", "x86_64_v2"]);
  expect(levels(`${V2} avx_vnni`)).toEqual(["x86_64_v2"]);
  expect(levels(`${V4} avx_vnni`)).toEqual(["x86_64_v4", "x86_64_v3_vnni", "x86_64_v3", "x86_64_v2"]);
});

test("one missing feature rules out a level and every level above it", () => {
  expect(levels(V3.replace(" fma", ""))).toEqual(["x86_64_v2"]);
  expect(levels(`${V4.replace(" movbe", "")} avx512_vnni avx512vbmi`)).toEqual(["x86_64_v2"]);
  expect(levels(`${V3} avx512_vnni avx512vbmi`)).toEqual(["x86_64_v3", "x86_64_v2"]);
});

test("an aarch64 processor may have the dot products, and the matrix instructions beside them", () => {
  const armLevels = (flags: string) => armLevelsOf(new Set(flags.split(" ")));
  expect(armLevels("fp asimd")).toEqual(["arm64"]);
  expect(armLevels("fp asimd asimddp bf16")).toEqual(["arm64_dotprod", "arm64"]);
  expect(armLevels("fp asimd asimddp i8mm")).toEqual(["arm64_i8mm", "arm64_dotprod", "arm64"]);
  expect(armLevels("fp asimd i8mm")).toEqual(["arm64"]);
});

test("this machine has at least one level", () => {
  expect(supportedInstructionSets().length).toBeGreaterThan(0);
});
