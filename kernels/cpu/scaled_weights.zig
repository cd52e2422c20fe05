//! Weights times their whole scales, in bytes: what the tile unit multiplies where the sums of a group are to stay in
//! its registers.

const layouts = @import("packed.zig");
const simd = @import("simd.zig");

const I32 = simd.I32;
const Layout = layouts.Layout;
const Words = @Vector(32, i16);
const UWords = @Vector(32, u16);

/// Bytes of a product, the greatest first; it alone has a sign.
pub fn planeCount(comptime l: Layout) usize {
    if (l.scales == .wide) return 3;
    // Of the formats with scales of 32-bit sums only this one stays below 128.
    return if (l.nibble_scales) 1 else 2;
}

/// A scale of 16 rows as the products want it.
pub const Factor = struct {
    /// Twice in each lane.
    scale: Words,
    /// What the offset takes away, times the scale; of a wide one it is too long.
    offset: Words,

    pub inline fn of(comptime l: Layout, scale: I32) Factor {
        const both: Words = @bitCast((scale & @as(I32, @splat(0xffff))) | (scale << @splat(16)));
        return .{ .scale = both, .offset = if (l.scales == .wide) undefined else both *% @as(Words, @splat(l.offset)) };
    }
};

/// `scale * (integer - offset)` of 64 elements, by plane.
pub inline fn products(comptime l: Layout, q: simd.U8, factor: Factor) [planeCount(l)]simd.U8 {
    const words: UWords = @bitCast(q);
    // The even and the odd bytes of each lane.
    const even: Words = @bitCast(words & @as(UWords, @splat(0xff)));
    const odd: Words = @bitCast(words >> @splat(8));
    if (l.scales == .wide) {
        const offset: Words = @splat(l.offset);
        const low = .{ (even -% offset) *% factor.scale, (odd -% offset) *% factor.scale };
        const high = .{ upperWord(even -% offset, factor.scale), upperWord(odd -% offset, factor.scale) };
        return .{ joined(high[0], high[1]), joined(low[0] >> @splat(8), low[1] >> @splat(8)), joined(low[0], low[1]) };
    }
    const low = .{ even *% factor.scale -% factor.offset, odd *% factor.scale -% factor.offset };
    const first = joined(low[0], low[1]);
    return if (comptime planeCount(l) == 1) .{first} else .{ joined(low[0] >> @splat(8), low[1] >> @splat(8)), first };
}

/// The upper half of a product.
inline fn upperWord(a: Words, b: Words) Words {
    const Long = @Vector(32, i32);
    return @truncate((@as(Long, a) *% @as(Long, b)) >> @splat(16));
}

/// The lower bytes of words, side by side.
inline fn joined(even: Words, odd: Words) simd.U8 {
    const low_byte: UWords = @splat(0xff);
    return @bitCast((@as(UWords, @bitCast(even)) & low_byte) | (@as(UWords, @bitCast(odd)) << @splat(8)));
}
