/**
 * What every CUDA kernel takes of a multiprocessor: registers, spilled bytes and static shared memory, as ptxas says
 * for both compilers, compared with the checked-in `kernels/cuda/budget.json`. Growth fails: it costs occupancy, and a spill costs
 * more.
 *
 * `bun test/kernels/cuda-budget.ts` prints the table and fails on growth; `--write` accepts what it found. Needs ptxas;
 * nvcc's half is left out where there is no nvcc.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";

export interface KernelUse {
  readonly registers: number;
  readonly spilledBytes: number;
  readonly sharedBytes: number;
}

/** By compiler and target (`clang sm_80`), then by kernel. */
export type Uses = Readonly<Record<string, Readonly<Record<string, KernelUse>>>>;

export interface Budget {
  /** Another version may hand out registers otherwise: then only spills and shared memory are compared. */
  readonly ptxas: string;
  readonly uses: Uses;
}

const ROOT = join(import.meta.dir, "..", "..");
export const BUDGET_PATH = join(ROOT, "kernels", "cuda", "budget.json");
/** One of the oldest with everything and the newest that we know. */
const NVCC_TARGETS = ["sm_80", "sm_90"] as const;

/** The assembler, or undefined on a machine without the CUDA toolkit. */
export function findPtxas(): string | undefined {
  return Bun.which("ptxas") ?? undefined;
}

async function run(command: string[]): Promise<string> {
  const child = Bun.spawn(command, { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [exitCode, ...texts] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  const text = texts.join("");
  if (exitCode !== 0) throw new Error(`\`${command.join(" ")}\` ended with ${exitCode}:\n${text}`);
  return text;
}

/** The figures of every entry function in the words of `ptxas -v`. */
export function parseReport(text: string): Record<string, KernelUse> {
  const kernels: Record<string, KernelUse> = {};
  let name = "";
  let spilledBytes = 0;
  for (const line of text.split("\n")) {
    name = /Compiling entry function '([^']+)'/.exec(line)?.[1] ?? name;
    const spill = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (spill !== null) spilledBytes = Number(spill[1]) + Number(spill[2]);
    const registers = /Used (\d+) registers/.exec(line);
    if (registers === null || name === "") continue;
    const sharedBytes = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    kernels[name] = { registers: Number(registers[1]), spilledBytes, sharedBytes };
  }
  return kernels;
}

