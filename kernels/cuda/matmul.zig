//! matmul: a launch per type of weight, of the kernel for up to eight rows or of that for more.
//!
//! A few rows are prepared (`matmul_rows.cuh`) by every block for itself, which saves a launch; many, or long ones,
//! by a launch of their own. Which one it is, and how the warps of a block share the work, changes no result.
//!
//! Steps of many rows may go to cuBLASLt instead (`matmul_library.zig`): then these launches have no blocks.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const program_module = @import("../abi/program.zig");
const status = @import("../abi/status.zig");
const Device = @import("device.zig").Device;
const launch = @import("launch.zig");
const library = @import("matmul_library.zig");

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
const features_narrow: u32 = c.MATMUL_FEATURES;
const warps_max: u32 = c.MATMUL_WARPS;
const wide_tokens: u32 = c.MATMUL_TOKENS * c.MATMUL_TILES;

/// How rows of x lie once they are prepared: beside block formats and plain ones, each precisely and rounded.
const Form = enum {
    integers,
    parts,
    quads,
    rounded,

    fn of(kind: Kind, is_fast: bool) Form {
        return switch (kind) {
            .block => if (is_fast) .quads else .integers,
            .plain => if (is_fast) .rounded else .parts,
        };
    }

    /// Bytes of `rows` rows of `steps` steps, as `RowTile` has them.
    fn bytes(form: Form, rows: u64, steps: u64) u64 {
        const groups = std.math.divCeil(u64, steps * c.MATMUL_STEP, c.MATMUL_GROUP) catch unreachable;
        return switch (form) {
            .integers => rows * steps * 64 + std.mem.alignForward(u64, rows, 2) * (steps * 2 + groups) * 4,
            .parts => rows * steps * 3 * 64,
            .quads, .rounded => rows * steps * 64,
        };
    }

    /// Bytes of the rows that a launch prepares side by side.
    fn preparedBytes(form: Form, steps: u64) u64 {
        return std.mem.alignForward(u64, form.bytes(wide_tokens, steps), 128);
    }
};

/// Weights that share prepared rows.
const Kind = enum {
    block,
    plain,

    fn of(tensor: *const program_module.Tensor) Kind {
        return if (tensor.info.block_elements > 1) .block else .plain;
    }
};

/// Whether products of more rows than `matvec_<dtype>` takes are rounded: the memory bounds those of fewer.
fn roundsMany(device: *const Device, op: *const program_module.Op) bool {
    return op.attributeI32(ops.matmul.attribute.activations) == 1 and device.capability >= 80;
}

fn stepsOf(x: *const program_module.Tensor) u32 {
    return std.math.divCeil(u32, x.shape[1], c.MATMUL_STEP) catch unreachable;
}

/// Rows that a block prepares for itself.
fn ownRows(kind: Kind, steps: u32) u32 {
    var rows: u32 = c.MATMUL_TOKENS;
    while (rows > 0 and Form.of(kind, false).bytes(rows, steps) > rows_bytes_max) rows -= 1;
    return rows;
}

/// The rows of each kind that the op has, at the most rows: prepared for our kernels or for the library, which never
/// compute the same step.
pub fn workspaceBytes(device: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    var bytes: u64 = 0;
    for (std.enums.values(Kind)) |kind| {
        var list: PartList = undefined;
        const request = requestOf(program, op, null, kind, &list) orelse continue;
        bytes += workspaceOf(device, program, op, kind, request);
    }
    return bytes;
}

fn workspaceOf(device: *const Device, program: *const program_module.Program, op: *const program_module.Op, kind: Kind, request: library.Request) u64 {
    const x = program.operand(op, o.x).?;
    const rows = Rows.of(x).at(program.dims);
    const of_library = library.workspaceBytes(device, request, rows, x.shape[1]);
    if (rows <= ownRows(kind, stepsOf(x))) return of_library;
    const blocks = std.math.divCeil(u64, rows, wide_tokens) catch unreachable;
    // Up to as many rows as one block multiplies, they may lie either way.
    const of_few = Form.of(kind, false).preparedBytes(stepsOf(x));
    const of_many = blocks * Form.of(kind, roundsMany(device, op)).preparedBytes(stepsOf(x));
    return std.mem.alignForward(u64, @max(of_library, of_few, of_many), 256);
}

const PartList = [weight_operands.len]library.Part;

