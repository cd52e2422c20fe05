//! Tests of the products by pairs of rows: sums against plain integers for every layout, outputs bit for bit against
//! the products of each token alone. Where there is no such instruction its portable twin stands in.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const matmul = @import("matmul.zig");
const mmla = @import("matmul_mmla.zig");
const ops = @import("../abi/ops.gen.zig");
const pack = @import("pack.zig");
const pack_test = @import("pack_test.zig");
const packed_panels = @import("matmul_packed.zig");
const simd = @import("simd.zig");

const Layout = layouts.Layout;
const panel_rows = layouts.panel_rows;
const allocator = std.testing.allocator;

test "two rows of eight times two rows of eight" {
    var generator = std.Random.DefaultPrng.init(1);
    const random = generator.random();
    for (0..200) |round| {
        var a: [16]i8 = undefined;
        var b: [16]i8 = undefined;
        random.bytes(std.mem.asBytes(&a));
        random.bytes(std.mem.asBytes(&b));
        if (round == 0) {
            a = @splat(-128);
            b = @splat(-128);
        }
        var start: [4]i32 = undefined;
        for (&start) |*value| value.* = random.intRangeAtMost(i32, -1 << 20, 1 << 20);
        var expected = start;
        for (0..2) |i| for (0..2) |j| for (0..8) |k| {
            expected[2 * i + j] += @as(i32, a[8 * i + k]) * b[8 * j + k];
        };
        const found: [4]i32 = simd.matrixProduct(start, a, b);
        try std.testing.expectEqual(expected, found);
    }
}

test "sums of a group are those of its integers" {
    var generator = std.Random.DefaultPrng.init(2);
    const random = generator.random();
    inline for (pack_test.dtypes) |dtype| {
        const l = comptime Layout.of(dtype);
        const lengths: []const usize = if (l.scales == .super) &.{256} else &.{ 32, 64, 96, 128 };
        for (lengths) |k| {
            const matrix = try pack_test.Matrix(dtype).create(random, panel_rows, k, false);
            defer allocator.free(matrix.bytes);
            const panel = try allocator.alloc(u8, l.panelBytes(k));
            defer allocator.free(panel);
            pack.packPanel(dtype, matrix.bytes.ptr, matrix.bytes.len / panel_rows, panel_rows, 0, k, panel.ptr);
            const slabs = @min(k / layouts.slab_elements, layouts.group_slabs);
            var x: [4][activations.group_elements]i8 = undefined;
            random.bytes(std.mem.asBytes(&x));
            inline for (.{ 1, 2 }) |pairs| try expectSums(l, pairs, panel.ptr, slabs, &x);
        }
    }
}

fn expectSums(comptime l: Layout, comptime pairs: usize, panel: [*]const u8, slabs: usize, x: *const [4][activations.group_elements]i8) !void {
    const first = panel + l.headerBytes();
    var group: mmla.Group = undefined;
    group.unpack(l, layouts.header(l, panel), first, slabs);
    var rows: [pairs][2]*const [activations.group_elements]i8 = undefined;
    for (&rows, 0..) |*pair, p| pair.* = .{ &x[2 * p], &x[2 * p + 1] };
    var total: [pairs][2][panel_rows]i32 = @splat(@splat(@splat(0)));
    for (0..slabs) |index| {
        var own: [pairs][2][panel_rows]i32 = @splat(@splat(@splat(0)));
        const slab = first + index * l.slabBytes();
        inline for (0..layouts.slab_registers) |j| {
            const integers: [64]u8 = layouts.integers(l, slab, j);
            const scales: [panel_rows]i32 = if (comptime l.whole()) layouts.wholeScale(l, slab, j * 4 / l.sub) else @splat(1);
            for (0..pairs) |p| for (0..2) |side| for (0..panel_rows) |row| for (0..4) |byte| {
                const element = index * layouts.slab_elements + 4 * j + byte;
                own[p][side][row] += scales[row] * (@as(i32, integers[4 * row + byte]) - l.offset) * rows[p][side][element];
            };
        }
        if (!l.whole()) try std.testing.expectEqual(own, mmla.slabSums(pairs, &group, index, &rows));
        for (&total, own) |*of_pair, new| for (of_pair, new) |*sums, values| for (sums, values) |*sum, value| {
            sum.* += value;
        };
    }
    if (l.whole()) try std.testing.expectEqual(total, mmla.wholeSums(l.subs(), pairs, &group, slabs, &rows));
}

