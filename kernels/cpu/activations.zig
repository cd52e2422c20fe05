//! Activations as the quantised matrix products want them: 15-bit integers in blocks of 32, each integer split
//! into a high and a low byte for the 8-bit dot product instructions (`v = 128 * high + low`). One byte alone
//! would be up to twice as fast and costs small models about 5% of a logit's spread; two leave an error of f32's
//! order.
//!
//! Tokens are grouped in tiles of up to 16; within a tile the records of one block lie together, token by
//! token, so that a kernel walks one pointer whatever the number of tokens.

const std = @import("std");

pub const block_elements = 32;
/// Tokens of a tile; the last tile of a step holds what is left.
pub const tile_tokens = 16;

/// Largest integer of a block: 127 in the high byte, 0 in the low one.
const integer_max = 127 * 128;

/// One block of one token. The sums serve weight formats with offsets or minima, by halves of 16 and whole.
pub const Record = extern struct {
    high: [32]i8,
    low: [32]i8,
    scale: f32,
    /// Sum of the integers.
    sum: i32,
    half_sums: [2]i32,
    /// Sum of the values: scale * sum.
    total: f32,
    half_totals: [2]f32,
    reserved: f32 = 0,

    comptime {
        std.debug.assert(@sizeOf(Record) == 96);
    }
};

/// Blocks of a row of k elements, an even number: the in-place kernels read two at a time.
pub fn blockCount(k: usize) usize {
    return std.mem.alignForward(usize, k, 2 * block_elements) / block_elements;
}

/// Records that `tokens` rows of k elements need.
pub fn recordCount(tokens: usize, k: usize) usize {
    return tokens * blockCount(k);
}

/// The quantised rows of a step.
pub const Rows = struct {
    records: [*]Record,
    tokens: usize,
    blocks: usize,

    /// Tokens in the tile that begins at `token`, a multiple of `tile_tokens`.
    pub inline fn tileSize(rows: Rows, token: usize) usize {
        return @min(tile_tokens, rows.tokens - token);
    }

    /// The record of a token's first block; the next block's is `tileSize` records on.
    pub inline fn first(rows: Rows, token: usize) [*]Record {
        const tile = token - token % tile_tokens;
        return rows.records + tile * rows.blocks + (token - tile);
    }

    /// Quantises one row of k f32: scale the largest magnitude / 16256, integers rounded to nearest, ties to
    /// even.
    pub fn quantize(rows: Rows, token: usize, x: [*]const f32, k: usize) void {
        const step = rows.tileSize(token - token % tile_tokens);
        var record = rows.first(token);
        for (0..rows.blocks) |block| {
            const start = block * block_elements;
            quantizeBlock(x + start, if (start < k) @min(block_elements, k - start) else 0, &record[0]);
            record += step;
        }
    }
};

fn quantizeBlock(x: [*]const f32, present: usize, record: *Record) void {
    const V = @Vector(32, f32);
    const I = @Vector(32, i32);
    var values: [32]f32 = @splat(0);
    @memcpy(values[0..present], x[0..present]);
    const v: V = values;
    const largest = @reduce(.Max, @abs(v));
    const inverse: f32 = if (largest > 0 and std.math.isFinite(largest)) integer_max / largest else 0;
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even.
    const magic: V = @splat(12582912);
    const rounded = (v * @as(V, @splat(inverse)) + magic) - magic;
    // A block with an infinity or NaN poisons its outputs through the scale; the integers stay defined.
    const safe = @select(f32, rounded == rounded, rounded, @as(V, @splat(0)));
    const integers: I = @intFromFloat(safe);
    const high = (integers + @as(I, @splat(64))) >> @splat(7);
    const low = integers - (high << @splat(7));
    record.high = @as(@Vector(32, i8), @intCast(high));
    record.low = @as(@Vector(32, i8), @intCast(low));
    record.scale = if (@reduce(.And, v == v)) largest / integer_max else std.math.nan(f32);
    const parts: [2]@Vector(16, i32) = @bitCast(integers);
    inline for (0..2) |half| {
        record.half_sums[half] = @reduce(.Add, parts[half]);
        record.half_totals[half] = record.scale * @as(f32, @floatFromInt(record.half_sums[half]));
    }
    record.sum = record.half_sums[0] + record.half_sums[1];
    record.total = record.scale * @as(f32, @floatFromInt(record.sum));
}
