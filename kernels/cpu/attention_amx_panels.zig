//! Attention of many query rows on the tile unit, prompts above all. The keys and values of a range are split into
//! planes once for all rows of a tile, keys turned so that the queries can be the left operand; the rows are then
//! taken by 32, two panels, and keys and dimensions by two tiles each, so that what is loaded is used twice.

const std = @import("std");
const math = @import("math.zig");
const amx = @import("attention_amx.zig");
const cache = @import("attention_cache.zig");
const plan = @import("attention_plan.zig");
const planes = @import("attention_planes.zig");
const softmax = @import("attention_softmax.zig");
const tile_module = @import("attention_tile.zig");
const tiles = @import("tiles.zig");

const lanes = math.lanes;
const KvType = cache.KvType;
const Partials = softmax.Partials;
const Places = tile_module.Places;
const Plane = planes.Plane;
const Span = tile_module.Span;
const Tile = tile_module.Tile;

const range_keys = plan.range_keys;
const panel_rows = amx.panel_rows;
const step_keys = amx.step_keys;
/// Panels that are taken together.
const pair_rows = 2 * panel_rows;

pub const Scratch = struct {
    fixed: *Fixed,
    /// `[panels, steps]`, high planes and low ones, queries as rows.
    q: [*][2]Plane,
    /// `[range_keys / 32, steps]`, keys as columns.
    keys: [*]planes.Part,
    /// `[range_keys / 32, steps]`
    values: [*]planes.Part,
    partials: [*]f32,

    const Fixed = struct {
        scores: [2]amx.Scores,
        weights: [2]amx.Weights,
    };

    pub fn floats(rows: usize, dim: usize) usize {
        const bytes = @sizeOf(Fixed) + queryTiles(rows, dim) * @sizeOf([2]Plane) + 2 * partCount(dim) * @sizeOf(planes.Part);
        return bytes / 4 + pair_rows * softmax.partialFloats(dim);
    }

    pub fn init(memory: [*]f32, rows: usize, dim: usize) Scratch {
        const q: [*][2]Plane = @ptrCast(@alignCast(memory + @sizeOf(Fixed) / 4));
        const keys: [*]planes.Part = @ptrCast(q + queryTiles(rows, dim));
        const values = keys + partCount(dim);
        return .{
            .fixed = @ptrCast(@alignCast(memory)),
            .q = q,
            .keys = keys,
            .values = values,
            .partials = @ptrCast(values + partCount(dim)),
        };
    }

    fn queryTiles(rows: usize, dim: usize) usize {
        return panelCount(rows) * amx.stepCount(dim);
    }

    fn partCount(dim: usize) usize {
        return range_keys / step_keys * amx.stepCount(dim);
    }
};

fn panelCount(rows: usize) usize {
    return std.math.divCeil(usize, rows, panel_rows) catch unreachable;
}

/// Tile registers: 0 to 3 sums, 4 and 5 of two panels, 6 and 7 of two tiles of keys or dimensions.
fn configure() void {
    var configuration: tiles.Configuration = .{};
    for (0..8) |tile| configuration.set(tile, 16, 64);
    configuration.load();
}

/// Copies the tile's queries; to come first, since it gives the tile registers their shapes.
pub fn loadQueries(tile: *const Tile, dim: usize, scratch: Scratch) void {
    configure();
    const steps = amx.stepCount(dim);
    for (0..panelCount(tile.rows) * panel_rows) |row| {
        const of_panel = scratch.q + row / panel_rows * steps;
        for (of_panel[0..steps], 0..) |*pair, step| {
            const split: [2]planes.Pairs = if (row < tile.rows)
                planes.splitQuery(tile.query(row), step * planes.step_terms, tile.a.head_dim, tile.a.scale)
            else
                @splat(@splat(0));
            inline for (pair, split) |*plane, pairs| plane[row % panel_rows] = pairs;
        }
    }
}

