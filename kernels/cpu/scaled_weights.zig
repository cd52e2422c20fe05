//! Weights times their whole scales, in bytes: what the tile unit multiplies where the sums of a group of 128 are to
//! stay in its registers.

const layouts = @import("packed.zig");
const simd = @import("simd.zig");

const I32 = simd.I32;
const Layout = layouts.Layout;
const Words = @Vector(32, i16);
const UWords = @Vector(32, u16);

/// Bytes of a product. In two, `product = 256 * second + first`, the first without a sign; one alone has a sign.
pub fn planeCount(comptime l: Layout) usize {
    // Of the formats with whole scales only this one stays below 128.
    return if (l.nibble_scales) 1 else 2;
}

/// A scale of 16 rows as the products want it.
pub const Factor = struct {
    /// Twice in each lane.
    scale: Words,
    /// What the offset takes away, times the scale.
    offset: Words,

    pub inline fn of(comptime l: Layout, scale: I32) Factor {
        const both: Words = @bitCast((scale & @as(I32, @splat(0xffff))) | (scale << @splat(16)));
        return .{ .scale = both, .offset = if (l.offset == 0) undefined else both *% @as(Words, @splat(l.offset)) };
    }
};

/// `scale * (integer - offset)` of 64 elements, by plane.
pub inline fn products(comptime l: Layout, q: simd.U8, factor: Factor) [planeCount(l)]simd.U8 {
    const words: UWords = @bitCast(q);
    const low_byte: UWords = @splat(0xff);
    // The even and the odd bytes of each lane.
    var even = @as(Words, @bitCast(words & low_byte)) *% factor.scale;
    var odd = @as(Words, @bitCast(words >> @splat(8))) *% factor.scale;
    if (l.offset != 0) {
        even -%= factor.offset;
        odd -%= factor.offset;
    }
    const even_bits: UWords = @bitCast(even);
    const odd_bits: UWords = @bitCast(odd);
    const first: simd.U8 = @bitCast((even_bits & low_byte) | (odd_bits << @splat(8)));
    if (comptime planeCount(l) == 1) return .{first};
    return .{ first, @bitCast((even_bits >> @splat(8)) | (odd_bits & ~low_byte)) };
}
