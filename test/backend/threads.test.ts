/**
 * More threads than cores, steps too short for a thread to arrive in time, programs in turn: whoever comes late
 * must find the work done, take none of the next step's, and leave before memory goes.
 */

import { expect, test } from "bun:test";
import { type Buffer, Device } from "../../src/backend/device.ts";
import type { Program } from "../../src/backend/program.ts";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { matmul, rmsNorm } from "../../src/graph/record.ts";

const WIDTH = 64;
const TOKENS_MAX = 32;

interface Chain {
  readonly program: Program;
  readonly buffers: readonly Buffer[];
  readonly input: Float32Array;
  readonly output: Float32Array;
}

/** Six layers of norm and product, so that a step has many short stages. */
function chain(device: Device, seed: number): Chain {
  const builder = new ProgramBuilder();
  const tokens = builder.dimension("tokens", TOKENS_MAX);
  const bytes = TOKENS_MAX * WIDTH * 4;
  const bind = (name: string, shape: readonly [number] | readonly [number, number], readOnly = true) => {
    const size = shape.reduce((product: number, extent) => product * extent, 4);
    return builder.bind(name, "f32", [...shape], {
      slot: builder.buffer(name, size),
      byteOffset: 0,
      readOnly,
    });
  };
  const weight = bind("weight", [WIDTH, WIDTH]);
  const scale = bind("scale", [WIDTH]);
  const slot = builder.buffer("input", bytes);
  let x = builder.bind("input", "f32", [tokens, WIDTH], { slot, byteOffset: 0, readOnly: true });
  for (let layer = 0; layer < 6; layer++) {
    const normed = rmsNorm(builder, {
      name: `norm${layer}`,
      x,
      weight: scale,
      epsilon: 1e-6,
      weightOffset: 0,
    });
    x = matmul(builder, { name: `product${layer}`, x: normed, weights: [weight], keep: layer === 5 });
  }
  const recorded = builder.finish();
  const arena = device.createBuffer(recorded.plan.bytes);
  const buffers = [arena, ...builder.buffers.slice(1).map((buffer) => device.createBuffer(buffer.bytes))];
  const value = (index: number) => Math.sin(seed + index * 1.37);
  buffers[1]!.f32(0, WIDTH * WIDTH).forEach((_, i, all) => {
    all[i] = value(i) / 8;
  });
  buffers[2]!.f32(0, WIDTH).fill(1);
  const input = buffers[3]!.f32(0, TOKENS_MAX * WIDTH);
  input.forEach((_, i) => {
    input[i] = value(i + 7);
  });
  const storage = x.storage;
  if (storage.kind !== "arena") throw new Error("the last product lies in the arena");
  const output = arena.f32(recorded.plan.storages[storage.index]!.offset, TOKENS_MAX * WIDTH);
  return { program: device.createProgram(recorded.words, buffers), buffers, input, output };
}

function free({ program, buffers }: Chain): void {
  program.free();
  for (const buffer of buffers) buffer.free();
}

test.each([1, 2, 3, 8, 32])("%i threads give one thread's bits, run after run", (threads) => {
  const alone = Device.open({ kind: "cpu", threads: 1 });
  const reference = chain(alone, 1);
  const device = Device.open({ kind: "cpu", threads });
  const subject = chain(device, 1);
  for (let run = 0; run < 400; run++) {
    const tokens = 1 + (run % TOKENS_MAX);
    reference.program.run([tokens]);
    subject.output.fill(Number.NaN);
    subject.program.run([tokens]);
    const count = tokens * WIDTH;
    expect(Bun.hash(subject.output.subarray(0, count))).toBe(Bun.hash(reference.output.subarray(0, count)));
    expect(subject.output[count] ?? Number.NaN).toBeNaN();
  }
  free(subject);
  free(reference);
  device.close();
  alone.close();
});

test("programs take turns on one device, and come and go", () => {
  const device = Device.open({ kind: "cpu", threads: 4 });
  const first = chain(device, 1);
  const second = chain(device, 2);
  first.program.run([5]);
  second.program.run([5]);
  const [a, b] = [first, second].map(({ output }) => Bun.hash(output.subarray(0, 5 * WIDTH)));
  expect(a).not.toBe(b);
  for (let run = 0; run < 200; run++) {
    const passing = chain(device, run);
    passing.program.run([1 + (run % TOKENS_MAX)]);
    free(passing);
    for (const { program, output } of [first, second]) {
      output.fill(0);
      program.run([5]);
    }
    expect(Bun.hash(first.output.subarray(0, 5 * WIDTH))).toBe(a!);
    expect(Bun.hash(second.output.subarray(0, 5 * WIDTH))).toBe(b!);
  }
  free(first);
  free(second);
  device.close();
});
