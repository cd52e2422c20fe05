//! Activations as the products with bf16 and f16 weights on the tile unit want them: every f32 as three bfloat16 that
//! add up to it, its 24 bits in portions of eight, so that nothing is lost. `fast` rounds to the nearest bfloat16
//! and makes do with that one.
//!
//! Tokens are grouped in tiles of up to 16; within a tile lie, for every 32 elements, its rows of each plane one behind
//! the other, low ones first: a product walks one pointer whatever the number of tokens.

const std = @import("std");
const activations = @import("activations.zig");

pub const Precision = activations.Precision;

/// Elements of one row of a tile.
pub const step_elements = 32;
pub const step_bytes = 2 * step_elements;
/// Tokens of a tile; the last tile of a step holds what is left.
pub const tile_tokens = 16;

const Floats = @Vector(step_elements, f32);
const Bits = @Vector(step_elements, u32);
const Bf16s = @Vector(step_elements, u16);

/// bfloat16 that stand for one f32.
pub fn planeCount(precision: Precision) usize {
    return switch (precision) {
        .precise => 3,
        .fast => 1,
    };
}

/// Steps of a row of k elements.
pub fn stepCount(k: usize) usize {
    return std.math.divCeil(usize, k, step_elements) catch unreachable;
}

/// Memory of `tokens` rows of k elements.
pub fn byteCount(tokens: u64, k: usize, precision: Precision) u64 {
    return tokens * stepCount(k) * planeCount(precision) * step_bytes;
}

/// The rows of a step.
pub const Rows = struct {
    memory: [*]align(64) u8,
    tokens: usize,
    steps: usize,
    precision: Precision,

    /// Tokens in the tile that begins at `token`, a multiple of `tile_tokens`.
    pub inline fn tileSize(rows: Rows, token: usize) usize {
        return @min(tile_tokens, rows.tokens - token);
    }

    /// The planes of the tile that begins at `token`, from `step` on.
    pub inline fn tile(rows: Rows, token: usize, step: usize) [*]align(64) u8 {
        const planes = planeCount(rows.precision);
        return @alignCast(rows.memory + (token * rows.steps + step * rows.tileSize(token)) * planes * step_bytes);
    }

    /// Splits one row of k f32. Elements past the end of the row are 0.
    pub fn split(rows: Rows, token: usize, x: [*]const f32, k: usize) void {
        switch (rows.precision) {
            inline else => |precision| rows.splitRow(precision, token, x, k),
        }
    }

    fn splitRow(rows: Rows, comptime precision: Precision, token: usize, x: [*]const f32, k: usize) void {
        const planes = comptime planeCount(precision);
        const first = token - token % tile_tokens;
        const size = rows.tileSize(first);
        var target = rows.tile(first, 0) + (token - first) * step_bytes;
        var done: usize = 0;
        while (done < k) : (done += step_elements) {
            var tail: [step_elements]f32 = @splat(0);
            const whole = done + step_elements <= k;
            if (!whole) @memcpy(tail[0 .. k - done], x[done..k]);
            const values: Floats = if (whole) x[done..][0..step_elements].* else tail;
            const parts = partsOf(precision, values);
            inline for (parts, 0..) |part, plane| target[plane * size * step_bytes ..][0..step_bytes].* = @bitCast(part);
            target += planes * size * step_bytes;
        }
    }
};

/// The planes of 32 elements, low ones first.
inline fn partsOf(comptime precision: Precision, x: Floats) [planeCount(precision)]Bf16s {
    if (precision == .fast) return .{rounded(x)};
    // What is left of an infinity is not NaN but nothing; what is left of a NaN is one.
    const infinity: Bits = @splat(0x7f80_0000);
    const magnitude = @as(Bits, @bitCast(x)) & @as(Bits, @splat(0x7fff_ffff));
    const high = truncated(x);
    const rest = @select(f32, magnitude == infinity, @as(Floats, @splat(0)), x - high);
    const mid = truncated(rest);
    return .{ upper(rest - mid), upper(mid), upper(high) };
}

/// The eight bits in front.
inline fn truncated(x: Floats) Floats {
    return @bitCast(@as(Bits, @bitCast(x)) & @as(Bits, @splat(0xffff_0000)));
}

