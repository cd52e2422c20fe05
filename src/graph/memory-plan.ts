/**
 * Plans the activation arena: from the ops in order it finds when each storage lives, lets an op write over an
 * operand that dies at it where the op allows that, and packs what lives at the same time side by side.
 */

import type { RecordedOp } from "./builder.ts";
import { OPS, type OpName, type OpSpec } from "./ops.ts";
import { type ArenaStorage, rowElements, sameLeading, type Tensor } from "./tensor.ts";

/** Every storage starts at a multiple of this: a cache line, and the widest vector register. */
export const ARENA_ALIGNMENT = 64;

/** Operands that the op's `out` may overwrite (see the op table's comments). */
const MAY_OVERWRITE: Partial<Record<OpName, readonly string[]>> = {
  rms_norm: ["x", "residual"],
  matmul: ["residual"],
};

export interface PlannedStorage {
  readonly name: string;
  readonly bytes: number;
  /** From the start of the arena. */
  readonly offset: number;
  readonly firstOp: number;
  readonly lastOp: number;
}

export interface MemoryPlan {
  /** By the index of the storage. */
  readonly storages: readonly PlannedStorage[];
  /** Size of the arena. */
  readonly bytes: number;
  /** What the arena would need if nothing were reused. */
  readonly bytesWithoutReuse: number;
}

/** Storages that share one place because each is written over the one before it. */
interface Group {
  readonly bytes: number;
  readonly firstOp: number;
  lastOp: number;
  offset: number;
}

interface Lifetime {
  firstOp: number;
  lastOp: number;
}

function align(bytes: number): number {
  return Math.ceil(bytes / ARENA_ALIGNMENT) * ARENA_ALIGNMENT;
}

function lifetimes(storages: readonly ArenaStorage[], ops: readonly RecordedOp[]): Lifetime[] {
  const result: Lifetime[] = storages.map(() => ({ firstOp: -1, lastOp: -1 }));
  ops.forEach((op, index) => {
    const spec: OpSpec = OPS[op.name];
    op.operands.forEach((tensor, position) => {
      if (tensor?.storage.kind !== "arena") return;
      const life = result[tensor.storage.index]!;
      if (life.firstOp < 0) {
        if (spec.operands[position]!.access !== "write") {
          throw new Error(`op ${index} (${op.name}) reads ${tensor.name} before any op has written it`);
        }
        life.firstOp = index;
      }
      life.lastOp = index;
    });
  });
  storages.forEach((storage, index) => {
    const life = result[index]!;
    if (life.firstOp < 0) throw new Error(`activation ${storage.name} is never written`);
    if (storage.keep) life.lastOp = ops.length;
  });
  return result;
}

function coversStorage(tensor: Tensor): boolean {
  return tensor.byteOffset === 0 && tensor.leadingStride === rowElements(tensor);
}

/** The storage that the op's output may take over, if one dies here. */
function overwritten(op: RecordedOp, index: number, lives: readonly Lifetime[]): ArenaStorage | undefined {
  const out = op.operands[0];
  if (out?.storage.kind !== "arena" || !coversStorage(out)) return undefined;
  if (lives[out.storage.index]!.firstOp !== index) return undefined;
  const spec: OpSpec = OPS[op.name];
  for (const name of MAY_OVERWRITE[op.name] ?? []) {
    const candidate = op.operands[spec.operands.findIndex((operand) => operand.name === name)];
    if (candidate?.storage.kind !== "arena" || candidate.storage === out.storage) continue;
    const fits =
      coversStorage(candidate) &&
      candidate.dtype === out.dtype &&
      sameLeading(candidate.leading, out.leading) &&
      candidate.storage.bytes === out.storage.bytes;
    // An operand given twice (x and residual at once) would be read after it was written over.
    const uses = op.operands.filter((operand) => operand?.storage === candidate.storage).length;
    if (fits && uses === 1 && lives[candidate.storage.index]!.lastOp === index) return candidate.storage;
  }
  return undefined;
}

function groupStorages(
  storages: readonly ArenaStorage[],
  ops: readonly RecordedOp[],
  lives: readonly Lifetime[],
): Group[] {
  const groups: Group[] = new Array(storages.length);
  ops.forEach((op, index) => {
    const reused = overwritten(op, index, lives);
    for (const tensor of op.operands) {
      if (tensor?.storage.kind !== "arena" || groups[tensor.storage.index] !== undefined) continue;
      const life = lives[tensor.storage.index]!;
      if (tensor === op.operands[0] && reused !== undefined) {
        const group = groups[reused.index]!;
        group.lastOp = life.lastOp;
        groups[tensor.storage.index] = group;
      } else {
        groups[tensor.storage.index] = { bytes: align(tensor.storage.bytes), ...life, offset: 0 };
      }
    }
  });
  return groups;
}

/** Largest first, each at the lowest place that is free for its whole life. */
function place(groups: readonly Group[]): number {
  const placed: Group[] = [];
  const order = [...new Set(groups)].sort((a, b) => b.bytes - a.bytes || a.firstOp - b.firstOp);
  let end = 0;
  for (const group of order) {
    const neighbours = placed
      .filter((other) => other.firstOp <= group.lastOp && group.firstOp <= other.lastOp)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const other of neighbours) {
      if (offset + group.bytes <= other.offset) break;
      offset = Math.max(offset, other.offset + other.bytes);
    }
    group.offset = offset;
    placed.push(group);
    end = Math.max(end, offset + group.bytes);
  }
  return end;
}

/** Decides where each storage lies. Throws when an activation is read before it is written. */
export function planMemory(storages: readonly ArenaStorage[], ops: readonly RecordedOp[]): MemoryPlan {
  const lives = lifetimes(storages, ops);
  const groups = groupStorages(storages, ops, lives);
  const bytes = place(groups);
  return {
    storages: storages.map(({ name, bytes: size }, index) => {
      const { firstOp, lastOp } = lives[index]!;
      return { name, bytes: size, offset: groups[index]!.offset, firstOp, lastOp };
    }),
    bytes,
    bytesWithoutReuse: storages.reduce((total, storage) => total + align(storage.bytes), 0),
  };
}

/** The plan as a table for people: one row per storage in order of first use, then the totals. */
export function formatMemoryPlan(plan: MemoryPlan): string {
  const rows = [...plan.storages]
    .sort((a, b) => a.firstOp - b.firstOp)
    .map(({ name, bytes, offset, firstOp, lastOp }) => [name, bytes, offset, firstOp, lastOp].map(String));
  const table = [["tensor", "bytes", "offset", "first op", "last op"], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const lines = table.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join("  "),
  );
  const share = plan.bytesWithoutReuse === 0 ? 100 : (100 * plan.bytes) / plan.bytesWithoutReuse;
  lines.push(`total ${plan.bytes} bytes; ${plan.bytesWithoutReuse} without reuse (${share.toFixed(1)} %)`);
  return lines.join("\n");
}
