//! Numbers of attention as the tile unit multiplies them: bfloat16 planes that add up to them, 16 bits each. A
//! plane is what the number rounds to in eight bits of significand, the next what is left of it. An element of a
//! cache of halves is exactly two planes, one of bfloat16 or of 8-bit floats exactly one; queries and weights are
//! two planes to within 2^-16 of them.
//!
//! A product takes 32 terms, in pairs. The pair i is the terms i and i + 16: so two registers of f32 become one of
//! pairs lane by lane, whatever lies along the lanes.

const std = @import("std");
const math = @import("math.zig");
const cache = @import("attention_cache.zig");
const float8 = @import("float8.zig");
const shuffle = @import("attention_shuffle.zig");

const lanes = math.lanes;
const F = math.F;
const KvType = cache.KvType;
const Rows = cache.Rows;

/// Terms of a step of a product.
pub const step_terms = 32;
/// A register of pairs, of one plane.
pub const Pairs = @Vector(lanes, u32);
/// What a tile register holds of one plane: 16 rows of 16 pairs.
pub const Plane = [16]Pairs;

pub fn planeCount(comptime kv: KvType) comptime_int {
    return switch (kv) {
        .f16 => 2,
        .bf16, .f8e4m3 => 1,
        .f32 => @compileError("three planes, which take longer than the vector unit"),
    };
}

/// The planes of two registers of cache elements, high one first.
inline fn exactPlanes(comptime kv: KvType, a: F, b: F) [planeCount(kv)]Pairs {
    if (planeCount(kv) == 1) return .{pair(a, b)};
    const high = .{ rounded(a), rounded(b) };
    return .{ pair(high[0], high[1]), pair(a - high[0], b - high[1]) };
}

/// The planes of two registers of numbers whose bits a NaN of the processor's making may have, but no other.
pub inline fn nearestPlanes(a: F, b: F) [2]Pairs {
    const high = .{ rounded(a), rounded(b) };
    return .{ pair(high[0], high[1]), pair(rounded(a - high[0]), rounded(b - high[1])) };
}

/// Both have eight bits of significand at most.
inline fn pair(a: F, b: F) Pairs {
    return (bitsOf(a) >> @splat(16)) | bitsOf(b);
}

/// To eight bits of significand, ties away from zero. A NaN may become a zero; it is then left in what remains.
inline fn rounded(x: F) F {
    return @bitCast((bitsOf(x) +% @as(Pairs, @splat(0x8000))) & @as(Pairs, @splat(0xffff_0000)));
}

inline fn bitsOf(x: F) Pairs {
    return @bitCast(x);
}

/// Splits 32 elements of a query from `d` on, scaled; zeros behind the last of `dim`.
pub fn splitQuery(query: [*]const f32, d: usize, dim: usize, scale: f32) [2]Pairs {
    var parts: [2]F = @splat(@splat(0));
    for (&parts, 0..) |*part, i| {
        const at = d + i * lanes;
        if (at >= dim) continue;
        const x = cache.load(.f32, @ptrCast(query), at, dim) * @as(F, @splat(scale));
        // Whatever NaN it was, rounding does not turn this one into a number.
        part.* = @select(f32, x == x, x, @as(F, @splat(std.math.nan(f32))));
    }
    return nearestPlanes(parts[0], parts[1]);
}

/// What is split together: two tiles of each plane, of 16 keys each, or of 16 dimensions of the same 32 values.
pub const Part = [2][2]Plane;

/// Rows `j .. j + 32` of a cache and their elements `d .. d + 32`, zeros behind the last of `dim`.
pub const Source = struct {
    rows: Rows,
    j: usize,
    d: usize,
    dim: usize,

    pub inline fn isWhole(source: Source) bool {
        return source.d + step_terms <= source.dim;
    }

    inline fn load(source: Source, comptime kv: KvType, comptime whole: bool, r: usize) [2]F {
        const row = source.rows.at(source.j + r);
        const d = source.d;
        if (!whole) return .{
            cache.load(kv, row, d, source.dim),
            if (d + lanes < source.dim) cache.load(kv, row, d + lanes, source.dim) else @splat(0),
        };
        if (kv == .f8e4m3) return @bitCast(float8.widen(@as(@Vector(step_terms, u8), row[d..][0..step_terms].*)));
        return .{ cache.loadWhole(kv, row + d * kv.bytes()), cache.loadWhole(kv, row + (d + lanes) * kv.bytes()) };
    }
};

