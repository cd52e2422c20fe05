//! Tests of packing: what a panel says, read as the products read it, is what the file says, row by row; scales that
//! become whole numbers are held against the definition, one at a time.

const std = @import("std");
const formats = @import("formats.zig");
const layouts = @import("packed.zig");
const ops = @import("../abi/ops.gen.zig");
const pack = @import("pack.zig");

const Layout = layouts.Layout;
const panel_rows = layouts.panel_rows;
const expectEqual = std.testing.expectEqual;

pub const dtypes = [_]ops.DType{ .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 };

/// Scales at the edges: zeros, the smallest and the largest, just past a power of two, infinity, not a number.
const edges = [_]u16{ 0, 0x8000, 0x0001, 0x8001, 0x7bff, 0xfbff, 0x3c00, 0x3bff, 0x37ff, 0x7c00, 0xfe01 };

pub fn Matrix(comptime dtype: ops.DType) type {
    return struct {
        const l = Layout.of(dtype);
        const F = formats.Format(dtype);
        const is_super = F.groups > 1;
        const block_elements = if (is_super) 256 else 32;
        const block_bytes = if (is_super) F.span_bytes else F.span_bytes / 2;

        bytes: []u8,
        rows: usize,
        k: usize,

        pub fn create(random: std.Random, rows: usize, k: usize, at_edges: bool) !@This() {
            const bytes = try std.testing.allocator.alloc(u8, rows * k / block_elements * block_bytes);
            random.bytes(bytes);
            var block: usize = 0;
            while (block < bytes.len) : (block += block_bytes) {
                // Exponents whose units are neither too small nor too large for a float.
                if (l.scales == .power) bytes[block] = random.intRangeAtMost(u8, 90, 200);
                for (halfOffsets()) |offset| {
                    const is_edge = at_edges and random.uintLessThan(u8, 4) == 0;
                    const half = if (is_edge) edges[random.uintLessThan(usize, edges.len)] else 0x2000 + (random.int(u16) & 0x8fff);
                    std.mem.writeInt(u16, bytes[block + offset ..][0..2], half, .little);
                }
            }
            return .{ .bytes = bytes, .rows = rows, .k = k };
        }

        fn halfOffsets() []const usize {
            return switch (dtype) {
                .q2_k => &.{ 80, 82 },
                .q3_k => &.{108},
                .q6_k => &.{208},
                .mxfp4 => &.{},
                else => if (l.has_min) &.{ 0, 2 } else &.{0},
            };
        }

        fn row(m: @This(), index: usize) [*]const u8 {
            return m.bytes.ptr + index * m.k / block_elements * block_bytes;
        }

        fn expectPanel(m: @This(), first: usize, panel: []const u8) !void {
            for (0..m.k / layouts.slab_elements) |index| {
                const span = panel.ptr + index / l.slabsPerSpan() * l.spanBytes();
                const slab = span + l.headerBytes() + index % l.slabsPerSpan() * l.slabBytes();
                for (0..panel_rows) |lane| try m.expectSlab(first + lane, lane, index, span, slab);
            }
        }

        fn expectSlab(m: @This(), row_index: usize, lane: usize, index: usize, span: [*]const u8, slab: [*]const u8) !void {
            if (row_index >= m.rows) {
                inline for (0..layouts.slab_registers) |j| {
                    const integers: [64]u8 = layouts.integers(l, slab, j);
                    const nothing: u8 = if (l.table) |table| table[0] else 0;
                    try expectEqual([_]u8{nothing} ** 4, integers[4 * lane ..][0..4].*);
                }
                return;
            }
            var groups: [F.groups]formats.Group = undefined;
            const block = m.row(row_index) + index * layouts.slab_elements / block_elements * block_bytes;
            if (is_super) F.unpack(block, &groups) else F.unpack(&formats.paddedSpan(F, block), &groups);
            const part = if (is_super) index % 8 else 0;
            const q: [64]u8 = groups[part / 2].q;
            const wanted = q[part % 2 * 32 ..][0..32];
            inline for (0..layouts.slab_registers) |j| {
                const integers: [64]u8 = layouts.integers(l, slab, j);
                try expectEqual(wanted[4 * j ..][0..4].*, integers[4 * lane ..][0..4].*);
            }
            const head = layouts.header(l, span);
            if (l.scales == .unit or l.scales == .wide) try m.expectUnit(row_index, lane, index, span, slab);
            const scales: [16]f32 = groups[part / 2].scale;
            const minima: [16]f32 = if (l.has_min) groups[part / 2].min else undefined;
            inline for (0..comptime l.subs()) |sub| {
                const from = part % 2 * 8 + sub * 4;
                if (l.scales == .half) try expectSame(scales[from], lanesOf(layouts.halfScale(slab))[lane]);
                if (l.scales == .super or l.scales == .power) {
                    const whole: [16]i32 = layouts.wholeScale(l, slab, sub);
                    const wanted_scale = if (l.scales == .super or m.isInReach(row_index, index)) scales[from] else 0;
                    try expectSame(wanted_scale, lanesOf(head.unit)[lane] * @as(f32, @floatFromInt(whole[lane])));
                }
                if (l.has_min) {
                    const is_moved = l.scales != .super and l.offset != 0;
                    const wanted_min = if (is_moved) @as(f16, @floatCast(minima[from] + scales[from] * l.offset)) else minima[from];
                    try expectSame(wanted_min, lanesOf(layouts.minimum(l, head, slab, sub))[lane]);
                }
            }
        }

        fn expectUnit(m: @This(), row_index: usize, lane: usize, index: usize, span: [*]const u8, slab: [*]const u8) !void {
            const first = index - index % layouts.group_slabs;
            const blocks = m.k / layouts.slab_elements;
            var largest: f32 = 0;
            var is_finite = true;
            for (first..@min(first + layouts.group_slabs, blocks)) |block| {
                const scale = m.halfScale(row_index, block);
                is_finite = is_finite and std.math.isFinite(scale);
                largest = @max(largest, @abs(scale));
            }
            const exponent: i8 = @bitCast(span[lane]);
            const whole = std.mem.readInt(i16, slab[2 * lane ..][0..2], .little);
            if (!is_finite) return expectEqual([2]i32{ std.math.minInt(i8), 0 }, [2]i32{ exponent, whole });
            if (largest == 0) return expectEqual([2]i32{ 0, 0 }, [2]i32{ exponent, whole });
            const limit: f32 = @floatFromInt(l.scaleMax());
            var finest: i32 = -100;
            while (@round(std.math.ldexp(largest, -finest)) > limit) finest += 1;
            const wanted: i32 = @intFromFloat(@round(std.math.ldexp(m.halfScale(row_index, index), -finest)));
            try expectEqual([2]i32{ finest, wanted }, [2]i32{ exponent, whole });
        }

        /// Whether the power of two of a block is not too far below the largest of its group.
        fn isInReach(m: @This(), row_index: usize, index: usize) bool {
            const first = index - index % layouts.group_slabs;
            var largest: u8 = 0;
            for (first..@min(first + layouts.group_slabs, m.k / layouts.slab_elements)) |block| {
                largest = @max(largest, (m.row(row_index) + block * block_bytes)[0]);
            }
            return largest - (m.row(row_index) + index * block_bytes)[0] <= layouts.power_octaves;
        }

        fn halfScale(m: @This(), row_index: usize, block: usize) f32 {
            return @as(f16, @bitCast(std.mem.readInt(u16, (m.row(row_index) + block * block_bytes)[0..2], .little)));
        }
    };
}

