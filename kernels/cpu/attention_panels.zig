//! Attention of many query rows, prompts above all. The keys and values of a range are widened once for all rows
//! of a tile; rows are taken in panels that lie across the lanes of two registers. Scores lie key by key, rows
//! side by side, so that nothing is ever summed over lanes; both products are the same little matrix product.
//!
//! The arithmetic of a row is that of `attention_rows.zig`, bit for bit.

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
const Partials = softmax.Partials;
const Places = tile_module.Places;
const Span = tile_module.Span;
const Tile = tile_module.Tile;

const range_keys = plan.range_keys;

/// Query rows of a panel.
const panel_rows = 2 * lanes;
/// Keys whose scores are summed together, of all rows of a panel.
const score_keys = if (math.many_registers) 8 else 4;
/// Rows whose values are summed together, and registers of each.
const block = if (math.many_registers) 8 else 4;
const slice_registers = 2;
/// Dimensions of such a sum, whose values lie side by side key after key.
const slice_floats = slice_registers * lanes;
/// Keys whose values all rows of a panel go through before the next: those and the weights stay in the nearest cache.
const value_keys = 128;

/// A weight that marks a key which the row does not see.
const unseen: f32 = -1;

pub const Scratch = struct {
    /// `[panels, dim, panel_rows]`, scaled.
    q: [*]f32,
    /// `[range_keys, dim]`
    keys: [*]f32,
    /// `[slices, range_keys, slice_floats]`; the last slice may be of one register.
    values: [*]f32,
    /// `[range_keys + score_keys, panel_rows]`: scores, then weights.
    scores: [*]f32,
    /// `[panel_rows]`
    partials: [*]f32,

    pub fn floats(rows: usize, dim: usize) usize {
        return (paddedRows(rows) + 2 * range_keys) * dim + (range_keys + score_keys) * panel_rows + panel_rows * softmax.partialFloats(dim);
    }

    pub fn init(memory: [*]f32, rows: usize, dim: usize) Scratch {
        const keys = memory + paddedRows(rows) * dim;
        const values = keys + range_keys * dim;
        const scores = values + range_keys * dim;
        return .{ .q = memory, .keys = keys, .values = values, .scores = scores, .partials = scores + (range_keys + score_keys) * panel_rows };
    }
};

fn paddedRows(rows: usize) usize {
    return std.mem.alignForward(usize, rows, panel_rows);
}

/// Copies the tile's queries, scaled and turned into panels; zeros behind each row and in rows that fill up a panel.
pub fn loadQueries(tile: *const Tile, dim: usize, scratch: Scratch) void {
    const scale: F = @splat(tile.a.scale);
    const head_dim = tile.a.head_dim;
    var first: usize = 0;
    while (first < paddedRows(tile.rows)) : (first += lanes) {
        const panel = scratch.q + first / panel_rows * panel_rows * dim + first % panel_rows;
        const count = @min(lanes, tile.rows -| first);
        var queries: [lanes][*]const u8 = undefined;
        for (queries[0..count], first..) |*query, row| {
            query.* = @ptrCast(tile.query(row));
            cache.prefetch(.f32, @ptrCast(tile.query(@min(row + lanes, tile.rows - 1))), 0, head_dim);
        }
        var d: usize = 0;
        while (d < dim) : (d += lanes) {
            var rows: [lanes]F = undefined;
            if (count == lanes and d + lanes <= head_dim) {
                inline for (&rows, queries) |*row, query| row.* = cache.loadWhole(.f32, query + 4 * d) * scale;
            } else for (&rows, queries, 0..) |*row, query, r| {
                row.* = if (r < count) cache.load(.f32, query, d, head_dim) * scale else @splat(0);
            }
            inline for (shuffle.transpose(rows), 0..) |column, i| panel[(d + i) * panel_rows ..][0..lanes].* = column;
        }
    }
}

