/**
 * A model that is a function of the last tokens, with the real sample op behind it: the engine fills the step as for
 * any model, tokens go through the block tables into slots and back, and the kernels choose.
 */

import { type Buffer, Device } from "../../src/backend/device.ts";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { sample } from "../../src/graph/record.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "../../src/models/step.ts";
import { declareStepMemory, viewStepInputs, viewStepOutputs } from "../../src/models/step-memory.ts";
import { FAKE_LIMITS } from "./fake-runner.ts";

export const VOCABULARY = 40;

/** Logits after a text: multiples of 1/8 from -6 to 6 that follow from its last two tokens, so that texts repeat. */
export function logitsAfter(history: readonly number[]): Float32Array {
  const last = history.at(-1) ?? 0;
  const before = history.at(-2) ?? 0;
  return Float32Array.from({ length: VOCABULARY }, (_, token) => {
    let bits =
      Math.imul(token + 1, 0x9e3779b1) ^ Math.imul((last % 7) + 1, 0x85ebca6b) ^ Math.imul(before % 3, 77);
    bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d);
    return (((bits >>> 9) % 97) - 48) / 8;
  });
}

export class KernelSampler implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  readonly #logits: Float32Array;
  readonly #tokenAt: Int32Array;
  readonly #run: (dims: [number, number, number]) => void;
  readonly #close: () => void;

  constructor(changes: Partial<StepLimits> = {}, instructionSet?: string) {
    const limits = { ...FAKE_LIMITS, vocabularySize: VOCABULARY, topLogprobsMax: 5, rowsMax: 64, ...changes };
    const program = new ProgramBuilder();
    const dimensions = {
      tokens: program.dimension("tokens", limits.tokensMax),
      seqs: program.dimension("seqs", limits.sequencesMax),
      rows: program.dimension("rows", limits.rowsMax),
    };
    const step = declareStepMemory(program, dimensions, limits);
    const logitsBytes = limits.rowsMax * VOCABULARY * 4;
    const logitsSlot = program.buffer("logits", logitsBytes);
    const logits = program.bind("logits", "f32", [dimensions.rows, VOCABULARY], {
      slot: logitsSlot,
      byteOffset: 0,
    });
    const { samplingParameters: parameters, ...adjustments } = step.inputs.tensors;
    sample(program, { logits, parameters, ...adjustments, ...step.outputs.tensors });
    const recorded = program.finish();

    const device = Device.open({
      kind: "cpu",
      threads: 2,
      ...(instructionSet === undefined ? {} : { instructionSet }),
    });
    const buffers: Buffer[] = [];
    const sizes = new Map([
      [0, Math.max(64, recorded.plan.bytes)],
      [step.inputs.slot, step.inputs.bytes],
      [step.outputs.slot, step.outputs.bytes],
      [logitsSlot, logitsBytes],
    ]);
    for (const [slot, bytes] of sizes) buffers[slot] = device.createBuffer(bytes);
    const compiled = device.createProgram(recorded.words, buffers);
    this.limits = limits;
    this.inputs = viewStepInputs(buffers[step.inputs.slot]!, step.inputs);
    const outputs = viewStepOutputs(buffers[step.outputs.slot]!, step.outputs);
    this.outputs = { ...outputs, hidden: new Float32Array(0) };
    this.#logits = buffers[logitsSlot]!.f32(0, limits.rowsMax * VOCABULARY);
    this.#tokenAt = new Int32Array(limits.blockCount * limits.blockSize).fill(-1);
    this.#run = (dims) => compiled.run(dims);
    this.#close = () => {
      compiled.free();
      for (const buffer of buffers) buffer.free();
      device.close();
    };
  }

  run(tokens: number, sequences: number, rows: number): void {
    const { tokenIds, slotMapping, sequenceStarts, contextLengths, logitRows } = this.inputs;
    for (let row = 0; row < tokens; row++) this.#tokenAt[slotMapping[row]!] = tokenIds[row]!;
    let sequence = 0;
    for (let row = 0; row < rows; row++) {
      while (logitRows[row]! >= sequenceStarts[sequence + 1]!) sequence++;
      const length = contextLengths[sequence]! - (sequenceStarts[sequence + 1]! - 1 - logitRows[row]!);
      this.#logits.set(logitsAfter(this.#history(sequence, length)), row * VOCABULARY);
    }
    this.#run([tokens, sequences, rows]);
  }

  close(): void {
    this.#close();
  }

  /** The last tokens of a text, read as attention would. */
  #history(sequence: number, length: number): number[] {
    const { blockSize, blocksPerSequenceMax } = this.limits;
    return [length - 2, length - 1]
      .filter((position) => position >= 0)
      .map((position) => {
        const column = Math.floor(position / blockSize);
        const block = this.inputs.blockTables[sequence * blocksPerSequenceMax + column]!;
        return this.#tokenAt[block * blockSize + (position % blockSize)]!;
      });
  }
}
