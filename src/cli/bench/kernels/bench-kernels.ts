/**
 * `bench-kernels`: how near every kernel comes to what the machine can do. Runs each op through a program of its own
 * and judges its time by the bytes it must move and the operations it must do. Progress goes to stderr.
 */

import { Device } from "../../../backend/device.ts";
import { hasFasterLayout } from "../../../backend/faster-layout.ts";
import type { Resolution } from "../../../config/resolve.ts";
import { defaultThreads } from "../../../config/threads.ts";
import { MistralError } from "../../../errors.ts";
import type { ActivationPrecision } from "../../../graph/builder.ts";
import { hostMemory } from "../../../models/host-memory.ts";
import { type Log, openLog } from "../../log.ts";
import { activationsOn } from "../../runner-options.ts";
import { formatBytes } from "../../units.ts";
import { lastLevelCacheBytes, MachineLimits } from "../machine-limits.ts";
import { CACHE_TYPES } from "./attention-cases.ts";
import { type CasePlan, CaseProgram, copiesBeyond, type StreamedMemory } from "./case-program.ts";
import { kernelCases, WEIGHT_TYPES } from "./cases.ts";
import { anyWeights } from "./fills.ts";
import type { KernelCase, Source } from "./kernel-case.ts";
import { type KernelRow, kernelRow, kernelTable, type Layout, machineReport } from "./kernel-report.ts";

type KernelSettings = Resolution["settings"];

/** What is read from memory is so many times larger than the caches: they keep some of what goes through them. */
const CACHE_FACTOR = 1.5;
const STREAMED_BYTES_MIN = 64 * 2 ** 20;
/** Of the memory that is free; re-laid copies take as much again, and files are not to be displaced. */
const STREAMED_SHARE_OF_FREE_MEMORY = 0.25;
/** An op over what the caches hold is repeated until a run is about so long: starting one takes microseconds. */
const RUN_SECONDS = 1e-3;
const REPEATS_MAX = 256;
const RUNS_MIN = 3;

/** Runs the benchmark. Throws MistralError when nothing is left of what was asked for. */
export async function benchKernels({ settings, warnings }: Resolution): Promise<void> {
  const log = openLog(settings);
  for (const warning of warnings) log.write("warning", warning);
  const cases = chosenCases(settings);
  const instructionSet = settings.instructionSet ?? (settings.forceAvx2 ? "x86_64_v3" : undefined);
  const device = Device.open({
    kind: "cpu",
    threads: settings.threads ?? defaultThreads(),
    ...(instructionSet === undefined ? {} : { instructionSet }),
  });
  try {
    const bench = new KernelBench(device, settings, log, cases);
    const rows = bench.run(cases);
    if (rows.length === 0) {
      throw new MistralError(
        "invalid_configuration",
        "--repack on: the kernels re-lay no weights of these types; leave it at auto or off",
        { parameter: "--repack" },
      );
    }
    const machine = machineReport(
      device.info,
      bench.activations,
      bench.limits,
      bench.cacheBytes,
      bench.memoryBytes,
    );
    process.stdout.write(
      settings.json ? `${JSON.stringify({ machine, rows })}\n` : kernelTable(machine, rows),
    );
  } finally {
    device.close();
  }
}

class KernelBench {
  readonly limits: MachineLimits;
  readonly cacheBytes = lastLevelCacheBytes();
  /** What is read when something is read from memory. */
  readonly memoryBytes: number;
  readonly #device: Device;
  readonly #settings: KernelSettings;
  readonly #log: Log;
  readonly #memory: StreamedMemory;
  readonly activations: ActivationPrecision;

  constructor(device: Device, settings: KernelSettings, log: Log, cases: readonly KernelCase[]) {
    this.#device = device;
    this.#settings = settings;
    this.activations = activationsOn("cpu", settings);
    this.#log = log;
    this.limits = new MachineLimits(device.info);
    const room = hostMemory().availableBytes * STREAMED_SHARE_OF_FREE_MEMORY;
    const wanted = Math.max(STREAMED_BYTES_MIN, this.cacheBytes * CACHE_FACTOR);
    this.memoryBytes = Math.round(Math.min(wanted, room));
    if (this.memoryBytes < wanted) {
      log.write(
        "warning",
        `the caches hold ${formatBytes(this.cacheBytes)}, but only ${formatBytes(this.memoryBytes)} of memory can be had: rows from memory are partly from cache`,
      );
    }
    const largest = Math.max(0, ...cases.map(({ streamedBytes }) => streamedBytes));
    const needsMemory = cases.some((one) => this.#sourceOf(one) === "memory");
    const bytes = Math.max(largest, needsMemory ? this.memoryBytes : 0) + 4096;
    const buffer = device.createBuffer(bytes);
    anyWeights(buffer.u8(0, bytes));
    this.#memory = { buffer, bytes };
  }

  run(cases: readonly KernelCase[]): KernelRow[] {
    try {
      return cases.flatMap((kernelCase, index) => {
        const { op, dtype, shape } = kernelCase;
        this.#log.write("info", `${index + 1} of ${cases.length}: ${op} ${dtype} ${shape}`);
        return this.#layouts(kernelCase).flatMap((layout) => this.#measure(kernelCase, layout));
      });
    } finally {
      this.#memory.buffer.free();
    }
  }

  /** Undefined where there are no weights to re-lay. */
  #layouts({ repackable }: KernelCase): readonly (Layout | undefined)[] {
    const { repack } = this.#settings;
    if (!repackable) return [undefined];
    if (repack === "off") return ["in place"];
    return repack === "on" ? ["re-laid"] : ["in place", "re-laid"];
  }

