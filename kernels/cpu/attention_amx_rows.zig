//! Attention of few query rows on the tile unit, decode above all: keys and values are split into planes as memory
//! brings them, a small part at a time, while the unit multiplies the part before. Of scores the keys are the rows
//! of the left operand, since that is how the cache holds them, and the queries its columns; the products are then turned.

const std = @import("std");
const math = @import("math.zig");
const amx = @import("attention_amx.zig");
const cache = @import("attention_cache.zig");
const plan = @import("attention_plan.zig");
const planes = @import("attention_planes.zig");
const shuffle = @import("attention_shuffle.zig");
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

const step_keys = amx.step_keys;

pub const rows_max = amx.panel_rows;

pub const Scratch = struct {
    fixed: *Fixed,
    /// `[steps]`, high planes and low ones, queries as columns.
    q: [*][2]Plane,

    const Fixed = struct {
        scores: amx.Scores,
        weights: amx.Weights,
        /// What is being split and what was split before.
        parts: [2]planes.Part,
        /// The scores of 32 keys as they leave the unit: keys as rows.
        products: [2][16]math.F,
    };

    pub fn floats(dim: usize) usize {
        return (@sizeOf(Fixed) + amx.stepCount(dim) * @sizeOf([2]Plane)) / 4;
    }

    pub fn init(memory: [*]f32, dim: usize) Scratch {
        _ = dim;
        return .{ .fixed = @ptrCast(@alignCast(memory)), .q = @ptrCast(@alignCast(memory + @sizeOf(Fixed) / 4)) };
    }
};

/// Tile registers: 0 and 1 sums, 2 and 3 planes of queries or weights, low ones first, 4 and 5 high planes of keys or
/// values, 6 and 7 low ones. The first four have rows of keys, or of weights.
fn configure(rows: usize) void {
    var configuration: tiles.Configuration = .{};
    for (0..4) |tile| configuration.set(tile, rows, 64);
    for (4..8) |tile| configuration.set(tile, 16, 64);
    configuration.load();
}

