//! The weight formats, each reduced to one form: a group of 64 elements is 64 small unsigned integers, a scale
//! per lane of four and, for some formats, a minimum per lane, so that
//! `weight = scale * (integer - offset) + minimum`. Block layouts follow the GGUF file format.
//!
//! A span is what one header covers: two 32-element blocks (one group) or one 256-element super-block (four
//! groups). A row that ends in the middle of a span is read through a zero-padded copy.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const simd = @import("simd.zig");
const math = @import("math.zig");

const U8 = simd.U8;
const F32 = simd.F32;
const V32 = @Vector(32, u8);

pub const Group = struct {
    q: U8,
    scale: F32,
    /// Present only when the format has minima.
    min: F32,
};

/// What a nibble stands for in the formats that are no even steps, the offset added.
pub const iq4_nl_integers = withOffset(128, .{ -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 });
/// Twice the values of the file format: scales are half of what its specification says.
pub const mxfp4_integers = withOffset(16, .{ 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 });

fn withOffset(offset: i16, integers: [16]i16) [16]u8 {
    var table: [16]u8 = undefined;
    for (&table, integers) |*entry, integer| entry.* = integer + offset;
    return table;
}

pub fn Format(comptime dtype: ops.DType) type {
    return switch (dtype) {
        .q4_0 => Blocks32(18, 8, false, unpackQ4_0),
        .q4_1 => Blocks32(20, 0, true, unpackQ4_1),
        .q5_0 => Blocks32(22, 16, false, unpackQ5_0),
        .q5_1 => Blocks32(24, 0, true, unpackQ5_1),
        .q8_0 => Blocks32(34, 128, false, unpackQ8_0),
        .q2_k => SuperBlocks(84, 0, true, unpackQ2K),
        .q3_k => SuperBlocks(110, 4, false, unpackQ3K),
        .q4_k => SuperBlocks(144, 0, true, unpackQ4K),
        .q5_k => SuperBlocks(176, 0, true, unpackQ5K),
        .q6_k => SuperBlocks(210, 32, false, unpackQ6K),
        .iq4_nl => Blocks32(18, 128, false, unpackIQ4NL),
        .mxfp4 => Blocks32(17, 16, false, unpackMXFP4),
        else => @compileError("not a block format"),
    };
}

fn Blocks32(comptime bytes: usize, comptime zero_point: u8, comptime minima: bool, comptime unpackBlock: anytype) type {
    return struct {
        pub const span_elements = 64;
        pub const span_bytes = 2 * bytes;
        pub const groups = 1;
        pub const offset = zero_point;
        pub const has_min = minima;

        pub inline fn unpack(p: [*]const u8, out: *[groups]Group) void {
            const a = unpackBlock(p);
            const b = unpackBlock(p + bytes);
            out[0] = .{
                .q = simd.join(a.q, b.q),
                .scale = halves(a.scale, b.scale),
                .min = if (minima) halves(a.min, b.min) else undefined,
            };
        }
    };
}

fn SuperBlocks(comptime bytes: usize, comptime zero_point: u8, comptime minima: bool, comptime unpackSpan: anytype) type {
    return struct {
        pub const span_elements = 256;
        pub const span_bytes = bytes;
        pub const groups = 4;
        pub const offset = zero_point;
        pub const has_min = minima;

        pub inline fn unpack(p: [*]const u8, out: *[groups]Group) void {
            unpackSpan(p, out);
        }
    };
}

inline fn halves(low: f32, high: f32) F32 {
    return simd.join(@as(@Vector(8, f32), @splat(low)), @as(@Vector(8, f32), @splat(high)));
}

const quarter_mask = blk: {
    var m: [16]i32 = undefined;
    for (0..16) |lane| m[lane] = lane / 4;
    break :blk m;
};

/// Four scales spread over four lanes each.
inline fn quarters(v: @Vector(4, f32)) F32 {
    return @shuffle(f32, v, undefined, quarter_mask);
}

inline fn half(p: [*]const u8) f32 {
    return math.widenHalf(@as(@Vector(1, u16), .{std.mem.readInt(u16, p[0..2], .little)}))[0];
}

inline fn load(comptime n: usize, p: [*]const u8) @Vector(n, u8) {
    return p[0..n].*;
}

inline fn shiftRight(v: anytype, comptime bits: u3) @TypeOf(v) {
    return v >> @splat(bits);
}

const Block = struct { q: V32, scale: f32, min: f32 };

/// 16 bytes to 32 nibbles: the low ones first.
pub inline fn nibbles(p: [*]const u8) V32 {
    const v = load(16, p);
    return simd.join(v & @as(@Vector(16, u8), @splat(15)), shiftRight(v, 4));
}

const byte_of_bit = blk: {
    var m: [32]i32 = undefined;
    for (0..32) |i| m[i] = i / 8;
    break :blk m;
};
const bit_in_byte = blk: {
    var m: [32]u8 = undefined;
    for (0..32) |i| m[i] = 1 << (i % 8);
    break :blk m;
};