/// The op's weights of a kind, in `list`; null when there are none. Addresses are those of `addresses`, by tensor.
fn requestOf(program: *const program_module.Program, op: *const program_module.Op, addresses: ?[]const u64, kind: Kind, list: *PartList) ?library.Request {
    var count: usize = 0;
    var column: u32 = 0;
    for (weight_operands, bias_operands) |operand, bias_operand| {
        const weight = program.operand(op, operand) orelse break;
        if (Kind.of(weight) == kind) {
            const bias = op.operands[bias_operand];
            list[count] = .{
                .weight = weight,
                .address = if (addresses) |known| known[op.operands[operand]] else 0,
                .bias = if (addresses == null or bias == ops.absent_tensor) 0 else addresses.?[bias],
                .column = column,
            };
            count += 1;
        }
        column += weight.shape[0];
    }
    if (count == 0) return null;
    return .{
        .parts = list[0..count],
        .is_fast = op.attributeI32(ops.matmul.attribute.activations) == 1,
        .is_block = kind == .block,
        .has_residual = op.operands[o.residual] != ops.absent_tensor,
    };
}

/// Blocks for so many rows; none for other numbers of rows.
const RowRange = struct {
    rows: Rows,
    /// More than `above`, at most `most`.
    above: u32,
    most: u32,
    per_block: u32,
    y: u32,
    /// Computes some of these steps in our place.
    library: ?*const library.Plan = null,

    fn grid(context: *const anyopaque, dims: []const u32) launch.Grid {
        const range: *const RowRange = @ptrCast(@alignCast(context));
        const rows = range.rows.at(dims);
        if (rows <= range.above or rows > range.most) return .{ .x = 0 };
        if (range.library) |plan| if (plan.takes(dims)) return .{ .x = 0 };
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
        var list: PartList = undefined;
        const request = requestOf(l.program, l.op, l.addresses, kind, &list) orelse continue;
        const plan = try library.lower(l, request, workspace);
        const own_rows = ownRows(kind, stepsOf(l.tensor(o.x)));
        const rounded_above: u32 = if (roundsMany(l.device, l.op)) c.MATMUL_TOKENS else std.math.maxInt(u32);
        try lowerPrepare(l, Form.of(kind, false), .{ .above = own_rows, .most = rounded_above, .workspace = workspace, .library = plan });
        try lowerPrepare(l, Form.of(kind, true), .{ .above = rounded_above, .workspace = workspace, .library = plan });
        var seen: [weight_operands.len]ops.DType = undefined;
        var seen_count: usize = 0;
        for (weight_operands) |operand| {
            const weight = l.maybe(operand) orelse break;
            if (Kind.of(weight) != kind) continue;
            if (std.mem.indexOfScalar(ops.DType, seen[0..seen_count], weight.dtype) != null) continue;
            seen[seen_count] = weight.dtype;
            seen_count += 1;
            try lowerProducts(l, kind, weight.info, workspace, plan);
        }
        workspace += workspaceOf(l.device, l.program, l.op, kind, request);
    }
}

fn hasVectorRows(l: *const launch.Lowering) bool {
    return l.tensor(o.x).shape[1] % 4 == 0 and l.hasVectorRows(o.x);
}

/// Which steps' rows are prepared, and where.
const Preparation = struct {
    above: u32,
    most: u32 = std.math.maxInt(u32),
    workspace: u64,
    library: ?*const library.Plan = null,
};

fn lowerPrepare(l: *launch.Lowering, form: Form, preparation: Preparation) status.Error!void {
    const x = l.tensor(o.x);
    const steps = stepsOf(x);
    if (@min(l.rows(o.x).at(l.program.dims), preparation.most) <= preparation.above) return;
    // A warp prepares four steps of a row.
    const warps: u32 = @min(warps_max, std.math.divCeil(u32, steps, 4) catch unreachable);
    try l.launch(.{
        .name = switch (form) {
            inline else => |tag| "matmul_prepare_" ++ @tagName(tag),
        },
        .grid = try RowRange.rule(l, .{
            .rows = l.rows(o.x),
            .above = preparation.above,
            .most = preparation.most,
            .per_block = 1,
            .y = try l.parts(steps, 4 * warps),
            .library = preparation.library,
        }),
        .threads = warps * 32,
    }, c.struct_MatmulPrepare{
        .rows = l.leading(o.x),
        .x = l.matrix(o.x),
        .prepared = @ptrFromInt(preparation.workspace),
        .prepared_stride = form.preparedBytes(steps),
        .k = x.shape[1],
        .steps = steps,
        .vectors = @intFromBool(hasVectorRows(l)),
        .spare = 0,
    });
}

