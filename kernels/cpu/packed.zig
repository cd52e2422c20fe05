//! Weights re-laid for speed: panels of 16 rows whose bytes are interleaved so that one 512-bit register holds
//! four consecutive elements of each row, which is what the 8-bit dot product instructions add up. A lane is a
//! row, so sums need no horizontal step, and a row's scale is a lane of a vector.
//!
//! A slab is 32 elements of 16 rows: its scales (and minima), then the low bits, then the high bits of its eight
//! registers. A span is a header and the slabs behind it. The bytes per weight are those of the file, give or
//! take 4%. Integers that a format looks up in a table are its indices here too.
//!
//! Where a format allows it, scales are integers: `weight = unit * (scale * (integer - offset)) + minimum`, one
//! unit per row and 256 elements, so that the sums over a group of 256 are whole numbers and meet floating point
//! once. The super-block formats are made that way. Formats with a half float per 32 elements get it here: the
//! unit is a power of two, the scales are what the halves are in it, rounded to 11 or 12 bits: exact within one
//! (two) octaves below the largest of the group, else to 1/4096 (1/8192) of that largest; to 15 bits, exact within
//! four octaves, where the sums are of 64 bits. Scales that are powers of two are exact down to 11 octaves below the
//! largest of the group; what is smaller than that is zero.
//!
//! Integers of Q4_1 run from 0; here they are counted from the middle, 8, and a block's minimum is what that one stands
//! for, rounded to a half float (beyond 65504, where no model's weights are, it is infinite). Smaller integers leave a
//! bit more for the scales, and meet less of their rounding.

const std = @import("std");
const activations = @import("activations.zig");
const ops = @import("../abi/ops.gen.zig");
const simd = @import("simd.zig");
const formats = @import("formats.zig");
const math = @import("math.zig");

const U8 = simd.U8;
const F32 = simd.F32;
const I32 = simd.I32;

pub const panel_rows = 16;
pub const slab_elements = 32;
/// Registers of a slab: register j holds elements 4j .. 4j + 3.
pub const slab_registers = 8;
/// Slabs of a group of activations.
pub const group_slabs = activations.group_elements / slab_elements;

/// How a format's scales are stored.
pub const Scales = enum {
    /// A half float per slab, used as it is: for integers of 8 bits, which leave no room for a scale beside them.
    half,
    /// 16-bit integers, one per slab; the header has an exponent per row and group.
    unit,
    /// The same, for integers of any length: the sums over a group do not fit 32 bits. The tile unit makes up for it.
    wide,
    /// Powers of two, one per slab: from 1 to 2^11 in a unit of their own per row and group. A byte is the exponent
    /// of a float, 0 a scale of zero; the header has the exponents of the largest.
    power,
    /// Bytes, one or two per slab; the header has a half float per row for eight slabs.
    super,
};

