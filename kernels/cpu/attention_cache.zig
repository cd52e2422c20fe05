//! How attention reads the cache: where the keys and values of a range lie, and their elements as f32.

const std = @import("std");
const float8 = @import("float8.zig");
const math = @import("math.zig");

const lanes = math.lanes;
const F = math.F;

pub const KvType = enum {
    f32,
    f16,
    bf16,
    f8e4m3,

    pub fn bytes(kv: KvType) usize {
        return switch (kv) {
            .f32 => 4,
            .f16, .bf16 => 2,
            .f8e4m3 => 1,
        };
    }
};

/// Rows of keys or values, by their addresses.
pub const Rows = struct {
    addresses: [*]const [*]const u8,
    /// How many rows ahead of its use a row is requested from memory; there are addresses up to there. 0: the rows
    /// are near.
    ahead: usize,

    pub inline fn at(rows: Rows, j: usize) [*]const u8 {
        return rows.addresses[j];
    }

    /// The row to request when row j is used.
    pub inline fn after(rows: Rows, j: usize) [*]const u8 {
        return rows.addresses[j + rows.ahead];
    }
};

/// Elements `d .. d + lanes` of a row of `dim`, zeros behind the last.
pub inline fn load(comptime kv: KvType, row: [*]const u8, d: usize, dim: usize) F {
    return if (d + lanes <= dim) loadWhole(kv, row + d * kv.bytes()) else loadTail(kv, row + d * kv.bytes(), dim - d);
}

/// A register of elements.
pub inline fn loadWhole(comptime kv: KvType, from: [*]const u8) F {
    const Bits = std.meta.Int(.unsigned, 8 * kv.bytes());
    const bits = @as(*align(1) const @Vector(lanes, Bits), @ptrCast(from)).*;
    return switch (kv) {
        .f32 => @bitCast(bits),
        .f16 => math.widenHalf(bits),
        .bf16 => math.widenBf16(bits),
        .f8e4m3 => float8.widen(bits),
    };
}

/// `count` elements, fewer than a register: nothing behind them is read, it may be the end of the cache.
pub noinline fn loadTail(comptime kv: KvType, from: [*]const u8, count: usize) F {
    var padded: [lanes * 4]u8 align(64) = @splat(0);
    @memcpy(padded[0 .. count * kv.bytes()], from[0 .. count * kv.bytes()]);
    return loadWhole(kv, &padded);
}

/// Widens a row to f32, zeros behind it up to a whole register.
pub inline fn widenRow(comptime kv: KvType, row: [*]const u8, dim: usize, out: [*]f32) void {
    var d: usize = 0;
    if (kv == .f8e4m3) {
        // Much of the work is on halves, of which a register holds twice as many.
        while (d + 2 * lanes <= dim) : (d += 2 * lanes) {
            const both: [2]F = @bitCast(float8.widen(@as(@Vector(2 * lanes, u8), row[d..][0 .. 2 * lanes].*)));
            inline for (both, 0..) |half, i| out[d + i * lanes ..][0..lanes].* = half;
        }
    }
    while (d + lanes <= dim) : (d += lanes) out[d..][0..lanes].* = loadWhole(kv, row + d * kv.bytes());
    if (d < dim) out[d..][0..lanes].* = loadTail(kv, row + d * kv.bytes(), dim - d);
}

/// What a core reads while memory answers, and a little.
const bytes_ahead = 6144;
pub const rows_ahead_max = 64;

pub fn rowsAhead(comptime kv: KvType, dim: usize) usize {
    return @max(8, @min(rows_ahead_max, bytes_ahead / (dim * kv.bytes())));
}

/// Requests elements `d .. d + count` of a row, into the second-level cache: a request for the first would hold one
/// of the core's few line buffers until memory answers.
pub inline fn prefetch(comptime kv: KvType, row: [*]const u8, d: usize, count: usize) void {
    var at = d * kv.bytes();
    const end = (d + count) * kv.bytes();
    while (at < end) : (at += line_bytes) @prefetch(row + at, .{ .locality = 2 });
}

const line_bytes = 64;
