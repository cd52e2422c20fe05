import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { hasCudaDriver } from "../../../src/backend/cuda-driver.ts";
import { supportedInstructionSets } from "../../../src/backend/instruction-set.ts";
import { dependenciesCurrent, installDependencies } from "../../../src/cli/setup/dependencies.ts";
import { buildKernels, kernelsCurrent } from "../../../src/cli/setup/kernels.ts";
import { PROJECT_ROOT, setup } from "../../../src/cli/setup.ts";
import { MistralError } from "../../../src/errors.ts";

const NATIVE = supportedInstructionSets()[0]!;

/** Builds the level asked for, or two, from one source file; the real build has the same face. */
const BUILD_ZIG = `
const std = @import("std");
pub fn build(b: *std.Build) void {
    const levels = b.option([]const u8, "levels", "");
    const cuda = b.option([]const u8, "cuda", "");
    const emulator = b.option(bool, "emulator", "") orelse false;
    const optimize = b.standardOptimizeOption(.{ .preferred_optimize_mode = .ReleaseFast });
    const names: []const []const u8 = if (levels) |level| &.{level} else &.{ "x86_64_v2", "other" };
    for (names) |name| add(b, optimize, b.fmt("cpu.{s}", .{name}));
    if (cuda) |devices| add(b, optimize, b.fmt("cuda.{s}", .{devices}));
    if (emulator) add(b, optimize, "cuda_emulated");
}
fn add(b: *std.Build, optimize: std.builtin.OptimizeMode, name: []const u8) void {
    b.installArtifact(b.addLibrary(.{
        .name = b.fmt("mistral_{s}", .{name}),
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("kernels/cpu.zig"),
            .target = b.resolveTargetQuery(.{}),
            .optimize = optimize,
        }),
    }));
}
`;

const IS_LINUX = process.platform === "linux";
const EVERY_CUDA = IS_LINUX ? ["cuda.auto"] : [];

let root = "";
let output: { text: string; write(text: string): void };

function writeKernel(answer: string): void {
  writeFileSync(
    join(root, "kernels", "cpu.zig"),
    `export fn answer() callconv(.c) i32 { return ${answer}; }\n`,
  );
}

