//! paged_attention: which kernels a step launches and with how many blocks. `attend_spans` takes sequences of few
//! rows, their keys spread over blocks when the step has few sequences, whose partials `attend_merge` then folds;
//! `attend_tiles` takes the rest, and is left out of a step with no more tokens than sequences.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const Device = @import("device.zig").Device;
const launch = @import("launch.zig");

pub const family = "attention";
pub const codes = [_]ops.OpCode{.paged_attention};

const o = ops.paged_attention.operand;
const a = ops.paged_attention.attribute;

/// Rows of a warp and warps of a block, as in the kernels.
const warp_rows = 16;
const warps_max = 4;
const strips = 4;
/// Blocks of `attend_spans` per multiprocessor that a step aims at: somewhat more than run at once.
const blocks_wanted = 4;
/// Bytes of partials, and at least those of one sequence of one token.
const partial_bytes_max = 64 << 20;
/// Shared memory that the kernels have beside what the launch gives.
const static_shared_bytes = 4 << 10;
const head_dim_max = 256;

/// What the kernels of a cache type and a head dimension have in common.
const Shape = struct {
    /// Dimensions of the kernel.
    dims: u32,
    /// Keys of a strip.
    strip: u32,
    element_bytes: u32,
    /// Of sixteen rows.
    query_bytes: u32,
    /// Of sixteen rows and a strip of keys.
    weight_bytes: u32,
    /// Whether each warp of `attend_tiles` has weights in shared memory.
    shares_weights: bool,

    fn of(dtype: ops.DType, head_dim: u32, capability: u32) Shape {
        const dims: u32 = if (head_dim <= 64) 64 else if (head_dim <= 128) 128 else head_dim_max;
        const strip: u32 = if (dtype == .f32 or dims > 128) 32 else 64;
        const has_cores = dtype == .f16 or dtype == .f8e4m3 or (dtype == .bf16 and capability >= 80);
        const row_bytes: u32 = if (has_cores and dtype == .bf16) 6 else 4;
        return .{
            .dims = dims,
            .strip = strip,
            .element_bytes = elementBytes(dtype),
            .query_bytes = warp_rows * dims * row_bytes,
            .weight_bytes = warp_rows * strip * 4,
            .shares_weights = !has_cores,
        };
    }

    fn spanBytes(shape: Shape, ring_pieces: u32) u32 {
        return shape.query_bytes + strips * shape.weight_bytes + ring_pieces * shape.strip * shape.dims * shape.element_bytes;
    }

    fn tileBytes(shape: Shape, warps: u32) u32 {
        const own = shape.query_bytes + if (shape.shares_weights) shape.weight_bytes else 0;
        return warps * own + 2 * shape.strip * shape.dims * shape.element_bytes;
    }

    /// The ring that fits: with three pieces two are under way while one is used.
    fn ringPieces(shape: Shape, device: *const Device) u32 {
        return if (shape.spanBytes(3) + static_shared_bytes <= device.shared_bytes_max) 3 else 2;
    }

    fn tileWarps(shape: Shape, device: *const Device) u32 {
        var warps: u32 = warps_max;
        while (warps > 1 and shape.tileBytes(warps) + static_shared_bytes > device.shared_bytes_max) warps /= 2;
        return warps;
    }
};