inline fn upper(x: Floats) Bf16s {
    return @truncate(@as(Bits, @bitCast(x)) >> @splat(16));
}

/// To nearest, ties to even. What is not a number stays none.
inline fn rounded(x: Floats) Bf16s {
    const bits: Bits = @bitCast(x);
    const odd = (bits >> @splat(16)) & @as(Bits, @splat(1));
    const up: Bf16s = @truncate((bits +% @as(Bits, @splat(0x7fff)) +% odd) >> @splat(16));
    return @select(u16, x != x, @as(Bf16s, @splat(0x7fc0)), up);
}

fn widened(bits: u16) f32 {
    return @bitCast(@as(u32, bits) << 16);
}

test "three planes add up to the number, whatever it is" {
    var random = std.Random.DefaultPrng.init(1);
    for (0..20_000) |_| {
        var x: [step_elements]f32 = undefined;
        // Far enough above the smallest that the lowest bit is no subnormal.
        for (&x) |*value| value.* = std.math.ldexp(random.random().float(f32) * 2 - 1, random.random().intRangeAtMost(i32, -80, 127));
        const parts = partsOf(.precise, x);
        for (x, 0..) |value, i| {
            const low: [step_elements]u16 = parts[0];
            const mid: [step_elements]u16 = parts[1];
            const high: [step_elements]u16 = parts[2];
            try std.testing.expectEqual(value, widened(high[i]) + (widened(mid[i]) + widened(low[i])));
        }
    }
}

test "infinities and NaNs" {
    const inf = std.math.inf(f32);
    for ([_]f32{ inf, -inf }) |value| {
        const parts = partsOf(.precise, @splat(value));
        try std.testing.expectEqual([3]f32{ 0, 0, value }, .{ widened(parts[0][0]), widened(parts[1][0]), widened(parts[2][0]) });
        try std.testing.expectEqual(value, widened(partsOf(.fast, @splat(value))[0][3]));
    }
    // The second has its mark in the bits that the first plane drops.
    for ([_]u32{ 0x7fc0_0000, 0xff80_0001 }) |bits| {
        const parts = partsOf(.precise, @splat(@bitCast(bits)));
        try std.testing.expect(std.math.isNan(widened(parts[2][5]) + widened(parts[1][5])));
        try std.testing.expect(std.math.isNan(widened(partsOf(.fast, @splat(@bitCast(bits)))[0][5])));
    }
}

test "one plane is the nearest bfloat16, ties to even" {
    const cases = [_][2]u32{ .{ 0x3f80_7fff, 0x3f80 }, .{ 0x3f80_8000, 0x3f80 }, .{ 0x3f81_8000, 0x3f82 }, .{ 0x3f80_8001, 0x3f81 }, .{ 0xff7f_ffff, 0xff80 }, .{ 0, 0 } };
    for (cases) |case| try std.testing.expectEqual(@as(u16, @intCast(case[1])), rounded(@splat(@bitCast(case[0])))[0]);
}

test "rows lie where their tiles look for them" {
    const k = 70;
    const tokens = 19;
    var x: [k]f32 = undefined;
    inline for (.{ Precision.precise, Precision.fast }) |precision| {
        var memory: [byteCount(tokens, k, precision)]u8 align(64) = undefined;
        const rows: Rows = .{ .memory = &memory, .tokens = tokens, .steps = comptime stepCount(k), .precision = precision };
        for (0..tokens) |token| {
            for (&x, 0..) |*value, i| value.* = @floatFromInt(token * 128 + i);
            rows.split(token, &x, k);
        }
        for (0..tokens) |token| for (0..3 * step_elements) |i| {
            const first = token / 16 * 16;
            const planes = comptime planeCount(precision);
            const tile = rows.tile(first, i / step_elements);
            var sum: f32 = 0;
            for (0..planes) |plane| {
                const at = (plane * rows.tileSize(first) + token - first) * step_bytes + i % step_elements * 2;
                sum += widened(std.mem.readInt(u16, tile[at..][0..2], .little));
            }
            const wanted: f32 = if (i < k) @floatFromInt(token * 128 + i) else 0;
            // Rounding to eight bits moves the largest of these numbers by up to eight.
            try std.testing.expectApproxEqAbs(wanted, sum, if (precision == .fast) 8 else 0);
        };
    }
}