function libraries(): string[] {
  return readdirSync(join(root, "zig-out", "lib"))
    .filter((name) => name.includes("mistral_"))
    .map((name) => /mistral_(.+)\.\w+$/.exec(name)![1]!)
    .sort();
}

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "mistral-setup-"));
  mkdirSync(join(root, "kernels"));
  writeFileSync(join(root, "build.zig"), BUILD_ZIG);
  symlinkSync(join(PROJECT_ROOT, "node_modules"), join(root, "node_modules"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeEach(() => {
  output = {
    text: "",
    write(text) {
      this.text += text;
    },
  };
});

describe("kernels", () => {
  test("are built once, and again when a source changes", async () => {
    writeKernel("1");
    expect(kernelsCurrent(root, "native")).toBe(false);
    await buildKernels(root, "native", output);
    expect(kernelsCurrent(root, "native")).toBe(true);
    expect(libraries()).toEqual([`cpu.${NATIVE}`]);
    expect(output.text).toMatch(new RegExp(`kernels +cpu\\.${NATIVE}: [\\d.]+ [kM]?B in [\\d.]+ m?s\n$`));

    writeKernel("2");
    expect(kernelsCurrent(root, "native")).toBe(false);
  }, 60_000);

  test("of all levels serve a start that needs one, not the other way round", async () => {
    writeKernel("3");
    await buildKernels(root, "native", output);
    expect(kernelsCurrent(root, "all")).toBe(false);
    await buildKernels(root, "all", output);
    expect(libraries()).toEqual(["cpu.other", "cpu.x86_64_v2", ...EVERY_CUDA]);
    expect(kernelsCurrent(root, "all")).toBe(true);
    expect(kernelsCurrent(root, "native")).toBe(true);
    // Libraries of older sources do not stay beside newer ones.
    writeKernel("4");
    await buildKernels(root, "native", output);
    expect(libraries()).toEqual([`cpu.${NATIVE}`]);
  }, 60_000);

  test("for the tests are every level and the emulated device, which a real one is not content with", async () => {
    writeKernel("5");
    await buildKernels(root, "tested", output);
    const cuda = hasCudaDriver() ? "cuda.auto" : "cuda.tested";
    const emulated = IS_LINUX ? [cuda, "cuda_emulated"] : [];
    expect(libraries()).toEqual(["cpu.other", "cpu.x86_64_v2", ...emulated]);
    expect(kernelsCurrent(root, "tested")).toBe(true);
    expect(kernelsCurrent(root, "native")).toBe(true);
    expect(kernelsCurrent(root, "all")).toBe(!IS_LINUX || hasCudaDriver());
    await buildKernels(root, "all", output);
    expect(libraries()).toEqual(["cpu.other", "cpu.x86_64_v2", ...EVERY_CUDA]);
    expect(kernelsCurrent(root, "all")).toBe(true);
    // The emulated device went with the others.
    expect(kernelsCurrent(root, "tested")).toBe(!IS_LINUX);
  }, 60_000);

  test("that lost a library are built again", async () => {
    writeKernel("5");
    await buildKernels(root, "native", output);
    for (const name of readdirSync(join(root, "zig-out", "lib"))) {
      if (name.includes("mistral_")) rmSync(join(root, "zig-out", "lib", name));
    }
    expect(kernelsCurrent(root, "native")).toBe(false);
    await buildKernels(root, "native", output);
    expect(libraries()).toEqual([`cpu.${NATIVE}`]);
  }, 60_000);

  test("that do not compile end in the compiler's words and advice, and are not taken for built", async () => {
    writeKernel("undefinedName");
    const failure = await buildKernels(root, "native", output).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(MistralError);
    const { message } = failure as MistralError;
    expect(message).toContain("undefinedName");
    expect(message).toContain("kernels/cpu.zig:1");
    expect(message).toContain("delete .zig-cache");
    expect(message).not.toContain("Build Summary");
    // The libraries that worked stay until there are new ones.
    expect(libraries()).toEqual([`cpu.${NATIVE}`]);
    expect(kernelsCurrent(root, "native")).toBe(false);
  }, 60_000);
});

describe("packages", () => {
  function packageFolder(manifest: object): string {
    const folder = mkdtempSync(join(tmpdir(), "mistral-packages-"));
    writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "x", ...manifest }));
    return folder;
  }

  test("are installed once, and again when the lockfile changes", async () => {
    const folder = packageFolder({ dependencies: { local: "file:./local" } });
    mkdirSync(join(folder, "local"));
    writeFileSync(join(folder, "local", "package.json"), JSON.stringify({ name: "local", version: "1.0.0" }));
    Bun.spawnSync([process.execPath, "install", "--lockfile-only"], { cwd: folder });
    try {
      expect(dependenciesCurrent(folder)).toBe(false);
      await installDependencies(folder, output);
      expect(dependenciesCurrent(folder)).toBe(true);
      expect(readdirSync(join(folder, "node_modules"))).toContain("local");
      expect(output.text).toMatch(/1 packages, \d+ B/);
      writeFileSync(join(folder, "bun.lock"), `${readFileSync(join(folder, "bun.lock"), "utf8")}\n`);
      expect(dependenciesCurrent(folder)).toBe(false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 30_000);

  test("that do not match the lockfile end in advice", async () => {
    const folder = packageFolder({ dependencies: { local: "file:./absent" } });
    writeFileSync(
      join(folder, "bun.lock"),
      JSON.stringify({ lockfileVersion: 1, workspaces: { "": { name: "x" } }, packages: {} }),
    );
    try {
      const failure = await installDependencies(folder, output).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(MistralError);
      expect((failure as MistralError).message).toContain("bun install --frozen-lockfile");
      expect((failure as MistralError).message).toContain("do not belong together");
      expect(dependenciesCurrent(folder)).toBe(false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 30_000);
});

test("this checkout is set up, and finding that out is quick", async () => {
  await setup("native", output);
  const seconds = Array.from({ length: 9 }, () => {
    const started = performance.now();
    expect(dependenciesCurrent(PROJECT_ROOT) && kernelsCurrent(PROJECT_ROOT, "native")).toBe(true);
    return (performance.now() - started) / 1000;
  }).sort();
  expect(seconds[4]).toBeLessThan(0.02);
}, 300_000);

test("set-up and its entry import nothing that must be installed first", () => {
  const seen = new Set<string>();
  const packages: string[] = [];
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const match of readFileSync(path, "utf8").matchAll(
      /^(?:import\b(?! type)(?:[^;="]*? from)?|export\b(?! type)[^;="]*? from) "([^"]+)";/gms,
    )) {
      const name = match[1]!;
      if (name.startsWith(".")) visit(resolve(dirname(path), name));
      else if (!/^(node|bun):/.test(name)) packages.push(`${path}: ${name}`);
    }
  };
  visit(join(PROJECT_ROOT, "src/cli/start.ts"));
  visit(join(PROJECT_ROOT, "test/run.ts"));
  expect(seen.size).toBeGreaterThan(6);
  expect(packages).toEqual([]);
});
