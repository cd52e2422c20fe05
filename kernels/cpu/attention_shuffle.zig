//! Rearrangements of registers by quads, runs of four lanes, which are what the processors' shuffles are quick at.

const std = @import("std");
const builtin = @import("builtin");
const math = @import("math.zig");

const lanes = math.lanes;
const F = math.F;

/// Quads of a register.
pub const quads = lanes / 4;

const quad_everywhere = std.simd.iota(i32, lanes) % @as(@Vector(lanes, i32), @splat(4));

/// Four floats, repeated.
pub inline fn splatQuad(from: [*]const f32) F {
    return @shuffle(f32, @as(@Vector(4, f32), from[0..4].*), undefined, quad_everywhere);
}

/// Register t of the result holds quad t of every row.
pub inline fn turnQuads(rows: [quads]F) [quads]F {
    switch (quads) {
        1 => return rows,
        2 => return .{ pick(rows[0], rows[1], .{0}), pick(rows[0], rows[1], .{1}) },
        4 => {
            const low = [2]F{ pick(rows[0], rows[1], .{ 0, 1 }), pick(rows[2], rows[3], .{ 0, 1 }) };
            const high = [2]F{ pick(rows[0], rows[1], .{ 2, 3 }), pick(rows[2], rows[3], .{ 2, 3 }) };
            return .{
                pick(low[0], low[1], .{ 0, 2 }),
                pick(low[0], low[1], .{ 1, 3 }),
                pick(high[0], high[1], .{ 0, 2 }),
                pick(high[0], high[1], .{ 1, 3 }),
            };
        },
        else => @compileError("registers of 4, 8 or 16 lanes"),
    }
}

/// The same quads of two registers, those of `x` first.
inline fn pick(x: F, y: F, comptime which: [quads / 2]i32) F {
    return @shuffle(f32, x, y, PickMask(which).mask);
}

fn PickMask(comptime which: [quads / 2]i32) type {
    return struct {
        const mask = blk: {
            var m: [lanes]i32 = undefined;
            for (0..lanes / 2) |lane| {
                m[lane] = which[lane / 4] * 4 + lane % 4;
                m[lane + lanes / 2] = ~m[lane];
            }
            break :blk m;
        };
    };
}

/// A transposition within each quad: lane 4 i + m of register c of the result is lane 4 i + c of register m.
pub inline fn turnWithin(rows: [4]F) [4]F {
    const low = [2]F{ settled(interleave(rows[0], rows[1], .{ 0, -1, 1, -2 })), settled(interleave(rows[2], rows[3], .{ 0, -1, 1, -2 })) };
    const high = [2]F{ settled(interleave(rows[0], rows[1], .{ 2, -3, 3, -4 })), settled(interleave(rows[2], rows[3], .{ 2, -3, 3, -4 })) };
    return .{
        settled(interleave(low[0], low[1], .{ 0, 1, -1, -2 })),
        settled(interleave(low[0], low[1], .{ 2, 3, -3, -4 })),
        settled(interleave(high[0], high[1], .{ 0, 1, -1, -2 })),
        settled(interleave(high[0], high[1], .{ 2, 3, -3, -4 })),
    };
}

/// The transposition of as many registers as a register has lanes.
pub inline fn transpose(rows: [lanes]F) [lanes]F {
    var turned: [4][quads]F = undefined;
    inline for (&turned, 0..) |*part, m| {
        var some: [quads]F = undefined;
        inline for (&some, 0..) |*row, i| row.* = rows[4 * i + m];
        inline for (part, turnQuads(some)) |*quad, register| quad.* = settled(register);
    }
    var out: [lanes]F = undefined;
    inline for (0..quads) |t| {
        out[4 * t ..][0..4].* = turnWithin(.{ turned[0][t], turned[1][t], turned[2][t], turned[3][t] });
    }
    return out;
}

/// The same register, of which the compiler knows nothing. It would look through a shuffle of shuffles and put
/// single elements together instead.
inline fn settled(x: F) F {
    if (comptime builtin.cpu.arch != .x86_64) return x;
    return asm (""
        : [out] "=v" (-> F),
        : [in] "0" (x),
    );
}

/// The same shuffle of every quad of x and, where the index is negative, of y.
inline fn interleave(x: F, y: F, comptime quad: [4]i32) F {
    return @shuffle(f32, x, y, QuadMask(quad).mask);
}

fn QuadMask(comptime quad: [4]i32) type {
    return struct {
        const mask = blk: {
            var m: [lanes]i32 = undefined;
            for (&m, 0..) |*entry, lane| {
                const first: i32 = lane - lane % 4;
                const index = quad[lane % 4];
                entry.* = if (index < 0) index - first else index + first;
            }
            break :blk m;
        };
    };
}

test "transpose" {
    var rows: [lanes]F = undefined;
    for (&rows, 0..) |*row, r| {
        var values: [lanes]f32 = undefined;
        for (&values, 0..) |*value, c| value.* = @floatFromInt(r * lanes + c);
        row.* = values;
    }
    for (transpose(rows), 0..) |column, c| {
        const values: [lanes]f32 = column;
        for (values, 0..) |value, r| try std.testing.expectEqual(@as(f32, @floatFromInt(r * lanes + c)), value);
    }
}