/** Compiles everything for these targets (default: all) and asks ptxas; each takes most of a minute. */
export async function measure(ptxas: string, targets?: readonly string[]): Promise<Budget> {
  const wanted = (group: string) => targets === undefined || targets.includes(group);
  const folder = mkdtempSync(join(tmpdir(), "budget-"));
  try {
    const zig = join(ROOT, "node_modules", "@zigc", `${process.platform}-${process.arch}`, "bin", "zig");
    // The tests' set-up has compiled this one already.
    const isTested =
      targets?.every((group) => !group.startsWith("clang") || group === "clang sm_80") ?? false;
    await run([
      zig,
      "build",
      "ptx",
      `-Dcuda=${isTested ? "tested" : "clang"}`,
      "-Dlevels=none",
      "--prefix",
      folder,
    ]);
    const compilations: Compilation[] = [];
    const files = readdirSync(join(folder, "ptx")).sort();
    for (const file of files) {
      const target = /\.(sm_\d+)\.ptx$/.exec(file)![1]!;
      const command = [ptxas, "-v", `-arch=${target}`, join(folder, "ptx", file)];
      compilations.push({ group: `clang ${target}`, command });
    }
    const nvcc = Bun.which("nvcc");
    const families = new Set(files.map((file) => basename(file).split(".")[0]!));
    for (const target of nvcc === null ? [] : NVCC_TARGETS) {
      for (const family of families) {
        const options = ["-std=c++17", "-O3", "-cubin", `-arch=${target}`, "-Xptxas", "-v"];
        const command = [nvcc!, ...options, join("kernels", "cuda", `${family}.cu`)];
        compilations.push({ group: `nvcc ${target}`, command });
      }
    }
    const uses = await compileAll(
      compilations.filter(({ group }) => wanted(group)),
      folder,
    );
    return { ptxas: /V(\d+\.\d+\.\d+)/.exec(await run([ptxas, "--version"]))?.[1] ?? "unknown", uses };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Compilation {
  readonly group: string;
  readonly command: readonly string[];
}

/** Runs as many compilers at a time as there are processors. */
async function compileAll(compilations: readonly Compilation[], folder: string): Promise<Uses> {
  const reports: Record<string, KernelUse>[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let index = next++; index < compilations.length; index = next++) {
      const output = join(folder, `${index}.cubin`);
      reports[index] = parseReport(await run([...compilations[index]!.command, "-o", output]));
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  const uses: Record<string, Record<string, KernelUse>> = {};
  for (const [index, { group }] of compilations.entries()) {
    uses[group] = { ...uses[group], ...reports[index] };
  }
  return uses;
}

export function readBudget(): Budget {
  return JSON.parse(readFileSync(BUDGET_PATH, "utf8")) as Budget;
}

/** What grew, is new or is gone, in words; groups that were not measured here are passed over. */
export function compare(found: Budget, allowed: Budget): string[] {
  const problems: string[] = [];
  const compared =
    found.ptxas === allowed.ptxas
      ? (["registers", "spilledBytes", "sharedBytes"] as const)
      : (["spilledBytes", "sharedBytes"] as const);
  for (const [group, kernels] of Object.entries(found.uses)) {
    const known = allowed.uses[group] ?? {};
    for (const [name, use] of Object.entries(kernels)) {
      const budget = known[name];
      if (budget === undefined) {
        problems.push(`${group}: ${name} has no budget`);
        continue;
      }
      for (const key of compared) {
        if (use[key] > budget[key]) problems.push(`${group}: ${name} ${key} ${budget[key]} -> ${use[key]}`);
      }
    }
    for (const name of Object.keys(known)) {
      if (kernels[name] === undefined) problems.push(`${group}: ${name} is in the budget but not compiled`);
    }
  }
  return problems;
}

/** A line for each kernel. */
export function table(budget: Budget): string {
  const lines = Object.entries(budget.uses).flatMap(([group, kernels]) =>
    Object.entries(kernels).map(
      ([name, { registers, spilledBytes, sharedBytes }]) =>
        `${group.padEnd(12)} ${name.padEnd(28)} ${String(registers).padStart(3)} registers ${String(spilledBytes).padStart(5)} B spilled ${String(sharedBytes).padStart(6)} B shared`,
    ),
  );
  return lines.join("\n");
}

/** One kernel a line, so that a change reads well. */
function format(budget: Budget): string {
  const groups = Object.entries(budget.uses).map(([group, kernels]) => {
    const lines = Object.entries(kernels)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, use]) => `    ${JSON.stringify(name)}: ${JSON.stringify(use)}`);
    return `  ${JSON.stringify(group)}: {\n${lines.join(",\n")}\n  }`;
  });
  return `{\n"ptxas": ${JSON.stringify(budget.ptxas)},\n"uses": {\n${groups.join(",\n")}\n}\n}\n`;
}

if (import.meta.main) {
  const ptxas = findPtxas();
  if (ptxas === undefined) {
    console.error("error: there is no ptxas on PATH; it comes with the CUDA toolkit");
    process.exit(1);
  }
  const found = await measure(ptxas);
  console.log(table(found));
  if (process.argv.includes("--write")) {
    writeFileSync(BUDGET_PATH, format(found));
  } else {
    const problems = compare(found, readBudget());
    for (const problem of problems) console.error(`error: ${problem}`);
    process.exit(problems.length === 0 ? 0 : 1);
  }
}