/// How a format's integers, scales and minima are stored.
pub const Layout = struct {
    low_bits: u4,
    high_bits: u4 = 0,
    scales: Scales,
    /// Elements that share a scale: 32, or 16 for two scales a slab.
    sub: u8 = 32,
    has_min: bool = false,
    /// Scale and minimum are the two nibbles of one byte.
    nibble_scales: bool = false,
    signed_scales: bool = false,
    offset: i32 = 0,
    /// Largest magnitude of an integer of a `unit` format, its offset taken away.
    integer_max: i32 = 0,
    /// The integers that the low bits stand for, the offset added; null where they are the integers.
    table: ?[16]u8 = null,

    pub fn of(comptime dtype: ops.DType) Layout {
        const long: Scales = if (simd.has_amx) .wide else .half;
        return switch (dtype) {
            .q4_0 => .{ .low_bits = 4, .scales = .unit, .offset = 8, .integer_max = 8 },
            .q4_1 => .{ .low_bits = 4, .scales = .unit, .has_min = true, .offset = 8, .integer_max = 8 },
            .q5_0 => .{ .low_bits = 4, .high_bits = 1, .scales = .unit, .offset = 16, .integer_max = 16 },
            .q5_1 => .{ .low_bits = 4, .high_bits = 1, .scales = long, .has_min = true },
            .q8_0 => .{ .low_bits = 8, .scales = long, .offset = 128 },
            .q2_k => .{ .low_bits = 2, .scales = .super, .sub = 16, .has_min = true, .nibble_scales = true },
            .q3_k => .{ .low_bits = 2, .high_bits = 1, .scales = .super, .sub = 16, .signed_scales = true, .offset = 4 },
            .q4_k => .{ .low_bits = 4, .scales = .super, .has_min = true },
            .q5_k => .{ .low_bits = 4, .high_bits = 1, .scales = .super, .has_min = true },
            .q6_k => .{ .low_bits = 4, .high_bits = 2, .scales = .super, .sub = 16, .signed_scales = true, .offset = 32 },
            .iq4_nl => .{ .low_bits = 4, .scales = long, .offset = 128, .table = formats.iq4_nl_integers },
            .mxfp4 => .{ .low_bits = 4, .scales = .power, .offset = 16, .table = formats.mxfp4_integers },
            else => @compileError("not a block format"),
        };
    }

    pub inline fn subs(comptime l: Layout) usize {
        return slab_elements / l.sub;
    }
    /// Whether sums over groups, scales and all, are whole numbers of 32 bits.
    pub inline fn whole(comptime l: Layout) bool {
        return l.scales != .half and l.scales != .wide;
    }
    /// The largest magnitude that an integer can have, its offset taken away.
    pub fn magnitude(comptime l: Layout) i32 {
        var largest: i32 = 0;
        if (l.table) |table| {
            for (table) |integer| largest = @max(largest, @abs(@as(i32, integer) - l.offset));
            return largest;
        }
        return @max(l.offset, (1 << (l.low_bits + l.high_bits)) - 1 - l.offset);
    }
    /// The largest whole scale. That of a `unit` format, times an integer, must fit a signed high byte and a signed low
    /// one.
    pub inline fn scaleMax(comptime l: Layout) i32 {
        return switch (l.scales) {
            .half => comptime unreachable,
            .unit => @divFloor(127 * 256 + 127, l.integer_max),
            .wide => std.math.maxInt(i16),
            .power => 1 << power_octaves,
            .super => if (l.nibble_scales) 15 else if (l.signed_scales) 128 else 63,
        };
    }
    /// Lowest bits of a group's sum that 32 bits have no room for.
    pub fn sumShift(comptime l: Layout) usize {
        var largest: i64 = l.scaleMax();
        largest *= @as(i64, l.magnitude()) * activations.integer_max * activations.group_elements;
        var dropped: usize = 0;
        while (largest > std.math.maxInt(i32)) : (dropped += 1) largest >>= 1;
        return dropped;
    }
    pub inline fn headerBytes(comptime l: Layout) usize {
        return switch (l.scales) {
            .half => 0,
            .unit, .wide, .power => panel_rows,
            .super => if (l.has_min) 64 else 32,
        };
    }
    /// Bytes of one slab's scales; its minima, where they are apart, take as many.
    pub inline fn scaleBytes(comptime l: Layout) usize {
        return switch (l.scales) {
            .half, .unit, .wide => 2 * panel_rows,
            .power => panel_rows,
            .super => l.subs() * panel_rows,
        };
    }
    inline fn minBytes(comptime l: Layout) usize {
        return if (l.has_min and !l.nibble_scales) l.scaleBytes() else 0;
    }
    pub inline fn lowAt(comptime l: Layout) usize {
        return l.scaleBytes() + l.minBytes();
    }
    pub inline fn highAt(comptime l: Layout) usize {
        return l.lowAt() + 64 * @as(usize, l.low_bits);
    }
    pub inline fn slabBytes(comptime l: Layout) usize {
        return l.highAt() + 64 * @as(usize, l.high_bits);
    }
    /// Cache lines that a slab begins or goes on in, if it begins with one: what to ask for ahead.
    pub inline fn slabLines(comptime l: Layout) usize {
        return comptime std.math.divCeil(usize, l.slabBytes(), std.atomic.cache_line) catch unreachable;
    }
    /// Slabs behind one header; the last span of a `unit`, `wide` or `power` format may have fewer.
    pub inline fn slabsPerSpan(comptime l: Layout) usize {
        return switch (l.scales) {
            .half => 1,
            .unit, .wide, .power => group_slabs,
            .super => 8,
        };
    }
    pub inline fn spanBytes(comptime l: Layout) usize {
        return l.headerBytes() + l.slabsPerSpan() * l.slabBytes();
    }
    /// Bytes of one panel of a matrix with rows of k elements.
    pub fn panelBytes(comptime l: Layout, k: usize) usize {
        const slabs = k / slab_elements;
        const spans = std.math.divCeil(usize, slabs, l.slabsPerSpan()) catch unreachable;
        return spans * l.headerBytes() + slabs * l.slabBytes();
    }
};

/// Bytes of one panel of a matrix with rows of k elements.
pub fn panelBytes(dtype: ops.DType, k: usize) usize {
    switch (dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |d| return (comptime Layout.of(d)).panelBytes(k),
        else => return 0,
    }
}

inline fn halves(p: [*]const u8) F32 {
    return math.widenHalf(@as(@Vector(16, u16), @bitCast(p[0..32].*)));
}

/// Bits of register j, and where in a slab's register they lie.
const Source = struct {
    at: usize,
    field: simd.BitField,

    inline fn read(comptime source: Source, slab: [*]const u8) U8 {
        return slab[source.at..][0..64].*;
    }
};

/// The low or the high bits of register j.
fn sourceOf(first: usize, bits: usize, to: u3, j: usize) Source {
    const registers = slab_registers * bits / 8;
    return .{ .at = first + 64 * (j % registers), .field = .{ .from = @intCast(bits * (j / registers)), .count = @intCast(bits), .to = to } };
}