/// Adds the partials of all rows in one range to their totals.
pub fn runRange(comptime kv: KvType, tile: *const Tile, range: usize, dim: usize, scratch: Scratch, totals: Partials) void {
    const span = tile.seenByAny(0, tile.rows, range);
    if (span.empty()) return;
    var places: Places = undefined;
    tile.locate(kv, range, span, step_keys, &places);
    const whole = span.outward(step_keys);
    splitKeys(kv, tile, whole, dim, places.keys(), scratch);
    splitValues(kv, .kept, tile, whole, dim, places.values(), scratch);
    var has_strays = false;
    var first: usize = 0;
    while (first < tile.rows) : (first += pair_rows) {
        const last = @min(first + pair_rows, tile.rows);
        const seen = tile.seenByAny(first, last, range);
        if (seen.empty()) continue;
        const pair: Pair(kv) = .{
            .tile = tile,
            .range = range,
            .dim = dim,
            .rows = .{ .first = first, .last = last },
            .whole = seen.outward(step_keys),
            .scratch = scratch,
            .partials = .{ .base = scratch.partials, .stride = softmax.partialFloats(dim), .dim = dim },
        };
        pair.score();
        pair.weigh();
        pair.addValues();
        if (!has_strays and !amx.areFinite(pair.partials, last - first)) {
            has_strays = true;
            splitValues(kv, .dropped, tile, whole, dim, places.values(), scratch);
            pair.addValues();
        }
        if (has_strays) amx.addStrays(kv, tile, range, pair.rows, places.values(), pair.partials);
        for (first..last) |row| totals.merge(row, pair.partials, row - first);
    }
}

fn splitKeys(comptime kv: KvType, tile: *const Tile, whole: Span, dim: usize, keys: cache.Rows, scratch: Scratch) void {
    const steps = amx.stepCount(dim);
    var j = whole.first;
    while (j < whole.last) : (j += step_keys) {
        for (j..j + step_keys) |row| cache.prefetch(kv, keys.after(row), 0, tile.a.head_dim);
        for (scratch.keys[j / step_keys * steps ..][0..steps], 0..) |*part, step| {
            const source: planes.Source = .{ .rows = keys, .j = j, .d = step * planes.step_terms, .dim = tile.a.head_dim };
            for (0..step_keys) |r| {
                if (source.isWhole()) planes.splitKey(kv, true, source, r, part) else planes.splitKey(kv, false, source, r, part);
            }
            for (part) |*half| {
                for (half[0..planes.planeCount(kv)]) |*plane| planes.turn(plane);
            }
        }
    }
}

fn splitValues(comptime kv: KvType, comptime strays: planes.Strays, tile: *const Tile, whole: Span, dim: usize, values: cache.Rows, scratch: Scratch) void {
    const steps = amx.stepCount(dim);
    var j = whole.first;
    while (j < whole.last) : (j += step_keys) {
        for (j..j + step_keys) |row| cache.prefetch(kv, values.after(row), 0, tile.a.head_dim);
        for (scratch.values[j / step_keys * steps ..][0..steps], 0..) |*part, step| {
            const source: planes.Source = .{ .rows = values, .j = j, .d = step * planes.step_terms, .dim = tile.a.head_dim };
            for (0..16) |r| {
                if (source.isWhole()) planes.splitValues(kv, true, strays, source, r, part) else planes.splitValues(kv, false, strays, source, r, part);
            }
        }
    }
}

