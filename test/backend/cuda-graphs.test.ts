/** Steps of decoding as CUDA graphs: the same bits as launched, one graph per bucket of sizes, within a budget. */

import { afterEach, expect, test } from "bun:test";
import type { Buffer, Device } from "../../src/backend/device.ts";
import type { Program } from "../../src/backend/program.ts";
import { embed, gatherRows } from "../../src/graph/record.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { openCudaLevels } from "../kernels/cuda-devices.ts";
import { Recording } from "../kernels/harness.ts";

const TOKENS_MAX = 40;
const WIDTH = 12;
const VOCABULARY = 50;
const PLENTY = 1 << 30;

/** Rows of a table by id, and some of those rows again: two dimensions, as tokens and rows of logits are. */
class Machine {
  readonly program: Program;
  readonly #buffers: Buffer[];
  readonly #out: Tensor;
  readonly #outOffset: number;

  constructor(device: Device) {
    const recording = new Recording();
    const tokens = recording.program.dimension("tokens", TOKENS_MAX);
    const rows = recording.program.dimension("rows", TOKENS_MAX);
    const table = recording.f32(
      "table",
      [VOCABULARY, WIDTH],
      Float32Array.from({ length: VOCABULARY * WIDTH }, (_, index) => Math.fround(Math.sin(index))),
    );
    const empty = new Array<number>(TOKENS_MAX).fill(0);
    const ids = recording.i32("ids", [tokens], empty);
    const x = embed(recording.program, { name: "x", table, ids, scale: 3 });
    const indices = recording.i32("indices", [rows], empty);
    this.#out = gatherRows(recording.program, { name: "out", x, indices });
    const { words, plan } = recording.program.finish();
    this.#buffers = recording.memories().map(({ region, kind }) => {
      const buffer = device.createBuffer(region.length, kind);
      buffer.write(0, region);
      return buffer;
    });
    this.program = device.createProgram(words, this.#buffers);
    if (this.#out.storage.kind !== "arena") throw new Error("the output lies in the arena");
    this.#outOffset = plan.storages[this.#out.storage.index]!.offset;
  }

  /** One step; what the rows came to. The arena is NaN before. */
  step(seed: number, tokens: number, rows = tokens, firstToken?: number): string {
    const arena = this.#buffers[0]!;
    arena.write(0, new Uint8Array(arena.bytes).fill(0xff));
    const ids = this.#buffers[2]!.i32(0, TOKENS_MAX);
    const indices = this.#buffers[3]!.i32(0, TOKENS_MAX);
    // What lies past the live rows must not matter, nor be looked at.
    ids.fill(-7);
    indices.fill(TOKENS_MAX);
    for (let token = 0; token < tokens; token++) ids[token] = (seed * 31 + token * 17) % VOCABULARY;
    if (firstToken !== undefined) ids[0] = firstToken;
    for (let row = 0; row < rows; row++) indices[row] = (seed + row * 5) % tokens;
    this.program.run([tokens, rows]);
    const values = new Uint8Array(rows * WIDTH * 4);
    arena.read(this.#outOffset, values);
    return values.toHex();
  }

  close(): void {
    this.program.free();
    for (const buffer of this.#buffers) buffer.free();
  }
}

const machines: Machine[] = [];
afterEach(() => {
  for (const machine of machines.splice(0)) machine.close();
});

const devices = openCudaLevels().flatMap((level) => level.devices);

function open(device: Device, budgetBytes?: number): Machine {
  const machine = new Machine(device);
  machines.push(machine);
  if (budgetBytes !== undefined) machine.program.captureGraphs(budgetBytes);
  return machine;
}

test.each(devices)("a captured step computes what a launched one does", (device) => {
  const eager = open(device);
  const graphs = open(device, PLENTY);
  const sizes = [1, 2, 3, 4, 5, 8, 7, 24, 17, 33, 40, 40, 3, 18, 1, 40, 6, 2];
  const seen = new Set<string>();
  for (const [seed, size] of sizes.entries()) {
    const expected = eager.step(seed, size);
    expect(graphs.step(seed, size)).toBe(expected);
    seen.add(expected);
    // A step of prompts in between is launched.
    expect(graphs.step(seed, size, Math.max(1, size - 1))).toBe(
      eager.step(seed, size, Math.max(1, size - 1)),
    );
  }
  expect(seen.size).toBe(sizes.length);
  // The buckets of 1, 2, 4, 8, 24 and 40 came up at least twice; each but its first time was a graph. Steps of one
  // token have a second step of one token after each.
  expect(graphs.program.graphTotals()).toMatchObject({
    captured: 6,
    refused: 0,
    replays: 3 + 1 + 2 + 3 + 2 + 3,
  });
  expect(eager.program.graphTotals()).toEqual({ captured: 0, refused: 0, bytes: 0, replays: 0 });
});

test.each(devices)("wrong inputs of a captured step are told, and the next step is right", (device) => {
  const machine = open(device, PLENTY);
  const expected = machine.step(1, 4);
  machine.step(2, 4);
  expect(machine.program.graphTotals().replays).toBe(1);
  expect(() => machine.step(3, 4, 4, VOCABULARY)).toThrow(
    "op 0 (embed): a token id is outside the vocabulary",
  );
  expect(machine.step(1, 4)).toBe(expected);
  expect(machine.program.graphTotals().replays).toBe(3);
});

test.each(devices)("what does not fit into the budget is launched on", (device) => {
  const probe = open(device, PLENTY);
  for (const seed of [1, 2]) probe.step(seed, 8);
  const { bytes } = probe.program.graphTotals();
  expect(bytes).toBeGreaterThan(0);

  const eager = open(device);
  const machine = open(device, 2 * bytes + bytes / 2);
  for (const size of [8, 16, 24, 32]) {
    for (const seed of [1, 2, 3, 4]) expect(machine.step(seed, size)).toBe(eager.step(seed, size));
  }
  expect(machine.program.graphTotals()).toEqual({ captured: 2, refused: 2, bytes: 2 * bytes, replays: 6 });

  const none = open(device, bytes - 1);
  for (const seed of [1, 2, 3]) none.step(seed, 8);
  expect(none.program.graphTotals()).toEqual({ captured: 0, refused: 1, bytes: 0, replays: 0 });
});
