//! Matrix product with f32, f16 and bf16 weights: widened to f32 in registers, no quantisation of x.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;

/// Lanes of a sum: products of elements so far apart are added one after the other, whatever the tile.
const sum_lanes = 16;

/// Tokens of a register tile.
const tile_tokens = if (simd.has_avx512) 8 else 4;

/// What a register tile computes at once.
const Shape = struct {
    rows: usize,
    /// Lanes of each sum. Where they are not all, the tile's rows are gone through again for the others.
    lanes: usize = sum_lanes,

    /// Rows cost a conversion, tokens a load. Of 24 sums in registers of AVX-512, three rows of eight tokens cost least;
    /// of twelve registers of elsewhere, which are parts of sums, three rows of four tokens. One token waits for memory,
    /// and wants as many sums as hide how long an addition takes.
    fn of(comptime tokens: usize) Shape {
        if (simd.has_avx512) return .{ .rows = if (tokens > 4) 3 else 4 };
        if (tokens > 2) return .{ .rows = 3, .lanes = if (simd.has_avx2) 8 else 4 };
        if (simd.has_avx2) return .{ .rows = 4, .lanes = if (tokens == 1) sum_lanes else 8 };
        return .{ .rows = if (simd.has_dotprod) 2 else 1 };
    }

    fn passes(comptime shape: Shape) usize {
        return sum_lanes / shape.lanes;
    }

    /// Tiles that meet the same elements of x one after the other.
    fn tilesMax(comptime shape: Shape) usize {
        return if (shape.passes() == 1) 1 else 8;
    }
};

/// Elements of x of a tile's tokens that stay in the first-level cache while several tiles pass by.
const resident_elements = 1024;
/// Elements after which a tile whose rows come from memory goes through them again: while it does, no more are read but
/// those asked for ahead.
const read_elements = 256;
/// How far ahead of the arithmetic weights are asked for.
const ahead_bytes = 2048;

/// Bytes of weights that stay in the second-level cache while all tokens pass by.
const resident_bytes = 256 << 10;

/// Rows `first .. end` of a segment, all tokens.
pub fn run(comptime dtype: ops.DType, a: *const matmul.Arguments, segment: *const matmul.Segment, first: usize, end: usize) void {
    const resident_rows = @max(resident_bytes / segment.row_bytes, 4 * sum_lanes);
    const rows_max = if (a.tokens <= tile_tokens) end - first else evenPart(end - first, resident_rows);
    var row = first;
    while (row < end) : (row += rows_max) {
        const rows = @min(rows_max, end - row);
        // Widths that fill no register at their end are rare: one token at a time, since such an end beside the loop of
        // several tokens takes registers away from it.
        if (a.k % sum_lanes != 0) {
            for (0..a.tokens) |token| Block(dtype, 1, true).init(a, segment, token).run(row, rows);
            continue;
        }
        // Tokens outside: their x stays in the first-level cache while the weights of the block pass by. As many each
        // time as can be: one costs almost as much as two.
        var token: usize = 0;
        while (token < a.tokens) {
            const count = evenPart(a.tokens - token, tile_tokens);
            switch (count) {
                inline 1...tile_tokens => |tokens| Block(dtype, tokens, false).init(a, segment, token).run(row, rows),
                else => unreachable,
            }
            token += count;
        }
    }
}

/// The first of as few parts, as even as can be, as hold no more than `max` each.
fn evenPart(count: usize, max: usize) usize {
    const parts = std.math.divCeil(usize, count, max) catch unreachable;
    return std.math.divCeil(usize, count, parts) catch unreachable;
}

