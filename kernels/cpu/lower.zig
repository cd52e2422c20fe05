//! Turns a validated op into the arguments of its kernel: operand tensors become pointers and strides. Also
//! measures the memory that the kernels of a program need between and within their stages.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const activations = @import("activations.zig");
const attention = @import("attention.zig");
const matmul_module = @import("matmul.zig");
const memory = @import("memory.zig");
const planes = @import("bf16_planes.zig");
const rows = @import("rows.zig");
const sample_module = @import("sample.zig");

const Op = program_module.Op;
const Program = program_module.Program;
const Tensor = program_module.Tensor;

/// A leading dimension: constant, or a symbolic dimension plus an addend.
pub const Leading = struct {
    symbol: u32,
    addend: u32,

    pub fn of(tensor: *const Tensor) Leading {
        return .{ .symbol = tensor.symbol, .addend = tensor.shape[0] };
    }
    pub fn at(leading: Leading, dims: []const u32) u32 {
        return leading.addend + if (leading.symbol == 0) 0 else dims[leading.symbol - 1];
    }
};

pub const Attention = struct {
    arguments: attention.Arguments,
    tokens: Leading,
    sequences: Leading,
    block_count: u32,
    /// The step is divided for an op before this one, with the same result.
    follows: bool,

    fn sameSteps(a: *const Attention, b: *const Attention) bool {
        const same = std.meta.eql(a.tokens, b.tokens) and std.meta.eql(a.sequences, b.sequences) and a.block_count == b.block_count;
        return same and a.arguments.agrees(&b.arguments);
    }
};

pub const Gather = struct {
    rows: rows.GatherRows,
    x_leading: Leading,
};

/// What a step's inputs can get wrong.
pub const InputError = rows.InputError || error{ SequenceStarts, ContextLength, BlockTable, Sampling };

/// One op, ready to run.
pub const Body = union(ops.OpCode) {
    embed: rows.Embed,
    rms_norm: rows.RmsNorm,
    matmul: matmul_module.Arguments,
    rope_table: rows.RopeTable,
    rope: rows.Rope,
    kv_write: rows.KvWrite,
    paged_attention: Attention,
    gated_mul: rows.GatedMul,
    gather_rows: Gather,
    soft_cap: rows.SoftCap,
    sample: sample_module.Arguments,
};

pub const Needs = struct {
    /// Shared by the stages of one op.
    workspace_bytes: u64 = 0,
    /// Of each thread.
    scratch_bytes: usize = 0,
};

/// The most memory any op of the program needs at the largest dimensions.
pub fn measure(program: *const Program, repack: bool) status.Error!Needs {
    var needs: Needs = .{};
    for (program.ops) |*op| {
        const one = needsOf(program, op, repack);
        needs.workspace_bytes = @max(needs.workspace_bytes, one.workspace_bytes);
        needs.scratch_bytes = @max(needs.scratch_bytes, one.scratch_bytes);
    }
    if (needs.workspace_bytes > 1 << 40 or needs.scratch_bytes > 1 << 34)
        return status.fail(error.InvalidProgram, "the program needs {d} bytes of workspace", .{needs.workspace_bytes});
    return needs;
}

fn needsOf(program: *const Program, op: *const Op, repack: bool) Needs {
    switch (op.code) {
        .matmul => {
            const prepared: PreparedRows = .of(program, op, repack);
            const k = program.operand(op, ops.matmul.operand.x).?.shape[1];
            var scratch_bytes: usize = 0;
            inline for (weight_operands) |index| if (program.operand(op, index)) |weight| {
                const needs: matmul_module.ScratchNeeds = .{ .dtype = weight.dtype, .k = k, .tokens = prepared.tokens, .repack = repack };
                scratch_bytes = @max(scratch_bytes, needs.bytes());
            };
            return .{ .workspace_bytes = prepared.group_bytes + prepared.plane_bytes, .scratch_bytes = scratch_bytes };
        },
        .paged_attention => {
            const q = program.operand(op, ops.paged_attention.operand.q).?;
            const k = program.operand(op, ops.paged_attention.operand.k_cache).?;
            return .{
                .workspace_bytes = 4 * @as(u64, attentionWorkspaceFloats(program, op)),
                .scratch_bytes = 4 * attention.scratchFloats(q.shape[1], k.shape[1], q.shape[2]),
            };
        },
        .sample => {
            const logits = program.operand(op, ops.sample.operand.logits).?;
            return .{ .scratch_bytes = sample_module.scratchBytes(logits.shape[1]) };
        },
        else => return .{},
    }
}

