//! Writes weight matrices as panels (`packed.zig`) from the blocks of the file format. Runs once, at load.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const formats = @import("formats.zig");
const layouts = @import("packed.zig");

const Layout = layouts.Layout;
const panel_rows = layouts.panel_rows;

/// One panel: rows `first .. first + 16` of a matrix; rows past `rows` are zero. `source` is the matrix' first
/// byte, `panel` has `panelBytes` bytes.
pub fn packPanel(dtype: ops.DType, source: [*]const u8, row_bytes: usize, rows: usize, first: usize, k: usize, panel: [*]u8) void {
    switch (dtype) {
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |d| {
            const count = layouts.panelBytes(d, k);
            @memset(panel[0..count], 0);
            for (0..@min(panel_rows, rows - first)) |row| packRow(d, source + (first + row) * row_bytes, k, row, panel);
        },
        else => unreachable,
    }
}

fn packRow(comptime dtype: ops.DType, source: [*]const u8, k: usize, row: usize, panel: [*]u8) void {
    const l = comptime Layout.of(dtype);
    const F = formats.Format(dtype);
    // What the reader of the file format covers at once: two 32-element blocks, or one super-block.
    var done: usize = 0;
    while (done < k) : (done += F.span_elements) {
        const p = source + done / F.span_elements * F.span_bytes;
        var groups: [F.groups]formats.Group = undefined;
        const partial = F.groups == 1 and k - done < F.span_elements;
        if (partial) {
            const tail = formats.paddedSpan(F, p);
            F.unpack(&tail, &groups);
        } else F.unpack(p, &groups);
        const slabs: usize = if (partial) 1 else F.span_elements / layouts.slab_elements;
        for (0..slabs) |s| {
            const slab = slabOf(l, panel, done / layouts.slab_elements + s);
            if (l.table == null) {
                const q: [64]u8 = groups[s / 2].q;
                packIntegers(l, q[s % 2 * 32 ..][0..32], row, slab);
            } else {
                // The indices, which are the last 16 bytes of a block.
                const q: [32]u8 = formats.nibbles(p + (s + 1) * (F.span_bytes / 2) - 16);
                packIntegers(l, &q, row, slab);
            }
            if (l.scales != .super) packHalves(l, p + s * (F.span_bytes / 2), row, slab);
        }
        if (l.scales == .super) packScales(dtype, p, row, panel + done / 256 * l.spanBytes());
    }
    if (l.scales == .unit) packUnits(l, source, F.span_bytes / 2, k, row, panel);
    if (l.scales == .power) packPowers(l, source, F.span_bytes / 2, k, row, panel);
}

fn slabOf(comptime l: Layout, panel: [*]u8, slab: usize) [*]u8 {
    return panel + slab / l.slabsPerSpan() * l.spanBytes() + l.headerBytes() + slab % l.slabsPerSpan() * l.slabBytes();
}

/// Four neighbouring elements are one 32-bit word of a register, so that bits of four move at a time.
fn packIntegers(comptime l: Layout, q: *const [32]u8, row: usize, slab: [*]u8) void {
    const words: @Vector(8, u32) = @bitCast(q.*);
    const low_mask: u32 = 0x01010101 * @as(u32, (1 << @as(u9, l.low_bits)) - 1);
    const low: [8]u32 = words & @as(@Vector(8, u32), @splat(low_mask));
    const low_registers = comptime l.low_bits;
    inline for (0..low_registers) |r| {
        var word: u32 = 0;
        inline for (0..8 / low_registers) |part| word |= low[r + low_registers * part] << (part * low_registers);
        writeWord(slab + l.lowAt() + 64 * r, row, word);
    }
    if (l.high_bits == 0) return;
    const high: [8]u32 = (words & ~@as(@Vector(8, u32), @splat(low_mask))) >> @splat(l.low_bits);
    const high_registers = comptime l.high_bits;
    inline for (0..high_registers) |r| {
        var word: u32 = 0;
        inline for (0..8 / high_registers) |part| word |= high[r + high_registers * part] << (part * high_registers);
        writeWord(slab + l.highAt() + 64 * r, row, word);
    }
}

inline fn writeWord(register: [*]u8, row: usize, word: u32) void {
    std.mem.writeInt(u32, register[4 * row ..][0..4], word, .little);
}

/// The half floats at the head of a 32-element block.
fn packHalves(comptime l: Layout, block: [*]const u8, row: usize, slab: [*]u8) void {
    if (l.scales == .half) @memcpy(slab[2 * row ..][0..2], block[0..2]);
    if (l.has_min) @memcpy(slab[32 + 2 * row ..][0..2], block[2..4]);
}

/// The half float scales of a row as whole numbers of a power of two, group by group.
fn packUnits(comptime l: Layout, source: [*]const u8, block_bytes: usize, k: usize, row: usize, panel: [*]u8) void {
    const blocks = k / layouts.slab_elements;
    var first: usize = 0;
    while (first < blocks) : (first += layouts.group_slabs) {
        const count = @min(layouts.group_slabs, blocks - first);
        var scales: [layouts.group_slabs]f32 = @splat(0);
        for (scales[0..count], first..) |*scale, block| {
            scale.* = @floatCast(@as(f16, @bitCast(std.mem.readInt(u16, source[block * block_bytes ..][0..2], .little))));
        }
        const units = unitsOf(l, scales);
        panel[first / layouts.group_slabs * l.spanBytes() + row] = @bitCast(units.exponent);
        for (units.scales[0..count], first..) |scale, block| {
            std.mem.writeInt(i16, slabOf(l, panel, block)[2 * row ..][0..2], scale, .little);
        }
    }
}

/// The exponents at the head of a row's blocks, against the largest of each group.
fn packPowers(comptime l: Layout, source: [*]const u8, block_bytes: usize, k: usize, row: usize, panel: [*]u8) void {
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

const Units = struct { exponent: i8, scales: [layouts.group_slabs]i16 };

/// The finest power of two in which no scale exceeds what the format allows.
fn unitsOf(comptime l: Layout, scales: [layouts.group_slabs]f32) Units {
    var largest: f32 = 0;
    for (scales) |scale| {
        // This exponent reads as a unit of infinity: all that the group touches becomes NaN.
        if (!std.math.isFinite(scale)) return .{ .exponent = std.math.minInt(i8), .scales = @splat(0) };
        largest = @max(largest, @abs(scale));
    }
    var units: Units = .{ .exponent = 0, .scales = @splat(0) };
    if (largest == 0) return units;
    const limit: f32 = @floatFromInt(comptime l.scaleMax());
    var exponent: i32 = std.math.frexp(largest).exponent - comptime (std.math.log2_int(u32, l.scaleMax()) + 1);
    // One step coarser where the last bit, or rounding, goes past the limit.
    while (@round(std.math.ldexp(largest, -exponent)) > limit) exponent += 1;
    units.exponent = @intCast(exponent);
    for (&units.scales, scales) |*whole, scale| whole.* = @intFromFloat(@round(std.math.ldexp(scale, -exponent)));
    return units;
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