/// Adds the partials of all rows in one range to their totals.
pub fn runRange(comptime kv: KvType, tile: *const Tile, range: usize, dim: usize, scratch: Scratch, totals: Partials) void {
    const span = tile.seenByAny(0, tile.rows, range);
    if (span.empty()) return;
    // Nothing was added before: the partials are the totals.
    const is_first = range == tile.ranges.first;
    widen(kv, tile, range, span, dim, scratch);
    var first: usize = 0;
    while (first < tile.rows) : (first += panel_rows) {
        const last = @min(first + panel_rows, tile.rows);
        // Blocks that rows were added to in order to fill them must not be written to where there are none.
        const is_apart = !is_first or (last - first) % block != 0;
        const panel: Panel = .{
            .tile = tile,
            .range = range,
            .dim = dim,
            .first = first,
            .last = last,
            .scratch = scratch,
            .partials = if (is_apart) .{ .base = scratch.partials, .stride = softmax.partialFloats(dim), .dim = dim } else totals.from(first),
        };
        panel.run();
        if (is_apart) for (first..last) |row| totals.merge(row, panel.partials, row - first);
    }
}

fn widen(comptime kv: KvType, tile: *const Tile, range: usize, span: Span, dim: usize, scratch: Scratch) void {
    const head_dim = tile.a.head_dim;
    var places: Places = undefined;
    tile.locate(kv, range, span, lanes, &places);
    const keys = places.keys();
    for (span.first..span.last) |j| {
        cache.prefetch(kv, keys.after(j), 0, head_dim);
        cache.widenRow(kv, keys.at(j), head_dim, scratch.keys + j * dim);
    }
    const values = places.values();
    for (span.first..span.last) |j| {
        cache.prefetch(kv, values.after(j), 0, head_dim);
        var d: usize = 0;
        while (d < dim) : (d += slice_floats) {
            const width = @min(slice_floats, dim - d);
            cache.widenRow(kv, values.at(j) + d * kv.bytes(), @min(width, head_dim - d), scratch.values + d * range_keys + j * width);
        }
    }
}

const Panel = struct {
    tile: *const Tile,
    range: usize,
    dim: usize,
    /// Rows of the tile.
    first: usize,
    last: usize,
    scratch: Scratch,
    partials: Partials,

    fn run(panel: *const Panel) void {
        const rows = panel.last - panel.first;
        const span = panel.tile.seenByAny(panel.first, panel.last, panel.range);
        for (0..rows) |row| {
            panel.partials.denominator(row).* = 0;
            panel.partials.clear(row);
        }
        if (span.empty()) return;
        panel.score(span);
        var row: usize = 0;
        while (row < rows) : (row += lanes) panel.weigh(row, @min(row + lanes, rows));
        var at = span.first;
        while (at < span.last) {
            const end = @min(span.last, at - at % value_keys + value_keys);
            panel.addValues(.{ .first = at, .last = end });
            at = end;
        }
    }

    /// `scores[j, r] = q[r] . key[j]`. Four chains, as a row alone has them.
    fn score(panel: *const Panel, span: Span) void {
        const q = panel.scratch.q + panel.first * panel.dim;
        var j = span.first;
        while (j < span.last) : (j += score_keys) {
            const keys = panel.scratch.keys + j * panel.dim;
            const out = panel.scratch.scores + j * panel_rows;
            inline for (0..4) |chain| addChain(chain > 0, keys + chain, panel.dim, q + chain * panel_rows, out);
        }
    }

    /// Turns the raw scores of a register of rows into weights: exponentials relative to the row's largest score.
    /// Notes that and their sum. A row's weights are added as in a row alone: one sum per lane that the key would
    /// have there, and the tree of `math.sum` over those.
    fn weigh(panel: *const Panel, row: usize, end: usize) void {
        const tile = panel.tile;
        // Keys that only rows of another register see are marked too, where the rows of one block of values lie in both.
        const together = @max(lanes, block);
        const begin = panel.first + row - row % together;
        const any = tile.seenByAny(begin, @min(begin + together, panel.last), panel.range);
        if (any.empty()) return;
        const scores = panel.scratch.scores + row;
        const edges = Edges.of(panel, row, end);
        const cap = tile.a.soft_cap;
        if (cap != 0) for (any.first..any.last) |j| {
            scores[j * panel_rows ..][0..lanes].* = softmax.softCap(scores[j * panel_rows ..][0..lanes].*, cap);
        };
        const whole = any.outward(lanes);
        var largest: F = @splat(-std.math.inf(f32));
        var j = whole.first;
        while (j < whole.last) : (j += lanes) {
            largest = if (edges.inside(j)) greatest(false, &edges, j, scores, largest) else greatest(true, &edges, j, scores, largest);
        }
        const reference = softmax.reference(largest);
        var sums: [lanes]F = @splat(@splat(0));
        j = whole.first;
        while (j < whole.last) : (j += lanes) {
            if (edges.inside(j)) exponentiate(false, &edges, j, scores, reference, &sums) else exponentiate(true, &edges, j, scores, reference, &sums);
        }
        comptime var half = lanes / 2;
        inline while (half > 0) : (half /= 2) {
            inline for (0..half) |i| sums[i] += sums[i + half];
        }
        const maxima: [lanes]f32 = largest;
        const denominators: [lanes]f32 = sums[0];
        for (row..end) |r| {
            panel.partials.maximum(r).* = maxima[r - row];
            panel.partials.denominator(r).* = denominators[r - row];
        }
    }

    /// Adds the weighted values of a run of keys to all rows, slice after slice. Where not all rows of a block see a
    /// key, those that do not are left as they are.
    fn addValues(panel: *const Panel, run_: Span) void {
        const rows = panel.last - panel.first;
        var seen: [panel_rows / block]Seen = undefined;
        const blocks = std.math.divCeil(usize, rows, block) catch unreachable;
        for (seen[0..blocks], 0..) |*spans, i| {
            const first = panel.first + i * block;
            spans.* = .of(panel.tile, first, @min(first + block, panel.last), panel.range, run_);
        }
        var d: usize = 0;
        while (d < panel.dim) : (d += slice_floats) {
            const values = panel.scratch.values + d * range_keys;
            for (seen[0..blocks], 0..) |*spans, i| {
                const weights = panel.scratch.scores + i * block;
                const out = panel.partials.sums(i * block) + d;
                if (d + slice_floats <= panel.dim) {
                    accumulate(slice_registers, spans, weights, values, out, panel.partials.stride);
                } else {
                    accumulate(1, spans, weights, values, out, panel.partials.stride);
                }
            }
        }
    }
};

