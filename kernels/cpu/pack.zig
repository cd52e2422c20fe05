//! Writes weight matrices as panels (`packed.zig`) from the blocks of the file format. Runs once, at load.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const formats = @import("formats.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
/// Eight words of four elements each: the elements of a slab in one row.
const Words = @Vector(8, u32);
const panel_rows = layouts.panel_rows;

/// One panel: rows `first .. first + 16` of a matrix; rows past `rows` are zero. `source` is the matrix' first
/// byte, `panel` has `panelBytes` bytes.
pub fn packPanel(dtype: ops.DType, source: [*]const u8, row_bytes: usize, rows: usize, first: usize, k: usize, panel: [*]u8) void {
    switch (dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |d| {
            const own: Rows = .{ .source = source + first * row_bytes, .bytes = row_bytes, .count = @min(panel_rows, rows - first) };
            if (own.count < panel_rows) @memset(panel[0..layouts.panelBytes(d, k)], 0);
            for (0..own.count) |row| packRow(d, own.source + row * row_bytes, k, row, panel);
            const scales = (comptime Layout.of(d)).scales;
            if (scales == .unit or scales == .wide) packUnits(d, own, k, panel);
            if (scales == .power) for (0..own.count) |row| packPowers(d, own.source + row * row_bytes, k, row, panel);
        },
        else => unreachable,
    }
}

/// The rows of a panel in the file format.
const Rows = struct {
    source: [*]const u8,
    bytes: usize,
    count: usize,

    /// The half float of each row, `offset` bytes from its start.
    inline fn halves(rows: Rows, offset: usize) F32 {
        var bits: [panel_rows]u16 = @splat(0);
        for (bits[0..rows.count], 0..) |*half, row| half.* = std.mem.readInt(u16, (rows.source + offset + row * rows.bytes)[0..2], .little);
        return math.widenHalf(@as(@Vector(panel_rows, u16), bits));
    }
};

fn packRow(comptime dtype: ops.DType, source: [*]const u8, k: usize, row: usize, panel: [*]u8) void {
    const F = formats.Format(dtype);
    const slabs = F.span_elements / layouts.slab_elements;
    // What the reader of the file format covers at once: two 32-element blocks, or one super-block.
    const spans = k / F.span_elements;
    for (0..spans) |span| packSpan(dtype, source + span * F.span_bytes, slabs, row, panel, span * slabs);
    if (k % F.span_elements == 0) return;
    const tail = formats.paddedSpan(F, source + spans * F.span_bytes);
    packSpan(dtype, &tail, 1, row, panel, spans * slabs);
}

/// The first `count` slabs of a span; `first` is the slab of the panel where they begin.
inline fn packSpan(comptime dtype: ops.DType, p: [*]const u8, comptime count: usize, row: usize, panel: [*]u8, first: usize) void {
    const l = comptime Layout.of(dtype);
    const F = formats.Format(dtype);
    var groups: [F.groups]formats.Group = undefined;
    F.unpack(p, &groups);
    // Unrolled, so that the scales nobody asks for are not computed.
    inline for (0..count) |s| {
        const slab = slabOf(l, panel, first + s);
        const q = if (l.table == null)
            simd.extract(groups[s / 2].q, s % 2 * 32, 32)
        else
            // The indices, which are the last 16 bytes of a block.
            formats.nibbles(p + (s + 1) * (F.span_bytes / 2) - 16);
        packIntegers(l, q, row, slab);
        if (l.scales != .super) packHalves(l, p + s * (F.span_bytes / 2), row, slab);
    }
    if (l.scales == .super) packScales(dtype, p, row, panel + first / 8 * l.spanBytes());
}

fn slabOf(comptime l: Layout, panel: [*]u8, slab: usize) [*]u8 {
    return panel + slab / l.slabsPerSpan() * l.spanBytes() + l.headerBytes() + slab % l.slabsPerSpan() * l.slabBytes();
}

