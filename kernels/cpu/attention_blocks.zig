//! The two register-blocked inner kernels of attention: scores of a block of query rows against a run of keys,
//! and the sum of values weighted by probabilities. Keys and values are read as the cache stores them.
//!
//! The arithmetic of one (row, key) or (row, dimension) pair is the same in every block shape: a dot product is
//! one fused chain per vector lane followed by one fixed tree over the lanes, and values are added key by key.
//! So block shapes, chosen for speed, never show in a result.

const std = @import("std");
const math = @import("math.zig");

const lanes = math.lanes;
const F = math.F;

pub const KvType = enum {
    f32,
    f16,
    bf16,

    pub fn bytes(comptime kv: KvType) usize {
        return if (kv == .f32) 4 else 2;
    }
};

/// Rows of keys or values: row `j` of `dim` elements begins at `base + offsets[j]` bytes.
pub const Rows = struct {
    base: [*]const u8,
    offsets: [*]const usize,

    inline fn at(rows: Rows, j: usize) [*]const u8 {
        return rows.base + rows.offsets[j];
    }
};

/// Accumulator registers a block may use.
const accumulators = if (math.many_registers) 16 else 8;

/// Query rows a block can hold; a caller's rows are padded to a multiple of it.
pub const block_rows_max = 4;

/// Keys scored together by a block of `rows` query rows.
pub fn blockKeys(comptime rows: usize) usize {
    return accumulators / rows;
}

/// Most keys scored together: runs of scores are padded to a multiple of it.
pub const block_keys_max = accumulators;

/// Elements `d .. d + lanes` of a row as f32.
inline fn load(comptime kv: KvType, row: [*]const u8, d: usize) F {
    if (kv == .f32) return @as(*align(1) const F, @ptrCast(row + d * 4)).*;
    const bits = @as(*align(1) const @Vector(lanes, u16), @ptrCast(row + d * 2)).*;
    return if (kv == .f16) math.widenHalf(bits) else math.widenBrain(bits);
}

/// Rows are requested from memory this many rows before they are used.
const prefetch_rows = 32;

/// Requests the first rows of a run that will be read soon.
pub fn prefetchRows(comptime kv: KvType, rows: Rows, first: usize, last: usize, dim: usize) void {
    for (first..@min(last, first + prefetch_rows)) |j| prefetch(kv, rows.at(j), 0, dim);
}

inline fn prefetch(comptime kv: KvType, row: [*]const u8, d: usize, count: usize) void {
    var at = d * kv.bytes();
    const end = (d + count) * kv.bytes();
    while (at < end) : (at += 64) @prefetch(row + at, .{ .locality = 3 });
}

/// The last `count` elements of a row, fewer than a register, zeros behind them.
inline fn loadTail(comptime kv: KvType, row: [*]const u8, d: usize, count: usize) F {
    var padded: [lanes * 4]u8 align(64) = @splat(0);
    @memcpy(padded[0 .. count * kv.bytes()], (row + d * kv.bytes())[0 .. count * kv.bytes()]);
    return load(kv, &padded, 0);
}

/// Widens one row to f32, padded with zeros to whole registers.
pub inline fn widenRow(comptime kv: KvType, row: [*]const u8, dim: usize, out: [*]f32) void {
    var d: usize = 0;
    while (d + lanes <= dim) : (d += lanes) out[d..][0..lanes].* = load(kv, row, d);
    if (d < dim) out[d..][0..lanes].* = loadTail(kv, row, d, dim - d);
}

/// `out[r * out_stride + j] = q[r] . key[j]` for `first <= j < last`, rounded outward to whole blocks of keys.
/// q: `rows` rows of `q_stride` floats, zero behind `dim`.
pub fn score(comptime kv: KvType, comptime rows: usize, arguments: struct {
    q: [*]const f32,
    q_stride: usize,
    keys: Rows,
    first: usize,
    last: usize,
    prefetch_last: usize,
    dim: usize,
    out: [*]f32,
    out_stride: usize,
}) void {
    const a = arguments;
    const columns = comptime blockKeys(rows);
    var j = a.first - a.first % columns;
    while (j < a.last) : (j += columns) {
        var keys: [columns][*]const u8 = undefined;
        inline for (0..columns) |c| keys[c] = a.keys.at(j + c);
        if (kv != .f32) inline for (0..columns) |c| prefetch(kv, a.keys.at(@min(j + c + prefetch_rows, a.prefetch_last)), 0, a.dim);
        var sums: [rows * columns]F = @splat(@splat(0));
        var d: usize = 0;
        while (d + lanes <= a.dim) : (d += lanes) {
            var k: [columns]F = undefined;
            inline for (0..columns) |c| k[c] = load(kv, keys[c], d);
            scoreStep(rows, &sums, &k, a.q + d, a.q_stride);
        }
        if (d < a.dim) {
            var k: [columns]F = undefined;
            inline for (0..columns) |c| k[c] = loadTail(kv, keys[c], d, a.dim - d);
            scoreStep(rows, &sums, &k, a.q + d, a.q_stride);
        }
        const totals = reduceAll(rows * columns, sums);
        inline for (0..rows) |r| a.out[r * a.out_stride + j ..][0..columns].* = totals[r * columns ..][0..columns].*;
    }
}