/// Two panels, or the last one.
fn Pair(comptime kv: KvType) type {
    return struct {
        tile: *const Tile,
        range: usize,
        dim: usize,
        /// Of the tile.
        rows: Span,
        /// The keys that some of the rows see, whole steps.
        whole: Span,
        scratch: Scratch,
        partials: Partials,

        const Self = @This();

        fn score(pair: *const Self) void {
            var j = pair.whole.first;
            if (pair.panels() == 2) {
                while (j < pair.whole.last) : (j += 2 * 16) pair.scoreKeys(2, j);
            } else {
                while (j < pair.whole.last) : (j += 2 * 16) pair.scoreKeys(1, j);
            }
        }

        fn panels(pair: *const Self) usize {
            return panelCount(pair.rows.last - pair.rows.first);
        }

        /// Of 32 keys.
        inline fn scoreKeys(pair: *const Self, comptime count: usize, j: usize) void {
            const steps = amx.stepCount(pair.dim);
            const q = pair.scratch.q + pair.rows.first / panel_rows * steps;
            const keys = pair.scratch.keys + j / step_keys * steps;
            inline for (0..2 * count) |sums| tiles.zero(sums);
            for (keys[0..steps], 0..) |*part, step| {
                inline for (terms) |term| inline for (0..count) |panel| multiply(panel, 2, &q[panel * steps + step], part, term);
            }
            inline for (0..count) |panel| inline for (0..2) |half| {
                tiles.storeApart(2 * panel + half, &pair.scratch.fixed.scores[panel][0][j + half * 16], @sizeOf(@typeInfo(amx.Scores).array.child));
            };
        }

        fn weigh(pair: *const Self) void {
            for (pair.rows.first..pair.rows.last) |row| {
                const index = row - pair.rows.first;
                const panel = index / panel_rows;
                (amx.Row{
                    .tile = pair.tile,
                    .range = pair.range,
                    .row = row,
                    .r = index % panel_rows,
                    .whole = pair.whole,
                    .scores = &pair.scratch.fixed.scores[panel],
                    .weights = &pair.scratch.fixed.weights[panel],
                    .partials = pair.partials.from(panel * panel_rows),
                }).weigh();
            }
        }

        fn addValues(pair: *const Self) void {
            if (pair.panels() == 2) pair.addDimensions(2) else pair.addDimensions(1);
        }

        fn addDimensions(pair: *const Self, comptime count: usize) void {
            var d: usize = 0;
            while (d + lanes < pair.dim) : (d += 2 * lanes) pair.addTiles(count, 2, d);
            if (d < pair.dim) pair.addTiles(count, 1, d);
        }

        /// Of the dimensions of `width` tiles.
        inline fn addTiles(pair: *const Self, comptime count: usize, comptime width: usize, d: usize) void {
            const steps = amx.stepCount(pair.dim);
            inline for (0..count) |panel| inline for (0..width) |i| tiles.zero(2 * panel + i);
            for (pair.whole.first / step_keys..pair.whole.last / step_keys) |step| {
                const part = &pair.scratch.values[step * steps + d / planes.step_terms];
                inline for (terms) |term| inline for (0..count) |panel| multiply(panel, width, &pair.scratch.fixed.weights[panel][step], part, term);
            }
            inline for (0..count) |panel| inline for (0..width) |i| {
                tiles.storeApart(2 * panel + i, pair.partials.sums(panel * panel_rows) + d + i * lanes, pair.partials.stride * 4);
            };
        }

        const terms: []const Term = if (planes.planeCount(kv) == 2) &.{ .low_high, .high_high, .high_low } else &.{ .low_high, .high_high };
    };
}

/// Which planes of the left and the right operand are multiplied.
const Term = enum { low_high, high_high, high_low };

/// A product of a panel with `width` tiles, each of which is loaded with the first panel.
inline fn multiply(comptime panel: usize, comptime width: usize, left: *const [2]Plane, right: *const planes.Part, comptime term: Term) void {
    const high = 0;
    const low = 1;
    switch (term) {
        .low_high => tiles.load(4 + panel, &left[low], 64),
        .high_high => tiles.load(4 + panel, &left[high], 64),
        .high_low => {},
    }
    if (panel == 0) inline for (0..width) |i| switch (term) {
        .low_high => tiles.load(6 + i, &right[i][high], 64),
        .high_high => {},
        .high_low => tiles.load(6 + i, &right[i][low], 64),
    };
    inline for (0..width) |i| tiles.addBf16(2 * panel + i, 4 + panel, 6 + i);
}