/// Four neighbouring elements are one 32-bit word of a register, so that bits of four move at a time.
inline fn packIntegers(comptime l: Layout, q: @Vector(32, u8), row: usize, slab: [*]u8) void {
    const words: Words = @bitCast(q);
    const low_mask: Words = @splat(0x01010101 * ((1 << @as(u32, l.low_bits)) - 1));
    packBits(l.low_bits, words & low_mask, row, slab + comptime l.lowAt());
    if (l.high_bits > 0) packBits(l.high_bits, (words & ~low_mask) >> @splat(l.low_bits), row, slab + comptime l.highAt());
}

/// The eight words of a slab with so many bits in each of their bytes fill as many registers: register r has words
/// r, r + bits, r + 2 * bits ... beside one another.
inline fn packBits(comptime bits: usize, words: Words, row: usize, registers: [*]u8) void {
    const distances = comptime blk: {
        var distances: [8]u5 = undefined;
        for (&distances, 0..) |*distance, word| distance.* = word / bits * bits;
        break :blk distances;
    };
    const filled: [bits]u32 = foldTo(bits, words << distances);
    inline for (filled, 0..) |word, r| std.mem.writeInt(u32, registers[64 * r + 4 * row ..][0..4], word, .little);
}

/// Halves a vector by "or" until it has `length` lanes.
inline fn foldTo(comptime length: usize, v: anytype) @Vector(length, u32) {
    const lanes = @typeInfo(@TypeOf(v)).vector.len;
    if (lanes == length) return v;
    return foldTo(length, simd.extract(v, 0, lanes / 2) | simd.extract(v, lanes / 2, lanes / 2));
}

/// The half floats at the head of a 32-element block.
inline fn packHalves(comptime l: Layout, block: [*]const u8, row: usize, slab: [*]u8) void {
    if (l.scales == .half) @memcpy(slab[2 * row ..][0..2], block[0..2]);
    if (!l.has_min) return;
    const minimum = if (l.offset == 0) block[2..4].* else centre(l.offset, block);
    slab[32 + 2 * row ..][0..2].* = minimum;
}

/// What integer `offset` of a block with a scale and a minimum stands for, in a half float.
fn centre(comptime offset: f32, block: [*]const u8) [2]u8 {
    const scale: f16 = @bitCast(block[0..2].*);
    const minimum: f16 = @bitCast(block[2..4].*);
    return @bitCast(@as(f16, @floatCast(@as(f32, minimum) + offset * @as(f32, scale))));
}

/// The half float scales of the rows as whole numbers of powers of two, group by group.
fn packUnits(comptime dtype: ops.DType, rows: Rows, k: usize, panel: [*]u8) void {
    const l = comptime Layout.of(dtype);
    const block_bytes = formats.Format(dtype).span_bytes / 2;
    const blocks = k / layouts.slab_elements;
    var first: usize = 0;
    while (first < blocks) : (first += layouts.group_slabs) {
        const count = @min(layouts.group_slabs, blocks - first);
        var scales: [layouts.group_slabs]F32 = @splat(@splat(0));
        for (scales[0..count], first..) |*scale, block| scale.* = rows.halves(block * block_bytes);
        const units = unitsOf(l, &scales);
        panel[first / layouts.group_slabs * l.spanBytes() ..][0..panel_rows].* = @bitCast(units.exponents);
        for (units.scales[0..count], first..) |scale, block| slabOf(l, panel, block)[0 .. 2 * panel_rows].* = @bitCast(scale);
    }
}

/// The exponents at the head of a row's blocks, against the largest of each group.
fn packPowers(comptime dtype: ops.DType, source: [*]const u8, k: usize, row: usize, panel: [*]u8) void {
    const l = comptime Layout.of(dtype);
    const block_bytes = formats.Format(dtype).span_bytes / 2;
    const blocks = k / layouts.slab_elements;
    var first: usize = 0;
    while (first < blocks) : (first += layouts.group_slabs) {
        const end = @min(first + layouts.group_slabs, blocks);
        var largest: u8 = 0;
        for (first..end) |block| largest = @max(largest, source[block * block_bytes]);
        panel[first / layouts.group_slabs * l.spanBytes() + row] = largest;
        for (first..end) |block| {
            const below = largest - source[block * block_bytes];
            const exponent_of_one = 127;
            slabOf(l, panel, block)[row] = if (below > layouts.power_octaves) 0 else exponent_of_one + layouts.power_octaves - below;
        }
    }
}

