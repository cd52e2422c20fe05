/**
 * A process whose emulated CUDA device fails: what every call says then. Prints `Report` as JSON.
 * MISTRALRS_CUDA_DRIVER is the emulated driver, MISTRALRS_EMULATED_FAULT the file that makes kernels fail; the first
 * argument says whether steps run as graphs.
 */

import { rmSync, writeFileSync } from "node:fs";
import { type Buffer, Device } from "../../src/backend/device.ts";
import type { Program } from "../../src/backend/program.ts";
import { MistralError } from "../../src/errors.ts";
import { rmsNorm, softCap } from "../../src/graph/record.ts";
import { Recording } from "../kernels/harness.ts";

/** `ok`, or the code and the message of what was thrown. */
export type Answer = "ok" | { readonly code: string; readonly message: string };

export interface Report {
  /** Steps with all kernels well, and with another than the program's told to fail. */
  readonly before: readonly Answer[];
  /** The step with a kernel that fails. */
  readonly failing: Answer;
  /** Calls of the device after the cause is gone, by name. */
  readonly after: Readonly<Record<string, Answer>>;
  /** A step of the other device, then. */
  readonly other: Answer;
  readonly tidied: Readonly<Record<string, Answer>>;
  /** Steps that were captured and replayed before the failure. */
  readonly replays: number;
}

const ROWS = 2;

function attempt(action: () => void): Answer {
  try {
    action();
    return "ok";
  } catch (error) {
    if (error instanceof MistralError) return { code: error.code, message: error.message };
    throw error;
  }
}

interface Loaded {
  readonly program: Program;
  readonly buffers: readonly Buffer[];
  readonly create: () => Program;
}

function load(device: Device): Loaded {
  const recording = new Recording();
  const rows = recording.program.dimension("rows", ROWS);
  const x = recording.state("x", "f32", [rows, 8], new Float32Array(ROWS * 8).fill(1));
  const weight = recording.f32("weight", [8], new Float32Array(8).fill(1));
  const out = rmsNorm(recording.program, { name: "out", x, weight, epsilon: 1e-5, weightOffset: 0 });
  softCap(recording.program, { x: out, cap: 3 });
  const { words } = recording.program.finish();
  const buffers = recording.memories().map(({ region, kind }) => {
    const buffer = device.createBuffer(region.length, kind);
    buffer.write(0, region);
    return buffer;
  });
  const create = () => device.createProgram(words, buffers);
  return { program: create(), buffers, create };
}

function report(faultPath: string, captured: boolean): Report {
  const device = Device.open({ kind: "cuda", index: 0 });
  const second = Device.open({ kind: "cuda", index: 1 });
  const { program, buffers, create } = load(device);
  const neighbour = load(second).program;
  if (captured) program.captureGraphs(1 << 20);
  const step = () => program.run([ROWS]);
  const before = [attempt(step), attempt(step), attempt(step)];
  writeFileSync(faultPath, "rope_pairs");
  before.push(attempt(step));
  const { replays } = program.graphTotals();
  writeFileSync(faultPath, "soft_cap");
  const failing = attempt(step);
  rmSync(faultPath);
  const [first] = buffers;
  const bytes = new Uint8Array(4);
  const after = {
    "program.run": attempt(step),
    "program.run again": attempt(step),
    "buffer.write": attempt(() => first!.write(0, bytes)),
    "buffer.read": attempt(() => first!.read(0, bytes)),
    "device.createBuffer": attempt(() => device.createBuffer(64)),
    "device.createBuffer of the host": attempt(() => device.createBuffer(64, "host")),
    "device.mapFile": attempt(() => device.mapFile(import.meta.path, 0, 64)),
    "device.createProgram": attempt(create),
    "device.memory": attempt(() => device.memory()),
  };
  const other = attempt(() => neighbour.run([ROWS]));
  const tidied = {
    "program.free": attempt(() => program.free()),
    "buffer.free": attempt(() => {
      for (const buffer of buffers) buffer.free();
    }),
    "device.close": attempt(() => device.close()),
  };
  return { before, failing, after, other, tidied, replays };
}

if (import.meta.main) {
  const captured = process.argv[2] === "captured";
  process.stdout.write(JSON.stringify(report(process.env.MISTRALRS_EMULATED_FAULT!, captured)));
}