/// Memory of the forms of x that a matrix product needs: groups, and planes behind them.
const PreparedRows = struct {
    forms: matmul_module.Forms = .{},
    /// At most.
    tokens: u64 = 0,
    group_bytes: u64 = 0,
    plane_bytes: u64 = 0,

    fn of(program: *const Program, op: *const Op, repack: bool) PreparedRows {
        var prepared: PreparedRows = .{};
        inline for (weight_operands) |index| {
            if (program.operand(op, index)) |weight| prepared.forms.add(weight.dtype, repack);
        }
        const x = program.operand(op, ops.matmul.operand.x).?;
        const tokens: u64 = x.leadingAt(program.dims);
        prepared.tokens = tokens;
        const k = x.shape[1];
        if (prepared.forms.groups) prepared.group_bytes = activations.byteCount(tokens, k);
        if (prepared.forms.planes) prepared.plane_bytes = planes.byteCount(tokens, k, precisionOf(op));
        return prepared;
    }
};

const weight_operands = .{ ops.matmul.operand.weight0, ops.matmul.operand.weight1, ops.matmul.operand.weight2 };

fn precisionOf(op: *const Op) activations.Precision {
    return @enumFromInt(op.attributes[ops.matmul.attribute.activations]);
}

fn attentionWorkspaceFloats(program: *const Program, op: *const Op) usize {
    const q = program.operand(op, ops.paged_attention.operand.q).?;
    const k = program.operand(op, ops.paged_attention.operand.k_cache).?;
    const tables = program.operand(op, ops.paged_attention.operand.block_tables).?;
    const context_max = @as(usize, tables.shape[1]) * k.shape[2];
    return attention.workspaceFloats(q.leadingAt(program.dims), tables.leadingAt(program.dims), q.shape[1], q.shape[2], context_max);
}

/// The leading dimension that an op's row stages split.
pub fn leadingOf(program: *const Program, op: *const Op) Leading {
    const index: usize = switch (op.code) {
        .kv_write => ops.kv_write.operand.slot_mapping,
        .sample => ops.sample.operand.logits,
        .rope => ops.rope.operand.x,
        .soft_cap => ops.soft_cap.operand.x,
        // The first operand of every other op is its output.
        .embed, .rms_norm, .matmul, .rope_table, .paged_attention, .gated_mul, .gather_rows => 0,
        _ => unreachable,
    };
    return Leading.of(program.operand(op, index).?);
}

/// What a program is lowered over.
pub const Surroundings = struct {
    buffers: []const *memory.Buffer,
    workspace: [*]u8,
    /// Whether weights that have a faster layout get it.
    repack: bool,
};

/// `before`: the ops before this one, lowered. Memory comes from `arena`.
pub fn lower(arena: std.mem.Allocator, program: *const Program, op: *const Op, before: []const Body, around: Surroundings) !Body {
    const l: Lowering = .{ .program = program, .op = op, .around = around };
    return switch (op.code) {
        .embed => .{ .embed = l.embed() },
        .rms_norm => .{ .rms_norm = l.rmsNorm() },
        .matmul => .{ .matmul = l.matmul() },
        .rope_table => .{ .rope_table = l.ropeTable() },
        .rope => .{ .rope = l.rope() },
        .kv_write => .{ .kv_write = l.kvWrite() },
        .paged_attention => .{ .paged_attention = try l.pagedAttention(arena, before) },
        .gated_mul => .{ .gated_mul = l.gatedMul() },
        .gather_rows => .{ .gather_rows = l.gatherRows() },
        .soft_cap => .{ .soft_cap = l.softCap() },
        .sample => .{ .sample = l.sample() },
        _ => unreachable,
    };
}

/// Sets what changes from step to step, and checks the inputs that are checked as a whole.
pub fn prepare(body: *Body, leading: Leading, dims: []const u32) InputError!void {
    switch (body.*) {
        .matmul => |*a| {
            a.tokens = leading.at(dims);
            a.x_groups.tokens = a.tokens;
            a.x_planes.tokens = a.tokens;
        },
        .paged_attention => |*a| {
            a.arguments.sequences = a.sequences.at(dims);
            if (!a.follows) if (attention.prepare(&a.arguments, leading.at(dims), a.block_count)) |fault| return switch (fault) {
                .sequence_starts => error.SequenceStarts,
                .context_length => error.ContextLength,
                .block_table => error.BlockTable,
            };
        },
        else => {},
    }
}