/// 32 bits to 32 bytes of 0 or 16.
inline fn fifthBits(p: [*]const u8) V32 {
    const bytes: @Vector(4, u8) = p[0..4].*;
    const spread: V32 = @shuffle(u8, bytes, undefined, byte_of_bit);
    const set = (spread & @as(V32, bit_in_byte)) == @as(V32, bit_in_byte);
    return @select(u8, set, @as(V32, @splat(16)), @as(V32, @splat(0)));
}

inline fn unpackQ4_0(p: [*]const u8) Block {
    return .{ .scale = half(p), .q = nibbles(p + 2), .min = undefined };
}
inline fn unpackQ4_1(p: [*]const u8) Block {
    return .{ .scale = half(p), .min = half(p + 2), .q = nibbles(p + 4) };
}
inline fn unpackQ5_0(p: [*]const u8) Block {
    return .{ .scale = half(p), .q = nibbles(p + 6) | fifthBits(p + 2), .min = undefined };
}
inline fn unpackQ5_1(p: [*]const u8) Block {
    return .{ .scale = half(p), .min = half(p + 2), .q = nibbles(p + 8) | fifthBits(p + 4) };
}
inline fn unpackQ8_0(p: [*]const u8) Block {
    return .{ .scale = half(p), .q = load(32, p + 2) ^ @as(V32, @splat(128)), .min = undefined };
}

inline fn unpackIQ4NL(p: [*]const u8) Block {
    return .{ .scale = half(p), .q = simd.lookup(iq4_nl_integers, nibbles(p + 2)), .min = undefined };
}
inline fn unpackMXFP4(p: [*]const u8) Block {
    const scale = math.widenExponent(@as(@Vector(1, u8), .{p[0]}))[0];
    return .{ .scale = scale, .q = simd.lookup(mxfp4_integers, nibbles(p + 1)), .min = undefined };
}

/// scales[16] (low nibble scale, high nibble minimum), qs[64], d, dmin.
inline fn unpackQ2K(p: [*]const u8, out: *[4]Group) void {
    const d = half(p + 80);
    const dmin = half(p + 82);
    inline for (0..4) |g| {
        const v = load(32, p + 16 + 32 * (g / 2));
        const low = shiftRight(v, 4 * (g % 2));
        const high = shiftRight(v, 4 * (g % 2) + 2);
        const s = load(4, p + 4 * g);
        const scales: @Vector(4, f32) = @floatFromInt(s & @as(@Vector(4, u8), @splat(15)));
        const minima: @Vector(4, f32) = @floatFromInt(shiftRight(s, 4));
        out[g] = .{
            .q = simd.join(low, high) & @as(U8, @splat(3)),
            .scale = quarters(scales * @as(@Vector(4, f32), @splat(d))),
            .min = quarters(minima * @as(@Vector(4, f32), @splat(-dmin))),
        };
    }
}

/// hmask[32], qs[64], scales[12] (16 six-bit values), d.
inline fn unpackQ3K(p: [*]const u8, out: *[4]Group) void {
    const d = half(p + 108);
    const mask = load(32, p);
    const low4 = load(8, p + 96);
    const high2 = load(4, p + 104);
    const nibble: @Vector(8, u8) = @splat(15);
    const pairs: @Vector(4, u8) = @splat(3);
    const tops = simd.join(
        simd.join(high2 & pairs, shiftRight(high2, 2) & pairs),
        simd.join(shiftRight(high2, 4) & pairs, shiftRight(high2, 6)),
    );
    const six = simd.join(low4 & nibble, shiftRight(low4, 4)) | (tops << @splat(4));
    const signed: @Vector(16, i32) = @as(@Vector(16, i32), six) - @as(@Vector(16, i32), @splat(32));
    const scales = @as(F32, @floatFromInt(signed)) * @as(F32, @splat(d));
    inline for (0..4) |g| {
        const v = load(32, p + 32 + 32 * (g / 2));
        const low = shiftRight(v, 4 * (g % 2));
        const high = shiftRight(v, 4 * (g % 2) + 2);
        const third = simd.join(shiftRight(mask, 2 * g), shiftRight(mask, 2 * g + 1)) & @as(U8, @splat(1));
        out[g] = .{
            .q = (simd.join(low, high) & @as(U8, @splat(3))) | (third << @splat(2)),
            .scale = quarters(simd.extract(scales, 4 * g, 4)),
            .min = undefined,
        };
    }
}

const SubScales = struct { scales: @Vector(8, f32), minima: @Vector(8, f32) };

/// The eight six-bit scales and minima of a 4- or 5-bit super-block, times d and -dmin. p: d, dmin, scales[12].
inline fn subScales(p: [*]const u8) SubScales {
    const a = load(4, p + 4);
    const b = load(4, p + 8);
    const c = load(4, p + 12);
    const six: @Vector(4, u8) = @splat(63);
    const nibble: @Vector(4, u8) = @splat(15);
    const scales = simd.join(a & six, (c & nibble) | (shiftRight(a, 6) << @splat(4)));
    const minima = simd.join(b & six, shiftRight(c, 4) | (shiftRight(b, 6) << @splat(4)));
    return .{
        .scales = @as(@Vector(8, f32), @floatFromInt(scales)) * @as(@Vector(8, f32), @splat(half(p))),
        .minima = @as(@Vector(8, f32), @floatFromInt(minima)) * @as(@Vector(8, f32), @splat(-half(p + 2))),
    };
}

