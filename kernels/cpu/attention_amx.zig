//! Attention on the tile unit (Intel AMX), of caches whose elements are few bfloat16 planes
//! (`attention_planes.zig`): the arithmetic that both of its ways have, of few rows (`attention_amx_rows.zig`) and of
//! many (`attention_amx_panels.zig`).
//!
//! A score runs in f32 through a tile over the head dimension, 32 terms after 32: of these first q low times k high,
//! then q high times k high, then q high times k low; what is left out is at most 2^-16 of the product. The sum of the
//! values of a range runs likewise over its keys, 32 aligned ones after 32: weight low times value high, high times
//! high, high times low. Terms of keys that a row does not see are zeros, which change no sum, so that it does not
//! matter which keys the rows around it see. The unit adds the terms of a step in one order whichever operand is
//! the left one and however many rows it has. So both ways give a row the same bits.
//!
//! Zero times what is no finite number is not zero: values of that kind are left out of the products of the whole
//! range and then added to the rows that see them, which become infinite or NaN there as they must.

const std = @import("std");
const math = @import("math.zig");
const cache = @import("attention_cache.zig");
const plan = @import("attention_plan.zig");
const planes = @import("attention_planes.zig");
const simd = @import("simd.zig");
const softmax = @import("attention_softmax.zig");
const tile_module = @import("attention_tile.zig");
const tiles = @import("tiles.zig");

const lanes = math.lanes;
const F = math.F;
const KvType = cache.KvType;
const Partials = softmax.Partials;
const Span = tile_module.Span;
const Tile = tile_module.Tile;

/// Rows of queries that a product takes.
pub const panel_rows = 16;
/// Keys of a step of the sum of values.
pub const step_keys = planes.step_terms;
const range_keys = plan.range_keys;

/// The scores of a panel in one range. Rows a power of two apart would fall into few places of the nearest cache.
pub const Scores = [panel_rows][range_keys + 16]f32;
/// The weights of a panel in one range, high planes and low ones, rows as rows.
pub const Weights = [range_keys / step_keys][2]planes.Plane;

/// Whether the library is built for such products with a type of cache.
pub fn couldTake(comptime kv: KvType) bool {
    return simd.has_bf16_tiles and kv != .f32;
}

/// Whether attention to caches of a type goes this way where so many query heads share a KV head: for all rows or
/// for none. The unit multiplies 16 rows as fast as one, but before it a cache must be split into planes, which
/// takes the vector unit as long as the products of a few rows: with fewer than these, single tokens would be slower
/// here. 8-bit floats take so long to widen that the rows do not matter.
pub fn takes(comptime kv: KvType, group: usize) bool {
    const group_min = switch (kv) {
        .f16 => 5,
        .bf16 => 4,
        .f8e4m3 => 1,
        .f32 => comptime unreachable,
    };
    return group >= group_min and tiles.available();
}

/// Steps over the head dimension.
pub fn stepCount(dim: usize) usize {
    return std.math.divCeil(usize, dim, planes.step_terms) catch unreachable;
}

/// A row and the panel that it is in.
pub const Row = struct {
    tile: *const Tile,
    range: usize,
    /// Of the tile.
    row: usize,
    /// Of the panel.
    r: usize,
    /// The keys that some row of the panel sees, whole steps.
    whole: Span,
    scores: *Scores,
    weights: *Weights,
    partials: Partials,

    /// Turns raw scores into weights: exponentials relative to the largest, in planes. Notes that and their sum, one
    /// sum per lane that a key falls into and the tree of `math.sum` over those.
    pub fn weigh(row: Row) void {
        const seen = row.tile.visible(row.row, row.range);
        if (seen.empty()) {
            row.partials.denominator(row.r).* = 0;
            return row.clear(row.whole);
        }
        const scores: [*]f32 = &row.scores[row.r];
        const own = seen.outward(step_keys);
        const cap = row.tile.a.soft_cap;
        var j = own.first;
        if (cap != 0) while (j < own.last) : (j += lanes) {
            scores[j..][0..lanes].* = softmax.softCap(scores[j..][0..lanes].*, cap);
        };
        hide(scores, own.first, seen.first);
        hide(scores, seen.last, own.last);
        var largest: F = @splat(-std.math.inf(f32));
        j = own.first;
        while (j < own.last) : (j += lanes) largest = math.greater(largest, scores[j..][0..lanes].*);
        const maximum = math.max(largest);
        const reference = softmax.reference(@splat(maximum));
        row.clear(.{ .first = row.whole.first, .last = own.first });
        var total: F = @splat(0);
        j = own.first;
        while (j < own.last) : (j += step_keys) {
            var p: [2]F = undefined;
            inline for (&p, 0..) |*weight, half| {
                weight.* = softmax.exponential(@as(F, scores[j + half * lanes ..][0..lanes].*) - reference);
                total += weight.*;
            }
            inline for (planes.nearestPlanes(p[0], p[1]), &row.weights[j / step_keys]) |pairs, *plane| plane[row.r] = pairs;
        }
        row.clear(.{ .first = own.last, .last = row.whole.last });
        row.partials.maximum(row.r).* = maximum;
        row.partials.denominator(row.r).* = math.sum(total);
    }

    fn clear(row: Row, span: Span) void {
        var j = span.first;
        while (j < span.last) : (j += step_keys) {
            for (&row.weights[j / step_keys]) |*plane| plane[row.r] = @splat(0);
        }
    }
};

/// Gives keys a score of which nothing comes, whatever was there.
fn hide(scores: [*]f32, first: usize, last: usize) void {
    const begin: @Vector(lanes, u32) = @splat(@intCast(first));
    const end: @Vector(lanes, u32) = @splat(@intCast(last));
    var j = first - first % lanes;
    while (j < last) : (j += lanes) {
        const index = std.simd.iota(u32, lanes) + @as(@Vector(lanes, u32), @splat(@intCast(j)));
        const before = @select(f32, index < begin, @as(F, scores[j..][0..lanes].*), @as(F, @splat(-std.math.inf(f32))));
        scores[j..][0..lanes].* = @select(f32, index < end, before, @as(F, scores[j..][0..lanes].*));
    }
}

/// Whether all sums of `rows` partials are finite numbers.
pub fn areFinite(partials: Partials, rows: usize) bool {
    var none: F = @splat(0);
    for (0..rows) |row| {
        const sums = partials.sums(row);
        var d: usize = 0;
        // Zero times a finite number is 0, times another is NaN and stays so.
        while (d < partials.dim) : (d += lanes) none = math.mulAdd(@as(F, sums[d..][0..lanes].*), @as(F, @splat(0)), none);
    }
    return math.sum(none) == 0;
}

/// Adds the values that are infinite or not numbers to the sums of those rows `[first, last)` that see them. The
/// partials begin with the first of them.
pub noinline fn addStrays(comptime kv: KvType, tile: *const Tile, range: usize, rows: Span, values: cache.Rows, partials: Partials) void {
    const dim = tile.a.head_dim;
    const span = tile.seenByAny(rows.first, rows.last, range);
    for (span.first..span.last) |j| {
        var d: usize = 0;
        while (d < dim) : (d += lanes) {
            const x = cache.load(kv, values.at(j), d, dim);
            const stray = @select(f32, planes.isFinite(x), @as(F, @splat(0)), x);
            if (@reduce(.And, planes.isFinite(x))) continue;
            for (rows.first..rows.last) |row| {
                const seen = tile.visible(row, range);
                if (j < seen.first or j >= seen.last) continue;
                const sums = partials.sums(row - rows.first)[d..][0..lanes];
                sums.* = @as(F, sums.*) + stray;
            }
        }
    }
}
