//! matmul: a launch per type of weight, of the kernel for up to eight rows or of that for more.
//!
//! A few rows are prepared (`matmul_rows.cuh`) by every block for itself, which saves a launch; many, or long ones,
//! by a launch of their own. Which one it is, and how the warps of a block share the work, changes no result.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const program_module = @import("../abi/program.zig");
const status = @import("../abi/status.zig");
const Device = @import("device.zig").Device;
const launch = @import("launch.zig");

const c = launch.c;
const Rows = launch.Rows;

pub const family = "matmul";
pub const codes = [_]ops.OpCode{.matmul};

const o = ops.matmul.operand;
const weight_operands = [_]usize{ o.weight0, o.weight1, o.weight2 };
const bias_operands = [_]usize{ o.bias0, o.bias1, o.bias2 };

/// Shared memory that prepared rows may take of a block: with two or three blocks on a multiprocessor.
const rows_bytes_max = 40 << 10;
/// A fragment's partial sums of a warp.
const partial_bytes = 512;
const features: u32 = c.MATMUL_FEATURES;
const warps_max: u32 = c.MATMUL_WARPS;
const wide_tokens: u32 = c.MATMUL_TOKENS * c.MATMUL_TILES;

/// How rows of x lie once they are prepared.
const Kind = enum {
    integers,
    parts,

    fn of(tensor: *const program_module.Tensor) Kind {
        return if (tensor.info.block_elements > 1) .integers else .parts;
    }

    /// Bytes of `rows` rows of `steps` steps, as `RowTile` has them.
    fn bytes(kind: Kind, rows: u64, steps: u64) u64 {
        const groups = std.math.divCeil(u64, steps * c.MATMUL_STEP, c.MATMUL_GROUP) catch unreachable;
        return switch (kind) {
            .integers => rows * steps * 64 + std.mem.alignForward(u64, rows, 2) * (steps * 2 + groups) * 4,
            .parts => rows * steps * 3 * 64,
        };
    }

    /// Bytes of the rows that a launch prepares side by side.
    fn preparedBytes(kind: Kind, steps: u64) u64 {
        return std.mem.alignForward(u64, kind.bytes(wide_tokens, steps), 128);
    }
};

fn stepsOf(x: *const program_module.Tensor) u32 {
    return std.math.divCeil(u32, x.shape[1], c.MATMUL_STEP) catch unreachable;
}

/// Rows that a block prepares for itself.
fn ownRows(kind: Kind, steps: u32) u32 {
    var rows: u32 = c.MATMUL_TOKENS;
    while (rows > 0 and kind.bytes(rows, steps) > rows_bytes_max) rows -= 1;
    return rows;
}

/// The prepared rows of each kind that the op has, at the most rows.
pub fn workspaceBytes(_: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    var bytes: u64 = 0;
    for (std.enums.values(Kind)) |kind| {
        for (weight_operands) |operand| {
            const weight = program.operand(op, operand) orelse break;
            if (Kind.of(weight) != kind) continue;
            bytes += workspaceOf(program, op, kind);
            break;
        }
    }
    return bytes;
}

fn workspaceOf(program: *const program_module.Program, op: *const program_module.Op, kind: Kind) u64 {
    const x = program.operand(op, o.x).?;
    const rows = Rows.of(x).at(program.dims);
    if (rows <= ownRows(kind, stepsOf(x))) return 0;
    const blocks = std.math.divCeil(u64, rows, wide_tokens) catch unreachable;
    return blocks * kind.preparedBytes(stepsOf(x));
}

/// Blocks for so many rows; none for other numbers of rows.
const RowRange = struct {
    rows: Rows,
    /// More than `above`, at most `most`.
    above: u32,
    most: u32,
    per_block: u32,
    y: u32,

    fn grid(context: *const anyopaque, dims: []const u32) launch.Grid {
        const range: *const RowRange = @ptrCast(@alignCast(context));
        const rows = range.rows.at(dims);
        if (rows <= range.above or rows > range.most) return .{ .x = 0 };
        return .{ .x = std.math.divCeil(u32, rows, range.per_block) catch unreachable, .y = range.y };
    }

    fn rule(l: *launch.Lowering, range: RowRange) status.Error!launch.GridRule {
        const kept = try l.arena.create(RowRange);
        kept.* = range;
        return .{ .computed = .{ .context = kept, .grid = grid } };
    }
};

