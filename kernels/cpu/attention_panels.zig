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
/// Keys, or rows of weights, that a product takes together.
const block = if (math.many_registers) 8 else 4;
/// Keys whose values all rows of a panel go through before the next: they stay in the nearest cache.
const value_keys = 64;

/// A weight that marks a key which the row does not see.
const unseen: f32 = -1;

pub const Scratch = struct {
    /// `[panels, dim, panel_rows]`, scaled.
    q: [*]f32,
    /// `[range_keys, dim]`
    keys: [*]f32,
    values: [*]f32,
    /// `[range_keys, panel_rows]`: scores, then weights.
    scores: [*]f32,
    /// `[panel_rows]`
    partials: [*]f32,

    pub fn floats(rows: usize, dim: usize) usize {
        return (paddedRows(rows) + 2 * range_keys) * dim + range_keys * panel_rows + panel_rows * softmax.partialFloats(dim);
    }

    pub fn init(memory: [*]f32, rows: usize, dim: usize) Scratch {
        const keys = memory + paddedRows(rows) * dim;
        const values = keys + range_keys * dim;
        const scores = values + range_keys * dim;
        return .{ .q = memory, .keys = keys, .values = values, .scores = scores, .partials = scores + range_keys * panel_rows };
    }
};

fn paddedRows(rows: usize) usize {
    return std.mem.alignForward(usize, rows, panel_rows);
}

/// Copies the tile's queries, scaled and turned into panels; zeros behind each row and in rows that fill up a panel.
pub fn loadQueries(tile: *const Tile, dim: usize, scratch: Scratch) void {
    const scale: F = @splat(tile.a.scale);
    var first: usize = 0;
    while (first < paddedRows(tile.rows)) : (first += lanes) {
        const panel = scratch.q + first / panel_rows * panel_rows * dim + first % panel_rows;
        const count = @min(lanes, tile.rows -| first);
        var queries: [lanes][*]const u8 = undefined;
        for (queries[0..count], first..) |*query, row| {
            query.* = @ptrCast(tile.query(row));
            cache.prefetch(.f32, @ptrCast(tile.query(@min(row + lanes, tile.rows - 1))), 0, tile.a.head_dim);
        }
        var d: usize = 0;
        while (d < dim) : (d += lanes) {
            var rows: [lanes]F = @splat(@splat(0));
            for (rows[0..count], queries[0..count]) |*row, query| row.* = cache.load(.f32, query, d, tile.a.head_dim) * scale;
            inline for (shuffle.transpose(rows), 0..) |column, i| panel[(d + i) * panel_rows ..][0..lanes].* = column;
        }
    }
}

/// Adds the partials of all rows in one range to their totals.
pub fn runRange(comptime kv: KvType, tile: *const Tile, range: usize, dim: usize, scratch: Scratch, totals: Partials) void {
    const span = tile.seenByAny(0, tile.rows, range);
    if (span.empty()) return;
    var places: Places = undefined;
    tile.locate(kv, range, span, lanes, &places);
    inline for (.{ places.keys(), places.values() }, .{ scratch.keys, scratch.values }) |rows, widened| {
        for (span.first..span.last) |j| {
            cache.prefetch(kv, rows.after(j), 0, tile.a.head_dim);
            cache.widenRow(kv, rows.at(j), tile.a.head_dim, widened + j * dim);
        }
    }
    var first: usize = 0;
    while (first < tile.rows) : (first += panel_rows) {
        const panel: Panel = .{
            .tile = tile,
            .range = range,
            .dim = dim,
            .first = first,
            .last = @min(first + panel_rows, tile.rows),
            .scratch = scratch,
            .partials = .{ .base = scratch.partials, .stride = softmax.partialFloats(dim), .dim = dim },
        };
        panel.run();
        for (first..panel.last) |row| totals.merge(row, panel.partials, row - first);
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
            row = 0;
            while (row < rows) : (row += block) panel.addValues(row, @min(row + block, rows), .{ .first = at, .last = end });
            at = end;
        }
    }

    /// `scores[j, r] = q[r] . key[j]`, blocks of keys whole. Four chains, as a row alone has them.
    fn score(panel: *const Panel, span: Span) void {
        const q = panel.scratch.q + panel.first * panel.dim;
        var j = span.first - span.first % block;
        while (j < span.last) : (j += block) {
            panel.addChain(.store, q, j, 0);
            for (1..4) |chain| panel.addChain(.add, q, j, chain);
        }
    }

    fn addChain(panel: *const Panel, comptime into: Into, q: [*]const f32, j: usize, chain: usize) void {
        multiply(.{ .vectors = 2, .into = into, .a_step = 4 }, .{
            .a = panel.scratch.keys + j * panel.dim + chain,
            .a_row = panel.dim,
            .b = q + chain * panel_rows,
            .b_step = 4 * panel_rows,
            .steps = panel.dim / 4,
            .out = panel.scratch.scores + j * panel_rows,
            .out_row = panel_rows,
        });
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
        var largest: F = @splat(-std.math.inf(f32));
        for (any.first..any.last) |j| {
            var s: F = scores[j * panel_rows ..][0..lanes].*;
            if (cap != 0) {
                s = softmax.softCap(s, cap);
                scores[j * panel_rows ..][0..lanes].* = s;
            }
            const seen = math.greater(largest, s);
            largest = if (edges.inside(j)) seen else @select(f32, edges.see(j), seen, largest);
        }
        const reference = softmax.reference(largest);
        var sums: [lanes]F = @splat(@splat(0));
        for (any.first..any.last) |j| {
            const weight = softmax.exponential(@as(F, scores[j * panel_rows ..][0..lanes].*) - reference);
            const sum = sums[j % lanes] + weight;
            if (edges.inside(j)) {
                sums[j % lanes] = sum;
                scores[j * panel_rows ..][0..lanes].* = weight;
            } else {
                sums[j % lanes] = @select(f32, edges.see(j), sum, sums[j % lanes]);
                scores[j * panel_rows ..][0..lanes].* = @select(f32, edges.see(j), weight, @as(F, @splat(unseen)));
            }
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

    /// Adds the weighted values of a run of keys to a block of rows. Where not all of the rows see a key, those
    /// that do not are left as they are.
    fn addValues(panel: *const Panel, row: usize, end: usize, run_: Span) void {
        const rows = .{ panel.first + row, panel.first + end };
        const any = run_.intersection(panel.tile.seenByAny(rows[0], rows[1], panel.range));
        if (any.empty()) return;
        const all = any.intersection(panel.tile.seenByAll(rows[0], rows[1], panel.range));
        if (all.empty()) return panel.addSpan(true, row, any);
        panel.addSpan(true, row, .{ .first = any.first, .last = all.first });
        panel.addSpan(false, row, all);
        panel.addSpan(true, row, .{ .first = all.last, .last = any.last });
    }

    fn addSpan(panel: *const Panel, comptime masked: bool, row: usize, span: Span) void {
        if (span.empty()) return;
        var d: usize = 0;
        inline for (.{ 2, 1 }) |vectors| {
            while (d + vectors * lanes <= panel.dim) : (d += vectors * lanes) {
                multiply(.{ .vectors = vectors, .into = .resumed, .masked = masked, .a_step = panel_rows }, .{
                    .a = panel.scratch.scores + span.first * panel_rows + row,
                    .a_row = 1,
                    .b = panel.scratch.values + span.first * panel.dim + d,
                    .b_step = panel.dim,
                    .steps = span.last - span.first,
                    .out = panel.partials.sums(row) + d,
                    .out_row = panel.partials.stride,
                });
            }
        }
    }
};

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

    /// Whether all rows see key j.
    inline fn inside(edges: *const Edges, j: usize) bool {
        return edges.all.first <= j and j < edges.all.last;
    }

    inline fn see(edges: *const Edges, j: usize) @Vector(lanes, bool) {
        const key: @Vector(lanes, u32) = @splat(@intCast(j));
        const after = @select(u32, key >= edges.first, edges.last, @as(@Vector(lanes, u32), @splat(0)));
        return key < after;
    }
};

