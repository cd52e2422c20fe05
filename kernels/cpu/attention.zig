//! Causal attention of a ragged batch over paged keys and values (op `paged_attention`).
//!
//! Keys are taken in ranges of 256 at absolute positions. A row's result in one range is a partial: the largest
//! score, the sum of exponentials and the weighted sum of values; the partials of a row are merged in the order
//! of their ranges (the online softmax of Milakov and Gimelshein, "Online normalizer calculation for softmax",
//! 2018, and of FlashAttention, Dao et al. 2022). Within a range every step has one order: a score is four chains
//! over the head dimension, the denominator one sum per lane that a key falls into, a dimension of the values one
//! chain over the keys. Few rows go through `attention_rows.zig`, many through `attention_panels.zig`; which of
//! them computes a range, which unit, which rows share its loads and how a prompt was cut into chunks changes
//! nothing in that arithmetic: a row is bit-identical alone and among others and for any number of threads.
//!
//! Where the processor has a tile unit for bfloat16 and enough query heads share a KV head, caches of 16 bits and
//! fewer take two ways of their own, with another arithmetic that both share (`attention_amx.zig`) and the same
//! promise.
//!
//! Before a step `prepare` checks it and divides it into units. Work comes in two stages with a barrier between
//! them. Stage one: `runUnit` for each of `unitCount` units. A unit is one sequence, one KV head and either a tile
//! of query rows over all of their ranges, or - for a sequence of few rows and many keys - one range, whose partial
//! it leaves in the workspace. Stage two: `runCombineUnit` for each of `combineUnitCount` units merges those partials.

const std = @import("std");
const math = @import("math.zig");
const amx = @import("attention_amx.zig");
const amx_panels = @import("attention_amx_panels.zig");
const amx_rows = @import("attention_amx_rows.zig");
const cache = @import("attention_cache.zig");
const panels = @import("attention_panels.zig");
const plan = @import("attention_plan.zig");
const rows = @import("attention_rows.zig");
const softmax = @import("attention_softmax.zig");
const simd = @import("simd.zig");
const tile_unit = @import("tiles.zig");
const Tile = @import("attention_tile.zig").Tile;

const Slice = plan.Slice;
const Partials = softmax.Partials;

pub const KvType = cache.KvType;
pub const Arguments = plan.Arguments;
pub const Fault = plan.Fault;
pub const Layout = plan.Layout;
pub const prepare = plan.prepare;
pub const workspaceFloats = plan.workspaceFloats;

/// Floats of the scratch memory each thread passes to `runUnit`.
pub fn scratchFloats(heads: usize, kv_heads: usize, head_dim: usize) usize {
    const dim = plan.paddedDim(head_dim);
    const tile_rows = @max(plan.tile_rows, heads / kv_heads);
    var floats: usize = 0;
    inline for (if (simd.has_bf16_tiles) .{ rows, amx_rows } else .{rows}) |few| {
        floats = @max(floats, 2 * few.rows_max * softmax.partialFloats(dim) + few.Scratch.floats(dim));
    }
    inline for (if (simd.has_bf16_tiles) .{ panels, amx_panels } else .{panels}) |many| {
        floats = @max(floats, tile_rows * softmax.partialFloats(dim) + many.Scratch.floats(tile_rows, dim));
    }
    return floats;
}

pub fn unitCount(a: *const Arguments) usize {
    return a.layout.units;
}

/// Stage one. `scratch` has at least `scratchFloats` elements and belongs to the calling thread.
pub fn runUnit(a: *const Arguments, unit: usize, scratch: []align(64) f32) void {
    var tile = tileOf(a, unit);
    // A thread's units mostly follow one another.
    if (unit + 1 < a.layout.units) tile.next = tileOf(a, unit + 1).start();
    switch (a.kv_type) {
        inline else => |kv| runTile(kv, &tile, scratch),
    }
}

/// One unit per row of the sequences whose ranges were spread over units.
pub fn combineUnitCount(a: *const Arguments) usize {
    return a.layout.combine_units;
}

/// Stage two, after every unit of stage one has run.
pub fn runCombineUnit(a: *const Arguments, unit: usize, scratch: []f32) void {
    const part = a.layout.find(a, .first_combine_unit, unit);
    combineRow(a, part.slice, part.unit, scratch);
}

fn tileOf(a: *const Arguments, unit: usize) Tile {
    const part = a.layout.find(a, .first_unit, unit);
    const slice = part.slice;
    // All heads of a range one after another: what they keep of a block lies side by side.
    if (slice.partials != null) return .init(a, slice, part.unit % a.kv_heads, 0, slice.first_range + part.unit / a.kv_heads);
    // All tiles of a head one after another: its keys and values stay in the cache. The last tile sees the most
    // keys: begin with it, so that no thread is left alone at the end.
    const tiles = slice.tiles(a);
    return .init(a, slice, part.unit / tiles, (tiles - 1 - part.unit % tiles) * slice.tileTokens(a), null);
}