const Units = struct {
    exponents: @Vector(panel_rows, i8),
    scales: [layouts.group_slabs]@Vector(panel_rows, i16),
};

/// The finest power of two of each row in which no scale exceeds what the format allows.
inline fn unitsOf(comptime l: Layout, scales: *const [layouts.group_slabs]F32) Units {
    const sign: I32 = @splat(std.math.minInt(i32));
    const infinity: I32 = @bitCast(@as(F32, @splat(std.math.inf(f32))));
    const zero: I32 = @splat(0);
    // As whole numbers the magnitudes of floats have the order of the floats, with infinity and NaN above them all.
    var largest = zero;
    for (scales) |scale| largest = @max(largest, @as(I32, @bitCast(scale)) & ~sign);
    const is_finite = largest < infinity;
    const finest = (largest >> @splat(23)) - @as(I32, @splat(comptime 127 + @as(i32, std.math.log2_int(u32, l.scaleMax()))));
    // One step coarser where the last bit, or rounding, goes past the limit.
    const limit: F32 = @splat(@floatFromInt(comptime l.scaleMax()));
    const is_past = @round(@as(F32, @bitCast(largest)) * powerOf2(-finest)) > limit;
    const exponents = @select(i32, largest == zero, zero, finest + @select(i32, is_past, @as(I32, @splat(1)), zero));
    // This exponent reads as a unit of infinity: all that the group touches becomes NaN.
    var units: Units = .{ .exponents = @intCast(@select(i32, is_finite, exponents, @as(I32, @splat(std.math.minInt(i8))))), .scales = undefined };
    for (&units.scales, scales) |*whole, scale| {
        const inUnits = @round(scale * powerOf2(-exponents));
        whole.* = @intFromFloat(@select(f32, is_finite, inUnits, @as(F32, @splat(0))));
    }
    return units;
}

/// Exact for exponents from -126 to 127.
inline fn powerOf2(exponents: I32) F32 {
    return @bitCast((exponents +% @as(I32, @splat(127))) << @splat(23));
}

/// The header and the integer scales of a super-block.
fn packScales(comptime dtype: ops.DType, block: [*]const u8, row: usize, span: [*]u8) void {
    const l = comptime Layout.of(dtype);
    const d_at: usize = switch (dtype) {
        .q2_k => 80,
        .q3_k => 108,
        .q4_k, .q5_k => 0,
        .q6_k => 208,
        else => comptime unreachable,
    };
    @memcpy(span[2 * row ..][0..2], block[d_at..][0..2]);
    if (l.has_min) @memcpy(span[32 + 2 * row ..][0..2], block[d_at + 2 ..][0..2]);
    for (0..8 * l.subs()) |index| {
        const slab = span + l.headerBytes() + index / l.subs() * l.slabBytes();
        const at = index % l.subs() * 16 + row;
        switch (dtype) {
            .q2_k => slab[at] = block[index],
            .q6_k => slab[at] = block[192 + index],
            .q3_k => slab[at] = @bitCast(sixBits(block + 96, index)),
            .q4_k, .q5_k => {
                const pair = formats.subScale(block + 4, index);
                slab[at] = pair.scale;
                slab[l.scaleBytes() + at] = pair.min;
            },
            else => comptime unreachable,
        }
    }
}

/// Scale `index` of a 3-bit super-block: six bits in two places, minus 32.
fn sixBits(scales: [*]const u8, index: usize) i8 {
    const low = (scales[index % 8] >> @intCast(4 * (index / 8))) & 15;
    const high = (scales[8 + index % 4] >> @intCast(2 * (index / 4))) & 3;
    return @as(i8, @intCast(low | high << 4)) - 32;
}