fn lanesOf(v: @Vector(16, f32)) [16]f32 {
    return v;
}

/// Equal, or neither of them a number.
fn expectSame(wanted: f32, found: f32) !void {
    if (!std.math.isNan(wanted) or !std.math.isNan(found)) try expectEqual(wanted, found);
}

fn expectPanels(comptime dtype: ops.DType, random: std.Random, rows: usize, k: usize, at_edges: bool) !void {
    const matrix = try Matrix(dtype).create(random, rows, k, at_edges);
    defer std.testing.allocator.free(matrix.bytes);
    const panel = try std.testing.allocator.alloc(u8, layouts.panelBytes(dtype, k));
    defer std.testing.allocator.free(panel);
    var first: usize = 0;
    while (first < rows) : (first += panel_rows) {
        @memset(panel, 0xaa);
        pack.packPanel(dtype, matrix.bytes.ptr, matrix.bytes.len / rows, rows, first, k, panel.ptr);
        try matrix.expectPanel(first, panel);
    }
}

test "a panel says what the file says" {
    var generator = std.Random.DefaultPrng.init(1);
    inline for (dtypes) |dtype| {
        const lengths: []const usize = if (comptime formats.Format(dtype).groups > 1) &.{ 256, 768 } else &.{ 32, 96, 128, 160, 576 };
        for (lengths) |k| {
            for ([_]usize{ 1, 16, 37 }) |rows| {
                for ([_]bool{ false, true }) |at_edges| try expectPanels(dtype, generator.random(), rows, k, at_edges);
            }
        }
    }
}