const Lowering = struct {
    program: *const Program,
    op: *const Op,
    around: Surroundings,

    fn tensor(l: Lowering, index: usize) *const Tensor {
        return l.program.operand(l.op, index).?;
    }
    fn address(l: Lowering, t: *const Tensor) [*]u8 {
        return l.around.buffers[t.buffer].memory + t.offset;
    }
    fn pointer(l: Lowering, comptime T: type, index: usize) [*]T {
        return @ptrCast(@alignCast(l.address(l.tensor(index))));
    }
    fn maybePointer(l: Lowering, comptime T: type, index: usize) ?[*]T {
        return if (l.program.operand(l.op, index)) |t| @ptrCast(@alignCast(l.address(t))) else null;
    }
    fn view(l: Lowering, index: usize) rows.View(f32) {
        return .{ .data = l.pointer(f32, index), .stride = l.tensor(index).stride };
    }
    fn maybeView(l: Lowering, index: usize) ?rows.View(f32) {
        return if (l.program.operand(l.op, index) != null) l.view(index) else null;
    }

    fn embed(l: Lowering) rows.Embed {
        const o = ops.embed.operand;
        const table = l.tensor(o.table);
        return .{
            .out = l.view(o.out),
            .table = l.address(table),
            .dtype = table.dtype,
            .row_bytes = table.strideBytes(),
            .vocabulary = table.shape[0],
            .width = table.shape[1],
            .ids = l.pointer(i32, o.ids),
            .scale = l.op.attributeF32(ops.embed.attribute.scale),
        };
    }

    fn rmsNorm(l: Lowering) rows.RmsNorm {
        const o = ops.rms_norm.operand;
        const width = l.tensor(o.weight).shape[0];
        return .{
            .out = l.view(o.out),
            .x = l.view(o.x),
            .residual = l.maybeView(o.residual),
            .weight = l.pointer(f32, o.weight),
            .groups = l.tensor(o.x).width() / width,
            .width = width,
            .epsilon = l.op.attributeF32(ops.rms_norm.attribute.epsilon),
            .weight_offset = l.op.attributeF32(ops.rms_norm.attribute.weight_offset),
        };
    }

    fn matmul(l: Lowering) matmul_module.Arguments {
        const o = ops.matmul.operand;
        const out = l.view(o.out);
        const x = l.view(o.x);
        const residual = l.maybeView(o.residual);
        const k = l.tensor(o.x).shape[1];
        const prepared: PreparedRows = .of(l.program, l.op, l.around.repack);
        var a: matmul_module.Arguments = .{
            .out = out.data,
            .out_stride = out.stride,
            .x = x.data,
            .x_stride = x.stride,
            .residual = if (residual) |r| r.data else null,
            .residual_stride = if (residual) |r| r.stride else 0,
            .tokens = 0,
            .k = k,
            .segments = undefined,
            .segment_count = 0,
            .x_groups = .init(@alignCast(l.around.workspace), prepared.tokens, k, precisionOf(l.op)),
            .x_planes = .{
                .memory = @alignCast(l.around.workspace + prepared.group_bytes),
                .tokens = 0,
                .steps = planes.stepCount(k),
                .precision = precisionOf(l.op),
            },
            .needs = prepared.forms,
        };
        var column: usize = 0;
        inline for (weight_operands, .{ o.bias0, o.bias1, o.bias2 }) |weight_index, bias_index| {
            if (l.program.operand(l.op, weight_index)) |weight| {
                a.segments[a.segment_count] = .{
                    .dtype = weight.dtype,
                    .data = l.address(weight),
                    .rows = weight.shape[0],
                    .row_bytes = weight.strideBytes(),
                    .bias = l.maybePointer(f32, bias_index),
                    .column = column,
                };
                a.segment_count += 1;
                column += weight.shape[0];
            }
        }
        return a;
    }

    fn ropeTable(l: Lowering) rows.RopeTable {
        const o = ops.rope_table.operand;
        return .{
            .out = l.view(o.out),
            .positions = l.pointer(i32, o.positions),
            .frequencies = l.pointer(f32, o.inverse_frequencies),
            .pairs = l.tensor(o.inverse_frequencies).shape[0],
            .scale = l.op.attributeF32(ops.rope_table.attribute.scale),
        };
    }

    fn rope(l: Lowering) rows.Rope {
        const o = ops.rope.operand;
        return .{
            .x = l.view(o.x),
            .table = l.view(o.table),
            .heads = l.tensor(o.x).shape[1],
            .head_dim = l.tensor(o.x).shape[2],
            .pairs = l.tensor(o.table).shape[2],
            .interleaved = l.op.attributes[ops.rope.attribute.interleaved] == 1,
        };
    }

    fn kvWrite(l: Lowering) rows.KvWrite {
        const o = ops.kv_write.operand;
        const cache = l.tensor(o.k_cache);
        return .{
            .k = l.view(o.k),
            .v = l.view(o.v),
            .k_cache = l.address(cache),
            .v_cache = l.address(l.tensor(o.v_cache)),
            .slots = l.pointer(i32, o.slot_mapping),
            .blocks = cache.shape[0],
            .block_stride = cache.stride,
            .block_size = cache.shape[2],
            .kv_heads = cache.shape[1],
            .head_dim = cache.shape[3],
            .dtype = cache.dtype,
        };
    }

    fn pagedAttention(l: Lowering, arena: std.mem.Allocator, before: []const Body) !Attention {
        const o = ops.paged_attention.operand;
        const a = ops.paged_attention.attribute;
        const q = l.tensor(o.q);
        const cache = l.tensor(o.k_cache);
        const tables = l.tensor(o.block_tables);
        const sequences: Leading = .of(tables);
        var attention_op: Attention = .{
            .arguments = .{
                .out = l.view(o.out).data,
                .out_stride = l.view(o.out).stride,
                .q = l.view(o.q).data,
                .q_stride = l.view(o.q).stride,
                .k_cache = l.address(cache),
                .v_cache = l.address(l.tensor(o.v_cache)),
                .block_bytes = cache.strideBytes(),
                .kv_type = switch (cache.dtype) {
                    .f32 => .f32,
                    .f16 => .f16,
                    .bf16 => .bf16,
                    .f8e4m3 => .f8e4m3,
                    else => unreachable,
                },
                .heads = q.shape[1],
                .kv_heads = cache.shape[1],
                .head_dim = q.shape[2],
                .block_size = cache.shape[2],
                .block_tables = l.pointer(i32, o.block_tables),
                .blocks_per_sequence = tables.stride,
                .sequence_starts = l.pointer(i32, o.sequence_starts),
                .context_lengths = l.pointer(i32, o.context_lengths),
                .sequences = 0,
                .sinks = l.maybePointer(f32, o.sinks),
                .scale = l.op.attributeF32(a.scale),
                .sliding_window = @intCast(l.op.attributeI32(a.sliding_window)),
                .soft_cap = l.op.attributeF32(a.soft_cap),
                .workspace = @as([*]f32, @ptrCast(@alignCast(l.around.workspace)))[0..attentionWorkspaceFloats(l.program, l.op)],
                .layout = undefined,
            },
            .tokens = .of(q),
            .sequences = sequences,
            .block_count = cache.shape[0],
            .follows = false,
        };
        for (before) |*body| switch (body.*) {
            .paged_attention => |*other| if (attention_op.sameSteps(other)) {
                attention_op.arguments.layout = other.arguments.layout;
                attention_op.follows = true;
                return attention_op;
            },
            else => {},
        };
        attention_op.arguments.layout = try .create(arena, sequences.at(l.program.dims));
        return attention_op;
    }

    fn gatedMul(l: Lowering) rows.GatedMul {
        const o = ops.gated_mul.operand;
        return .{
            .out = l.view(o.out),
            .gate_up = l.view(o.gate_up),
            .width = l.tensor(o.out).shape[1],
            .activation = @enumFromInt(l.op.attributes[ops.gated_mul.attribute.activation]),
        };
    }

    fn gatherRows(l: Lowering) Gather {
        const o = ops.gather_rows.operand;
        return .{
            .rows = .{
                .out = l.view(o.out),
                .x = l.view(o.x),
                .indices = l.pointer(i32, o.indices),
                .width = l.tensor(o.out).shape[1],
            },
            .x_leading = Leading.of(l.tensor(o.x)),
        };
    }

    fn softCap(l: Lowering) rows.SoftCap {
        const o = ops.soft_cap.operand;
        return .{
            .x = l.view(o.x),
            .width = l.tensor(o.x).shape[1],
            .cap = l.op.attributeF32(ops.soft_cap.attribute.cap),
        };
    }

    fn sample(l: Lowering) sample_module.Arguments {
        const o = ops.sample.operand;
        return .{
            .tokens = l.pointer(i32, o.tokens),
            .logprobs = l.pointer(f32, o.logprobs),
            .top_tokens = l.pointer(i32, o.top_tokens),
            .top_logprobs = l.pointer(f32, o.top_logprobs),
            .top_count_max = l.tensor(o.top_tokens).shape[1],
            .logits = l.pointer(f32, o.logits),
            .logits_stride = l.tensor(o.logits).stride,
            .vocabulary = l.tensor(o.logits).shape[1],
            .parameters = l.pointer(i32, o.parameters),
            .adjustment_starts = l.pointer(i32, o.adjustment_starts),
            .adjustment_tokens = l.pointer(i32, o.adjustment_tokens),
            .adjustment_multipliers = l.pointer(f32, o.adjustment_multipliers),
            .adjustment_addends = l.pointer(f32, o.adjustment_addends),
            .adjustments_max = l.tensor(o.adjustment_tokens).shape[0],
        };
    }
};