const Into = enum {
    /// Every chain begins at 0 and replaces what was there.
    store,
    /// It begins at 0 and is added to what was there.
    add,
    /// It begins with what was there.
    resumed,
};

/// The form of a product, known when it is compiled: a loop of constant strides takes no arithmetic on addresses.
const Form = struct {
    /// Registers of a row of `b`.
    vectors: comptime_int,
    into: Into,
    /// Elements of `a` that are `unseen` are passed over.
    masked: bool = false,
    a_step: comptime_int,
};

const Product = struct {
    a: [*]const f32,
    a_row: usize,
    b: [*]const f32,
    b_step: usize,
    steps: usize,
    out: [*]f32,
    out_row: usize,
};

/// Steps of a product without a branch: the loop over them is then short enough to be foreseen to its end.
const unrolled_steps = 8;

/// `out[i, :] = sum over k of a[i, k] * b[k, :]` for a block of i, k in ascending order.
inline fn multiply(comptime form: Form, p: Product) void {
    var sums: [block][form.vectors]F = @splat(@splat(@splat(0)));
    if (form.into == .resumed) {
        inline for (&sums, 0..) |*row, i| inline for (row, 0..) |*sum, v| {
            sum.* = p.out[i * p.out_row + v * lanes ..][0..lanes].*;
        };
    }
    var a = p.a;
    var b = p.b;
    var left = p.steps;
    while (left >= unrolled_steps) : (left -= unrolled_steps) {
        inline for (0..unrolled_steps) |k| step(form, &sums, a + k * form.a_step, p.a_row, b + k * p.b_step);
        a += unrolled_steps * form.a_step;
        b += unrolled_steps * p.b_step;
    }
    while (left > 0) : (left -= 1) {
        step(form, &sums, a, p.a_row, b);
        a += form.a_step;
        b += p.b_step;
    }
    inline for (&sums, 0..) |*row, i| inline for (row, 0..) |*sum, v| {
        const out = p.out[i * p.out_row + v * lanes ..][0..lanes];
        out.* = if (form.into == .add) @as(F, out.*) + sum.* else sum.*;
    };
}

inline fn step(comptime form: Form, sums: *[block][form.vectors]F, a: [*]const f32, a_row: usize, b: [*]const f32) void {
    var right: [form.vectors]F = undefined;
    inline for (&right, 0..) |*register, v| register.* = b[v * lanes ..][0..lanes].*;
    inline for (sums, 0..) |*row, i| {
        const left: F = @splat(a[i * a_row]);
        inline for (row, right) |*sum, register| {
            const new = math.mulAdd(left, register, sum.*);
            sum.* = if (form.masked) @select(f32, left < @as(F, @splat(0)), sum.*, new) else new;
        }
    }
}
