/**
 * The aarch64 kernels on a machine of another kind, by QEMU's user emulation: the tests beside the kernels at every
 * level, and the conformance suite of this folder by a Bun for aarch64 over cross-built libraries.
 *
 * `bun test/kernels/aarch64.ts [--bun FILE] [--root FOLDER] [--levels NAMES] [--tests WORDS] [--suites NAMES]`; kernels/README.md says
 * where these come from. It needs Linux and qemu-aarch64, and takes many minutes: it is no part of `bun run test`.
 */

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const ROOT = join(import.meta.dir, "..", "..");
const ZIG = join(ROOT, "node_modules", "@zigc", "cli", "bin", "zig");

/** Of each level of build.zig: what the compiler calls its processor. */
const PROCESSORS: Readonly<Record<string, string>> = {
  arm64: "generic",
  arm64_dotprod: "generic+dotprod",
  arm64_i8mm: "generic+dotprod+i8mm",
};

const { values: options } = parseArgs({
  options: {
    bun: { type: "string" },
    root: { type: "string", default: "/usr/aarch64-linux-gnu" },
    levels: { type: "string", default: Object.keys(PROCESSORS).join(",") },
    /** Of the tests beside the kernels, those whose names have these words. */
    tests: { type: "string" },
    /** Of the suites, such as matmul or rows, those named. */
    suites: { type: "string" },
  },
});

const emulator = Bun.which("qemu-aarch64") ?? Bun.which("qemu-aarch64-static");
if (emulator === null)
  throw new Error(
    "there is neither qemu-aarch64 nor qemu-aarch64-static on PATH: nothing was tested; Debian has them in qemu-user and qemu-user-static",
  );
const levels = options.levels.split(",");
for (const level of levels) {
  if (PROCESSORS[level] !== undefined) continue;
  throw new Error(`there is no aarch64 level ${level}; there are ${Object.keys(PROCESSORS).join(", ")}`);
}
const bun = options.bun === undefined ? undefined : resolve(options.bun);
const libraries = resolve(options.root, "lib");
/** These test CUDA alone. */
const OF_CUDA = ["cuda-budget.test.ts", "matmul-library.test.ts"];
const suites = readdirSync(import.meta.dir)
  .filter((name) => name.endsWith(".test.ts") && !OF_CUDA.includes(name))
  .map((name) => name.slice(0, -".test.ts".length));
if (bun !== undefined && !existsSync(bun)) throw new Error(`--bun: there is no ${bun}`);
if (bun !== undefined && !existsSync(libraries))
  throw new Error(`--root: there is no ${libraries}, where Bun's C library is`);
const wanted = options.suites?.split(",") ?? suites;
for (const suite of wanted) {
  if (!suites.includes(suite)) throw new Error(`there is no suite ${suite}; there are ${suites.join(", ")}`);
}

const folder = mkdtempSync(join(tmpdir(), "mistral-aarch64-"));
const failed: string[] = [];
try {
  for (const level of levels) testBeside(level);
  if (bun !== undefined) testSuites(bun);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (options.bun === undefined)
  console.log("the conformance suite was not run: --bun names no Bun for aarch64");
console.log(failed.length === 0 ? "passed" : `FAILED: ${failed.join(", ")}`);
process.exit(failed.length === 0 ? 0 : 1);

/** Runs a program with our streams; a failure is noted. */
function run(title: string, command: readonly string[], env: Readonly<Record<string, string>> = {}): boolean {
  const started = performance.now();
  const { success } = Bun.spawnSync([...command], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit"],
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${title}: ${success ? "ok" : "FAILED"} in ${seconds} s`);
  if (!success) failed.push(title);
  return success;
}

/** The tests in Zig. They are linked to nothing, so that they need no files of the other machine's system. */
function testBeside(level: string): void {
  const program = join(folder, `tests.${level}`);
  const filter = options.tests === undefined ? [] : ["--test-filter", options.tests];
  const target = ["-target", "aarch64-linux-musl", "-mcpu", PROCESSORS[level]!];
  const output = ["--test-no-exec", `-femit-bin=${program}`];
  const built = run(`${level}: tests beside the kernels built`, [
    ...[ZIG, "test", "-O", "ReleaseSafe", ...target, ...filter, ...output],
    "kernels/tests.zig",
  ]);
  if (built) run(`${level}: tests beside the kernels`, [emulator!, program]);
}

/** The suites of this folder, over all the levels at once. */
function testSuites(program: string): void {
  const built = run("libraries built", [
    ...[ZIG, "build", "-Dtarget=aarch64-linux-gnu", `-Dlevels=${levels.join(",")}`],
    ...["--prefix", join(folder, "kernels")],
  ]);
  if (!built) return;
  // Emulated programs find this file in place of the machine's own, which is of another processor.
  const root = join(folder, "root");
  mkdirSync(join(root, "proc"), { recursive: true });
  writeFileSync(join(root, "proc", "cpuinfo"), "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n");
  symlinkSync(libraries, join(root, "lib"));
  const environment = { QEMU_LD_PREFIX: root, MISTRALRS_KERNEL_FOLDER: join(folder, "kernels", "lib") };
  for (const suite of wanted) {
    const file = join("test", "kernels", `${suite}.test.ts`);
    run(suite, [emulator!, program, "test", "--timeout", "600000", file], environment);
  }
}