inline fn scoreStep(comptime rows: usize, sums: anytype, k: anytype, q: [*]const f32, q_stride: usize) void {
    const columns = k.len;
    inline for (0..rows) |r| {
        const row: F = q[r * q_stride ..][0..lanes].*;
        inline for (0..columns) |c| sums[r * columns + c] = math.mulAdd(row, k[c], sums[r * columns + c]);
    }
}

/// Sums the lanes of each vector, all in the same tree: halves first, neighbours last.
inline fn reduceAll(comptime count: usize, vectors: [count]F) [count]f32 {
    var result: [count]f32 = undefined;
    inline for (0..count / lanes) |group| {
        result[group * lanes ..][0..lanes].* = reduceGroup(vectors[group * lanes ..][0..lanes].*);
    }
    return result;
}

/// Folds vectors two by two until one is left, whose lane i is the sum of vector i. With `count` vectors left,
/// each holds `count` partial sums of `lanes / count` of the originals; a step adds the low half of each
/// original's partial sums to the high half. The pairing makes every step two shuffles within or of whole
/// 128-bit parts and leaves the results in natural order.
inline fn reduceGroup(vectors: [lanes]F) F {
    var folded = vectors;
    comptime var count: usize = lanes;
    inline while (count > 1) : (count /= 2) {
        const distance = if (count > 4) 4 else 1;
        const low = comptime foldMask(count, 0);
        const high = comptime foldMask(count, count / 2);
        inline for (0..count / 2) |i| {
            const first = (i / distance) * 2 * distance + i % distance;
            const x = folded[first];
            const y = folded[first + distance];
            folded[i] = @shuffle(f32, x, y, low) + @shuffle(f32, x, y, high);
        }
    }
    return folded[0];
}

/// The lanes of two vectors to gather: of each original's `count` partial sums the half that begins at `begin`.
fn foldMask(comptime count: usize, comptime begin: usize) [lanes]i32 {
    const half = count / 2;
    const groups = lanes / count;
    var mask: [lanes]i32 = undefined;
    for (&mask, 0..) |*entry, lane| {
        const block = lane / half;
        const from_second, const group = switch (count) {
            2 => .{ block % 4 >= 2, 2 * (block / 4) + block % 2 },
            4 => .{ block % 2 == 1, block / 2 },
            else => .{ block >= groups, block % groups },
        };
        const index: i32 = @intCast(group * count + begin + lane % half);
        entry.* = if (from_second) ~index else index;
    }
    return mask;
}

/// `out[r, :] += sum over first <= j < last of weights[r, j] * value[j, :]`, key by key in ascending order.
/// out: `rows` rows of `out_stride` floats, whole registers long.
pub fn accumulate(comptime kv: KvType, comptime rows: usize, arguments: struct {
    weights: [*]const f32,
    weights_stride: usize,
    values: Rows,
    first: usize,
    last: usize,
    prefetch_last: usize,
    dim: usize,
    out: [*]f32,
    out_stride: usize,
}) void {
    const a = arguments;
    if (a.first >= a.last) return;
    var d: usize = 0;
    comptime var registers = accumulators / rows;
    inline while (registers > 0) : (registers /= 2) {
        while (d + registers * lanes <= a.dim) : (d += registers * lanes) accumulateSlice(kv, rows, registers, a, d);
    }
    if (d < a.dim) {
        const count = a.dim - d;
        var sums: [rows]F = undefined;
        inline for (0..rows) |r| sums[r] = a.out[r * a.out_stride + d ..][0..lanes].*;
        for (a.first..a.last) |j| {
            const v = loadTail(kv, a.values.at(j), d, count);
            inline for (0..rows) |r| sums[r] = math.mulAdd(@as(F, @splat(a.weights[r * a.weights_stride + j])), v, sums[r]);
        }
        inline for (0..rows) |r| a.out[r * a.out_stride + d ..][0..lanes].* = sums[r];
    }
}

/// The same for `registers` registers of dimensions from `d` on, which stay in registers for the whole run.
inline fn accumulateSlice(comptime kv: KvType, comptime rows: usize, comptime registers: usize, a: anytype, d: usize) void {
    var sums: [rows * registers]F = undefined;
    inline for (0..rows) |r| {
        inline for (0..registers) |c| sums[r * registers + c] = a.out[r * a.out_stride + d + c * lanes ..][0..lanes].*;
    }
    for (a.first..a.last) |j| {
        const row = a.values.at(j);
        if (kv != .f32) prefetch(kv, a.values.at(@min(j + prefetch_rows, a.prefetch_last)), d, registers * lanes);
        var v: [registers]F = undefined;
        inline for (0..registers) |c| v[c] = load(kv, row, d + c * lanes);
        inline for (0..rows) |r| {
            const weight: F = @splat(a.weights[r * a.weights_stride + j]);
            inline for (0..registers) |c| sums[r * registers + c] = math.mulAdd(weight, v[c], sums[r * registers + c]);
        }
    }
    inline for (0..rows) |r| {
        inline for (0..registers) |c| a.out[r * a.out_stride + d + c * lanes ..][0..lanes].* = sums[r * registers + c];
    }
}