/// Copies the tile's queries.
pub fn loadQueries(tile: *const Tile, dim: usize, scratch: Scratch) void {
    for (scratch.q[0..amx.stepCount(dim)], 0..) |*pair, step| {
        for (0..rows_max) |row| {
            const split: [2]planes.Pairs = if (row < tile.rows)
                planes.splitQuery(tile.query(row), step * planes.step_terms, tile.a.head_dim, tile.a.scale)
            else
                @splat(@splat(0));
            inline for (pair, split) |*plane, pairs| plane[row] = pairs;
        }
        for (pair) |*plane| planes.turn(plane);
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
    tile.locate(kv, range, span, step_keys, &places);
    const keys: Keys(kv) = .{ .tile = tile, .range = range, .dim = dim, .whole = span.outward(step_keys), .places = &places, .scratch = scratch, .partials = partials };
    places.requestFirst(kv, tile.a.head_dim);
    configure(16);
    keys.score();
    keys.weigh();
    configure(tile.rows);
    keys.addValues(.kept);
    if (amx.areFinite(partials, tile.rows)) return;
    keys.addValues(.dropped);
    amx.addStrays(kv, tile, range, .{ .first = 0, .last = tile.rows }, places.values(), partials);
}

/// The keys of a range that some row sees.
fn Keys(comptime kv: KvType) type {
    return struct {
        tile: *const Tile,
        range: usize,
        dim: usize,
        whole: Span,
        places: *const Places,
        scratch: Scratch,
        partials: Partials,

        const Self = @This();

        fn score(keys: *const Self) void {
            const steps = amx.stepCount(keys.dim);
            const parts = &keys.scratch.fixed.parts;
            var slot: usize = 0;
            var source: planes.Source = .{ .rows = keys.places.keys(), .j = keys.whole.first, .d = 0, .dim = keys.tile.a.head_dim };
            split(.keys, .kept, source, &parts[slot]);
            // Scores are turned a part later than they leave the unit, which takes its time.
            var unturned: ?usize = null;
            while (true) {
                const j = source.j;
                const step = source.d / planes.step_terms;
                if (step == 0) inline for (0..2) |half| tiles.zero(half);
                const more = keys.next(&source);
                const operands: Operands = .{ .small = &keys.scratch.q[step], .part = &parts[slot] };
                slot ^= 1;
                if (more) multiplyAndSplit(.keys, .kept, operands, source, &parts[slot]) else multiply(.keys, operands);
                if (unturned) |first| keys.turnScores(first);
                unturned = null;
                if (step + 1 == steps) {
                    inline for (0..2) |half| tiles.store(half, &keys.scratch.fixed.products[half]);
                    unturned = j;
                }
                if (!more) break;
            }
            keys.turnScores(unturned.?);
        }

        fn turnScores(keys: *const Self, j: usize) void {
            @setEvalBranchQuota(20_000);
            const products = &keys.scratch.fixed.products;
            switch (std.math.divCeil(usize, keys.tile.rows, 4) catch unreachable) {
                inline 1...4 => |quads| inline for (0..2) |half| {
                    const turned = shuffle.transpose(products[half]);
                    inline for (turned[0 .. 4 * quads], keys.scratch.fixed.scores[0 .. 4 * quads]) |scores, *row| {
                        row[j + half * lanes ..][0..lanes].* = scores;
                    }
                },
                else => unreachable,
            }
        }

        fn weigh(keys: *const Self) void {
            for (0..keys.tile.rows) |row| (amx.Row{
                .tile = keys.tile,
                .range = keys.range,
                .row = row,
                .r = row,
                .whole = keys.whole,
                .scores = &keys.scratch.fixed.scores,
                .weights = &keys.scratch.fixed.weights,
                .partials = keys.partials,
            }).weigh();
        }

        /// The sums of 32 dimensions go through the registers and back: those of all do not fit.
        fn addValues(keys: *const Self, comptime strays: planes.Strays) void {
            const parts = &keys.scratch.fixed.parts;
            const stride = keys.partials.stride * 4;
            var slot: usize = 0;
            var source: planes.Source = .{ .rows = keys.places.values(), .j = keys.whole.first, .d = 0, .dim = keys.tile.a.head_dim };
            split(.values, strays, source, &parts[slot]);
            while (true) {
                const sums = keys.partials.base + source.d;
                const is_wide = source.d + lanes < keys.dim;
                if (source.j == keys.whole.first) {
                    inline for (0..2) |half| tiles.zero(half);
                } else {
                    tiles.load(0, sums, stride);
                    if (is_wide) tiles.load(1, sums + lanes, stride);
                }
                const operands: Operands = .{ .small = &keys.scratch.fixed.weights[source.j / step_keys], .part = &parts[slot] };
                const more = keys.next(&source);
                slot ^= 1;
                if (more) multiplyAndSplit(.values, strays, operands, source, &parts[slot]) else multiply(.values, operands);
                tiles.storeApart(0, sums, stride);
                if (is_wide) tiles.storeApart(1, sums + lanes, stride);
                if (!more) return;
            }
        }

        /// To the next part; false where there is none.
        inline fn next(keys: *const Self, source: *planes.Source) bool {
            source.d += planes.step_terms;
            if (source.d < keys.dim) return true;
            source.d = 0;
            source.j += step_keys;
            return source.j < keys.whole.last;
        }

        const Side = enum { keys, values };

        const Operands = struct {
            /// Queries or weights.
            small: *const [2]Plane,
            part: *const planes.Part,
        };

        /// Multiplies one part and splits the next. The vector unit goes on while the tile unit works only if the
        /// instructions for both come in turns.
        inline fn multiplyAndSplit(comptime side: Side, comptime strays: planes.Strays, operands: Operands, source: planes.Source, out: *planes.Part) void {
            if (!source.isWhole()) {
                multiply(side, operands);
                return split(side, strays, source, out);
            }
            comptime var done = 0;
            var requests: Requests = .of(source);
            inline for (0..16) |r| {
                inline for (0..comptime kv.bytes()) |_| requests.next();
                inline while (done * 16 <= r * instructions) : (done += 1) issue(side, done, operands);
                splitRows(side, true, strays, source, r, out);
            }
            inline while (done < instructions) : (done += 1) issue(side, done, operands);
        }

        fn multiply(comptime side: Side, operands: Operands) void {
            inline for (0..instructions) |index| issue(side, index, operands);
        }

        noinline fn split(comptime side: Side, comptime strays: planes.Strays, source: planes.Source, out: *planes.Part) void {
            for (0..16) |r| {
                if (source.isWhole()) splitRows(side, true, strays, source, r, out) else splitRows(side, false, strays, source, r, out);
            }
        }

        /// Two of 32.
        inline fn splitRows(comptime side: Side, comptime whole: bool, comptime strays: planes.Strays, source: planes.Source, r: usize, out: *planes.Part) void {
            switch (side) {
                .keys => inline for (0..2) |half| planes.splitKey(kv, whole, source, half * 16 + r, out),
                .values => planes.splitValues(kv, whole, strays, source, r, out),
            }
        }

        /// Lines of rows further on, which are requested in the order of their addresses while a part is split: as many
        /// as it has.
        const Requests = struct {
            row: [*]const [*]const u8,
            offset: usize,
            row_bytes: usize,

            inline fn of(source: planes.Source) Requests {
                const row_bytes = source.dim * kv.bytes();
                const row_lines = (row_bytes + line_bytes - 1) / line_bytes;
                const line = source.d / planes.step_terms * lines_per_part;
                return .{
                    .row = source.rows.addresses + source.rows.ahead + source.j + line / row_lines,
                    .offset = line % row_lines * line_bytes,
                    .row_bytes = row_bytes,
                };
            }

            inline fn next(requests: *Requests) void {
                @prefetch(requests.row[0] + requests.offset, .{ .locality = 2 });
                requests.offset += line_bytes;
                const is_last = requests.offset >= requests.row_bytes;
                requests.row += @intFromBool(is_last);
                requests.offset = if (is_last) 0 else requests.offset;
            }

            const lines_per_part = step_keys * planes.step_terms * kv.bytes() / line_bytes;
            const line_bytes = 64;
        };

        const instructions = if (planes.planeCount(kv) == 2) 12 else 8;

        /// One tile instruction of the products of a part.
        inline fn issue(comptime side: Side, comptime index: usize, operands: Operands) void {
            const part = operands.part;
            switch (index) {
                0 => tiles.load(2, &operands.small[1], 64),
                1 => tiles.load(4, &part[0][0], 64),
                2 => add(side, 0, 2, 4),
                3 => tiles.load(5, &part[1][0], 64),
                4 => add(side, 1, 2, 5),
                5 => tiles.load(3, &operands.small[0], 64),
                6 => add(side, 0, 3, 4),
                7 => add(side, 1, 3, 5),
                8 => tiles.load(6, &part[0][1], 64),
                9 => add(side, 0, 3, 6),
                10 => tiles.load(7, &part[1][1], 64),
                11 => add(side, 1, 3, 7),
                else => comptime unreachable,
            }
        }

        inline fn add(comptime side: Side, comptime sums: usize, comptime small: usize, comptime large: usize) void {
            switch (side) {
                .keys => tiles.addBf16(sums, large, small),
                .values => tiles.addBf16(sums, small, large),
            }
        }
    };
}
