//! Attention of few query rows, decode above all: keys and values are read where the cache holds them, once for
//! the rows of a block. Scores lie row by row, keys side by side.
//!
//! A dot product is four chains of multiply-adds, of the elements 0, 4, 8.., 1, 5, 9.. and so on, added in that
//! order. A register therefore holds four elements of several keys.
//!
//! Of a cache of 8-bit floats, keys and values are widened a run at a time, once for all rows of the tile: that takes
//! more instructions than the arithmetic of a row.

const std = @import("std");
const math = @import("math.zig");
const cache = @import("attention_cache.zig");
const shuffle = @import("attention_shuffle.zig");
const softmax = @import("attention_softmax.zig");
const plan = @import("attention_plan.zig");
const tile_module = @import("attention_tile.zig");

const lanes = math.lanes;
const F = math.F;
const KvType = cache.KvType;
const Rows = cache.Rows;
const Partials = softmax.Partials;
const Places = tile_module.Places;
const Span = tile_module.Span;
const Tile = tile_module.Tile;

const range_keys = plan.range_keys;

/// Tiles of at most this many rows are better off here than in panels.
pub const rows_max = lanes;

/// Rows that share the loads of a key: their sums must fit the registers.
const block_rows = if (math.many_registers) 4 else 2;
/// Keys of which a register holds four elements each.
const register_keys = shuffle.quads;
/// Keys that the rows of a tile go through together, so that later rows find them in the nearest cache.
const run_keys = 32;

pub const Scratch = struct {
    /// `[rows_max, dim]`, scaled.
    q: [*]f32,
    /// `[rows_max, range_keys]`
    scores: [*]f32,
    /// `[run_keys, dim]`, of types that are widened by runs.
    widened: [*]f32,

    pub fn floats(dim: usize) usize {
        return rows_max * (dim + range_keys) + run_keys * dim;
    }

    pub fn init(memory: [*]f32, dim: usize) Scratch {
        const scores = memory + rows_max * dim;
        return .{ .q = memory, .scores = scores, .widened = scores + rows_max * range_keys };
    }
};

/// Copies the tile's queries, scaled, zeros behind each row.
pub fn loadQueries(tile: *const Tile, dim: usize, scratch: Scratch) void {
    const scale: F = @splat(tile.a.scale);
    for (0..tile.rows) |row| {
        const source: [*]const u8 = @ptrCast(tile.query(row));
        var d: usize = 0;
        while (d < dim) : (d += lanes) scratch.q[row * dim + d ..][0..lanes].* = cache.load(.f32, source, d, tile.a.head_dim) * scale;
    }
}

/// The partials of all rows in one range.
pub fn runRange(comptime kv: KvType, tile: *const Tile, range: usize, dim: usize, scratch: Scratch, partials: Partials) void {
    const span = tile.seenByAny(0, tile.rows, range);
    if (span.empty()) {
        for (0..tile.rows) |row| partials.denominator(row).* = 0;
        return;
    }
    var places: Places = undefined;
    tile.locate(kv, range, span, lanes, &places);
    places.requestFirst(kv, tile.a.head_dim);
    var near: Near = undefined;
    var run = firstRun(span);
    while (!run.empty()) : (run = nextRun(run, span)) {
        const keys = near.rowsOf(kv, places.keys(), run, tile.a.head_dim, scratch.widened, dim);
        var row: usize = 0;
        while (row < tile.rows) : (row += block_rows) {
            const count = @min(block_rows, tile.rows - row);
            const part = run.intersection(tile.seenByAny(row, row + count, range));
            if (part.empty()) continue;
            switch (count) {
                inline 1...block_rows => |rows| score(Near.typeOf(kv), rows, .{
                    .q = scratch.q + row * dim,
                    .q_stride = dim,
                    .keys = keys,
                    .span = part,
                    .dim = if (Near.holds(kv)) dim else tile.a.head_dim,
                    .out = scratch.scores + row * range_keys,
                }),
                else => unreachable,
            }
        }
    }
    for (0..tile.rows) |row| weigh(tile, row, range, scratch, partials);
    run = firstRun(span);
    while (!run.empty()) : (run = nextRun(run, span)) {
        const weighted: Weighted = .{
            .weights = scratch.scores,
            .values = near.rowsOf(kv, places.values(), run, tile.a.head_dim, scratch.widened, dim),
            .dim = if (Near.holds(kv)) dim else tile.a.head_dim,
            .sums = partials.base,
            .stride = partials.stride,
        };
        var row: usize = 0;
        while (row < tile.rows) : (row += block_rows) {
            const end = @min(row + block_rows, tile.rows);
            addValues(Near.typeOf(kv), tile, row, end, range, run, weighted);
        }
    }
}

