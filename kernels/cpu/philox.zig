//! Philox 4x32-10, the counter-based random generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
//! as easy as 1, 2, 3" (SC '11). The same key and counter give the same numbers on every machine, in any order.

const std = @import("std");

const multipliers = [2]u32{ 0xd2511f53, 0xcd9e8d57 };
const weyl = [2]u32{ 0x9e3779b9, 0xbb67ae85 };
const rounds = 10;

pub fn philox(counter: [4]u32, key: [2]u32) [4]u32 {
    var c = counter;
    var k = key;
    for (0..rounds) |_| {
        const product0 = @as(u64, multipliers[0]) * c[0];
        const product1 = @as(u64, multipliers[1]) * c[2];
        c = .{
            @as(u32, @intCast(product1 >> 32)) ^ c[1] ^ k[0],
            @truncate(product1),
            @as(u32, @intCast(product0 >> 32)) ^ c[3] ^ k[1],
            @truncate(product0),
        };
        k[0] +%= weyl[0];
        k[1] +%= weyl[1];
    }
    return c;
}

/// Uniform in [0, 1) with 53 random bits: the first number of a 64-bit seed at a position.
pub fn uniform(seed: [2]u32, position: u32) f64 {
    const bits = philox(.{ position, 0, 0, 0 }, seed);
    const mantissa = @as(u64, bits[0] >> 5) << 26 | bits[1] >> 6;
    return @as(f64, @floatFromInt(mantissa)) * 0x1p-53;
}

test "known answers of the authors' Random123 library" {
    const ones = 0xffffffff;
    try std.testing.expectEqual([4]u32{ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, philox(@splat(0), @splat(0)));
    try std.testing.expectEqual([4]u32{ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, philox(@splat(ones), @splat(ones)));
    try std.testing.expectEqual(
        [4]u32{ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
        philox(.{ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, .{ 0xa4093822, 0x299f31d0 }),
    );
}