/// Splits key r of 32: it is a row of its tile, pairs of dimensions side by side.
pub inline fn splitKey(comptime kv: KvType, comptime whole: bool, source: Source, r: usize, out: *Part) void {
    const x = source.load(kv, whole, r);
    inline for (exactPlanes(kv, x[0], x[1]), 0..) |pairs, plane| out[r / 16][plane][r % 16] = pairs;
}

/// What becomes of values that are infinite or not numbers.
pub const Strays = enum {
    kept,
    /// Zeros stand for them.
    dropped,
};

/// Splits values r and r + 16 of 32: their pairs are a row of both tiles, dimensions side by side.
pub inline fn splitValues(comptime kv: KvType, comptime whole: bool, comptime strays: Strays, source: Source, r: usize, out: *Part) void {
    const x = known(strays, source.load(kv, whole, r));
    const y = known(strays, source.load(kv, whole, r + 16));
    inline for (out, x, y) |*tile, a, b| {
        inline for (exactPlanes(kv, a, b), 0..) |pairs, plane| tile[plane][r] = pairs;
    }
}

inline fn known(comptime strays: Strays, x: [2]F) [2]F {
    if (strays == .kept) return x;
    const zero: F = @splat(0);
    return .{ @select(f32, isFinite(x[0]), x[0], zero), @select(f32, isFinite(x[1]), x[1], zero) };
}

/// Rows become columns.
pub fn turn(plane: *Plane) void {
    plane.* = @bitCast(shuffle.transpose(@bitCast(plane.*)));
}

pub inline fn isFinite(x: F) @Vector(lanes, bool) {
    const exponent: Pairs = @splat(0x7f80_0000);
    return (bitsOf(x) & exponent) != exponent;
}

/// What the planes of a pair stand for: of its first term, or of its second.
fn sumOf(split: anytype, lane: usize, comptime term: u1) f64 {
    var sum: f64 = 0;
    inline for (split) |pairs| {
        const bits = @as([lanes]u32, pairs)[lane];
        sum += @as(f32, @bitCast(if (term == 0) bits << 16 else bits & 0xffff_0000));
    }
    return sum;
}

test "two planes are exactly any half, one any bfloat16" {
    var first: usize = 0;
    while (first < 0x10000) : (first += 2 * lanes) {
        var bits: [2]@Vector(lanes, u16) = undefined;
        for (&bits, 0..) |*half, i| half.* = std.simd.iota(u16, lanes) + @as(@Vector(lanes, u16), @splat(@intCast(first + i * lanes)));
        inline for (.{ .f16, .bf16 }) |kv| {
            var x: [2]F = undefined;
            for (&x, bits) |*values, half| values.* = if (kv == .f16) math.widenHalf(half) else math.widenBf16(half);
            const split = exactPlanes(kv, x[0], x[1]);
            inline for (x, 0..) |values, term| for (@as([lanes]f32, values), 0..) |value, lane| {
                if (std.math.isFinite(value)) try std.testing.expectEqual(value, sumOf(split, lane, term)) else {
                    try std.testing.expect(!std.math.isFinite(sumOf(split, lane, term)));
                }
            };
        }
    }
}

test "two planes are a number to within 2^-16 of it" {
    var random: std.Random.DefaultPrng = .init(5);
    for (0..10_000) |_| {
        var x: [2][lanes]f32 = undefined;
        for (&x) |*values| for (values) |*value| {
            value.* = std.math.ldexp(random.random().float(f32) * 2 - 1, random.random().intRangeAtMost(i32, -60, 60));
        };
        const split = nearestPlanes(x[0], x[1]);
        inline for (x, 0..) |values, term| for (values, 0..) |value, lane| {
            try std.testing.expect(@abs(sumOf(split, lane, term) - value) <= 0x1p-16 * @abs(value));
        };
    }
}

test "a query that is not a number stays none, whichever it was" {
    for ([_]u32{ 0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0x7fc0_0000 }) |bits| {
        const query: [step_terms]f32 = @splat(@bitCast(bits));
        const split = splitQuery(&query, 0, step_terms, 0.5);
        try std.testing.expect(std.math.isNan(sumOf(split, 3, 0)) and std.math.isNan(sumOf(split, 3, 1)));
    }
}