pub fn lower(l: *launch.Lowering) status.Error!void {
    var workspace = l.workspace_address;
    for (std.enums.values(Kind)) |kind| {
        var prepared = false;
        var seen: [weight_operands.len]ops.DType = undefined;
        var seen_count: usize = 0;
        for (weight_operands) |operand| {
            const weight = l.maybe(operand) orelse break;
            if (Kind.of(weight) != kind) continue;
            if (std.mem.indexOfScalar(ops.DType, seen[0..seen_count], weight.dtype) != null) continue;
            seen[seen_count] = weight.dtype;
            seen_count += 1;
            if (!prepared) try lowerPrepare(l, kind, workspace);
            prepared = true;
            try lowerProducts(l, kind, weight.info, workspace);
        }
        if (prepared) workspace += workspaceOf(l.program, l.op, kind);
    }
}

fn hasVectorRows(l: *const launch.Lowering) bool {
    return l.tensor(o.x).shape[1] % 4 == 0 and l.hasVectorRows(o.x);
}

fn lowerPrepare(l: *launch.Lowering, kind: Kind, workspace: u64) status.Error!void {
    const x = l.tensor(o.x);
    const steps = stepsOf(x);
    const own_rows = ownRows(kind, steps);
    if (l.rows(o.x).at(l.program.dims) <= own_rows) return;
    // A warp prepares four steps of a row.
    const warps: u32 = @min(warps_max, std.math.divCeil(u32, steps, 4) catch unreachable);
    try l.launch(.{
        .name = switch (kind) {
            .integers => "matmul_prepare_integers",
            .parts => "matmul_prepare_parts",
        },
        .grid = try RowRange.rule(l, .{
            .rows = l.rows(o.x),
            .above = own_rows,
            .most = std.math.maxInt(u32),
            .per_block = 1,
            .y = try l.parts(steps, 4 * warps),
        }),
        .threads = warps * 32,
    }, c.struct_MatmulPrepare{
        .rows = l.leading(o.x),
        .x = l.matrix(o.x),
        .prepared = @ptrFromInt(workspace),
        .prepared_stride = kind.preparedBytes(steps),
        .k = x.shape[1],
        .steps = steps,
        .vectors = @intFromBool(hasVectorRows(l)),
        .spare = 0,
    });
}

/// The products with all weights of a type.
fn lowerProducts(l: *launch.Lowering, kind: Kind, info: ops.DTypeInfo, workspace: u64) status.Error!void {
    const x = l.tensor(o.x);
    const steps = stepsOf(x);
    var parameters = c.struct_Matmul{
        .rows = l.leading(o.x),
        .out = l.matrix(o.out),
        .x = l.matrix(o.x),
        .residual = l.matrix(o.residual),
        .prepared = null,
        .prepared_stride = kind.preparedBytes(steps),
        .k = x.shape[1],
        .steps = steps,
        .vectors = @intFromBool(hasVectorRows(l)),
    };
    collectParts(l, info.dtype, &parameters);

    const rows_max = l.rows(o.x).at(l.program.dims);
    const own_rows = ownRows(kind, steps);
    const narrow = try l.kernelName("matvec", info.dtype);
    const wide = try l.kernelName("matmul", info.dtype);
    const tokens: u32 = c.MATMUL_TOKENS;
    const few: u32 = switch (kind) {
        .integers => c.MATMUL_FEW,
        .parts => 0,
    };
    // From one number of rows to the next that wants another kernel, or rows that others prepare.
    var above: u32 = 0;
    while (above < @min(tokens, rows_max)) {
        const is_own = above < own_rows;
        const is_few = above < few;
        const most = @min(if (is_few) few else tokens, if (is_own) own_rows else tokens);
        parameters.prepared = if (is_own) null else @ptrFromInt(workspace);
        const name = if (is_few) try l.kernelName("matvec_few", info.dtype) else narrow;
        try lowerProduct(l, name, &parameters, info, .{ .above = above, .most = most, .tiles = 1, .own = if (is_own) kind else null });
        above = most;
    }
    parameters.prepared = @ptrFromInt(workspace);
    // Few rows give few blocks: then warps share sums. Many rows give enough without.
    if (rows_max > tokens)
        try lowerProduct(l, wide, &parameters, info, .{ .above = tokens, .most = wide_tokens, .tiles = c.MATMUL_TILES });
    if (rows_max > wide_tokens)
        try lowerProduct(l, wide, &parameters, info, .{ .above = wide_tokens, .most = std.math.maxInt(u32), .tiles = c.MATMUL_TILES });
}