/// The greatest scores of `lanes` keys from j on, and those before.
inline fn greatest(comptime masked: bool, edges: *const Edges, j: usize, scores: [*]const f32, before: F) F {
    var largest = before;
    inline for (0..lanes) |i| {
        const greater = math.greater(largest, @as(F, scores[(j + i) * panel_rows ..][0..lanes].*));
        largest = if (masked) @select(f32, edges.see(j + i), greater, largest) else greater;
    }
    return largest;
}

/// The weights of `lanes` keys from j on, in the place of their scores.
inline fn exponentiate(comptime masked: bool, edges: *const Edges, j: usize, scores: [*]f32, reference: F, sums: *[lanes]F) void {
    inline for (sums, 0..) |*sum, i| {
        const place = scores[(j + i) * panel_rows ..][0..lanes];
        const weight = softmax.exponential(@as(F, place.*) - reference);
        if (masked) {
            const see = edges.see(j + i);
            sum.* = @select(f32, see, sum.* + weight, sum.*);
            place.* = @select(f32, see, weight, @as(F, @splat(unseen)));
        } else {
            sum.* += weight;
            place.* = weight;
        }
    }
}

/// Which rows of a register see a key.
const Edges = struct {
    all: Span,
    first: @Vector(lanes, u32),
    last: @Vector(lanes, u32),

    fn of(panel: *const Panel, row: usize, end: usize) Edges {
        var first: [lanes]u32 = @splat(0);
        var last: [lanes]u32 = @splat(0);
        for (row..end) |r| {
            const seen = panel.tile.visible(panel.first + r, panel.range);
            first[r - row] = @intCast(seen.first);
            last[r - row] = @intCast(seen.last);
        }
        // Rows that fill up a register see nothing and may hold anything.
        return .{ .all = panel.tile.seenByAll(panel.first + row, panel.first + end, panel.range), .first = first, .last = last };
    }

    /// Whether all rows see `lanes` keys from j on.
    inline fn inside(edges: *const Edges, j: usize) bool {
        return edges.all.first <= j and j + lanes <= edges.all.last;
    }

    inline fn see(edges: *const Edges, j: usize) @Vector(lanes, bool) {
        const key: @Vector(lanes, u32) = @splat(@intCast(j));
        const after = @select(u32, key >= edges.first, edges.last, @as(@Vector(lanes, u32), @splat(0)));
        return key < after;
    }
};