/// Register j of a slab as unsigned bytes.
pub inline fn integers(comptime l: Layout, slab: [*]const u8, comptime j: usize) U8 {
    const low = comptime sourceOf(l.lowAt(), l.low_bits, 0, j);
    if (l.low_bits == 8) return low.read(slab);
    const base = simd.moveBits(low.read(slab), low.field);
    if (l.high_bits == 0) return if (l.table) |table| simd.lookup(table, base) else base;
    const high = comptime sourceOf(l.highAt(), l.high_bits, @intCast(l.low_bits), j);
    return base | simd.moveBits(high.read(slab), high.field);
}

/// The same as signed bytes, the offset taken away.
pub inline fn centeredIntegers(comptime l: Layout, slab: [*]const u8, comptime j: usize) U8 {
    const is_middle = l.table == null and l.low_bits < 8 and l.offset == 1 << (l.low_bits + l.high_bits - 1);
    if (!is_middle or !simd.moves_centered) return integers(l, slab, j) -% @as(U8, @splat(l.offset));
    const low = comptime sourceOf(l.lowAt(), l.low_bits, 0, j);
    if (l.high_bits == 0) return simd.moveCentered(low.read(slab), low.field);
    const high = comptime sourceOf(l.highAt(), l.high_bits, @intCast(l.low_bits), j);
    return simd.moveBits(low.read(slab), low.field) | simd.moveCentered(high.read(slab), high.field);
}

/// Octaves below the largest scale of a group that the scales of a `power` format reach.
pub const power_octaves = 11;

/// Slabs of the next group, when so many are left: formats in blocks of 32 may end in the middle of one.
pub inline fn presentSlabs(comptime l: Layout, slabs: usize) usize {
    return if (l.scales == .super) group_slabs else @min(slabs, group_slabs);
}

/// What a span's header says, kept for its slabs.
pub const Header = struct { unit: F32, min_unit: F32 };

pub inline fn header(comptime l: Layout, span: [*]const u8) Header {
    switch (l.scales) {
        .half => return undefined,
        .unit, .wide => {
            const exponents: I32 = @as(@Vector(panel_rows, i8), @bitCast(span[0..panel_rows].*));
            return .{ .unit = @bitCast((exponents +% @as(I32, @splat(127))) << @splat(23)), .min_unit = undefined };
        },
        .power => {
            const largest = math.widenExponent(@as(@Vector(panel_rows, u8), span[0..panel_rows].*));
            return .{ .unit = largest * @as(F32, @splat(1.0 / @as(f32, 1 << power_octaves))), .min_unit = undefined };
        },
        .super => return .{ .unit = halves(span), .min_unit = if (l.has_min) -halves(span + 32) else undefined },
    }
}

/// The half float scale of each row.
pub inline fn halfScale(slab: [*]const u8) F32 {
    return halves(slab);
}

/// The integer scale of each row for part `sub` of a slab.
pub inline fn wholeScale(comptime l: Layout, slab: [*]const u8, comptime sub: usize) I32 {
    if (l.scales == .unit or l.scales == .wide) return @as(@Vector(panel_rows, i16), @bitCast(slab[0..32].*));
    const bytes: @Vector(panel_rows, u8) = slab[16 * sub ..][0..16].*;
    if (l.scales == .power) return @intFromFloat(@as(F32, @bitCast(@as(I32, bytes) << @splat(23))));
    if (l.nibble_scales) return bytes & @as(@Vector(panel_rows, u8), @splat(15));
    return if (l.signed_scales) @as(@Vector(panel_rows, i8), @bitCast(bytes)) else bytes;
}

/// The same, twice side by side in 16 bits: for sums of a row in two words.
pub inline fn scalePairs(comptime l: Layout, slab: [*]const u8, comptime sub: usize) simd.I16 {
    const scales: @Vector(panel_rows, i16) = if (l.scales == .unit) @bitCast(slab[0..32].*) else @truncate(wholeScale(l, slab, sub));
    return @shuffle(i16, scales, undefined, blk: {
        var twice: [2 * panel_rows]i32 = undefined;
        for (&twice, 0..) |*lane, i| lane.* = i / 2;
        break :blk twice;
    });
}

/// The minimum of each row for part `sub` of a slab.
pub inline fn minimum(comptime l: Layout, head: Header, slab: [*]const u8, comptime sub: usize) F32 {
    if (l.scales != .super) return halves(slab + 32);
    const bytes: @Vector(panel_rows, u8) = if (l.nibble_scales)
        @as(@Vector(panel_rows, u8), slab[16 * sub ..][0..16].*) >> @splat(4)
    else
        slab[comptime l.scaleBytes() + 16 * sub..][0..16].*;
    return @as(F32, @floatFromInt(@as(I32, bytes))) * head.min_unit;
}
