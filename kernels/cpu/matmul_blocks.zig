//! Matrix product with block-quantised weights read where they lie in the file (`--repack off`).
//!
//! Few tokens: formats are unpacked in registers. Many: a panel of rows is unpacked once and used by all tokens.
//! The sum of one output runs over k in 16 lanes that are added in a fixed tree, whichever way it is computed.

const std = @import("std");
const activations = @import("activations.zig");
const formats = @import("formats.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const simd = @import("simd.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Group = formats.Group;

/// Register tile: rows x tokens. Tokens divide the activations' tiles evenly.
const tile_rows = if (simd.has_avx512) 4 else if (simd.has_avx2 or simd.has_dotprod) 2 else 1;
const tile_tokens = if (simd.has_avx512) 4 else 2;
const panel_rows = 16;
/// Groups of weights beside one of activations.
const groups_of_x = activations.group_elements / simd.group_elements;

/// Bytes of the scratch memory one thread needs for an inner dimension of k and up to so many tokens.
pub fn scratchBytes(k: usize, tokens: usize) usize {
    if (tokens <= tile_tokens) return 0;
    return panel_rows * groupCount(k) * @sizeOf(Group);
}

/// Groups of 64 weights in a row of k.
fn groupCount(k: usize) usize {
    return std.math.divCeil(usize, k, simd.group_elements) catch unreachable;
}

/// Rows `first .. end` of a segment, all tokens.
pub fn run(comptime F: type, a: *const matmul.Arguments, segment: *const matmul.Segment, first: usize, end: usize, scratch: []align(64) u8) void {
    if (a.tokens > tile_tokens) return panelRows(F, a, segment, first, end, scratch);
    switch (a.tokens) {
        inline 1...tile_tokens => |tokens| directRows(F, tokens, a, segment, first, end),
        else => {},
    }
}

fn directRows(comptime F: type, comptime tokens: usize, a: *const matmul.Arguments, segment: *const matmul.Segment, first: usize, end: usize) void {
    var row = first;
    while (row + tile_rows <= end) : (row += tile_rows) directTile(F, tile_rows, tokens, a, segment, row);
    while (row < end) : (row += 1) directTile(F, 1, tokens, a, segment, row);
}

fn directTile(comptime F: type, comptime rows: usize, comptime tokens: usize, a: *const matmul.Arguments, segment: *const matmul.Segment, row: usize) void {
    @setEvalBranchQuota(100_000);
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
            accumulate(F.offset, F.has_min, rows, tokens, &current, a, 0, done / 64 + g, &acc);
        }
    }
    if (F.groups == 1 and done < a.k) {
        var current: [rows]Group = undefined;
        inline for (0..rows) |r| {
            const tail = formats.paddedSpan(F, weights[r]);
            F.unpack(&tail, current[r..][0..1]);
        }
        accumulate(F.offset, F.has_min, rows, tokens, &current, a, 0, done / 64, &acc);
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| matmul.store(a, segment, row + r, t, math.sum(acc[r][t]));
    }
}

/// Adds one group of `rows` weights times `tokens` activations to the accumulators.
inline fn accumulate(
    comptime offset: u8,
    comptime has_min: bool,
    comptime rows: usize,
    comptime tokens: usize,
    groups: *const [rows]Group,
    a: *const matmul.Arguments,
    first_token: usize,
    group: usize,
    acc: *[rows][tokens]F32,
) void {
    @setEvalBranchQuota(100_000);
    const stride = a.x_groups.tileSize(first_token - first_token % activations.tile_tokens);
    const x = a.x_groups.first(first_token).after(group / groups_of_x * stride);
    switch (a.x_groups.bytesOf(x, tokens)) {
        inline else => |bytes| accumulateBytes(bytes, offset, has_min, rows, tokens, groups, x, group, acc),
    }
}

inline fn accumulateBytes(
    comptime bytes: activations.Bytes,
    comptime offset: u8,
    comptime has_min: bool,
    comptime rows: usize,
    comptime tokens: usize,
    groups: *const [rows]Group,
    x: activations.Group,
    group: usize,
    acc: *[rows][tokens]F32,
) void {
    const signed = offset > simd.dot_unsigned_max;
    const shifted = offset != 0 and !signed;
    inline for (0..tokens) |t| {
        const integers = &x.integers[t];
        const high: simd.I8 = integers.high[group % groups_of_x * 64 ..][0..64].*;
        const low: simd.I8 = if (bytes == .both) integers.low[group % groups_of_x * 64 ..][0..64].* else undefined;
        const scale: F32 = @splat(x.records[t].scale);
        // What the format's offset adds to every product of this group.
        const excess: I32 = if (shifted) dots(bytes, @splat(offset), high, low) else undefined;
        const sums: F32 = if (has_min) scale * @as(F32, @floatFromInt(dots(bytes, @splat(1), high, low))) else undefined;
        inline for (0..rows) |r| {
            var product = if (signed) dotsSigned(bytes, groups[r].q, high, low) else dots(bytes, groups[r].q, high, low);
            if (shifted) product -= excess;
            acc[r][t] = math.mulAdd(groups[r].scale * scale, @floatFromInt(product), acc[r][t]);
            if (has_min) acc[r][t] = math.mulAdd(groups[r].min, sums, acc[r][t]);
        }
    }
}

/// Four-element dot products with integers given in two bytes.
inline fn dots(comptime bytes: activations.Bytes, q: simd.U8, high: simd.I8, low: simd.I8) I32 {
    const upper = simd.dot(@splat(0), q, high) << @splat(activations.low_bits);
    return if (bytes == .both) simd.dot(upper, q, low) else upper;
}

/// The same for integers above what the unsigned instruction takes, stored with an offset of 128.
inline fn dotsSigned(comptime bytes: activations.Bytes, q: simd.U8, high: simd.I8, low: simd.I8) I32 {
    const signed: simd.I8 = @bitCast(q ^ @as(simd.U8, @splat(128)));
    const upper = simd.dotSigned(@splat(0), signed, high) << @splat(activations.low_bits);
    return if (bytes == .both) simd.dotSigned(upper, signed, low) else upper;
}

/// Unpacks 16 rows at a time into scratch, `[row / tile][group][row % tile]`, then runs all tokens over them.
fn panelRows(comptime F: type, a: *const matmul.Arguments, segment: *const matmul.Segment, first: usize, end: usize, scratch: []align(64) u8) void {
    const group_count = groupCount(a.k);
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
    a: *const matmul.Arguments,
    segment: *const matmul.Segment,
    first_row: usize,
    row: usize,
    token: usize,
    panel: [*]const Group,
    group_count: usize,
) void {
    const base = panel + (row / tile_rows) * group_count * tile_rows + row % tile_rows;
    @setEvalBranchQuota(100_000);
    var acc: [rows][tokens]F32 = @splat(@splat(@splat(0)));
    for (0..group_count) |group| {
        var current: [rows]Group = undefined;
        inline for (0..rows) |r| {
            const source = &base[group * tile_rows + r];
            current[r].q = source.q;
            current[r].scale = source.scale;
            if (F.has_min) current[r].min = source.min;
        }
        accumulate(F.offset, F.has_min, rows, tokens, &current, a, token, group, &acc);
    }
    inline for (0..rows) |r| {
        inline for (0..tokens) |t| matmul.store(a, segment, first_row + row + r, token + t, math.sum(acc[r][t]));
    }
}