/// The products with all weights of a type.
fn lowerProducts(l: *launch.Lowering, kind: Kind, info: ops.DTypeInfo, workspace: u64, plan: ?*const library.Plan) status.Error!void {
    const x = l.tensor(o.x);
    const steps = stepsOf(x);
    var parameters = c.struct_Matmul{
        .rows = l.leading(o.x),
        .out = l.matrix(o.out),
        .x = l.matrix(o.x),
        .residual = l.matrix(o.residual),
        .prepared = null,
        .prepared_stride = Form.of(kind, false).preparedBytes(steps),
        .k = x.shape[1],
        .steps = steps,
        .vectors = @intFromBool(hasVectorRows(l)),
    };
    collectParts(l, info.dtype, features_narrow, &parameters);

    const rows_max = l.rows(o.x).at(l.program.dims);
    const own_rows = ownRows(kind, steps);
    const narrow = try l.kernelName("matvec", info.dtype);
    const tokens: u32 = c.MATMUL_TOKENS;
    const few: u32 = switch (kind) {
        .block => c.MATMUL_FEW,
        .plain => 0,
    };
    // From one number of rows to the next that wants another kernel, or rows that others prepare.
    var above: u32 = 0;
    while (above < @min(tokens, rows_max)) {
        const is_own = above < own_rows;
        const is_few = above < few;
        const is_one = is_few and is_own and above == 0;
        const most = if (is_one) 1 else @min(if (is_few) few else tokens, if (is_own) own_rows else tokens);
        parameters.prepared = if (is_own) null else @ptrFromInt(workspace);
        const name = if (is_one) try l.kernelName("matvec_one", info.dtype) else if (is_few) try l.kernelName("matvec_few", info.dtype) else narrow;
        try lowerProduct(l, name, &parameters, info, .{ .above = above, .most = most, .tiles = 1, .own = if (is_own) Form.of(kind, false) else null });
        above = most;
    }
    parameters.prepared = @ptrFromInt(workspace);
    const is_fast = roundsMany(l.device, l.op);
    const wide = if (is_fast) try l.kernelName("matmul_fast", info.dtype) else try l.kernelName("matmul", info.dtype);
    const features: u32 = if (is_fast) c.MATMUL_FAST_FEATURES else features_narrow;
    if (is_fast) {
        parameters.prepared_stride = Form.of(kind, true).preparedBytes(steps);
        collectParts(l, info.dtype, features, &parameters);
    }
    // Few rows give few blocks: then warps share sums. Many rows give enough without.
    const few_rows: Shape = .{ .above = tokens, .most = wide_tokens, .tiles = c.MATMUL_TILES, .features = features };
    if (rows_max > tokens) try lowerProduct(l, wide, &parameters, info, few_rows);
    const many_rows: Shape = .{ .above = wide_tokens, .most = std.math.maxInt(u32), .tiles = c.MATMUL_TILES, .features = features, .library = plan };
    if (rows_max > wide_tokens) try lowerProduct(l, wide, &parameters, info, many_rows);
}

/// The weights of a type, in tiles of `features` rows.
fn collectParts(l: *launch.Lowering, dtype: ops.DType, features: u32, parameters: *c.struct_Matmul) void {
    parameters.parts_count = 0;
    parameters.tiles = 0;
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
            parameters.tiles += std.math.divCeil(u32, weight.shape[0], features) catch unreachable;
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
fn warpBytes(info: ops.DTypeInfo, features: u32) u32 {
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
    /// Rows of weights of a warp.
    features: u32 = features_narrow,
    /// Where blocks prepare their rows themselves.
    own: ?Form = null,
    library: ?*const library.Plan = null,

    /// Shared memory of a warp's sums, where warps share them.
    fn sumsBytes(shape: Shape, device: *const Device, base: *const c.struct_Matmul, warps: u32) u32 {
        if (chooseSplit(device, base, shape, warps) == 1) return 0;
        return shape.tiles * (shape.features / features_narrow) * partial_bytes;
    }
};

fn lowerProduct(l: *launch.Lowering, name: [:0]const u8, base: *const c.struct_Matmul, info: ops.DTypeInfo, shape: Shape) status.Error!void {
    var parameters = base.*;
    const own_bytes: u32 = if (shape.own) |form| @intCast(form.bytes(shape.most, base.steps)) else 0;
    const warp_bytes = warpBytes(info, shape.features);
    var warps = warps_max;
    while (warps > 1 and warps * (warp_bytes + shape.sumsBytes(l.device, base, warps)) + own_bytes > l.device.shared_bytes_max) warps /= 2;
    const split = chooseSplit(l.device, base, shape, warps);
    parameters.split = split;
    parameters.warp_bytes = warp_bytes;
    parameters.partials_offset = warps * warp_bytes;
    parameters.prepared_offset = warps * (warp_bytes + shape.sumsBytes(l.device, base, warps));
    try l.launch(.{
        .name = name,
        .grid = try RowRange.rule(l, .{
            .rows = l.rows(o.x),
            .above = shape.above,
            .most = shape.most,
            .per_block = shape.tiles * c.MATMUL_TOKENS,
            .y = try l.parts(base.tiles, warps / split),
            .library = shape.library,
        }),
        .threads = warps * 32,
        .shared_bytes = parameters.prepared_offset + own_bytes,
    }, parameters);
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
