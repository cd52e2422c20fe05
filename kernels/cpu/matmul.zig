//! `out = x @ concat(weights)^T (+ bias) (+ residual)` for every weight format, weights read where they lie.
//!
//! Block-quantised weights meet x quantised to 15-bit integers in blocks of 32, each integer split into a high and
//! a low byte for the 8-bit dot product instructions: `v = 128 * high + low`. One byte alone would be up to twice
//! as fast and costs small models about 5% of a logit's spread; two leave an error of f32's order. f32, f16 and
//! bf16 weights meet x in f32. The sum of one output runs over k in a fixed order in 16 lanes that are added
//! in a fixed tree, whatever tile of rows and tokens it is computed in: a token's result does not depend on the
//! other tokens of the batch or on the thread that computed it.
//!
//! Few tokens: formats are unpacked in registers. Many: a panel of rows is unpacked once and used by all tokens.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const simd = @import("simd.zig");
const math = @import("math.zig");
const formats = @import("formats.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Group = formats.Group;

pub const Segment = struct {
    dtype: ops.DType,
    data: [*]const u8,
    rows: usize,
    row_bytes: usize,
    bias: ?[*]const f32,
    /// Column of out where this segment's rows begin.
    column: usize,
};

pub const Arguments = struct {
    out: [*]f32,
    out_stride: usize,
    x: [*]const f32,
    x_stride: usize,
    residual: ?[*]const f32,
    residual_stride: usize,
    tokens: usize,
    k: usize,
    segments: [3]Segment,
    segment_count: usize,
    /// x quantised by `quantizeRow`: `[tokens, paddedK / 64, 2, 64]` (high bytes, low bytes) and
    /// `[tokens, paddedK / 32]`.
    quantized: [*]i8,
    scales: [*]f32,

    pub fn anyQuantized(a: *const Arguments) bool {
        for (a.segments[0..a.segment_count]) |segment| if (isQuantized(segment.dtype)) return true;
        return false;
    }
};

/// Register tile: rows x tokens.
const tile_rows = if (simd.has_avx512) 4 else if (simd.has_avx2 or simd.has_dotprod) 2 else 1;
const tile_tokens = if (simd.has_avx512) 4 else 2;
const panel_rows = 16;

/// Elements of a quantised row, padded with zeros to whole groups.
pub fn paddedK(k: usize) usize {
    return std.mem.alignForward(usize, k, simd.group_elements);
}

fn isQuantized(dtype: ops.DType) bool {
    return switch (dtype) {
        .f32, .f16, .bf16 => false,
        else => true,
    };
}

/// Bytes of the scratch memory one thread needs for an inner dimension of k.
pub fn scratchBytes(k: usize) usize {
    return panel_rows * (paddedK(k) / simd.group_elements) * @sizeOf(Group);
}

/// Largest integer of a quantised block: 127 in the high byte, 0 in the low one.
const quantized_max = 127 * 128;

/// Bytes of a quantised row.
pub fn quantizedBytes(k: usize) usize {
    return 2 * paddedK(k);
}

/// Quantises one row of k f32 in blocks of 32: `x ~ scale * (128 * high + low)`, high in -127..127, low in
/// -64..63, scale the largest magnitude / `quantized_max`; rounded to nearest, ties to even.
pub fn quantizeRow(x: [*]const f32, k: usize, q: [*]i8, scales: [*]f32) void {
    const V = @Vector(32, f32);
    const I = @Vector(32, i32);
    for (0..paddedK(k) / 32) |block| {
        const start = block * 32;
        var values: [32]f32 = @splat(0);
        const present = if (start < k) @min(32, k - start) else 0;
        @memcpy(values[0..present], x[start..][0..present]);
        const v: V = values;
        const largest = @reduce(.Max, @abs(v));
        const inverse: f32 = if (largest > 0 and std.math.isFinite(largest)) quantized_max / largest else 0;
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even.
        const magic: V = @splat(12582912);
        const rounded = (v * @as(V, @splat(inverse)) + magic) - magic;
        // A block with an infinity or NaN poisons its outputs through the scale; the integers stay defined.
        const safe = @select(f32, rounded == rounded, rounded, @as(V, @splat(0)));
        const integers: I = @intFromFloat(safe);
        const high = (integers + @as(I, @splat(64))) >> @splat(7);
        const low = integers - (high << @splat(7));
        const at = block / 2 * 128 + block % 2 * 32;
        q[at..][0..32].* = @as(@Vector(32, i8), @intCast(high));
        q[at + 64 ..][0..32].* = @as(@Vector(32, i8), @intCast(low));
        scales[block] = if (largest == largest) largest / quantized_max else largest;
    }
}

/// One unit is up to `unitRows` rows of one segment, all tokens.
pub fn unitCount(a: *const Arguments, threads: usize) usize {
    if (a.tokens == 0) return 0;
    const rows = unitRows(a, threads);
    var total: usize = 0;
    for (a.segments[0..a.segment_count]) |segment| total += std.math.divCeil(usize, segment.rows, rows) catch unreachable;
    return total;
}

/// Small enough that every thread gets several units, large enough that taking one costs nothing.
fn unitRows(a: *const Arguments, threads: usize) usize {
    var total: usize = 0;
    for (a.segments[0..a.segment_count]) |segment| total += segment.rows;
    var rows: usize = panel_rows;
    while (rows < 128 and total / rows > 64 * threads) rows *= 2;
    return rows;
}

pub fn runUnit(a: *const Arguments, threads: usize, unit: usize, scratch: []align(64) u8) void {
    const rows = unitRows(a, threads);
    var index = unit;
    for (a.segments[0..a.segment_count]) |*segment| {
        const units = std.math.divCeil(usize, segment.rows, rows) catch unreachable;
        if (index < units) {
            const first = index * rows;
            runRows(a, segment, first, @min(first + rows, segment.rows), scratch);
            return;
        }
        index -= units;
    }
    unreachable;
}

fn runRows(a: *const Arguments, segment: *const Segment, first: usize, end: usize, scratch: []align(64) u8) void {
    switch (segment.dtype) {
        inline .f32, .f16, .bf16 => |dtype| floatRows(dtype, a, segment, first, end),
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k => |dtype| {
            const F = formats.Format(dtype);
            if (a.tokens <= tile_tokens) {
                switch (a.tokens) {
                    inline 1...tile_tokens => |tokens| directRows(F, tokens, a, segment, first, end),
                    else => {},
                }
            } else panelRows(F, a, segment, first, end, scratch);
        },
        else => unreachable,
    }
}

inline fn store(a: *const Arguments, segment: *const Segment, row: usize, token: usize, value: f32) void {
    const column = segment.column + row;
    var result = value;
    if (segment.bias) |bias| result += bias[row];
    if (a.residual) |residual| result += residual[token * a.residual_stride + column];
    a.out[token * a.out_stride + column] = result;
}

// Block-quantised weights.

fn directRows(comptime F: type, comptime tokens: usize, a: *const Arguments, segment: *const Segment, first: usize, end: usize) void {
    var row = first;
    while (row + tile_rows <= end) : (row += tile_rows) directTile(F, tile_rows, tokens, a, segment, row);
    while (row < end) : (row += 1) directTile(F, 1, tokens, a, segment, row);
}

fn directTile(comptime F: type, comptime rows: usize, comptime tokens: usize, a: *const Arguments, segment: *const Segment, row: usize) void {
    const padded = paddedK(a.k);
    var acc: [rows][tokens]F32 = @splat(@splat(@splat(0)));
    var weights: [rows][*]const u8 = undefined;
    inline for (0..rows) |r| weights[r] = segment.data + (row + r) * segment.row_bytes;

    var done: usize = 0;
    while (done + F.span_elements <= a.k) : (done += F.span_elements) {
        var groups: [rows][F.groups]Group = undefined;
        inline for (0..rows) |r| {
            @prefetch(weights[r] + 1024, .{ .locality = 3 });
            F.unpack(weights[r], &groups[r]);
            weights[r] += F.span_bytes;
        }
        inline for (0..F.groups) |g| {
            var current: [rows]Group = undefined;
            inline for (0..rows) |r| current[r] = groups[r][g];
            accumulate(F.offset, F.has_min, rows, tokens, &current, a, 0, padded, done + 64 * g, &acc);
        }
    }
    if (F.groups == 1 and done < a.k) {
        var current: [rows]Group = undefined;
        inline for (0..rows) |r| {
            const tail = formats.paddedSpan(F, weights[r]);
            F.unpack(&tail, current[r..][0..1]);
        }
        accumulate(F.offset, F.has_min, rows, tokens, &current, a, 0, padded, done, &acc);
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| store(a, segment, row + r, t, math.sum(acc[r][t]));
    }
}

/// Adds one group of `rows` weights times `tokens` activations to the accumulators.
inline fn accumulate(
    comptime offset: u8,
    comptime has_min: bool,
    comptime rows: usize,
    comptime tokens: usize,
    groups: *const [rows]Group,
    a: *const Arguments,
    first_token: usize,
    padded: usize,
    element: usize,
    acc: *[rows][tokens]F32,
) void {
    const signed = offset > simd.dot_unsigned_max;
    const shifted = offset != 0 and !signed;
    inline for (0..tokens) |t| {
        const at = (first_token + t) * padded + element;
        const high: simd.I8 = a.quantized[2 * at ..][0..64].*;
        const low: simd.I8 = a.quantized[2 * at + 64 ..][0..64].*;
        const s: @Vector(2, f32) = a.scales[at / 32 ..][0..2].*;
        const scale = @shuffle(f32, s, undefined, [_]i32{ 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1 });
        // What the format's offset adds to every product of this group.
        const excess: I32 = if (shifted) twoBytes(@splat(offset), high, low) else undefined;
        const sums: F32 = if (has_min) scale * @as(F32, @floatFromInt(twoBytes(@splat(1), high, low))) else undefined;
        inline for (0..rows) |r| {
            var product = if (signed) twoBytesSigned(groups[r].q, high, low) else twoBytes(groups[r].q, high, low);
            if (shifted) product -= excess;
            acc[r][t] = math.mulAdd(groups[r].scale * scale, @floatFromInt(product), acc[r][t]);
            if (has_min) acc[r][t] = math.mulAdd(groups[r].min, sums, acc[r][t]);
        }
    }
}

/// Four-element dot products with 15-bit integers given in two bytes; below 2^24, so exact as f32.
inline fn twoBytes(q: simd.U8, high: simd.I8, low: simd.I8) I32 {
    const none: I32 = @splat(0);
    return simd.dot(simd.dot(none, q, high) << @splat(7), q, low);
}

/// The same for integers above what the unsigned instruction takes, stored with an offset of 128.
inline fn twoBytesSigned(q: simd.U8, high: simd.I8, low: simd.I8) I32 {
    const none: I32 = @splat(0);
    const signed: simd.I8 = @bitCast(q ^ @as(simd.U8, @splat(128)));
    return simd.dotSigned(simd.dotSigned(none, signed, high) << @splat(7), signed, low);
}

/// Unpacks 16 rows at a time into scratch, `[row / tile][group][row % tile]`, then runs all tokens over them.
fn panelRows(comptime F: type, a: *const Arguments, segment: *const Segment, first: usize, end: usize, scratch: []align(64) u8) void {
    const group_count = paddedK(a.k) / simd.group_elements;
    const panel: [*]Group = @ptrCast(@alignCast(scratch.ptr));
    var row = first;
    while (row < end) : (row += panel_rows) {
        const rows = @min(panel_rows, end - row);
        for (0..rows) |r| unpackRow(F, a.k, segment.data + (row + r) * segment.row_bytes, panel, r, group_count);
        var token: usize = 0;
        while (token < a.tokens) : (token += tile_tokens) {
            switch (@min(tile_tokens, a.tokens - token)) {
                inline 1...tile_tokens => |tokens| {
                    var r: usize = 0;
                    while (r + tile_rows <= rows) : (r += tile_rows) panelTile(F, tile_rows, tokens, a, segment, row, r, token, panel, group_count);
                    while (r < rows) : (r += 1) panelTile(F, 1, tokens, a, segment, row, r, token, panel, group_count);
                },
                else => unreachable,
            }
        }
    }
}

fn unpackRow(comptime F: type, k: usize, source: [*]const u8, panel: [*]Group, row: usize, group_count: usize) void {
    const base = panel + (row / tile_rows) * group_count * tile_rows + row % tile_rows;
    var p = source;
    var group: usize = 0;
    while (group < group_count) : (group += F.groups) {
        var groups: [F.groups]Group = undefined;
        if (F.groups == 1 and (group + 1) * 64 > k) {
            const tail = formats.paddedSpan(F, p);
            F.unpack(&tail, &groups);
        } else F.unpack(p, &groups);
        inline for (0..F.groups) |g| base[(group + g) * tile_rows] = groups[g];
        p += F.span_bytes;
    }
}

fn panelTile(
    comptime F: type,
    comptime rows: usize,
    comptime tokens: usize,
    a: *const Arguments,
    segment: *const Segment,
    first_row: usize,
    row: usize,
    token: usize,
    panel: [*]const Group,
    group_count: usize,
) void {
    const padded = group_count * simd.group_elements;
    const base = panel + (row / tile_rows) * group_count * tile_rows + row % tile_rows;
    var acc: [rows][tokens]F32 = @splat(@splat(@splat(0)));
    for (0..group_count) |group| {
        var current: [rows]Group = undefined;
        inline for (0..rows) |r| {
            const source = &base[group * tile_rows + r];
            current[r].q = source.q;
            current[r].scale = source.scale;
            if (F.has_min) current[r].min = source.min;
        }
        accumulate(F.offset, F.has_min, rows, tokens, &current, a, token, padded, group * 64, &acc);
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| store(a, segment, first_row + row + r, token + t, math.sum(acc[r][t]));
    }
}

// Plain weights.

const float_tokens = if (simd.has_avx512) 6 else 2;

fn floatRows(comptime dtype: ops.DType, a: *const Arguments, segment: *const Segment, first: usize, end: usize) void {
    var row = first;
    while (row < end) {
        const rows: usize = if (row + tile_rows <= end) tile_rows else 1;
        var token: usize = 0;
        while (token < a.tokens) : (token += float_tokens) {
            switch (@min(float_tokens, a.tokens - token)) {
                inline 1...float_tokens => |tokens| if (rows == tile_rows)
                    floatTile(dtype, tile_rows, tokens, a, segment, row, token)
                else
                    floatTile(dtype, 1, tokens, a, segment, row, token),
                else => unreachable,
            }
        }
        row += rows;
    }
}

fn floatTile(comptime dtype: ops.DType, comptime rows: usize, comptime tokens: usize, a: *const Arguments, segment: *const Segment, row: usize, token: usize) void {
    var acc: [rows][tokens]F32 = @splat(@splat(@splat(0)));
    const element_bytes = if (dtype == .f32) 4 else 2;
    const whole = a.k - a.k % 16;
    var done: usize = 0;
    while (done < whole) : (done += 16) {
        var weights: [rows]F32 = undefined;
        inline for (0..rows) |r| weights[r] = widen(dtype, segment.data + (row + r) * segment.row_bytes + done * element_bytes);
        inline for (0..tokens) |t| {
            const x: F32 = a.x[(token + t) * a.x_stride + done ..][0..16].*;
            inline for (0..rows) |r| acc[r][t] = math.mulAdd(weights[r], x, acc[r][t]);
        }
    }
    if (done < a.k) {
        const rest = a.k - done;
        inline for (0..rows) |r| {
            var bytes: [16 * element_bytes]u8 = @splat(0);
            @memcpy(bytes[0 .. rest * element_bytes], (segment.data + (row + r) * segment.row_bytes + done * element_bytes)[0 .. rest * element_bytes]);
            const weights = widen(dtype, &bytes);
            inline for (0..tokens) |t| {
                var x: [16]f32 = @splat(0);
                @memcpy(x[0..rest], a.x[(token + t) * a.x_stride + done ..][0..rest]);
                acc[r][t] = math.mulAdd(weights, x, acc[r][t]);
            }
        }
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| store(a, segment, row + r, token + t, math.sum(acc[r][t]));
    }
}

inline fn widen(comptime dtype: ops.DType, p: [*]const u8) F32 {
    switch (dtype) {
        .f32 => return @bitCast(p[0..64].*),
        .f16 => return @floatCast(@as(@Vector(16, f16), @bitCast(p[0..32].*))),
        .bf16 => return math.widenBrain(@as(@Vector(16, u16), @bitCast(p[0..32].*))),
        else => comptime unreachable,
    }
}