fn collectParts(l: *launch.Lowering, dtype: ops.DType, parameters: *c.struct_Matmul) void {
    var column: u32 = 0;
    for (weight_operands, bias_operands) |operand, bias_operand| {
        const weight = l.maybe(operand) orelse break;
        if (weight.dtype == dtype) {
            const address = l.address(operand);
            const row_bytes = weight.strideBytes();
            const alignment = alignmentOf(weight.info);
            parameters.parts[parameters.parts_count] = .{
                .data = @ptrFromInt(address),
                .row_bytes = row_bytes,
                .bias = @ptrFromInt(l.address(bias_operand)),
                .rows = weight.shape[0],
                .column = column,
                .first_tile = parameters.tiles,
                .aligned = @intFromBool(address % alignment == 0 and row_bytes % alignment == 0),
            };
            parameters.parts_count += 1;
            parameters.tiles += std.math.divCeil(u32, weight.shape[0], c.MATMUL_FEATURES) catch unreachable;
        }
        column += weight.shape[0];
    }
}

/// What rows must begin at a multiple of for `Staging` of the kernels to copy them by asynchronous copies.
fn alignmentOf(info: ops.DTypeInfo) u32 {
    if (info.block_elements == 1) return 16;
    return @min(4, @as(u32, 1) << @intCast(@ctz(info.block_bytes)));
}

/// Shared memory that a warp stages weights in: two chunks, and the scales of a segment.
fn warpBytes(info: ops.DTypeInfo) u32 {
    if (info.block_elements == 1) return 2 * features * stageStride(256, alignmentOf(info));
    const segment = @as(u32, c.MATMUL_SEGMENT) / info.block_elements * info.block_bytes;
    const chunk = if (segment > 256) segment / 2 else segment;
    // Scale and minimum of each of 16 elements in large blocks, of each block of 32.
    const subs: u32 = if (info.block_elements == 256) 16 else 8;
    return 2 * features * stageStride(chunk, alignmentOf(info)) + subs * features * 2 * 4;
}

/// An odd number of pieces of 16 bytes that hold `bytes` from any multiple of `alignment` on.
fn stageStride(bytes: u32, alignment: u32) u32 {
    return ((16 - alignment + bytes + 15) / 16 | 1) * 16;
}

const Shape = struct {
    above: u32,
    most: u32,
    /// Fragments of tokens of a block.
    tiles: u32,
    /// Where blocks prepare their rows themselves.
    own: ?Kind = null,
};

fn lowerProduct(l: *launch.Lowering, name: [:0]const u8, base: *const c.struct_Matmul, info: ops.DTypeInfo, shape: Shape) status.Error!void {
    var parameters = base.*;
    const own_bytes: u32 = if (shape.own) |kind| @intCast(kind.bytes(shape.most, base.steps)) else 0;
    const warp_bytes = warpBytes(info);
    var warps = warps_max;
    while (warps > 1 and sharedBytes(warps, warp_bytes, shape.tiles) + own_bytes > l.device.shared_bytes_max) warps /= 2;
    const split = chooseSplit(l.device, base, shape, warps);
    parameters.split = split;
    parameters.warp_bytes = warp_bytes;
    parameters.partials_offset = warps * warp_bytes;
    parameters.prepared_offset = sharedBytes(warps, warp_bytes, shape.tiles);
    try l.launch(.{
        .name = name,
        .grid = try RowRange.rule(l, .{
            .rows = l.rows(o.x),
            .above = shape.above,
            .most = shape.most,
            .per_block = shape.tiles * c.MATMUL_TOKENS,
            .y = try l.parts(base.tiles, warps / split),
        }),
        .threads = warps * 32,
        .shared_bytes = parameters.prepared_offset + own_bytes,
    }, parameters);
}

fn sharedBytes(warps: u32, warp_bytes: u32, tiles: u32) u32 {
    return warps * (warp_bytes + tiles * partial_bytes);
}

/// Warps that share the sums of a tile of features. One is the least work; more give more blocks, which keeps
/// every multiprocessor busy, and for few rows more bytes under way.
fn chooseSplit(device: *const Device, base: *const c.struct_Matmul, shape: Shape, warps: u32) u32 {
    if (shape.above >= wide_tokens) return 1;
    const segments = std.math.divCeil(u32, base.steps * c.MATMUL_STEP, c.MATMUL_SEGMENT) catch unreachable;
    const blocks_wanted: u64 = if (shape.tiles == 1) 4 * @as(u64, device.multiprocessors) else device.multiprocessors;
    var split: u32 = 1;
    while (split * 2 <= warps and split < segments and @as(u64, base.tiles) * split < blocks_wanted * warps) split *= 2;
    return split;
}
