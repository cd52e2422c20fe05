/**
 * Runs recorded programs for the kernel tests: on every instruction-set level that is built and that this
 * processor has, with one thread and with two, over buffers between canaries; and on CUDA, a GPU's or the emulated
 * devices (`cuda-devices.ts`). Everything a program must write is NaN before it runs, and inputs must come out as
 * they went in.
 */

import { ptr } from "bun:ffi";
import { expect } from "bun:test";
import { type Buffer, type BufferKind, Device, type ProgramOptions } from "../../src/backend/device.ts";
import { bytesOfElements, type DType } from "../../src/backend/dtype.ts";
import type { InstructionSet } from "../../src/backend/instruction-set.ts";
import { availableLevels } from "../../src/backend/library.ts";
import { measureRate } from "../../src/backend/measure.ts";
import { ProgramBuilder, type RecordedProgram } from "../../src/graph/builder.ts";
import { denseBytes, leadingOf, rowElements, type Shape, type Tensor } from "../../src/graph/tensor.ts";
import { openCudaLevels } from "./cuda-devices.ts";

export type Data = Uint8Array | Int32Array | Float32Array;

export interface LevelDevices {
  readonly level: InstructionSet | `${InstructionSet} repacked` | "cuda" | "cuda emulated";
  /** With one thread and with two; with threads in rising and in falling order. */
  readonly devices: readonly [Device, Device];
}

function openLevel(level: InstructionSet): [Device, Device] {
  return [
    Device.open({ kind: "cpu", threads: 1, instructionSet: level }),
    Device.open({ kind: "cpu", threads: 2, instructionSet: level }),
  ];
}

export const CPU_LEVELS: readonly LevelDevices[] = availableLevels().map((level) => ({
  level,
  devices: openLevel(level),
}));

/** What ops of every backend run on. */
export const LEVELS: readonly LevelDevices[] = [...CPU_LEVELS, ...openCudaLevels()];

const REPACKED_LEVELS: readonly LevelDevices[] = availableLevels().map((level) => ({
  level: `${level} repacked`,
  devices: openLevel(level),
}));

/** Devices whose programs re-lay their quantised weights. */
const repacking = new Set(REPACKED_LEVELS.flatMap(({ devices }) => devices));

/** What attention, sampling and programs with every op in them run on. */
export const ATTENTION_LEVELS = LEVELS;
export const SAMPLE_LEVELS = LEVELS;
export const EVERY_OP_LEVELS = LEVELS;

let bf16Tiles: boolean | undefined;

/** Whether a level multiplies re-laid bf16 and f16 weights on the tile unit, which the system may keep from a process. */
export function hasBf16Tiles(level: string): boolean {
  if (!level.startsWith("x86_64_v4_amx")) return false;
  bf16Tiles ??= (() => {
    try {
      // The permission is the same for bytes, whose products take an emulated machine seconds and not minutes.
      measureRate({ what: "int8_tile", threads: 1, seconds: 0.01, instructionSet: "x86_64_v4_amx" });
      return true;
    } catch {
      return false;
    }
  })();
  return bf16Tiles;
}

/** What matrix products run on: every level of the CPU, with weights where they lie and re-laid. */
export const PRODUCT_LEVELS: readonly LevelDevices[] = [...LEVELS, ...REPACKED_LEVELS];

const CANARY_BYTES = 256;
const CANARY = 0xa5;
const ALIGNMENT = 64;
const POISON = 0xff;

/**
 * Memory of one buffer, with canaries on both sides. A device with memory of its own works on a copy of it, which
 * has guards of the device's making.
 */
export class GuardedMemory {
  /** Of the copy. */
  readonly kind: BufferKind;
  readonly region: Uint8Array<ArrayBuffer>;
  readonly #whole: Uint8Array;
  readonly #start: number;