/// Scale and minimum `index` of the same twelve bytes, as integers.
pub fn subScale(p: [*]const u8, index: usize) struct { scale: u8, min: u8 } {
    if (index < 4) return .{ .scale = p[index] & 63, .min = p[index + 4] & 63 };
    return .{
        .scale = (p[index + 4] & 15) | (p[index - 4] >> 6) << 4,
        .min = (p[index + 4] >> 4) | (p[index] >> 6) << 4,
    };
}

/// d, dmin, scales[12], qs[128].
inline fn unpackQ4K(p: [*]const u8, out: *[4]Group) void {
    const s = subScales(p);
    inline for (0..4) |g| {
        const v = load(32, p + 16 + 32 * g);
        out[g] = .{
            .q = simd.join(v & @as(V32, @splat(15)), shiftRight(v, 4)),
            .scale = halves(s.scales[2 * g], s.scales[2 * g + 1]),
            .min = halves(s.minima[2 * g], s.minima[2 * g + 1]),
        };
    }
}

/// d, dmin, scales[12], qh[32], qs[128].
inline fn unpackQ5K(p: [*]const u8, out: *[4]Group) void {
    const s = subScales(p);
    const tops = load(32, p + 16);
    inline for (0..4) |g| {
        const v = load(32, p + 48 + 32 * g);
        const fifth = simd.join(shiftRight(tops, 2 * g), shiftRight(tops, 2 * g + 1)) & @as(U8, @splat(1));
        out[g] = .{
            .q = simd.join(v & @as(V32, @splat(15)), shiftRight(v, 4)) | (fifth << @splat(4)),
            .scale = halves(s.scales[2 * g], s.scales[2 * g + 1]),
            .min = halves(s.minima[2 * g], s.minima[2 * g + 1]),
        };
    }
}

/// ql[128], qh[64], scales[16] (i8), d.
inline fn unpackQ6K(p: [*]const u8, out: *[4]Group) void {
    const d = half(p + 208);
    inline for (0..4) |g| {
        const v = load(64, p + 64 * (g / 2));
        const tops = load(32, p + 128 + 32 * (g / 2));
        const low = if (g % 2 == 0) v & @as(U8, @splat(15)) else shiftRight(v, 4);
        const high = simd.join(shiftRight(tops, 4 * (g % 2)), shiftRight(tops, 4 * (g % 2) + 2)) & @as(U8, @splat(3));
        const s: @Vector(4, i8) = @bitCast(load(4, p + 192 + 4 * g));
        const scales: @Vector(4, f32) = @floatFromInt(s);
        out[g] = .{
            .q = low | (high << @splat(4)),
            .scale = quarters(scales * @as(@Vector(4, f32), @splat(d))),
            .min = undefined,
        };
    }
}

/// Widens one row of any weight dtype to f32. `elements` is a whole number of the format's blocks.
pub fn dequantizeRow(dtype: ops.DType, source: [*]const u8, elements: usize, out: [*]f32) void {
    switch (dtype) {
        .f32 => @memcpy(std.mem.sliceAsBytes(out[0..elements]), source[0 .. 4 * elements]),
        .f16 => for (0..elements) |i| {
            out[i] = half(source + 2 * i);
        },
        .bf16 => for (0..elements) |i| {
            out[i] = @bitCast(@as(u32, std.mem.readInt(u16, source[2 * i ..][0..2], .little)) << 16);
        },
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |d| dequantizeBlocks(Format(d), source, elements, out),
        else => unreachable,
    }
}

fn dequantizeBlocks(comptime F: type, source: [*]const u8, elements: usize, out: [*]f32) void {
    var done: usize = 0;
    var p = source;
    while (done < elements) : (p += F.span_bytes) {
        var groups: [F.groups]Group = undefined;
        if (elements - done < F.span_elements) {
            const tail = paddedSpan(F, p);
            F.unpack(&tail, &groups);
        } else F.unpack(p, &groups);
        for (&groups) |*group| {
            const q: [64]u8 = group.q;
            const scales: [16]f32 = group.scale;
            const minima: [16]f32 = if (F.has_min) group.min else undefined;
            for (0..@min(64, elements - done)) |i| {
                const level: f32 = @floatFromInt(@as(i32, q[i]) - F.offset);
                out[done + i] = scales[i / 4] * level + if (F.has_min) minima[i / 4] else 0;
            }
            done += @min(64, elements - done);
        }
    }
}

/// Copies the first half of a span; the missing block is zero. Only 32-element formats end inside a span.
pub inline fn paddedSpan(comptime F: type, p: [*]const u8) [F.span_bytes]u8 {
    var copy: [F.span_bytes]u8 = @splat(0);
    @memcpy(copy[0 .. F.span_bytes / 2], p[0 .. F.span_bytes / 2]);
    return copy;
}