/// The keys of a run that any and all rows of a block see, the second within the first.
const Seen = struct {
    any: Span,
    all: Span,

    fn of(tile: *const Tile, first: usize, last: usize, range: usize, run: Span) Seen {
        const any = run.intersection(tile.seenByAny(first, last, range));
        const all = any.intersection(tile.seenByAll(first, last, range));
        return .{ .any = any, .all = if (all.empty()) .{ .first = any.last, .last = any.last } else all };
    }
};

/// Steps of a product without a branch: the loop over them is then short enough to be foreseen to its end.
const unrolled_steps = 8;

/// A chain of the scores of `score_keys` keys and a panel of rows: every fourth element. `more`: it is added to `out`.
fn addChain(comptime more: bool, keys: [*]const f32, dim: usize, q: [*]const f32, out: [*]f32) void {
    var sums: [score_keys][2]F = @splat(@splat(@splat(0)));
    var d: usize = 0;
    while (d < dim) : (d += lanes) {
        inline for (0..lanes / 4) |quad| {
            const right = q + (d + 4 * quad) * panel_rows;
            const registers = [2]F{ right[0..lanes].*, right[lanes..][0..lanes].* };
            inline for (&sums, 0..) |*key, i| {
                const left: F = @splat(keys[i * dim + d + 4 * quad]);
                inline for (key, registers) |*sum, register| sum.* = math.mulAdd(left, register, sum.*);
            }
        }
    }
    inline for (sums, 0..) |key, i| inline for (key, 0..) |sum, v| {
        const place = out[i * panel_rows + v * lanes ..][0..lanes];
        place.* = if (more) @as(F, place.*) + sum else sum;
    };
}

/// `out[r, :] += weights[j, r] * values[j, :]` for a block of rows, key by key in ascending order.
fn accumulate(comptime registers: usize, seen: *const Seen, weights: [*]const f32, values: [*]const f32, out: [*]f32, out_row: usize) void {
    var sums: [block][registers]F = undefined;
    inline for (&sums, 0..) |*row, i| inline for (row, 0..) |*sum, v| {
        sum.* = out[i * out_row + v * lanes ..][0..lanes].*;
    };
    var j = seen.any.first;
    while (j < seen.all.first) : (j += 1) addValue(registers, true, &sums, weights + j * panel_rows, values + j * registers * lanes);
    while (j + unrolled_steps <= seen.all.last) : (j += unrolled_steps) {
        inline for (0..unrolled_steps) |k| addValue(registers, false, &sums, weights + (j + k) * panel_rows, values + (j + k) * registers * lanes);
    }
    while (j < seen.all.last) : (j += 1) addValue(registers, false, &sums, weights + j * panel_rows, values + j * registers * lanes);
    while (j < seen.any.last) : (j += 1) addValue(registers, true, &sums, weights + j * panel_rows, values + j * registers * lanes);
    inline for (&sums, 0..) |*row, i| inline for (row, 0..) |*sum, v| {
        out[i * out_row + v * lanes ..][0..lanes].* = sum.*;
    };
}

/// Weights that are `unseen` are passed over, where some may be.
inline fn addValue(comptime registers: usize, comptime masked: bool, sums: *[block][registers]F, weights: [*]const f32, value: [*]const f32) void {
    var right: [registers]F = undefined;
    inline for (&right, 0..) |*register, v| register.* = value[v * lanes ..][0..lanes].*;
    inline for (sums, 0..) |*row, i| {
        const left: F = @splat(weights[i]);
        inline for (row, right) |*sum, register| {
            const new = math.mulAdd(left, register, sum.*);
            sum.* = if (masked) @select(f32, left < @as(F, @splat(0)), sum.*, new) else new;
        }
    }
}
