//! The arithmetic that turns scores into weights: exponentials relative to a largest score, and partials - what a
//! row makes of one range of keys - with their merging. Every path of attention takes it from here.

const std = @import("std");
const math = @import("math.zig");

const lanes = math.lanes;
const F = math.F;

/// e^x for x <= 0, to 1 ulp; 0 below -87, where the result would leave the normal numbers, and for -infinity;
/// NaN for NaN. The range reduction and polynomial of `math.exp`, without what only other arguments need.
pub inline fn exponential(x: F) F {
    const I = @Vector(lanes, u32);
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
    const magic: F = @splat(12582912.0);
    const shifted = math.mulAdd(x, @as(F, @splat(1.44269504088896341)), magic);
    const n = shifted - magic;
    var r = math.mulAdd(n, @as(F, @splat(-0.693359375)), x);
    r = math.mulAdd(n, @as(F, @splat(2.12194440e-4)), r);
    var p: F = @splat(1.9875691500e-4);
    inline for (.{ 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1 }) |coefficient| {
        p = math.mulAdd(p, r, @as(F, @splat(coefficient)));
    }
    p = math.mulAdd(p, r * r, r) + @as(F, @splat(1));
    const scaled: F = @bitCast(@as(I, @bitCast(p)) +% (@as(I, @bitCast(shifted)) << @splat(23)));
    return @select(f32, x < @as(F, @splat(-87)), @as(F, @splat(0)), scaled);
}

/// What exponentials are taken relative to: the largest score, or any number where that is -infinity.
pub inline fn reference(largest: F) F {
    return @select(f32, largest == @as(F, @splat(-std.math.inf(f32))), @as(F, @splat(0)), largest);
}

pub inline fn softCap(scores: F, cap: f32) F {
    return math.tanh(scores / @as(F, @splat(cap))) * @as(F, @splat(cap));
}

/// Floats of one partial: the weighted sum of values, then the largest score and the sum of exponentials relative
/// to it, padded so that each partial begins at a whole register. `dim`: whole registers.
pub fn partialFloats(dim: usize) usize {
    return dim + @max(lanes, 2);
}

/// Partials at equal distances. One whose denominator is 0 saw no key; its other floats mean nothing.
pub const Partials = struct {
    base: [*]f32,
    stride: usize,
    dim: usize,

    pub inline fn sums(partials: Partials, index: usize) [*]f32 {
        return partials.base + index * partials.stride;
    }
    pub inline fn maximum(partials: Partials, index: usize) *f32 {
        return &partials.base[index * partials.stride + partials.dim];
    }
    pub inline fn denominator(partials: Partials, index: usize) *f32 {
        return &partials.base[index * partials.stride + partials.dim + 1];
    }

    pub fn clear(partials: Partials, index: usize) void {
        const into = partials.sums(index);
        var d: usize = 0;
        while (d < partials.dim) : (d += lanes) into[d..][0..lanes].* = @as(F, @splat(0));
    }

    pub fn from(partials: Partials, index: usize) Partials {
        return .{ .base = partials.sums(index), .stride = partials.stride, .dim = partials.dim };
    }

    /// Adds a partial of a later range to total `index`.
    pub fn merge(total: Partials, index: usize, part: Partials, part_index: usize) void {
        if (part.denominator(part_index).* == 0) return;
        const into = total.sums(index);
        const new = part.sums(part_index);
        if (total.denominator(index).* == 0) {
            @memcpy(into[0 .. total.dim + 2], new[0 .. total.dim + 2]);
            return;
        }
        const largest = @max(total.maximum(index).*, part.maximum(part_index).*);
        const factors = math.exp(@Vector(2, f32){ total.maximum(index).* - largest, part.maximum(part_index).* - largest });
        const keep = factors[0];
        const add = factors[1];
        var d: usize = 0;
        while (d < total.dim) : (d += lanes) {
            const kept = @as(F, into[d..][0..lanes].*) * @as(F, @splat(keep));
            into[d..][0..lanes].* = math.mulAdd(@as(F, new[d..][0..lanes].*), @as(F, @splat(add)), kept);
        }
        total.maximum(index).* = largest;
        total.denominator(index).* = math.mulAdd(part.denominator(part_index).*, add, total.denominator(index).* * keep);
    }
};

test "exponential is within 1.25 ulp of float64 where it is not 0" {
    var random = std.Random.DefaultPrng.init(3);
    for (0..20_000) |_| {
        var x: [lanes]f32 = undefined;
        for (&x) |*value| value.* = -86.9 * random.random().float(f32) * random.random().float(f32);
        const y: [lanes]f32 = exponential(x);
        for (x, y) |argument, actual| {
            const expected = @exp(@as(f64, argument));
            try std.testing.expect(@abs(actual - expected) <= 2 * 1.25 * 0x1p-24 * expected);
        }
    }
    const inf = std.math.inf(f32);
    for ([_][2]f32{ .{ 0, 1 }, .{ -87.5, 0 }, .{ -1e30, 0 }, .{ -inf, 0 } }) |pair| {
        try std.testing.expectEqual(pair[1], exponential(@splat(pair[0]))[0]);
    }
    try std.testing.expect(std.math.isNan(exponential(@splat(std.math.nan(f32)))[0]));
}