/// A product of some tokens, with what it needs.
fn Product(comptime dtype: ops.DType) type {
    return struct {
        const l = Layout.of(dtype);

        x: []const f32,
        panels: []const u8,
        rows: usize,
        k: usize,
        precision: activations.Precision,

        /// Rows `[tokens, rows]` of the tokens `first .. first + tokens`, in the way of `how`.
        fn run(p: @This(), how: enum { together, alone }, first: usize, tokens: usize, out: []f32) !void {
            const memory = try allocator.alignedAlloc(u8, .@"64", activations.byteCount(tokens, p.k));
            defer allocator.free(memory);
            const quantized: activations.Rows = .init(memory.ptr, tokens, p.k, p.precision);
            for (0..tokens) |t| quantized.quantize(t, p.x.ptr + (first + t) * p.k, p.k);
            const segment: matmul.Segment = .{ .dtype = dtype, .data = undefined, .rows = p.rows, .row_bytes = undefined, .bias = null, .column = 0 };
            const a: matmul.Arguments = .{
                .out = out.ptr,
                .out_stride = p.rows,
                .x = p.x.ptr,
                .x_stride = p.k,
                .x_groups = quantized,
                .x_planes = undefined,
                .needs = .{ .groups = true },
                .residual = null,
                .residual_stride = 0,
                .tokens = tokens,
                .k = p.k,
                .segments = .{ segment, undefined, undefined },
                .segment_count = 1,
            };
            var row: usize = 0;
            while (row < p.rows) : (row += panel_rows) {
                const panel = p.panels.ptr + row / panel_rows * l.panelBytes(p.k);
                var token: usize = 0;
                while (token < tokens) : (token += activations.tile_tokens) switch (how) {
                    .together => mmla.runTile(l, &a, &segment, panel, row, token),
                    .alone => packed_panels.multiply(l, 1, 1, &a, &segment, .{panel}, .{row}, token, 1),
                };
            }
        }
    };
}

/// Of each way in which scales and minima are stored, one: what they all share is most of what there is to compile.
/// With the tile unit there are no half float scales.
const dtypes = [_]ops.DType{ .q4_0, if (simd.has_amx) .q4_1 else .q5_1, .q2_k };

test "a token's bits do not tell how many there were" {
    var generator = std.Random.DefaultPrng.init(3);
    const random = generator.random();
    const tokens_max = 19;
    inline for (dtypes) |dtype| {
        const l = comptime Layout.of(dtype);
        const lengths: []const usize = if (l.scales == .super) &.{ 256, 512 } else &.{ 32, 160, 384 };
        for (lengths, 0..) |k, round| {
            const rows: usize = ([_]usize{ 21, 16, 1 })[round];
            const matrix = try pack_test.Matrix(dtype).create(random, rows, k, false);
            defer allocator.free(matrix.bytes);
            const panels = try allocator.alloc(u8, (std.math.divCeil(usize, rows, panel_rows) catch unreachable) * l.panelBytes(k));
            defer allocator.free(panels);
            for (0..panels.len / l.panelBytes(k)) |i| {
                pack.packPanel(dtype, matrix.bytes.ptr, matrix.bytes.len / rows, rows, i * panel_rows, k, panels.ptr + i * l.panelBytes(k));
            }
            const x = try allocator.alloc(f32, tokens_max * k);
            defer allocator.free(x);
            for (x) |*value| value.* = random.float(f32) * 2 - 1;
            // A value that gives its group low bytes where the others have none.
            for (0..tokens_max / 4) |i| x[4 * i * k + k / 3] = 300;
            for ([_]activations.Precision{ .precise, .fast }) |precision| {
                const product: Product(dtype) = .{ .x = x, .panels = panels, .rows = rows, .k = k, .precision = precision };
                try expectSameBits(dtype, product, tokens_max);
            }
        }
    }
}

fn expectSameBits(comptime dtype: ops.DType, product: Product(dtype), comptime tokens_max: usize) !void {
    const expected = try allocator.alloc(f32, tokens_max * product.rows);
    defer allocator.free(expected);
    for (0..tokens_max) |t| try product.run(.alone, t, 1, expected[t * product.rows ..][0..product.rows]);
    const found = try allocator.alloc(f32, tokens_max * product.rows);
    defer allocator.free(found);
    for ([_]usize{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, tokens_max }) |tokens| {
        const first = tokens_max - tokens;
        const values = found[0 .. tokens * product.rows];
        @memset(values, std.math.nan(f32));
        try product.run(.together, first, tokens, values);
        try std.testing.expectEqualSlices(u32, @ptrCast(expected[first * product.rows ..]), @ptrCast(values));
    }
}