/// A tile's tokens and the rows that they meet. `has_rest`: k is no multiple of `sum_lanes`.
fn Block(comptime dtype: ops.DType, comptime tokens: usize, comptime has_rest: bool) type {
    return struct {
        a: *const matmul.Arguments,
        segment: *const matmul.Segment,
        token: usize,
        x: [tokens][*]const f32,

        const Self = @This();
        const element_bytes = if (dtype == .f32) 4 else 2;

        fn init(a: *const matmul.Arguments, segment: *const matmul.Segment, token: usize) Self {
            var block: Self = .{ .a = a, .segment = segment, .token = token, .x = undefined };
            inline for (&block.x, 0..) |*p, t| p.* = a.x + (token + t) * a.x_stride;
            return block;
        }

        fn run(block: *const Self, first: usize, rows: usize) void {
            const shape: Shape = comptime .of(tokens);
            // A tile's rows lie a stretch apart: where each ends, the next tile reads on, so that the processor sees a
            // few long streams and reads ahead in all of them.
            const stretch = rows / shape.rows;
            const tiles_max: usize = if (block.token == 0) 1 else shape.tilesMax();
            var done: usize = 0;
            while (done < stretch) : (done += tiles_max) block.runTiles(shape, first + done, stretch, @min(tiles_max, stretch - done));
            for (first + shape.rows * stretch..first + rows) |row| block.runTiles(.{ .rows = 1 }, row, 1, 1);
        }

        /// The rows `row`, `row + stretch` and so on are a tile, and so are those behind each of them.
        fn runTiles(block: *const Self, comptime shape: Shape, row: usize, stretch: usize, tiles: usize) void {
            const a = block.a;
            const whole = a.k - a.k % sum_lanes;
            var sums: [shape.tilesMax()][shape.rows][tokens]F32 = undefined;
            const step: usize = if (shape.passes() == 1) @max(whole, 1) else if (block.token == 0) read_elements else resident_elements;
            var first: usize = 0;
            while (first == 0 or first < whole) : (first += step) {
                const end = @min(first + step, whole);
                for (sums[0..tiles], row..) |*tile, tile_row| {
                    const weights = block.weightsOf(shape.rows, tile_row, stretch);
                    inline for (0..comptime shape.passes()) |pass| {
                        // The first tokens meet weights from memory.
                        if (pass == 0 and block.token == 0) block.addProducts(shape, pass, true, weights, first, end, tile) else block.addProducts(shape, pass, false, weights, first, end, tile);
                    }
                }
            }
            for (sums[0..tiles], row..) |*tile, tile_row| {
                const weights = block.weightsOf(shape.rows, tile_row, stretch);
                inline for (tile, weights, 0..) |*row_sums, p, r| {
                    inline for (row_sums, block.x, 0..) |sum, x, t| {
                        const all = if (has_rest) withRest(sum, p, x, a.k) else sum;
                        matmul.store(a, block.segment, tile_row + r * stretch, block.token + t, math.sum(all));
                    }
                }
            }
        }

        inline fn weightsOf(block: *const Self, comptime rows: usize, row: usize, stretch: usize) [rows][*]const u8 {
            var weights: [rows][*]const u8 = undefined;
            inline for (&weights, 0..) |*p, r| p.* = block.segment.data + (row + r * stretch) * block.segment.row_bytes;
            return weights;
        }

        /// Adds elements `first .. end` to some lanes of a tile's sums, which begin with element 0.
        inline fn addProducts(
            block: *const Self,
            comptime shape: Shape,
            comptime pass: usize,
            comptime from_memory: bool,
            weights: [shape.rows][*]const u8,
            first: usize,
            end: usize,
            sums: *[shape.rows][tokens]F32,
        ) void {
            const Lanes = @Vector(shape.lanes, f32);
            const lane = pass * shape.lanes;
            const x = block.x;
            var acc: [shape.rows][tokens]Lanes = @splat(@splat(@splat(0)));
            if (first > 0) inline for (&acc, sums) |*row_acc, *row_sums| {
                inline for (row_acc, row_sums) |*lanes, *sum| lanes.* = lanesOf(sum)[lane..][0..shape.lanes].*;
            };
            var done = first;
            while (done < end) : (done += sum_lanes) {
                var wide: [shape.rows]Lanes = undefined;
                inline for (&wide, weights) |*lanes, row| {
                    const p = row + (done + lane) * element_bytes;
                    if (from_memory) @prefetch(p + ahead_bytes, .{ .locality = 2 });
                    lanes.* = widen(shape.lanes, p);
                }
                inline for (0..tokens) |t| {
                    const lanes: Lanes = x[t][done + lane ..][0..shape.lanes].*;
                    inline for (0..shape.rows) |r| acc[r][t] = math.mulAdd(wide[r], lanes, acc[r][t]);
                }
            }
            inline for (acc, sums) |row_acc, *row_sums| {
                inline for (row_acc, row_sums) |lanes, *sum| lanesOf(sum)[lane..][0..shape.lanes].* = lanes;
            }
        }

        inline fn lanesOf(sum: *F32) *[sum_lanes]f32 {
            return @ptrCast(sum);
        }

        /// A sum and the products of the last elements, which fill no register.
        fn withRest(sum: F32, weights: [*]const u8, x: [*]const f32, k: usize) F32 {
            const whole = k - k % sum_lanes;
            var bytes: [sum_lanes * element_bytes]u8 = @splat(0);
            @memcpy(bytes[0 .. (k - whole) * element_bytes], weights[whole * element_bytes .. k * element_bytes]);
            var lanes: [sum_lanes]f32 = @splat(0);
            @memcpy(lanes[0 .. k - whole], x[whole..k]);
            return math.mulAdd(widen(sum_lanes, &bytes), @as(F32, lanes), sum);
        }

        inline fn widen(comptime n: usize, p: [*]const u8) @Vector(n, f32) {
            switch (dtype) {
                .f32 => return @bitCast(p[0 .. 4 * n].*),
                .f16 => return math.widenHalf(@as(@Vector(n, u16), @bitCast(p[0 .. 2 * n].*))),
                .bf16 => return simd.widenBf16(n, p),
                else => comptime unreachable,
            }
        }
    };
}