/// Runs a tile over all of its ranges, or over the one that leaves its partials in the workspace.
fn runTile(comptime kv: KvType, tile: *const Tile, memory: []align(64) f32) void {
    if (comptime amx.couldTake(kv)) {
        if (amx.takes(kv, tile.group)) {
            defer tile_unit.release();
            return runWay(kv, amx_rows, amx_panels, tile, memory);
        }
    }
    runWay(kv, rows, panels, tile, memory);
}

/// `few` and `many` are the files of a way for each number of rows.
fn runWay(comptime kv: KvType, comptime few: type, comptime many: type, tile: *const Tile, memory: []align(64) f32) void {
    if (tile.rows <= few.rows_max) runRows(kv, few, tile, memory) else runPanels(kv, many, tile, memory);
}

fn runRows(comptime kv: KvType, comptime few: type, tile: *const Tile, memory: []align(64) f32) void {
    const dim = plan.paddedDim(tile.a.head_dim);
    const floats = few.rows_max * softmax.partialFloats(dim);
    const totals = scratchPartials(memory, dim);
    const parts = scratchPartials(memory[floats..], dim);
    const scratch: few.Scratch = .init(memory[2 * floats ..].ptr, dim);
    few.loadQueries(tile, dim, scratch);
    const ranges = tile.ranges;
    if (tile.isSpread()) return few.runRange(kv, tile, ranges.first, dim, scratch, workspacePartials(tile));
    few.runRange(kv, tile, ranges.first, dim, scratch, totals);
    for (ranges.first + 1..ranges.last) |range| {
        few.runRange(kv, tile, range, dim, scratch, parts);
        for (0..tile.rows) |row| totals.merge(row, parts, row);
    }
    writeTile(tile, totals);
}

fn runPanels(comptime kv: KvType, comptime many: type, tile: *const Tile, memory: []align(64) f32) void {
    const dim = plan.paddedDim(tile.a.head_dim);
    const totals = if (tile.isSpread()) workspacePartials(tile) else scratchPartials(memory, dim);
    const scratch: many.Scratch = .init(memory[tile.rows * softmax.partialFloats(dim) ..].ptr, tile.rows, dim);
    many.loadQueries(tile, dim, scratch);
    for (0..tile.rows) |row| totals.denominator(row).* = 0;
    for (tile.ranges.first..tile.ranges.last) |range| many.runRange(kv, tile, range, dim, scratch, totals);
    if (!tile.isSpread()) writeTile(tile, totals);
}

fn scratchPartials(memory: []f32, dim: usize) Partials {
    return .{ .base = memory.ptr, .stride = softmax.partialFloats(dim), .dim = dim };
}

/// The partials of the rows of a tile in its range.
fn workspacePartials(tile: *const Tile) Partials {
    var partials = tile.slice.rangePartials(tile.a, tile.kv_head, 0).from(tile.ranges.first - tile.slice.first_range);
    partials.stride *= tile.slice.ranges;
    return partials;
}

fn combineRow(a: *const Arguments, slice: Slice, token: usize, memory: []f32) void {
    const totals = scratchPartials(memory, plan.paddedDim(a.head_dim));
    for (0..a.heads) |head| {
        const row = token * plan.groupSize(a) + head % plan.groupSize(a);
        const parts = slice.rangePartials(a, head / plan.groupSize(a), row);
        totals.denominator(0).* = 0;
        for (0..slice.ranges) |range| totals.merge(0, parts, range);
        writeRow(a, slice.first_row + token, head, totals, 0);
    }
}

fn writeTile(tile: *const Tile, totals: Partials) void {
    for (0..tile.rows) |row| writeRow(tile.a, tile.slice.first_row + tile.token(row), tile.head(row), totals, row);
}

/// Divides by the denominator, the head's sink included, and stores the row.
fn writeRow(a: *const Arguments, token: usize, head: usize, totals: Partials, row: usize) void {
    var keep: f32 = 1;
    var denominator = totals.denominator(row).*;
    if (a.sinks) |sinks| {
        const maximum = totals.maximum(row).*;
        const largest = @max(maximum, sinks[head]);
        keep = math.exp(maximum - largest);
        denominator = math.mulAdd(denominator, keep, math.exp(sinks[head] - largest));
    }
    const factor = keep / denominator;
    const sums = totals.sums(row);
    const out = a.out + token * a.out_stride + head * a.head_dim;
    var d: usize = 0;
    while (d + math.lanes <= a.head_dim) : (d += math.lanes) {
        out[d..][0..math.lanes].* = @as(math.F, sums[d..][0..math.lanes].*) * @as(math.F, @splat(factor));
    }
    while (d < a.head_dim) : (d += 1) out[d] = sums[d] * factor;
}
