//! Weights re-laid for speed: panels of 16 rows whose bytes are interleaved so that one 512-bit register holds
//! four consecutive elements of each row, which is what the 8-bit dot product instructions add up. A lane is a
//! row, so sums need no horizontal step, and a row's scale is a lane of a vector.
//!
//! A slab is 32 elements of 16 rows: its scales (and minima), then the low bits, then the high bits of its eight
//! registers. Formats of 256-element super-blocks have a header of 16 (or 32) half floats before eight slabs and
//! small integer scales in them. The bytes per weight are those of the file, give or take 4%.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const simd = @import("simd.zig");
const math = @import("math.zig");

const U8 = simd.U8;
const F32 = simd.F32;

pub const panel_rows = 16;
pub const slab_elements = 32;
/// Registers of a slab: register j holds elements 4j .. 4j + 3.
pub const slab_registers = 8;

/// How a format's integers, scales and minima are stored.
pub const Layout = struct {
    low_bits: u4,
    high_bits: u4 = 0,
    /// Elements that share a scale: 32, or 16 for two scales a slab.
    sub: u8 = 32,
    /// Scales are small integers times a half float per 256 elements.
    super: bool = false,
    has_min: bool = false,
    /// Scale and minimum are the two nibbles of one byte.
    nibble_scales: bool = false,
    signed_scales: bool = false,
    offset: i32 = 0,

    pub fn of(comptime dtype: ops.DType) Layout {
        return switch (dtype) {
            .q4_0 => .{ .low_bits = 4, .offset = 8 },
            .q4_1 => .{ .low_bits = 4, .has_min = true },
            .q5_0 => .{ .low_bits = 4, .high_bits = 1, .offset = 16 },
            .q5_1 => .{ .low_bits = 4, .high_bits = 1, .has_min = true },
            .q8_0 => .{ .low_bits = 8, .offset = 128 },
            .q2_k => .{ .low_bits = 2, .sub = 16, .super = true, .has_min = true, .nibble_scales = true },
            .q3_k => .{ .low_bits = 2, .high_bits = 1, .sub = 16, .super = true, .signed_scales = true, .offset = 4 },
            .q4_k => .{ .low_bits = 4, .super = true, .has_min = true },
            .q5_k => .{ .low_bits = 4, .high_bits = 1, .super = true, .has_min = true },
            .q6_k => .{ .low_bits = 4, .high_bits = 2, .sub = 16, .super = true, .signed_scales = true, .offset = 32 },
            else => @compileError("not a block format"),
        };
    }

    pub fn subs(comptime l: Layout) usize {
        return slab_elements / l.sub;
    }
    pub fn headerBytes(comptime l: Layout) usize {
        return if (!l.super) 0 else if (l.has_min) 64 else 32;
    }
    /// Bytes of one slab's scales; its minima, where they are apart, take as many.
    pub fn scaleBytes(comptime l: Layout) usize {
        return if (l.super) l.subs() * 16 else 32;
    }
    fn minBytes(comptime l: Layout) usize {
        return if (l.has_min and !l.nibble_scales) l.scaleBytes() else 0;
    }
    pub fn lowAt(comptime l: Layout) usize {
        return l.scaleBytes() + l.minBytes();
    }
    pub fn highAt(comptime l: Layout) usize {
        return l.lowAt() + 64 * @as(usize, l.low_bits);
    }
    pub fn slabBytes(comptime l: Layout) usize {
        return l.highAt() + 64 * @as(usize, l.high_bits);
    }
    /// Slabs behind one header.
    pub fn slabsPerSpan(comptime l: Layout) usize {
        return if (l.super) 8 else 1;
    }
    pub fn spanBytes(comptime l: Layout) usize {
        return l.headerBytes() + l.slabsPerSpan() * l.slabBytes();
    }
};

/// Bytes of one panel of a matrix with rows of k elements.
pub fn panelBytes(dtype: ops.DType, k: usize) usize {
    switch (dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k => |d| {
            const l = comptime Layout.of(d);
            return k / (comptime l.slabsPerSpan() * slab_elements) * comptime l.spanBytes();
        },
        else => return 0,
    }
}

inline fn halves(p: [*]const u8) F32 {
    return math.widenHalf(@as(@Vector(16, u16), @bitCast(p[0..32].*)));
}

inline fn register(p: [*]const u8, comptime index: usize) U8 {
    return p[64 * index ..][0..64].*;
}

inline fn mask(v: U8, comptime bits: u8) U8 {
    return v & @as(U8, @splat(bits));
}

/// Moves bits of every byte by `distance` to the left (right when negative); the caller masks.
inline fn shift(v: U8, comptime distance: comptime_int) U8 {
    return if (distance >= 0) v << @splat(distance) else v >> @splat(-distance);
}

/// Register j of a slab as unsigned bytes.
pub inline fn integers(comptime l: Layout, slab: [*]const u8, comptime j: usize) U8 {
    const low = slab + comptime l.lowAt();
    const high = slab + comptime l.highAt();
    const base = switch (l.low_bits) {
        8 => register(low, j),
        4 => mask(shift(register(low, j % 4), if (j < 4) 0 else -4), 15),
        2 => mask(shift(register(low, j % 2), -2 * @as(comptime_int, j / 2)), 3),
        else => comptime unreachable,
    };
    const top = @as(comptime_int, l.low_bits);
    return switch (l.high_bits) {
        0 => base,
        1 => base | mask(shift(register(high, 0), top - @as(comptime_int, j)), 1 << top),
        2 => base | mask(shift(register(high, j % 2), top - 2 * @as(comptime_int, j / 2)), 3 << top),
        else => comptime unreachable,
    };
}

/// What a span's header says, kept for its slabs.
pub const Header = struct { d: F32, dmin: F32 };

pub inline fn header(comptime l: Layout, span: [*]const u8) Header {
    if (!l.super) return undefined;
    return .{ .d = halves(span), .dmin = if (l.has_min) halves(span + 32) else undefined };
}

pub const Scale = struct { scale: F32, min: F32 };

/// Scale and minimum of each row for part `sub` of a slab: `weight = scale * (integer - offset) + min`.
pub inline fn scaleOf(comptime l: Layout, head: Header, slab: [*]const u8, comptime sub: usize) Scale {
    if (!l.super) return .{ .scale = halves(slab), .min = if (l.has_min) halves(slab + 32) else undefined };
    const bytes: @Vector(16, u8) = slab[16 * sub ..][0..16].*;
    if (l.nibble_scales) {
        const scales: F32 = @floatFromInt(bytes & @as(@Vector(16, u8), @splat(15)));
        const minima: F32 = @floatFromInt(bytes >> @splat(4));
        return .{ .scale = scales * head.d, .min = minima * -head.dmin };
    }
    const scales: F32 = if (l.signed_scales) @floatFromInt(@as(@Vector(16, i8), @bitCast(bytes))) else @floatFromInt(bytes);
    if (!l.has_min) return .{ .scale = scales * head.d, .min = undefined };
    const minima: F32 = @floatFromInt(@as(@Vector(16, u8), slab[comptime l.scaleBytes() + 16 * sub..][0..16].*));
    return .{ .scale = scales * head.d, .min = minima * -head.dmin };
}