/// What the grids of an op follow from; lives as long as its program.
const Plan = struct {
    tokens: launch.Rows,
    sequences: launch.Rows,
    heads: u32,
    kv_heads: u32,
    tile_rows: u32,
    blocks_wanted: u32,
    ranges_max: u32,

    fn of(device: *const Device, program: *const program_module.Program, op: *const program_module.Op) Plan {
        const q = program.operand(op, o.q).?;
        const cache = program.operand(op, o.k_cache).?;
        const tables = program.operand(op, o.block_tables).?;
        const shape: Shape = .of(cache.dtype, q.shape[2], device.capability);
        return .{
            .tokens = .of(q),
            .sequences = .of(program.operand(op, o.context_lengths).?),
            .heads = q.shape[1],
            .kv_heads = cache.shape[1],
            .tile_rows = shape.tileWarps(device) * warp_rows,
            .blocks_wanted = device.multiprocessors * blocks_wanted,
            .ranges_max = ceil(@as(u64, tables.shape[1]) * cache.shape[2], strips * shape.strip),
        };
    }

    fn group(plan: *const Plan) u32 {
        return plan.heads / plan.kv_heads;
    }

    /// KV heads times tiles of one token's rows.
    fn heights(plan: *const Plan) u32 {
        return plan.kv_heads * ceil(plan.group(), warp_rows);
    }

    fn spans(plan: *const Plan, sequences: u32) u32 {
        const others = @as(u64, @max(sequences, 1)) * plan.heights();
        return std.math.clamp(ceil(plan.blocks_wanted, others), 1, @max(plan.ranges_max, 1));
    }

    /// A step of no more tokens than sequences decodes: `attend_spans` takes all of it.
    fn isDecoding(plan: *const Plan, dims: []const u32) bool {
        return plan.tokens.at(dims) <= plan.sequences.at(dims);
    }

    fn spanGrid(plan: *const Plan, dims: []const u32) launch.Grid {
        const sequences = plan.sequences.at(dims);
        return .{ .x = plan.spans(sequences), .y = plan.heights(), .z = @max(sequences, 1) };
    }

    fn mergeGrid(plan: *const Plan, dims: []const u32) launch.Grid {
        const sequences = plan.sequences.at(dims);
        if (plan.spans(sequences) == 1) return nothing;
        return .{ .x = ceil(plan.heads, 4), .y = if (plan.isDecoding(dims)) 1 else 8, .z = sequences };
    }

    /// Enough tiles however the tokens are shared out: each sequence has one that is not full.
    fn tileGrid(plan: *const Plan, dims: []const u32) launch.Grid {
        const tokens = plan.tokens.at(dims);
        const full = @as(u64, tokens) * plan.group() / plan.tile_rows;
        return .{ .x = @intCast(full + @min(tokens, plan.sequences.at(dims))), .y = plan.kv_heads };
    }

    const nothing: launch.Grid = .{ .x = 0 };

    /// The rule of one launch; of the two kinds of steps it belongs to one.
    fn rule(plan: *const Plan, comptime grid: fn (*const Plan, []const u32) launch.Grid, comptime decoding: bool) launch.GridRule {
        return .{ .computed = .{ .context = plan, .grid = struct {
            fn at(context: *const anyopaque, dims: []const u32) launch.Grid {
                const self: *const Plan = @ptrCast(@alignCast(context));
                return if (self.isDecoding(dims) == decoding) grid(self, dims) else nothing;
            }
        }.at } };
    }

    /// Partials that a step may use: all of a sequence's ranges, for as many sequences as are split and as the
    /// cache has keys for, within a bound.
    fn partials(plan: *const Plan, sequences_max: u32, cache_keys: u64, range_keys: u64, partial_bytes: u64) u64 {
        const split = @min(sequences_max, plan.blocks_wanted / plan.heights() + 1);
        const wanted = @min(@as(u64, split) * plan.ranges_max, 2 * cache_keys / range_keys + split) * plan.heads;
        const least = @as(u64, plan.ranges_max) * plan.heads;
        return @max(least, @min(4 * wanted, partial_bytes_max / partial_bytes));
    }
};

fn elementBytes(dtype: ops.DType) u32 {
    return switch (dtype) {
        .f32 => 4,
        .f8e4m3 => 1,
        else => 2,
    };
}

fn ceil(x: u64, y: u64) u32 {
    return @intCast(std.math.divCeil(u64, x, y) catch unreachable);
}

/// The sums of a row, then its maximum and its denominator.
fn partialFloats(head_dim: u32) u32 {
    return std.mem.alignForward(u32, head_dim, 4) + 4;
}

fn partialsOf(plan: *const Plan, device: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    const cache = program.operand(op, o.k_cache).?;
    const shape: Shape = .of(cache.dtype, cache.shape[3], device.capability);
    const keys = @as(u64, cache.shape[0]) * cache.shape[2];
    return plan.partials(plan.sequences.at(program.dims), keys, strips * shape.strip, 4 * partialFloats(cache.shape[3]));
}

pub fn workspaceBytes(device: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    const plan: Plan = .of(device, program, op);
    return partialsOf(&plan, device, program, op) * 4 * partialFloats(program.operand(op, o.q).?.shape[2]);
}

