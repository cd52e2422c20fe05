//! 8-bit floats of the KV cache: E4M3 of OCP's specification in the form without infinities, `s eeee mmm` with a bias
//! of 7; 0x7f and 0xff are NaN, the largest number is 448, the smallest 2^-9.

const std = @import("std");
const math = @import("math.zig");

/// Exact f32 values of a vector of bit patterns.
pub inline fn widen(bits: anytype) @Vector(@typeInfo(@TypeOf(bits)).vector.len, f32) {
    const n = @typeInfo(@TypeOf(bits)).vector.len;
    const W = @Vector(n, u16);
    // The place of every bit in a half: an exponent that is 8 short. Halves convert at full speed below their normal
    // range too, where a product of f32 would not.
    const wide: W = @bitCast(@as(@Vector(n, i16), @as(@Vector(n, i8), @bitCast(bits))));
    const placed = (wide << @splat(7)) & @as(W, @splat(0xbf80));
    const is_nan = (placed & @as(W, @splat(0x3f80))) == @as(W, @splat(0x3f80));
    const half = @select(u16, is_nan, @as(W, @splat(0x7e00)), placed);
    return math.widenHalf(half) * @as(@Vector(n, f32), @splat(256));
}

/// Bit patterns of f32 values, rounded to nearest even; what is beyond 448 becomes 448 of its sign, NaN 0x7f.
pub inline fn narrow(values: anytype) @Vector(@typeInfo(@TypeOf(values)).vector.len, u8) {
    const n = @typeInfo(@TypeOf(values)).vector.len;
    const U = @Vector(n, u32);
    const V = @Vector(n, f32);
    const bits: U = @bitCast(values);
    const magnitude = bits & @as(U, @splat(0x7fff_ffff));
    const odd = (magnitude >> @splat(20)) & @as(U, @splat(1));
    const rounded = (magnitude + @as(U, @splat(0x7_ffff)) + odd) >> @splat(20);
    const normal = @min(rounded -% @as(U, @splat((127 - 7) << 3)), @as(U, @splat(largest)));
    // Where the last place is 2^-9, a sum rounds to it.
    const anchor: V = @splat(0x1p14);
    const sum: U = @bitCast(@as(V, @bitCast(magnitude)) + anchor);
    const small = sum -% @as(U, @bitCast(anchor));
    const number = @select(u32, magnitude < @as(U, @splat(smallest_normal)), small, normal) | ((bits >> @splat(24)) & @as(U, @splat(0x80)));
    const byte = @select(u32, magnitude > @as(U, @splat(0x7f80_0000)), @as(U, @splat(nan)), number);
    return @intCast(byte);
}

const largest = 0x7e;
const nan = 0x7f;
/// 2^-6 as f32.
const smallest_normal = (127 - 6) << 23;

fn expected(bits: u8) f32 {
    const fraction: f32 = @floatFromInt(bits & 7);
    const exponent: i32 = bits >> 3 & 15;
    if (bits & 0x7f == 0x7f) return std.math.nan(f32);
    const value = if (exponent == 0) fraction / 512 else std.math.ldexp(1 + fraction / 8, exponent - 7);
    return if (bits < 0x80) value else -value;
}

fn widenOne(bits: u8) f32 {
    return widen(@as(@Vector(1, u8), .{bits}))[0];
}

fn narrowOne(value: f32) u8 {
    return narrow(@as(@Vector(1, f32), .{value}))[0];
}

test "every bit pattern widens exactly, in every lane" {
    var all: [256]u8 = undefined;
    for (&all, 0..) |*byte, i| byte.* = @intCast(i);
    for (0..256 - math.lanes + 1) |first| {
        const values: [math.lanes]f32 = widen(@as(@Vector(math.lanes, u8), all[first..][0..math.lanes].*));
        for (values, all[first..][0..math.lanes]) |value, bits| {
            if (bits & 0x7f == 0x7f) {
                try std.testing.expect(std.math.isNan(value));
            } else {
                try std.testing.expectEqual(@as(u32, @bitCast(expected(bits))), @as(u32, @bitCast(value)));
                try std.testing.expectEqual(bits, narrowOne(value));
            }
            try std.testing.expectEqual(@as(u32, @bitCast(widenOne(bits))), @as(u32, @bitCast(value)));
        }
    }
}

test "every border between two numbers rounds to nearest even" {
    for (0..largest) |i| {
        const low: u8 = @intCast(i);
        const border = (expected(low) + expected(low + 1)) / 2;
        const even = if (low % 2 == 0) low else low + 1;
        for ([_]u8{ 0, 0x80 }) |sign| {
            const signed = if (sign == 0) border else -border;
            try std.testing.expectEqual(even | sign, narrowOne(signed));
            try std.testing.expectEqual(low | sign, narrowOne(std.math.nextAfter(f32, signed, 0)));
            try std.testing.expectEqual((low + 1) | sign, narrowOne(std.math.nextAfter(f32, signed, signed * 2)));
        }
    }
}

test "what is beyond the largest number, and what is none" {
    const inf = std.math.inf(f32);
    for ([_]f32{ 448, 456, 464, 465, 480, 1e4, std.math.floatMax(f32), inf }) |value| {
        try std.testing.expectEqual(0x7e, narrowOne(value));
        try std.testing.expectEqual(0xfe, narrowOne(-value));
    }
    for ([_]u32{ 0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffc00000, 0xffffffff }) |bits| {
        try std.testing.expectEqual(nan, narrowOne(@bitCast(bits)));
    }
    for ([_]u32{ 0, 1, 0x007fffff, 0x3a800000 }) |bits| {
        try std.testing.expectEqual(0, narrowOne(@bitCast(bits)));
        try std.testing.expectEqual(0x80, narrowOne(@bitCast(bits | 0x80000000)));
    }
}