  #sourceOf(kernelCase: KernelCase): Source {
    if (kernelCase.streamedBytes === 0) return "cache";
    return this.#settings.readFrom ?? kernelCase.source;
  }

  /** The rows of a case in one layout; none when nothing of it is re-laid. */
  #measure(kernelCase: KernelCase, layout: Layout | undefined): KernelRow[] {
    const { instructionSet } = this.#device.info;
    if (layout === "re-laid" && !hasFasterLayout(kernelCase.dtype, instructionSet)) {
      this.#log.write("info", `${kernelCase.dtype} is not re-laid by ${instructionSet}`);
      return [];
    }
    const source = this.#sourceOf(kernelCase);
    const plan = this.#plan(kernelCase, source, layout);
    const program = CaseProgram.create(this.#device, kernelCase, plan, this.#memory);
    try {
      return kernelCase.tokens.map((tokens) => {
        const times = this.#times(program, tokens);
        return kernelRow({ kernelCase, layout, source, tokens, times }, this.limits, this.memoryBytes);
      });
    } finally {
      program.free();
    }
  }

  #plan(kernelCase: KernelCase, source: Source, layout: Layout | undefined): CasePlan {
    const how = { repack: layout === "re-laid", activations: this.activations };
    const { streamedBytes, tokens } = kernelCase;
    if (source === "memory") {
      const copies = copiesBeyond(this.memoryBytes, streamedBytes, this.#memory);
      return { copies, ops: copies, ...how };
    }
    // A guess that is good enough to choose the number of repetitions.
    const most = Math.max(...tokens);
    const seconds = kernelCase.bytes(most) / 2e10 + kernelCase.operations(most) / 1e12;
    const ops = Math.max(2, Math.min(REPEATS_MAX, Math.round(RUN_SECONDS / seconds)));
    return { copies: 1, ops, ...how };
  }

  /** Seconds per op of each run, one uncounted run first. */
  #times(program: CaseProgram, tokens: number): number[] {
    program.run(tokens);
    const times: number[] = [];
    const started = performance.now();
    let now = started;
    while (times.length < RUNS_MIN || now - started < this.#settings.secondsPerRow * 1000) {
      program.run(tokens);
      const ended = performance.now();
      times.push((ended - now) / 1000 / program.ops);
      now = ended;
    }
    return times;
  }
}

/** The cases that the filters leave. */
function chosenCases({ kernelOps, kernelTypes, kernelShapes, kernelTokens }: KernelSettings): KernelCase[] {
  const types = kernelTypes?.map((name) => name.toLowerCase());
  const products = (kernelShapes ?? []).flatMap((text): (readonly [number, number])[] => {
    const match = /^(\d{1,7})x(\d{1,7})$/.exec(text);
    return match === null || Number(match[1]) * Number(match[2]) === 0
      ? []
      : [[Number(match[1]), Number(match[2])]];
  });
  const all = kernelCases(products);
  requireKnown("--op", kernelOps, new Set(all.map(({ op }) => op)));
  requireKnown("--type", types, new Set<string>([...WEIGHT_TYPES, ...CACHE_TYPES]));
  const chosen = all
    .filter(({ op }) => kernelOps === undefined || kernelOps.includes(op))
    .filter(({ dtype }) => types === undefined || types.includes(dtype))
    .filter(({ shape }) => kernelShapes?.some((text) => shape.includes(text)) ?? true)
    .map((one) => ({ ...one, tokens: one.tokens.filter((tokens) => kernelTokens?.includes(tokens) ?? true) }))
    .filter(({ tokens }) => tokens.length > 0);
  if (chosen.length === 0) {
    const shapes = new Set(all.filter(({ op }) => kernelOps?.includes(op) ?? true).map(({ shape }) => shape));
    const tokens = new Set(all.flatMap((one) => one.tokens));
    throw new MistralError(
      "invalid_configuration",
      `no case has this op, type, shape and number of tokens; shapes: ${[...shapes].join(", ")}; tokens: ${[...tokens].sort((a, b) => a - b).join(", ")}`,
      { parameter: "--shape" },
    );
  }
  return chosen;
}

function requireKnown(flag: string, wanted: readonly string[] | undefined, known: ReadonlySet<string>): void {
  const unknown = wanted?.find((name) => !known.has(name));
  if (unknown === undefined) return;
  throw new MistralError(
    "invalid_configuration",
    `flag ${flag} has the value ${JSON.stringify(unknown)}; allowed: ${[...known].join(", ")}`,
    { parameter: flag },
  );
}
