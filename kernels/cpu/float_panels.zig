//! Panels of bf16 and f16 weights as the tile unit (Intel AMX) takes them: 16 rows, a tile of 1024 bytes for every 32
//! elements of k, in it a line of 64 bytes for every pair of neighbouring elements.
//!
//! A line of bf16 has the pairs of the 16 rows side by side, which is what the unit multiplies. It knows no f16; an
//! f16 is the sum of two bf16, its 11 bits in portions of eight and three, and these are made when the weights are
//! used, so that a weight is read as two bytes. For that a line has the 16 first elements in front and the 16 second
//! ones behind: both halves widen to whole registers.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const planes = @import("bf16_planes.zig");
const shuffle = @import("attention_shuffle.zig");
const simd = @import("simd.zig");

pub const panel_rows = 16;
pub const tile_bytes = 1024;
pub const line_bytes = 64;
/// Of a tile.
pub const lines = tile_bytes / line_bytes;

const Words = @Vector(panel_rows, u16);
const Bits = @Vector(panel_rows, u32);

/// Bf16 that add up to one weight.
pub fn planeCount(comptime dtype: ops.DType) usize {
    return switch (dtype) {
        .bf16 => 1,
        .f16 => 2,
        else => comptime unreachable,
    };
}

/// Bytes of one panel of a matrix with rows of k elements, of either type.
pub fn panelBytes(k: usize) usize {
    return planes.stepCount(k) * tile_bytes;
}

/// Lays rows `first .. first + 16` of a matrix; rows past `rows` and elements past k are zero.
pub fn packPanel(dtype: ops.DType, source: [*]const u8, row_bytes: usize, rows: usize, first: usize, k: usize, panel: [*]u8) void {
    const own = @min(panel_rows, rows - first);
    for (0..planes.stepCount(k)) |step| {
        const done = step * planes.step_elements;
        const elements: usize = @min(planes.step_elements, k - done);
        packTile(dtype, source + first * row_bytes + 2 * done, row_bytes, own, 2 * elements, panel + step * tile_bytes);
    }
}

/// `count` rows of `bytes` bytes each.
fn packTile(dtype: ops.DType, source: [*]const u8, row_bytes: usize, count: usize, bytes: usize, tile: [*]u8) void {
    var pairs: [panel_rows]simd.F32 = @splat(@splat(0));
    for (pairs[0..count], 0..) |*row, index| {
        const from = source + index * row_bytes;
        if (bytes == planes.step_bytes) {
            row.* = @bitCast(from[0..planes.step_bytes].*);
        } else {
            var part: [planes.step_bytes]u8 = @splat(0);
            @memcpy(part[0..bytes], from[0..bytes]);
            row.* = @bitCast(part);
        }
    }
    for (transposed(pairs), 0..) |line, index| {
        const target = tile[line_bytes * index ..][0..line_bytes];
        if (dtype == .bf16) {
            target.* = @bitCast(line);
        } else {
            target[0 .. line_bytes / 2].* = @bitCast(@as(Words, @truncate(line)));
            target[line_bytes / 2 ..].* = @bitCast(@as(Words, @truncate(line >> @splat(16))));
        }
    }
}

/// Pair i of each row in line i.
fn transposed(rows: [panel_rows]simd.F32) [lines]Bits {
    if (simd.has_avx512) return @bitCast(shuffle.transpose(rows));
    var out: [lines]Bits = undefined;
    for (&out, 0..) |*line, i| {
        var pairs: [panel_rows]u32 = undefined;
        for (&pairs, rows) |*pair, row| pair.* = @as([lines]u32, @bitCast(row))[i];
        line.* = pairs;
    }
    return out;
}

/// A line of f16 as two of bf16: what truncation to eight bits leaves of each weight, and the rest. Both are exact,
/// also of subnormal numbers, since bf16 reaches further down. The rest of an infinity is NaN, so that its products
/// are.
pub inline fn split(line: *const [line_bytes]u8, high: *[line_bytes]u8, low: *[line_bytes]u8) void {
    const first = widened(line[0 .. line_bytes / 2]);
    const second = widened(line[line_bytes / 2 ..]);
    const upper: Bits = @splat(0xffff_0000);
    const first_high = @as(Bits, @bitCast(first)) & upper;
    const second_high = @as(Bits, @bitCast(second)) & upper;
    const first_low: Bits = @bitCast(first - @as(simd.F32, @bitCast(first_high)));
    const second_low: Bits = @bitCast(second - @as(simd.F32, @bitCast(second_high)));
    high.* = @bitCast((first_high >> @splat(16)) | second_high);
    // The lower halves of the rests are zero, but of NaNs, which spoil the sum of their row anyway.
    low.* = @bitCast((first_low >> @splat(16)) | second_low);
}

inline fn widened(half: *const [line_bytes / 2]u8) simd.F32 {
    return @floatCast(@as(@Vector(panel_rows, f16), @bitCast(half.*)));
}

test "a panel holds pairs of each row, zeros past the ends" {
    const k = 43;
    const rows = 21;
    var source: [rows][k]u16 = undefined;
    for (&source, 0..) |*row, r| for (row, 0..) |*value, i| {
        value.* = @intCast(1 + r * 100 + i);
    };
    for ([_]ops.DType{ .bf16, .f16 }) |dtype| {
        var panel: [panelBytes(k) / 2]u16 align(64) = @splat(0xaaaa);
        for ([_]usize{ 0, 16 }) |first| {
            packPanel(dtype, @ptrCast(&source), 2 * k, rows, first, k, @ptrCast(&panel));
            for (0..16) |row| for (0..64) |i| {
                const wanted = if (first + row < rows and i < k) source[first + row][i] else 0;
                const in_line = if (dtype == .bf16) row * 2 + i % 2 else row + i % 2 * 16;
                try std.testing.expectEqual(wanted, panel[i / 32 * 512 + i % 32 / 2 * 32 + in_line]);
            };
        }
    }
}

fn bf16Of(line: *const [line_bytes]u8, element: usize) f32 {
    return @bitCast(@as(u32, std.mem.readInt(u16, line[2 * element ..][0..2], .little)) << 16);
}

test "every f16 is the sum of two bf16, and what is not finite stays so" {
    const count = line_bytes / 2;
    for (0..65536 / count) |part| {
        var line: [count]u16 = undefined;
        for (&line, 0..) |*bits, i| bits.* = @intCast(part * count + i);
        var high: [line_bytes]u8 = undefined;
        var low: [line_bytes]u8 = undefined;
        split(@ptrCast(&line), &high, &low);
        for (line, 0..) |bits, i| {
            const value: f32 = @as(f16, @bitCast(bits));
            const element = i % panel_rows * 2 + i / panel_rows;
            const parts = [2]f32{ bf16Of(&high, element), bf16Of(&low, element) };
            if (std.math.isFinite(value)) {
                try std.testing.expectEqual(value, parts[0] + parts[1]);
                // The unit takes subnormal bf16 for zero.
                for (parts) |p| try std.testing.expect(p == 0 or std.math.isNormal(p));
            } else {
                try std.testing.expect(!std.math.isFinite(parts[0]));
                try std.testing.expect(std.math.isNan(parts[0] + parts[1]));
            }
        }
    }
}
