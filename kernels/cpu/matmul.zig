//! `out = x @ concat(weights)^T (+ bias) (+ residual)` for every weight format.
//!
//! Block-quantised weights meet x quantised to 16-bit integers (`activations.zig`), either where they lie in the
//! file (`matmul_blocks.zig`) or re-laid for speed (`matmul_packed.zig`); f32, f16 and bf16 weights meet x in f32
//! (`matmul_plain.zig`), but for re-laid bf16 and f16 weights on the tile unit (`matmul_float_tiles.zig`). The sum of
//! one output runs over k in one fixed order, whatever tile of rows and tokens it is computed in: a token's result does
//! not depend on the other tokens of the batch or on the thread.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const activations = @import("activations.zig");
const amx = @import("matmul_amx.zig");
const blocks = @import("matmul_blocks.zig");
const float_panels = @import("float_panels.zig");
const float_tiles = @import("matmul_float_tiles.zig");
const formats = @import("formats.zig");
const layouts = @import("packed.zig");
const pack = @import("pack.zig");
const packed_panels = @import("matmul_packed.zig");
const plain = @import("matmul_plain.zig");
const planes = @import("bf16_planes.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

pub const Segment = struct {
    dtype: ops.DType,
    data: [*]const u8,
    rows: usize,
    row_bytes: usize,
    bias: ?[*]const f32,
    /// Column of out where this segment's rows begin.
    column: usize,
    /// The same weights in panels; null when they are used where they lie.
    panels: ?[*]const u8 = null,
};

pub const Arguments = struct {
    out: [*]f32,
    out_stride: usize,
    x: [*]const f32,
    x_stride: usize,
    /// x quantised, for block-quantised weights.
    x_groups: activations.Rows,
    /// x in bfloat16, for weights that the tile unit takes.
    x_planes: planes.Rows,
    /// In which of these ways x is needed.
    needs: Forms,
    residual: ?[*]const f32,
    residual_stride: usize,
    tokens: usize,
    k: usize,
    segments: [3]Segment,
    segment_count: usize,

    /// Brings one token's x into the forms that the weights need.
    pub fn prepareRow(a: *const Arguments, token: usize) void {
        const x = a.x + token * a.x_stride;
        if (a.needs.groups) a.x_groups.quantize(token, x, a.k);
        if (a.needs.planes) a.x_planes.split(token, x, a.k);
    }
};

/// Forms of x: quantised, in bfloat16, as it is.
pub const Forms = struct {
    groups: bool = false,
    planes: bool = false,
    floats: bool = false,

    /// What weights of a type need, re-laid or where they lie.
    pub fn add(forms: *Forms, dtype: ops.DType, repack: bool) void {
        if (isQuantized(dtype)) {
            forms.groups = true;
        } else if (repack and float_tiles.takes(dtype)) {
            forms.planes = true;
        } else forms.floats = true;
    }

    fn onlyPlanes(forms: Forms) bool {
        return forms.planes and !forms.groups and !forms.floats;
    }

    /// Whether x has to be brought into one.
    pub fn any(forms: Forms) bool {
        return forms.groups or forms.planes;
    }
};

/// Whether weights of a type have a faster layout.
pub fn hasPanels(dtype: ops.DType) bool {
    return isQuantized(dtype) or float_tiles.takes(dtype);
}

/// Bytes of one panel of re-laid weights with rows of k elements; null for types that stay where they lie.
pub fn panelBytes(dtype: ops.DType, k: usize) ?usize {
    if (!hasPanels(dtype)) return null;
    return if (isQuantized(dtype)) layouts.panelBytes(dtype, k) else float_panels.panelBytes(k);
}

/// Re-lays rows `first .. first + 16` of a segment.
pub fn packPanel(segment: *const Segment, first: usize, k: usize, panel: [*]u8) void {
    if (isQuantized(segment.dtype)) return pack.packPanel(segment.dtype, segment.data, segment.row_bytes, segment.rows, first, k, panel);
    float_panels.packPanel(segment.dtype, segment.data, segment.row_bytes, segment.rows, first, k, panel);
}

pub fn isQuantized(dtype: ops.DType) bool {
    return switch (dtype) {
        .f32, .f16, .bf16 => false,
        else => true,
    };
}

/// What a thread's scratch memory depends on.
pub const ScratchNeeds = struct {
    dtype: ops.DType,
    k: usize,
    /// At most.
    tokens: usize,
    repack: bool,

    /// Bytes of it.
    pub fn bytes(needs: ScratchNeeds) usize {
        if (needs.repack and hasPanels(needs.dtype)) {
            if (!isQuantized(needs.dtype)) return float_tiles.scratchBytes(needs.dtype, needs.k, needs.tokens);
            return if (tiles.available() and needs.tokens >= amx.tokens_min) amx.scratch_bytes else 0;
        }
        return if (isQuantized(needs.dtype)) blocks.scratchBytes(needs.k, needs.tokens) else 0;
    }
};

/// Units are whole panels of rows.
const rows_min = layouts.panel_rows;
/// Rows of a unit at most.
pub const unit_rows_max = 256;

/// One unit is up to so many rows of one segment, and so many tokens.
pub fn unitCount(a: *const Arguments, threads: usize) usize {
    if (a.tokens == 0) return 0;
    const size: UnitSize = .of(a, threads);
    var total: usize = 0;
    for (a.segments[0..a.segment_count]) |segment| total += ceilDivide(segment.rows, size.rows);
    return total * size.tokenGroups(a);
}

const UnitSize = struct {
    rows: usize,
    tokens: usize,

    /// Small enough that every thread gets several units, large enough that taking one costs nothing.
    fn of(a: *const Arguments, threads: usize) UnitSize {
        var total: usize = 0;
        for (a.segments[0..a.segment_count]) |segment| total += segment.rows;
        var rows: usize = rows_min;
        while (rows < 128 and total / rows > 16 * threads) rows *= 2;
        if (!tiles.available() or a.tokens <= activations.tile_tokens) return .{ .rows = rows, .tokens = a.tokens };
        // Many tokens pass by the weights of a unit: the more of those, the fewer times.
        if (!a.needs.onlyPlanes()) {
            while (rows < unit_rows_max and total / rows > 3 * threads) rows *= 2;
            return .{ .rows = rows, .tokens = a.tokens };
        }
        // And the more tokens, the less often weights come to meet them.
        const wanted = 4 * threads;
        var tokens = std.mem.alignForward(usize, a.tokens, planes.tile_tokens);
        while (rows < unit_rows_max and total / rows * ceilDivide(tokens, float_tiles.tokens_min) > wanted) rows *= 2;
        while (tokens > float_tiles.tokens_min and total / rows * ceilDivide(a.tokens, tokens) < wanted) tokens = std.mem.alignForward(usize, tokens / 2, planes.tile_tokens);
        return .{ .rows = rows, .tokens = tokens };
    }

    fn tokenGroups(size: UnitSize, a: *const Arguments) usize {
        return ceilDivide(a.tokens, size.tokens);
    }
};

fn ceilDivide(count: usize, size: usize) usize {
    return std.math.divCeil(usize, count, size) catch unreachable;
}

pub fn runUnit(a: *const Arguments, threads: usize, unit: usize, scratch: []align(64) u8) void {
    const place = Place.of(a, threads, unit);
    runPlace(a, &place, scratch);
}

/// Rows and tokens of a unit. Its neighbours have other tokens of the same rows.
pub const Place = struct {
    segment: *const Segment,
    first: usize,
    end: usize,
    first_token: usize,
    end_token: usize,

    fn of(a: *const Arguments, threads: usize, unit: usize) Place {
        const size: UnitSize = .of(a, threads);
        const groups = size.tokenGroups(a);
        const first_token = unit % groups * size.tokens;
        var index = unit / groups;
        for (a.segments[0..a.segment_count]) |*segment| {
            const units = ceilDivide(segment.rows, size.rows);
            if (index < units) return .{
                .segment = segment,
                .first = index * size.rows,
                .end = @min((index + 1) * size.rows, segment.rows),
                .first_token = first_token,
                .end_token = @min(first_token + size.tokens, a.tokens),
            };
            index -= units;
        }
        unreachable;
    }
};

/// The weights of a unit, whose next units' lie behind them, where reading them is what the product waits for.
pub fn weightsOf(a: *const Arguments, threads: usize, unit: usize) ?[*]const u8 {
    if (a.tokens == 0 or a.tokens > activations.tile_tokens) return null;
    const place = Place.of(a, threads, unit);
    const panels = place.segment.panels orelse return place.segment.data + place.first * place.segment.row_bytes;
    return panels + place.first / layouts.panel_rows * panelBytes(place.segment.dtype, a.k).?;
}

fn runPlace(a: *const Arguments, place: *const Place, scratch: []align(64) u8) void {
    const segment = place.segment;
    const needs: ScratchNeeds = .{ .dtype = segment.dtype, .k = a.k, .tokens = a.tokens, .repack = segment.panels != null };
    std.debug.assert(scratch.len >= needs.bytes());
    if (segment.panels) |panels| {
        if (isQuantized(segment.dtype)) return packed_panels.run(a, segment, panels, place.first, place.end, scratch);
        if (!simd.has_bf16_tiles) unreachable;
        return switch (segment.dtype) {
            inline .bf16, .f16 => |dtype| float_tiles.run(dtype, a, place, panels, scratch),
            else => unreachable,
        };
    }
    switch (segment.dtype) {
        inline .f32, .f16, .bf16 => |dtype| plain.run(dtype, a, segment, place.first, place.end),
        inline .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_nl, .mxfp4 => |dtype| blocks.run(formats.Format(dtype), a, segment, place.first, place.end, scratch),
        else => unreachable,
    }
}

/// Adds bias and residual to one output and stores it.
pub inline fn store(a: *const Arguments, segment: *const Segment, row: usize, token: usize, value: f32) void {
    const column = segment.column + row;
    var result = value;
    if (segment.bias) |bias| result += bias[row];
    if (a.residual) |residual| result += residual[token * a.residual_stride + column];
    a.out[token * a.out_stride + column] = result;
}

/// The same for the 16 rows from `row` on, as far as the segment goes.
pub inline fn storeLanes(a: *const Arguments, segment: *const Segment, row: usize, token: usize, values: simd.F32) void {
    if (row + 16 > segment.rows) {
        const lanes: [16]f32 = values;
        for (lanes[0 .. segment.rows - row], row..) |value, r| store(a, segment, r, token, value);
        return;
    }
    const column = segment.column + row;
    var result = values;
    if (segment.bias) |bias| result += @as(simd.F32, bias[row..][0..16].*);
    if (a.residual) |residual| result += @as(simd.F32, residual[token * a.residual_stride + column ..][0..16].*);
    a.out[token * a.out_stride + column ..][0..16].* = result;
}
