/**
 * Turns a case of the kernel benchmark into a program that runs on a device: the op once for each copy of what it
 * streams, so that one run reads more than the caches hold, or often enough over the same that its time can be
 * told. Neighbouring ops work on rows of two dimensions in turn, or the kernels would take a row through all of
 * them at once.
 */

import type { Buffer, Device } from "../../../backend/device.ts";
import type { DType } from "../../../backend/dtype.ts";
import type { Program } from "../../../backend/program.ts";
import { type ActivationPrecision, ARENA_SLOT, ProgramBuilder } from "../../../graph/builder.ts";
import type { OpName } from "../../../graph/ops.ts";
import { type Dimension, denseBytes, leadingOf, type Shape, type Tensor } from "../../../graph/tensor.ts";
import type { Fill } from "./fills.ts";
import type { KernelCase } from "./kernel-case.ts";

const ALIGNMENT = 64;
/** Copies of one program; more would only make its words longer. */
const COPIES_MAX = 4096;

/** Memory for what is streamed, the same for all programs of a benchmark. */
export interface StreamedMemory {
  readonly buffer: Buffer;
  readonly bytes: number;
}

/** Ops that treat their rows like the ones before are alternately given these. */
type Parity = 0 | 1;

/** What a case records with. */
export class CaseRecorder {
  readonly builder: ProgramBuilder;
  readonly fills: (Fill | undefined)[] = [];
  readonly #dimensions: readonly [Dimension, Dimension];
  readonly #streamedSlot: number;
  readonly #streamed = new Map<string, Tensor>();
  #streamedEnd = 0;

  constructor(tokensMax: number, streamedBytes: number, activations: ActivationPrecision) {
    this.builder = new ProgramBuilder({ activations });
    this.#streamedSlot = this.builder.buffer("streamed", streamedBytes);
    this.#dimensions = [
      this.builder.dimension("tokens0", tokensMax),
      this.builder.dimension("tokens1", tokensMax),
    ];
  }

  tokens(parity: Parity): Dimension {
    return this.#dimensions[parity];
  }

  /** A copy of what is streamed: a weight or a cache that each copy has to itself. */
  streamed(name: string, dtype: DType, shape: Shape, copy: number, readOnly = true): Tensor {
    const key = `${name} ${copy}`;
    const known = this.#streamed.get(key);
    if (known !== undefined) return known;
    const place = { slot: this.#streamedSlot, byteOffset: this.#streamedEnd, readOnly };
    const tensor = this.builder.bind(key, dtype, shape, place);
    this.#streamedEnd += align(bytesOf(dtype, shape));
    this.#streamed.set(key, tensor);
    return tensor;
  }

  /** What the op reads besides. */
  input(name: string, dtype: DType, shape: Shape, fill: Fill): Tensor {
    return this.#bind(name, dtype, shape, true, fill);
  }

  /** What it writes, or changes in place. */
  output(name: string, dtype: DType, shape: Shape, fill?: Fill): Tensor {
    return this.#bind(name, dtype, shape, false, fill);
  }

  record(
    name: OpName,
    operands: Readonly<Record<string, Tensor | undefined>>,
    attributes: Readonly<Record<string, number>> = {},
  ): void {
    this.builder.record(name, operands, attributes);
  }

  #bind(name: string, dtype: DType, shape: Shape, readOnly: boolean, fill: Fill | undefined): Tensor {
    const slot = this.builder.buffer(name, bytesOf(dtype, shape));
    this.fills[slot] = fill;
    return this.builder.bind(name, dtype, shape, { slot, byteOffset: 0, readOnly });
  }
}

export interface CasePlan {
  /** Distinct copies of what is streamed. */
  readonly copies: number;
  /** Ops of the program. */
  readonly ops: number;
  readonly repack: boolean;
  readonly activations: ActivationPrecision;
}

/** A program of a case. */
export class CaseProgram {
  readonly ops: number;
  readonly #program: Program;
  readonly #buffers: readonly Buffer[];

  private constructor(program: Program, buffers: readonly Buffer[], ops: number) {
    this.#program = program;
    this.#buffers = buffers;
    this.ops = ops;
  }

  static create(device: Device, kernelCase: KernelCase, plan: CasePlan, memory: StreamedMemory): CaseProgram {
    const recorder = new CaseRecorder(Math.max(...kernelCase.tokens), memory.bytes, plan.activations);
    const { builder } = recorder;
    const recordCopy = [kernelCase.record(recorder, 0), kernelCase.record(recorder, 1)] as const;
    for (let op = 0; op < plan.ops; op++) recordCopy[op % 2 === 0 ? 0 : 1](op % plan.copies);
    const recorded = builder.finish();
    const own: Buffer[] = [];
    const buffers = builder.buffers.map(({ bytes }, slot) => {
      if (slot === STREAMED_SLOT) return memory.buffer;
      const size = slot === ARENA_SLOT ? recorded.plan.bytes : bytes;
      const buffer = device.createBuffer(Math.max(ALIGNMENT, size));
      own.push(buffer);
      recorder.fills[slot]?.(buffer.u8(0, bytes));
      return buffer;
    });
    try {
      const program = device.createProgram(recorded.words, buffers, { repack: plan.repack });
      return new CaseProgram(program, own, plan.ops);
    } catch (error) {
      for (const buffer of own) buffer.free();
      throw error;
    }
  }

  run(tokens: number): void {
    this.#program.run([tokens, tokens]);
  }

  free(): void {
    this.#program.free();
    for (const buffer of this.#buffers) buffer.free();
  }
}

/** The first buffer that a recorder declares. */
const STREAMED_SLOT = ARENA_SLOT + 1;

/** How many copies exceed `bytes`, within what there is. */
export function copiesBeyond(bytes: number, streamedBytes: number, memory: StreamedMemory): number {
  const each = align(streamedBytes);
  const wanted = Math.ceil(bytes / each);
  return Math.max(1, Math.min(wanted, COPIES_MAX, Math.floor(memory.bytes / each)));
}

function bytesOf(dtype: DType, shape: Shape): number {
  return denseBytes(dtype, leadingOf(shape[0]), shape.slice(1) as number[]);
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