pub fn lower(l: *launch.Lowering) status.Error!void {
    const cache = l.tensor(o.k_cache);
    const head_dim = cache.shape[3];
    if (head_dim > head_dim_max)
        return status.fail(error.InvalidProgram, "heads of {d} dimensions; CUDA's attention takes {d}", .{ head_dim, head_dim_max });
    if (cache.stride != cache.width())
        return status.fail(error.InvalidProgram, "a cache of CUDA's is dense; this one's blocks of {d} elements lie {d} apart", .{ cache.width(), cache.stride });
    if (@as(u64, cache.shape[0]) * cache.shape[1] * cache.shape[2] >= std.math.maxInt(u32))
        return status.fail(error.InvalidProgram, "a cache of {d} blocks has too many rows for CUDA", .{cache.shape[0]});
    const plan = try l.arena.create(Plan);
    plan.* = .of(l.device, l.program, l.op);
    _ = try l.parts(plan.heights(), 1);
    _ = try l.parts(plan.sequences.at(l.program.dims), 1);
    const shape: Shape = .of(cache.dtype, head_dim, l.device.capability);
    const ring_pieces = shape.ringPieces(l.device);
    const name_of = struct {
        fn kernel(lowering: *launch.Lowering, comptime stem: []const u8, dtype: ops.DType, dims: u32) status.Error![:0]const u8 {
            return std.fmt.allocPrintSentinel(lowering.arena, stem ++ "_{s}_{d}", .{ @tagName(dtype), dims }, 0);
        }
    }.kernel;

    var parameters = try parametersOf(l, plan, shape);
    parameters.ring_pieces = ring_pieces;
    const span: launch.Kernel = .{
        .name = try name_of(l, "attend_spans", cache.dtype, shape.dims),
        .grid = plan.rule(Plan.spanGrid, true),
        .threads = warps_max * 32,
        .shared_bytes = shape.spanBytes(ring_pieces),
    };
    const merge: launch.Kernel = .{ .name = "attend_merge", .grid = plan.rule(Plan.mergeGrid, true), .threads = 128 };
    parameters.every_sequence = 1;
    try l.launch(span, parameters);
    try l.launch(merge, parameters);

    parameters.every_sequence = 0;
    // The longest work first.
    try l.launch(.{
        .name = try name_of(l, "attend_tiles", cache.dtype, shape.dims),
        .grid = plan.rule(Plan.tileGrid, false),
        .threads = plan.tile_rows / warp_rows * 32,
        .shared_bytes = shape.tileBytes(plan.tile_rows / warp_rows),
    }, parameters);
    var mixed = span;
    mixed.grid = plan.rule(Plan.spanGrid, false);
    try l.launch(mixed, parameters);
    mixed = merge;
    mixed.grid = plan.rule(Plan.mergeGrid, false);
    try l.launch(mixed, parameters);
}

fn parametersOf(l: *launch.Lowering, plan: *const Plan, shape: Shape) status.Error!launch.c.struct_PagedAttention {
    const cache = l.tensor(o.k_cache);
    const tables = l.tensor(o.block_tables);
    const head_dim = cache.shape[3];
    const row_bytes = head_dim * shape.element_bytes;
    const scale = l.op.attributeF32(a.scale);
    const soft_cap = l.op.attributeF32(a.soft_cap);
    const out = l.tensor(o.out);
    return .{
        .tokens = l.leading(o.q),
        .sequences = l.leading(o.context_lengths),
        .out = l.matrix(o.out),
        .q = l.matrix(o.q),
        .k_cache = @ptrFromInt(l.address(o.k_cache)),
        .v_cache = @ptrFromInt(l.address(o.v_cache)),
        .block_tables = @ptrFromInt(l.address(o.block_tables)),
        .block_table_stride = tables.stride,
        .sequence_starts = @ptrFromInt(l.address(o.sequence_starts)),
        .context_lengths = @ptrFromInt(l.address(o.context_lengths)),
        .sinks = @ptrFromInt(l.address(o.sinks)),
        .partials = @ptrFromInt(l.workspace_address),
        .partials_max = partialsOf(plan, l.device, l.program, l.op),
        .partial_floats = partialFloats(head_dim),
        .op = l.op_index,
        .blocks = cache.shape[0],
        .block_size = cache.shape[2],
        .capacity = @intCast(@as(u64, tables.shape[1]) * cache.shape[2]),
        .heads = plan.heads,
        .kv_heads = plan.kv_heads,
        .group = plan.group(),
        .head_dim = head_dim,
        .sliding_window = @intCast(l.op.attributeI32(a.sliding_window)),
        .range_keys = strips * shape.strip,
        .score_scale = if (soft_cap == 0) scale * std.math.log2e else scale / soft_cap,
        .soft_cap = soft_cap * std.math.log2e,
        .row_bytes = row_bytes,
        .cache_vectors = @intFromBool(row_bytes % 16 == 0 and l.address(o.k_cache) % 16 == 0 and l.address(o.v_cache) % 16 == 0),
        .q_vectors = @intFromBool(head_dim % 4 == 0 and l.hasVectorRows(o.q)),
        .out_pairs = @intFromBool(head_dim % 2 == 0 and out.stride % 2 == 0 and l.address(o.out) % 8 == 0),
        .every_sequence = 0,
        .ring_pieces = 0,
    };
}