/// The rows of a run as f32 in the nearest cache, for types that are widened by runs; rows of others stay where they
/// are.
const Near = struct {
    addresses: [run_keys][*]const u8,

    fn holds(comptime kv: KvType) bool {
        return kv == .f8e4m3;
    }

    fn typeOf(comptime kv: KvType) KvType {
        return if (holds(kv)) .f32 else kv;
    }

    /// `[run_keys, stride]` of `memory` is written, zeros behind each row.
    inline fn rowsOf(near: *Near, comptime kv: KvType, rows: Rows, run: Span, dim: usize, memory: [*]f32, stride: usize) Rows {
        if (!holds(kv)) return rows;
        const base = run.first - run.first % run_keys;
        const whole = run.outward(lanes);
        for (whole.first..whole.last) |j| {
            const row = memory + (j - base) * stride;
            near.addresses[j - base] = @ptrCast(row);
            cache.prefetch(kv, rows.after(j), 0, dim);
            cache.widenRow(kv, rows.at(j), dim, row);
        }
        return .{ .addresses = @as([*]const [*]const u8, &near.addresses) - base, .ahead = 0 };
    }
};

/// The keys of a span up to the next multiple of `run_keys`.
fn firstRun(span: Span) Span {
    return .{ .first = span.first, .last = @min(span.last, span.first - span.first % run_keys + run_keys) };
}

fn nextRun(run: Span, span: Span) Span {
    return .{ .first = run.last, .last = @min(span.last, run.last + run_keys) };
}

/// `out[r, j] = q[r] . key[j]` for the keys of a span, rounded outward to whole registers.
fn score(comptime kv: KvType, comptime rows: usize, arguments: struct {
    q: [*]const f32,
    q_stride: usize,
    keys: Rows,
    span: Span,
    dim: usize,
    out: [*]f32,
}) void {
    const a = arguments;
    const whole = a.span.outward(lanes);
    var j = whole.first;
    while (j < whole.last) : (j += lanes) {
        var sums: [rows][4]F = @splat(@splat(@splat(0)));
        var d: usize = 0;
        var requested: usize = 0;
        while (d + lanes <= a.dim) : (d += lanes) {
            // Requests keep pace with the work, in the order of the addresses.
            while (a.keys.ahead != 0 and requested * a.dim < (d + lanes) * lanes) : (requested += 1) {
                cache.prefetch(kv, a.keys.after(j + requested), 0, a.dim);
            }
            scoreStep(kv, rows, false, &sums, a.q + d, a.q_stride, a.keys, j, d, lanes);
        }
        if (d < a.dim) scoreStep(kv, rows, true, &sums, a.q + d, a.q_stride, a.keys, j, d, a.dim - d);
        inline for (0..rows) |r| a.out[r * range_keys + j ..][0..lanes].* = addChains(sums[r]);
    }
}

/// Adds `lanes` elements from `d` on. Register m of a row takes the keys m, m + 4, m + 8..
inline fn scoreStep(
    comptime kv: KvType,
    comptime rows: usize,
    comptime tail: bool,
    sums: *[rows][4]F,
    q: [*]const f32,
    q_stride: usize,
    keys: Rows,
    j: usize,
    d: usize,
    count: usize,
) void {
    inline for (0..4) |m| {
        var parts: [register_keys]F = undefined;
        inline for (&parts, 0..) |*part, i| {
            const from = keys.at(j + m + 4 * i) + d * kv.bytes();
            part.* = if (tail) cache.loadTail(kv, from, count) else cache.loadWhole(kv, from);
        }
        const quads = shuffle.turnQuads(parts);
        inline for (quads, 0..) |quad, t| {
            inline for (0..rows) |r| sums[r][m] = math.mulAdd(shuffle.splatQuad(q + r * q_stride + 4 * t), quad, sums[r][m]);
        }
    }
}

/// Adds the four chains of each key of four registers.
inline fn addChains(sums: [4]F) F {
    const chains = shuffle.turnWithin(sums);
    return ((chains[0] + chains[1]) + chains[2]) + chains[3];
}