  constructor(bytes: number, kind: BufferKind) {
    this.kind = kind;
    this.#whole = new Uint8Array(new ArrayBuffer(bytes + 2 * CANARY_BYTES + ALIGNMENT)).fill(CANARY);
    const misaligned = Number(ptr(this.#whole)) % ALIGNMENT;
    this.#start = CANARY_BYTES + ((ALIGNMENT - misaligned) % ALIGNMENT);
    this.region = new Uint8Array(this.#whole.buffer as ArrayBuffer, this.#start, bytes).fill(POISON);
  }

  /** Whether no byte outside the region was written. */
  intact(): boolean {
    const { length } = this.region;
    const before = this.#whole.subarray(0, this.#start);
    const after = this.#whole.subarray(this.#start + length);
    return [before, after].every((side) => side.every((byte) => byte === CANARY));
  }
}

function bytesOf(data: Data): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** What a run left behind. */
export class Outcome {
  readonly #program: RecordedProgram;
  readonly #memories: readonly GuardedMemory[];
  readonly #dims: readonly number[];

  constructor(program: RecordedProgram, memories: readonly GuardedMemory[], dims: readonly number[]) {
    this.#program = program;
    this.#memories = memories;
    this.#dims = dims;
  }

  /** The rows of a tensor, one after the other, views of columns included. */
  bytes(tensor: Tensor): Uint8Array<ArrayBuffer> {
    const { storage, leading, dtype } = tensor;
    const base =
      storage.kind === "arena" ? this.#program.plan.storages[storage.index]!.offset : storage.byteOffset;
    const slot = storage.kind === "arena" ? 0 : storage.slot;
    const rows = leading.plus + (leading.symbol === undefined ? 0 : this.#dims[leading.symbol.index]!);
    const rowBytes = bytesOfElements(dtype, rowElements(tensor));
    const strideBytes = bytesOfElements(dtype, tensor.leadingStride);
    const out = new Uint8Array(rows * rowBytes);
    for (let row = 0; row < rows; row++) {
      const start = base + tensor.byteOffset + row * strideBytes;
      out.set(this.#memories[slot]!.region.subarray(start, start + rowBytes), row * rowBytes);
    }
    return out;
  }

  f32(tensor: Tensor): Float32Array {
    return new Float32Array(this.bytes(tensor).buffer);
  }

  i32(tensor: Tensor): Int32Array {
    return new Int32Array(this.bytes(tensor).buffer);
  }
}

/** A program and what its buffers hold before it runs. */
export class Recording {
  readonly program: ProgramBuilder;
  readonly #contents: { readonly tensor: Tensor; data: Data | undefined; readonly mutable: boolean }[] = [];

  constructor(options: ConstructorParameters<typeof ProgramBuilder>[0] = {}) {
    this.program = new ProgramBuilder(options);
  }

  /** A tensor that the program only reads, in a buffer of its own. */
  input(name: string, dtype: DType, shape: Shape, data: Data): Tensor {
    return this.#bind(name, dtype, shape, data, false);
  }

  /** A tensor that the program changes; without data it holds NaN. */
  state(name: string, dtype: DType, shape: Shape, data?: Data): Tensor {
    return this.#bind(name, dtype, shape, data, true);
  }

  f32(name: string, shape: Shape, data: Float32Array): Tensor {
    return this.input(name, "f32", shape, data);
  }

  i32(name: string, shape: Shape, data: readonly number[]): Tensor {
    return this.input(name, "i32", shape, Int32Array.from(data));
  }

  /** What an input holds in later runs. */
  set(tensor: Tensor, data: Data): void {
    this.#contents.find((content) => content.tensor === tensor)!.data = data;
  }

  /** Fresh buffers, and their memory, for one run. */
  memories(): GuardedMemory[] {
    const recorded = this.program.finish();
    const memories = [new GuardedMemory(Math.max(ALIGNMENT, recorded.plan.bytes), "device")];
    for (const { tensor, data } of this.#contents) {
      const bytes = denseBytes(tensor.dtype, tensor.leading, tensor.inner);
      // Integers are what a host writes for each step and reads after it.
      const memory = new GuardedMemory(bytes, tensor.dtype === "i32" ? "host" : "device");
      if (data !== undefined) memory.region.set(bytesOf(data));
      memories.push(memory);
    }
    return memories;
  }

  /** Runs on one device; throws what the device throws, but never leaves with a canary harmed. */
  run(device: Device, dims: readonly number[], options: ProgramOptions = {}): Outcome {
    const recorded = this.program.finish();
    const memories = this.memories();
    runWords(device, recorded.words, memories, dims, options);
    this.#contents.forEach(({ tensor, data, mutable }, index) => {
      if (mutable || data === undefined) return;
      const now = memories[index + 1]!.region.subarray(0, data.byteLength);
      if (Bun.hash(now) !== Bun.hash(bytesOf(data))) throw new Error(`the input ${tensor.name} was changed`);
    });
    return new Outcome(recorded, memories, dims);
  }

  /** Runs on every level; the outputs must not depend on the number of threads. One outcome per level. */
  runEverywhere(
    dims: readonly number[],
    outputs: readonly Tensor[],
    levels: readonly LevelDevices[] = LEVELS,
  ): { level: string; outcome: Outcome }[] {
    return levels.map(({ level, devices }) => {
      const [one, two] = devices.map((device) => this.run(device, dims)) as [Outcome, Outcome];
      for (const tensor of outputs) expectSameBits(two.bytes(tensor), one.bytes(tensor), `${level} threads`);
      return { level, outcome: one };
    });
  }

  #bind(name: string, dtype: DType, shape: Shape, data: Data | undefined, mutable: boolean): Tensor {
    const bytes = denseBytes(dtype, leadingOf(shape[0]), shape.slice(1) as number[]);
    if (data !== undefined && data.byteLength > bytes) throw new Error(`${name}: too much data`);
    const slot = this.program.buffer(name, bytes);
    const tensor = this.program.bind(name, dtype, shape, { slot, byteOffset: 0, readOnly: !mutable });
    this.#contents.push({ tensor, data, mutable });
    return tensor;
  }
}

/** Creates, runs and frees a program over these memories; checks the canaries whatever happens. */
export function runWords(
  device: Device,
  words: Uint32Array,
  memories: readonly GuardedMemory[],
  dims: readonly number[],
  options: ProgramOptions = {},
): void {
  const buffers: Buffer[] = memories.map((memory) => bufferOf(device, memory));
  const failure = failureOf(() => createAndRun(device, words, buffers, dims, options));
  if (device.info.kind === "cuda")
    buffers.forEach((buffer, index) => {
      buffer.read(0, memories[index]!.region);
    });
  for (const buffer of buffers) buffer.free();
  const harmed = memories.findIndex((memory) => !memory.intact());
  if (harmed >= 0) throw new CanaryError(`memory around buffer ${harmed} was written`);
  if (failure !== undefined) throw failure;
}

/** A buffer with the memory's contents: the memory itself where the device can use it. */
export function bufferOf(device: Device, memory: GuardedMemory, bytes = memory.region.length): Buffer {
  const contents = memory.region.subarray(0, bytes);
  if (device.info.kind === "cpu") return device.wrap(contents);
  const buffer = device.createBuffer(bytes, memory.kind);
  buffer.write(0, contents);
  return buffer;
}

function failureOf(action: () => void): Error | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

function createAndRun(
  device: Device,
  words: Uint32Array,
  buffers: Buffer[],
  dims: readonly number[],
  options: ProgramOptions,
): void {
  const program = device.createProgram(words, buffers, { repack: repacking.has(device), ...options });
  const failure = failureOf(() => program.run(dims));
  program.free();
  if (failure !== undefined) throw failure;
}

/** A write outside a buffer: the one failure that must never be mistaken for a refusal. */
export class CanaryError extends Error {}

export function expectSameBits(actual: Uint8Array, expected: Uint8Array, what: string): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) throw new Error(`${what}: byte ${i} differs`);
  }
}

/** Every value within its tolerance of the reference; a NaN is never close. */
export function expectClose(
  actual: Float32Array,
  expected: Float64Array,
  tolerance: number | ((index: number) => number),
  what: string,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} values, expected ${expected.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    const limit = typeof tolerance === "number" ? tolerance : tolerance(i);
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (difference <= limit) continue;
    throw new Error(`${what}: value ${i} is ${actual[i]}, expected ${expected[i]} within ${limit}`);
  }
}
