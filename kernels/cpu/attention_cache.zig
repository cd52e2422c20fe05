//! How attention reads the cache: where the keys and values of a range lie, and their elements as f32.

const std = @import("std");
const math = @import("math.zig");

const lanes = math.lanes;
const F = math.F;

pub const KvType = enum {
    f32,
    f16,
    bf16,

    pub fn bytes(comptime kv: KvType) usize {
        return if (kv == .f32) 4 else 2;
    }
};

/// Rows of keys or values: row `j` of a range begins at `base + offsets[j]` bytes.
pub const Rows = struct {
    base: [*]const u8,
    offsets: [*]const usize,

    pub inline fn at(rows: Rows, j: usize) [*]const u8 {
        return rows.base + rows.offsets[j];
    }
};

/// Elements `d .. d + lanes` of a row of `dim`, zeros behind the last.
pub inline fn load(comptime kv: KvType, row: [*]const u8, d: usize, dim: usize) F {
    return if (d + lanes <= dim) loadWhole(kv, row + d * kv.bytes()) else loadTail(kv, row + d * kv.bytes(), dim - d);
}

/// A register of elements.
pub inline fn loadWhole(comptime kv: KvType, from: [*]const u8) F {
    if (kv == .f32) return @as(*align(1) const F, @ptrCast(from)).*;
    const bits = @as(*align(1) const @Vector(lanes, u16), @ptrCast(from)).*;
    return if (kv == .f16) math.widenHalf(bits) else math.widenBrain(bits);
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
    while (d < dim) : (d += lanes) out[d..][0..lanes].* = load(kv, row, d, dim);
}

/// Rows are requested from memory this many rows before they are used.
pub const prefetch_rows = 32;

/// Requests elements `d .. d + count` of a row from memory.
pub inline fn prefetch(comptime kv: KvType, row: [*]const u8, d: usize, count: usize) void {
    var at = d * kv.bytes();
    const end = (d + count) * kv.bytes();
    while (at < end) : (at += 64) @prefetch(row + at, .{ .locality = 3 });
}