/// Turns the raw scores of a row into exponentials relative to the largest; notes that and their sum, which is
/// one sum per lane and the tree of `math.sum` over them.
fn weigh(tile: *const Tile, row: usize, range: usize, scratch: Scratch, partials: Partials) void {
    const seen = tile.visible(row, range);
    if (seen.empty()) {
        partials.denominator(row).* = 0;
        return;
    }
    partials.clear(row);
    const cap = tile.a.soft_cap;
    const scores = scratch.scores + row * range_keys;
    const whole = seen.outward(lanes);
    const first: @Vector(lanes, u32) = @splat(@intCast(seen.first));
    const last: @Vector(lanes, u32) = @splat(@intCast(seen.last));
    const nothing: F = @splat(-std.math.inf(f32));
    var largest = nothing;
    var j = whole.first;
    while (j < whole.last) : (j += lanes) {
        var s: F = scores[j..][0..lanes].*;
        if (cap != 0) s = softmax.softCap(s, cap);
        const index = std.simd.iota(u32, lanes) + @as(@Vector(lanes, u32), @splat(@intCast(j)));
        s = @select(f32, index >= first, s, nothing);
        s = @select(f32, index < last, s, nothing);
        largest = math.greater(largest, s);
        scores[j..][0..lanes].* = s;
    }
    const maximum = math.max(largest);
    const reference = softmax.reference(@splat(maximum));
    var total: F = @splat(0);
    j = whole.first;
    while (j < whole.last) : (j += lanes) {
        const p = softmax.exponential(@as(F, scores[j..][0..lanes].*) - reference);
        scores[j..][0..lanes].* = p;
        total += p;
    }
    partials.maximum(row).* = maximum;
    partials.denominator(row).* = math.sum(total);
}

/// The weights of some rows, the values they weigh and the sums they go to.
const Weighted = struct {
    weights: [*]const f32,
    values: Rows,
    dim: usize,
    sums: [*]f32,
    stride: usize,
};

/// Adds the weighted values of a run of keys to the rows `[row, end)`. Keys that all of them see are added for the
/// block; the few before and after, row by row: a key that a row does not see must not touch it, whatever it holds.
fn addValues(comptime kv: KvType, tile: *const Tile, row: usize, end: usize, range: usize, run: Span, first: Weighted) void {
    const common = run.intersection(tile.seenByAll(row, end, range));
    const split = if (common.empty()) run.last else common.first;
    for (row..end) |r| {
        const seen = run.intersection(tile.visible(r, range));
        accumulate(kv, 1, ofRow(first, r), .{ .first = seen.first, .last = @min(seen.last, split) });
    }
    if (common.empty()) return;
    switch (end - row) {
        inline 1...block_rows => |rows| accumulate(kv, rows, ofRow(first, row), common),
        else => unreachable,
    }
    for (row..end) |r| {
        const seen = run.intersection(tile.visible(r, range));
        accumulate(kv, 1, ofRow(first, r), .{ .first = common.last, .last = seen.last });
    }
}

fn ofRow(first: Weighted, row: usize) Weighted {
    var w = first;
    w.weights += row * range_keys;
    w.sums += row * first.stride;
    return w;
}

/// `sums[r, :] += weights[r, j] * value[j, :]` key by key in ascending order.
fn accumulate(comptime kv: KvType, comptime rows: usize, w: Weighted, span: Span) void {
    if (span.empty()) return;
    var d: usize = 0;
    comptime var registers = registersPerRow(rows);
    inline while (registers > 0) : (registers /= 2) {
        while (d + registers * lanes <= w.dim) : (d += registers * lanes) accumulateSlice(kv, rows, registers, false, w, span, d);
    }
    if (d < w.dim) accumulateSlice(kv, rows, 1, true, w, span, d);
}

/// Registers of dimensions that a block of rows can sum at once, a power of two.
fn registersPerRow(comptime rows: usize) usize {
    return std.math.floorPowerOfTwo(usize, (if (math.many_registers) 24 else 10) / rows);
}

/// The same for `registers` registers of dimensions from `d` on, which stay in registers for the whole run.
inline fn accumulateSlice(
    comptime kv: KvType,
    comptime rows: usize,
    comptime registers: usize,
    comptime tail: bool,
    w: Weighted,
    span: Span,
    d: usize,
) void {
    var sums: [rows][registers]F = undefined;
    inline for (0..rows) |r| {
        inline for (0..registers) |c| sums[r][c] = w.sums[r * w.stride + d + c * lanes ..][0..lanes].*;
    }
    for (span.first..span.last) |j| {
        const from = w.values.at(j) + d * kv.bytes();
        if (w.values.ahead != 0) cache.prefetch(kv, w.values.after(j), d, registers * lanes);
        var v: [registers]F = undefined;
        inline for (0..registers) |c| {
            v[c] = if (tail) cache.loadTail(kv, from, w.dim - d) else cache.loadWhole(kv, from + c * lanes * kv.bytes());
        }
        inline for (0..rows) |r| {
            const weight: F = @splat(w.weights[r * range_keys + j]);
            inline for (0..registers) |c| sums[r][c] = math.mulAdd(weight, v[c], sums[r][c]);
        }
    }
    inline for (0..rows) |r| {
        inline for (0..registers) |c| w.sums[r * w.stride + d + c * lanes ..][0..lanes].* = sums[r][c];
    }
}
