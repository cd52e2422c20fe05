import { describe, expect, test } from "bun:test";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { ARENA_ALIGNMENT, formatMemoryPlan } from "../../src/graph/memory-plan.ts";
import { embed, gatedMul, matmul, rmsNorm } from "../../src/graph/record.ts";
import type { Tensor } from "../../src/graph/tensor.ts";

const WIDTH = 32;

function start() {
  const program = new ProgramBuilder();
  const tokens = program.dimension("tokens", 10);
  const slot = program.buffer("weights", 1 << 20);
  const ids = program.bind("ids", "i32", [tokens], { slot, byteOffset: 0 });
  const square = program.bind("w", "f32", [WIDTH, WIDTH], { slot, byteOffset: 64, readOnly: true });
  const gain = program.bind("g", "f32", [WIDTH], { slot, byteOffset: 64, readOnly: true });
  const norm = (x: Tensor, name: string) =>
    rmsNorm(program, { name, x, weight: gain, epsilon: 1e-5, weightOffset: 0 });
  return { program, ids, square, norm };
}

/** A small deterministic generator (mulberry32), so that a failing seed can be replayed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe("memory plan", () => {
  test("a residual stream is updated in place and scratch is reused", () => {
    const { program, ids, square, norm } = start();
    let h = embed(program, { name: "h", table: square, ids, scale: 1 });
    for (let layer = 0; layer < 5; layer++) {
      const gateUp = matmul(program, {
        name: `gate_up${layer}`,
        x: norm(h, `n${layer}`),
        weights: [square, square],
      });
      const mixed = gatedMul(program, { name: `mixed${layer}`, gateUp, activation: "silu" });
      h = matmul(program, { name: `h${layer}`, x: mixed, weights: [square], residual: h });
    }
    const { plan } = program.finish();
    const row = 10 * WIDTH * 4;
    const offsets = plan.storages.filter(({ name }) => name.startsWith("h")).map(({ offset }) => offset);
    expect(new Set(offsets).size).toBe(1);
    // h, gate_up and one of normed/mixed live at once.
    expect(plan.bytes).toBe(4 * row);
    expect(plan.bytesWithoutReuse).toBe((1 + 5 * 5) * row);
    const table = formatMemoryPlan(plan);
    expect(table).toContain(`total ${4 * row} bytes; ${26 * row} without reuse`);
    expect(table.split("\n")).toHaveLength(1 + plan.storages.length + 1);
  });

  test("an operand that is still needed is not written over", () => {
    const { program, ids, square, norm } = start();
    const h = embed(program, { name: "h", table: square, ids, scale: 1 });
    const normed = norm(h, "normed");
    matmul(program, { name: "out", x: normed, weights: [square], residual: h, keep: true });
    const { storages } = program.finish().plan;
    expect(storages[0]!.offset).not.toBe(storages[1]!.offset);
  });

  test("kept tensors survive to the end", () => {
    const { program, ids, square, norm } = start();
    const h = embed(program, { name: "h", table: square, ids, scale: 1 });
    const kept = matmul(program, { name: "kept", x: h, weights: [square], keep: true });
    let x = norm(kept, "n0");
    for (let i = 0; i < 4; i++) x = matmul(program, { name: `m${i}`, x, weights: [square] });
    const { storages } = program.finish().plan;
    const at = storages.find(({ name }) => name === "kept")!;
    for (const other of storages) {
      if (other.name === "kept" || other.name === "h") continue;
      expect(other.offset).not.toBe(at.offset);
    }
  });

  test("reading what was never written is refused", () => {
    const { program, ids, square, norm } = start();
    norm(program.activation("ghost", [ids.leading, WIDTH]), "n");
    embed(program, { name: "h", table: square, ids, scale: 1 });
    expect(() => program.finish()).toThrow("op 0 (rms_norm) reads ghost before any op has written it");
  });

  test("random programs: nothing that lives at the same time overlaps, unless written in place", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const next = random(seed);
      const { program, ids, square, norm } = start();
      const values = [embed(program, { name: "v0", table: square, ids, scale: 1 })];
      const pick = () => values[Math.floor(next() * values.length)]!;
      for (let i = 1; i < 30; i++) {
        const kind = Math.floor(next() * 3);
        if (kind === 0) values.push(norm(pick(), `v${i}`));
        else if (kind === 1) values.push(matmul(program, { name: `v${i}`, x: pick(), weights: [square] }));
        else values.push(matmul(program, { name: `v${i}`, x: pick(), weights: [square], residual: pick() }));
      }
      const { plan } = program.finish();
      for (const [i, a] of plan.storages.entries()) {
        expect(a.offset % ARENA_ALIGNMENT).toBe(0);
        expect(a.offset + a.bytes).toBeLessThanOrEqual(plan.bytes);
        for (const b of plan.storages.slice(i + 1)) {
          const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
          // Two that share a place may meet in one op only: the one that writes the second over the first.
          const ordered = a.lastOp <= b.firstOp || b.lastOp <= a.firstOp;
          if (!apart && !ordered) throw new Error(`seed ${seed}: ${a.name} and ${b.name} overlap`);
          const meet = a.lastOp === b.firstOp ? a.lastOp : b.lastOp === a.firstOp ? b.lastOp : -1;
          if (!apart && meet >= 0) {
            const op = program.ops[meet]!;
            const dying = a.lastOp === meet && b.firstOp === meet ? a.name : b.name;
            const allowed = op.name === "rms_norm" ? op.operands[1] : op.operands[8];
            expect(`${seed}: ${allowed?.name}`).toBe(`${seed}: ${dying}`);
            expect(a.offset).toBe(b.offset);
          }
        }
      }
    }
  });
});
